"""Library versions: noted where they differ, refused where they change numbers, on one rule."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import Resize
from flowprep.dataset.layout import DatasetHeader
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError, ConfigMismatchError, ExecutorError
from flowprep.flow.farneback import Farneback
from flowprep.inputs.video import Video
from flowprep.run import versions
from flowprep.run.job import ExtractJob, JobResult
from flowprep.run.run_job import run_job
from flowprep.run.versions import Environment, compare, environment, version_note
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video

FARNEBACK = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("farneback"))
DIS = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
NUM_FRAMES = 4


def frames() -> list[np.ndarray]:
    scene = action_scene("move_left", num_frames=NUM_FRAMES, width=64, height=48, seed=0)
    return [scene.frame(t) for t in range(NUM_FRAMES)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, frames())
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "walk"
    folder.mkdir()
    for number, frame in enumerate(frames()):
        cv2.imwrite(str(folder / f"img_{number:05d}.png"), frame)
    return folder


@pytest.fixture(scope="module")
def extracted(clip: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets as this environment makes them."""
    folder = tmp_path_factory.mktemp("sets")
    extract(clip, folder / "farneback", FARNEBACK)
    extract(clip, folder / "dis", DIS)
    extract(images.parent, folder / "images", FARNEBACK)
    return folder


def extract(videos: Path, out: Path, config: ExtractConfig) -> flowprep.RunReport:
    options = RunOptions(progress=False)
    return flowprep.extract(videos, out, config, executor="inline", options=options)


def made_elsewhere(
    source: Path, out: Path, implementation: str | None = None, **changes: str | None
) -> Path:
    """Copies a data set, as if it had been made with other versions; None is one not stored."""
    shutil.copytree(source, out)
    storage = Storage(out)
    header = DatasetHeader.read(storage)
    libraries = {name: value for name, value in header.versions.items() if name not in changes}
    libraries |= {name: value for name, value in changes.items() if value is not None}
    header = dataclasses.replace(
        header, versions=libraries, implementation=implementation or header.implementation
    )
    storage.write_bytes("dataset.json", header.to_json())
    return out


def tars(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("shards/*.tar")}


# ---- resuming


def test_another_major_of_opencv_is_refused_with_what_to_install(
    extracted: Path, clip: Path, tmp_path: Path
) -> None:
    here = int(cv2.__version__.partition(".")[0])
    out = made_elsewhere(
        extracted / "dis", tmp_path / "out", f"opencv-{here - 1}", opencv=f"{here - 1}.13.0"
    )
    with pytest.raises(ConfigMismatchError) as caught:
        extract(clip, out, DIS)
    assert str(caught.value) == (
        f"{out} was extracted with OpenCV {here - 1}.13.0, this environment has "
        f"{cv2.__version__}, and dis gives other numbers with it. Install "
        f"'opencv-contrib-python-headless>={here - 1},<{here}', or extract to a new OUT."
    )
    assert caught.value.exit_code == 1


def test_another_implementation_of_flowprep_s_own_names_its_version(
    extracted: Path, clip: Path, tmp_path: Path
) -> None:
    out = made_elsewhere(extracted / "farneback", tmp_path / "out", "flowprep-9", flowprep="9.1.0")
    with pytest.raises(ConfigMismatchError, match=re.escape("Install 'flowprep==9.1.0', or ex")):
        extract(clip, out, FARNEBACK)


def test_another_major_of_ffmpeg_is_refused_where_it_decodes(
    extracted: Path, clip: Path, tmp_path: Path
) -> None:
    out = made_elsewhere(extracted / "farneback", tmp_path / "out", av="14.2.0", ffmpeg="7.1.1")
    here = environment(FARNEBACK).versions
    with pytest.raises(ConfigMismatchError) as caught:
        extract(clip, out, FARNEBACK)
    assert str(caught.value) == (
        f"{out} was extracted with PyAV 14.2.0 with FFmpeg 7.1.1, this environment has PyAV "
        f"{av.__version__} with FFmpeg {here['ffmpeg']}, and videos may decode to other pixels "
        "with it. Install 'av==14.2.0', or extract to a new OUT."
    )


def test_folders_of_images_are_not_decoded_by_ffmpeg(
    extracted: Path, images: Path, clip: Path, tmp_path: Path
) -> None:
    out = made_elsewhere(extracted / "images", tmp_path / "out", ffmpeg="7.1.1")
    report = extract(images.parent, out, FARNEBACK)
    assert report.is_complete
    assert any("FFmpeg 7.1.1 in the data set" in note for note in report.notes)
    both = tmp_path / "both"
    both.mkdir()
    shutil.copytree(images, both / "walk")
    shutil.copy(clip, both)
    with pytest.raises(ConfigMismatchError, match="FFmpeg"):
        extract(both, out, FARNEBACK)


def test_other_versions_are_noted_once_and_change_no_byte(
    extracted: Path, clip: Path, tmp_path: Path
) -> None:
    # OpenCV's major too: Farneback is flowprep's own, and computes the same with any OpenCV.
    out = made_elsewhere(
        extracted / "farneback", tmp_path / "out", numpy="1.26.4", numba="0.60.0", opencv="4.10.0"
    )
    for path in (*out.glob("shards/*"), out / "failures.jsonl"):
        path.unlink()
    report = extract(clip, out, FARNEBACK)
    (note,) = report.notes
    assert note.startswith("library versions differ, but not in what changes numbers: ")
    for words in (
        f"numpy 1.26.4 in the data set and {np.__version__} in this run",
        f"numba 0.60.0 in the data set and {importlib.metadata.version('numba')} in this run",
        f"OpenCV 4.10.0 in the data set and {cv2.__version__} in this run",
    ):
        assert words in note
    assert note in report.summary()
    assert (out / report.log_name).read_text().count("INFO note: library versions differ") == 1
    assert tars(out) == tars(extracted / "farneback")
    assert verify_dataset(out, deep=True).problems == []


