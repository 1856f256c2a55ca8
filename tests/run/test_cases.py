"""Files on which flowprep was wrong once, each with the outcome that is right for it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import Resize
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import InputError
from flowprep.exchange.import_tree import ImportSpec, import_tree
from flowprep.inputs.manifest import collect_videos
from tests.video.irregular import write_plain

AS_STORED = DecodeSpec(resize=Resize.parse("none"))
QUICK = ExtractConfig(AS_STORED, FlowSpec("dis"), EncodeSpec(("forward",)))

NOTHING_STORED = "none of the 1 videos"

# What is stored of each, or the reason why nothing is.
OUTCOMES: dict[str, Mapping[str, Any] | str] = {
    "clock_back.vob": {"num_frames": 100},
    "clock_same.ts": {"num_frames": 100},
    "first_flv.flv": {"num_frames": 50, "num_irregular_stamps": 1},
    "hflip.mp4": {"num_frames": 12},
    "vflip.mp4": {"num_frames": 12},
    "preview_first.mp4": {"num_frames": 50, "width": 160, "height": 120},
    "thumbfirst.mov": {"num_frames": 50, "width": 160, "height": 120},
    "unknown_first.mkv": {"num_frames": 50, "width": 160, "height": 120},
    "damaged_middle.mp4": "damaged",
    "sar1611.mp4": {"num_frames": 50, "width": 160, "height": 120, "pixel_aspect": [16, 11]},
    "frames_gap": "gaps",
    "frames_trunc": "damaged",
}
WITH_OPTIONS: dict[tuple[str, DecodeSpec], Mapping[str, Any]] = {
    ("clock_same.ts", DecodeSpec(fps=25.0)): {"num_frames": 100},
    ("clock_back.vob", DecodeSpec(fps=25.0)): {"num_frames": 100},
    ("damaged_middle.mp4", DecodeSpec(on_damage="cut")): {"num_frames": 18, "status": "partial"},
    ("damaged_middle.mp4", DecodeSpec(on_damage="conceal")): {
        "num_frames": 42,
        "status": "complete",
        "num_damaged": 1,
    },
    ("sar1611.mp4", DecodeSpec(square_pixels=True)): {"width": 233, "height": 120},
    ("frames_gap", DecodeSpec(on_gaps="ignore")): {"num_frames": 7},
}


@pytest.fixture(scope="module")
def cases(test_data: Path) -> Path:
    return test_data / "cases"


def run(path: Path, out: Path, decode: DecodeSpec = AS_STORED, segment_frames: int = 0) -> None:
    """Extracts one file or folder, at its own size."""
    config = ExtractConfig(decode, FlowSpec("dis"), EncodeSpec(("forward",)))
    options = RunOptions(segment_frames=segment_frames, progress=False)
    report = flowprep.extract(path, out, config, executor="inline", options=options)
    problems = verify_dataset(out, deep=True).problems
    if report.num_failed:
        # A data set without any video is not whole.
        assert [problem.partition(" in ")[0] for problem in problems] == [NOTHING_STORED]
    else:
        assert problems == []


def outcome(out: Path) -> dict[str, Any] | str:
    """Returns `KEY.json` of the only video, or the reason why there is none."""
    for line in (out / "failures.jsonl").read_text().splitlines():
        return str(json.loads(line)["reason"])
    dataset = flowprep.open_dataset(out)
    values = dataset.metadata(dataset.videos[0].key).to_dict()
    return dict(json.loads(json.dumps(values)))


def assert_outcome(found: dict[str, Any] | str, expected: Mapping[str, Any] | str) -> None:
    if isinstance(found, str) or isinstance(expected, str):
        assert found == expected
    else:
        assert {name: found[name] for name in expected} == dict(expected)


@pytest.mark.parametrize("name", OUTCOMES)
def test_case_has_its_outcome_and_the_same_bytes_in_segments(
    name: str, cases: Path, tmp_path: Path
) -> None:
    run(cases / name, tmp_path / "whole")
    assert_outcome(outcome(tmp_path / "whole"), OUTCOMES[name])
    run(cases / name, tmp_path / "cut", segment_frames=10)
    tars = [(tmp_path / out / "shards/000000.tar").read_bytes() for out in ("whole", "cut")]
    assert tars[0] == tars[1]


@pytest.mark.parametrize(("name", "decode"), WITH_OPTIONS)
def test_case_has_its_outcome_with_options(
    name: str, decode: DecodeSpec, cases: Path, tmp_path: Path
) -> None:
    run(cases / name, tmp_path / "out", decode)
    assert_outcome(outcome(tmp_path / "out"), WITH_OPTIONS[name, decode])


def test_mirrored_files_show_mirrored_flow(cases: Path, tmp_path: Path) -> None:
    """The square moves right and slowly down; a mirror turns one of them around."""
    signs = {}
    for name in ("hflip.mp4", "vflip.mp4"):
        run(cases / name, tmp_path / name)
        dataset = flowprep.open_dataset(tmp_path / name)
        (video,) = dataset.videos
        flow = dataset.flow(video.key, 0, video.num_flows)
        moving = abs(flow).max(axis=-1) > 1
        signs[name] = tuple((flow[moving].mean(axis=0) > 0).tolist())
    assert signs == {"hflip.mp4": (False, True), "vflip.mp4": (True, False)}


def test_every_case_is_tested(cases: Path) -> None:
    tested_elsewhere = {"README.md", "lists", "import_rgb1_flow0"}
    names = {path.name for path in cases.iterdir()}
    assert names - tested_elsewhere == set(OUTCOMES)


def test_frames_and_flow_that_begin_at_different_numbers_are_aligned(
    cases: Path, tmp_path: Path
) -> None:
    tree = shutil.copytree(cases / "import_rgb1_flow0", tmp_path / "tree")
    report = import_tree(
        tree, tmp_path / "out", ImportSpec(layout="mmaction2", bound_px=20.0), num_workers=1
    )
    assert report.failures == {}
    (video,) = flowprep.open_dataset(tmp_path / "out").videos
    assert (video.num_frames, video.num_flows) == (9, 8)
    assert report.video_notes["numbers-differ"].first_text == (
        "the first are flow_x_00000.jpg, flow_y_00000.jpg, img_00001.jpg"
    )
    assert verify_dataset(tmp_path / "out", deep=True).problems == []


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 10 seconds."""
    path = tmp_path_factory.mktemp("clip") / "long.mp4"
    write_plain(path, 250)
    return path