def test_a_data_set_that_does_not_say_its_ffmpeg_goes_on(
    extracted: Path, clip: Path, tmp_path: Path
) -> None:
    out = made_elsewhere(extracted / "farneback", tmp_path / "out", av="12.0.0", ffmpeg=None)
    (note,) = extract(clip, out, FARNEBACK).notes
    assert f"PyAV 12.0.0 in the data set and {av.__version__} in this run" in note
    assert "FFmpeg" not in note


def test_another_option_is_told_before_another_version(
    extracted: Path, clip: Path, tmp_path: Path
) -> None:
    out = made_elsewhere(extracted / "dis", tmp_path / "out", "opencv-3", opencv="3.4.0")
    config = dataclasses.replace(DIS, flow=dataclasses.replace(DIS.flow, bound_px=7.0))
    with pytest.raises(ConfigMismatchError) as caught:
        extract(clip, out, config)
    assert caught.value.differences == {"flow.bound_px": (20.0, 7.0)}


# ---- workers


def job_of(clip: Path, config: ExtractConfig, folder: Path) -> ExtractJob:
    storage = Storage(folder)
    storage.make_folder()
    return ExtractJob(storage, config, Video("clip", str(clip)), 0, 0, 1, None)


@pytest.mark.parametrize(
    ("field", "version", "words"),
    [
        ("opencv", "4.9.0", "has 5.0.0, the driver has OpenCV 4.9.0, and dis gives other numbers"),
        ("ffmpeg", "7.1", "with FFmpeg 7.1, and videos may decode to other pixels with it. Insta"),
    ],
)
def test_a_worker_refuses_what_a_resumed_run_refuses(
    field: str, version: str, words: str, clip: Path, tmp_path: Path
) -> None:
    here = environment(DIS)
    driver = dataclasses.replace(here, versions={**here.versions, field: version})
    if field == "opencv":
        driver = dataclasses.replace(driver, implementation="opencv-4")
        words = words.replace("5.0.0", cv2.__version__)
    outcome = run_job(job_of(clip, DIS, tmp_path), driver=driver)
    assert isinstance(outcome, JobResult)
    assert isinstance(outcome.error, ExecutorError)
    assert words in str(outcome.error)
    assert str(outcome.error).endswith("on all nodes.")


def test_a_worker_with_another_minor_works_and_says_so(clip: Path, tmp_path: Path) -> None:
    here = environment(DIS)
    assert getattr(run_job(job_of(clip, DIS, tmp_path / "a"), driver=here), "note", "") is None
    driver = dataclasses.replace(here, versions={**here.versions, "numpy": "1.26.4"})
    outcome = run_job(job_of(clip, DIS, tmp_path / "b"), driver=driver)
    assert isinstance(outcome, JobResult)
    assert outcome.error is None
    assert outcome.record is not None
    assert outcome.record.status == "complete"
    assert outcome.note is not None
    assert f"numpy 1.26.4 in the driver and {np.__version__} in workers" in outcome.note


# ---- what is here


def test_versions_name_the_decoder_s_ffmpeg() -> None:
    stored = environment(FARNEBACK).versions
    major = int(stored["ffmpeg"].partition(".")[0])
    # FFmpeg 8 has libavcodec 62, as its own release notes say.
    assert av.library_versions["libavcodec"][0] - 62 == major - 8
    if any("libavcodec" in str(file) for file in importlib.metadata.files("decord") or ()):
        config = dataclasses.replace(FARNEBACK, decode=DecodeSpec(decoder="decord"))
        assert environment(config).versions["ffmpeg"] == "4"


@pytest.mark.parametrize(
    ("info", "version"),
    [("8.1.2", "8.1.2"), ("n7.1", "7.1"), ("7.1-ubuntu", "7.1"), ("N-112-gabcdef", "8"), ("", "8")],
)
def test_ffmpeg_s_version_is_read_from_any_build(
    info: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "ffmpeg_version_info", info)
    monkeypatch.setitem(av.library_versions, "libavcodec", (62, 1, 100))
    assert versions._ffmpeg_of_pyav() == version


def test_the_libraries_of_an_estimator_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the cache, in which other tests keep theirs.
    read = environment.__wrapped__
    assert "click" not in read(FARNEBACK).versions
    monkeypatch.setattr(Farneback, "libraries", ("click",))
    assert read(FARNEBACK).versions["click"] == importlib.metadata.version("click")
    monkeypatch.setattr(Farneback, "libraries", ("no-such-package",))
    with pytest.raises(ConfigError) as caught:
        read(FARNEBACK)
    assert str(caught.value) == (
        "libraries of farneback must be installed packages, got 'no-such-package', which is not; "
        "install it, or correct the class"
    )


def test_versions_of_the_same_environment_do_not_differ() -> None:
    here = environment(FARNEBACK)
    assert compare(here, Environment(**dataclasses.asdict(here)), "farneback", bool) == (None, {})
    assert version_note({}, ("here", "there")) == []


def test_the_header_keeps_the_versions_that_began_it(extracted: Path) -> None:
    stored = json.loads((extracted / "farneback" / "dataset.json").read_text())
    assert stored["versions"] == dict(environment(FARNEBACK).versions)
    video = flowprep.open_dataset(extracted / "farneback").metadata("clip")
    assert video.versions == stored["versions"]