def test_files_that_are_trimmed_already_are_not_cut_again(
    cases: Path, long_clip: Path, tmp_path: Path
) -> None:
    for name in ("AAAAAAAAAA1", "AAAAAAAAAA2"):
        shutil.copy(long_clip, tmp_path / f"{name}.mp4")
    manifest = collect_videos(shutil.copy(cases / "lists" / "k2.csv", tmp_path))
    report = flowprep.extract(manifest, tmp_path / "out", QUICK, executor="inline")
    dataset = flowprep.open_dataset(tmp_path / "out")
    assert [video.num_frames for video in dataset.videos] == [250, 250]
    assert report.video_notes["already-trimmed"].num_videos == 2
    for video, bounds in zip(dataset.videos, ("5 s to 15 s", "85 s to 95 s"), strict=True):
        note = dataset.metadata(video.key).notes["already-trimmed"]
        assert bounds in note
        assert "10 s" in note


def test_two_ranges_within_the_same_seconds_are_two_clips(
    cases: Path, long_clip: Path, tmp_path: Path
) -> None:
    shutil.copy(long_clip, tmp_path / "BBBBBBBBBB1.mp4")
    manifest = collect_videos(shutil.copy(cases / "lists" / "k10.csv", tmp_path))
    flowprep.extract(manifest, tmp_path / "out", QUICK, executor="inline")
    videos = flowprep.open_dataset(tmp_path / "out").videos
    assert len({video.key for video in videos}) == 2
    assert sorted(video.num_frames for video in videos) == [108, 115]


def test_seconds_are_no_numbers_of_images(cases: Path, tmp_path: Path) -> None:
    folder = tmp_path / "CCCCCCCCCC1"
    folder.mkdir()
    for number in range(50):
        level = np.full((48, 64, 3), 4 * number, np.uint8)
        cv2.imwrite(str(folder / f"img_{number + 1:05d}.jpg"), level)
    path = shutil.copy(cases / "lists" / "r.csv", tmp_path)
    with pytest.raises(InputError, match="--image-fps"):
        collect_videos(path)
    manifest = collect_videos(path, image_fps=25)
    config = dataclasses.replace(QUICK, decode=dataclasses.replace(QUICK.decode, image_fps=25.0))
    report = flowprep.extract(manifest, tmp_path / "out", config, executor="inline")
    dataset = flowprep.open_dataset(tmp_path / "out")
    assert {video.num_frames for video in dataset.videos} == {25}
    # The second range, from 2 to 12 s, begins where the folder ends.
    assert report.failures == {"no-frames": 1}
