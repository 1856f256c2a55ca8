"""Real videos from end to end, and each odd file with the outcome that is right for it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import flowprep
from flowprep import DecodeSpec, ExtractConfig, FlowSpec, RunOptions, open_dataset
from flowprep.config import ExecutorName, Resize
from flowprep.dataset.layout import read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.flow.parameters import DISParameters
from flowprep.inputs.manifest import collect_videos
from flowprep.run.progress import RunReport
from flowprep.storage import Storage

# Small and fast: what counts here is frames, not flow.
CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("short:64")),
    FlowSpec("dis", DISParameters("ultrafast")),
)


def count_frames(path: Path, ffmpeg: str) -> int:
    """Returns the number of frames that ffmpeg itself decodes."""
    command = [ffmpeg, "-nostdin", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    text = subprocess.run([*command, "-f", "null", "-"], capture_output=True, check=True).stderr
    return int(re.findall(rb"frame=\s*(\d+)", text)[-1])


@pytest.mark.parametrize(("collection", "executor"), [("ucf101", "ray"), ("asl", "process")])
def test_every_real_video_extracts_with_the_flows_that_its_frames_give(
    collection: str, executor: ExecutorName, test_data: Path, ffmpeg: str, tmp_path: Path
) -> None:
    if collection == "ucf101":
        annotations = test_data / "ucf101" / "ucfTrainTestlist"
        manifest = collect_videos(
            test_data / "ucf101" / "videos", annotations=annotations, allow_missing=True
        )
    else:
        manifest = collect_videos(test_data / "asl")
    out = tmp_path / "out"
    options = RunOptions(num_workers=2 if executor == "ray" else None)
    report = flowprep.extract(manifest, out, CONFIG, executor=executor, options=options)
    assert report.failures == {}
    assert report.is_complete
    dataset = open_dataset(out)
    assert len(dataset.videos) == {"ucf101": 24, "asl": 20}[collection]
    step = CONFIG.flow.step
    for video in dataset.videos:
        source = Path(dataset.metadata(video.key).source)
        assert video.num_flows == count_frames(source, ffmpeg) - step, video.key
    assert verify_dataset(out).problems == []
    if collection == "ucf101":
        classes = (annotations / "classInd.txt").read_text().split()[1::2]
        assert dataset.class_names == tuple(classes)
        for video in dataset.videos:
            assert video.label is not None
            assert video.key.startswith(classes[video.label] + "/")
        train = (annotations / "trainlist01.txt").read_text()
        assert all((f"{v.key}.avi" in train) == (v.split == "train") for v in dataset.videos)


# num_frames, (width, height) at a short side of 64 px, or reason and message
ODD_FILES = {
    "-video-with-dash-.mp4": (
        "too-small",
        "frames of 1x1 px are too small for flow; each side needs at least 16 px",
    ),
    "audio_only.mp4": ("no-video-stream", "the file holds only sound"),
    "av1.mkv": (125, (114, 64)),
    "corrupted.mp4": (
        "damaged",
        "decoding broke off after frame 28 of 50: Invalid data found when processing input",
    ),
    "h264_10bits.mp4": (30, (64, 64)),
    "not_a_video.mp4": (
        "unreadable",
        "FFmpeg cannot open it: Invalid data found when processing input",
    ),
    "one_frame.mp4": ("too-few-frames", "1 frame gives no flow at step 1; at least 2 are needed"),
    # Recorded on a phone held upright: stored lying, shown standing.
    "rotated_video.mp4": (44, (64, 85)),
    "video_0.mov": (3, (114, 64)),
    "video_90.mov": (3, (64, 114)),
    "video_180.mov": (3, (114, 64)),
    "video_270.mov": (3, (64, 114)),
}


@pytest.fixture(scope="module")
def odd_run(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    out = tmp_path_factory.mktemp("odd") / "out"
    return out, flowprep.extract(test_data / "odd", out, CONFIG, executor="process")


def test_every_odd_file_has_an_expected_outcome(test_data: Path) -> None:
    assert sorted(path.name for path in (test_data / "odd").iterdir()) == sorted(ODD_FILES)


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_file_has_the_outcome_that_a_person_would_call_right(
    name: str, odd_run: tuple[Path, RunReport]
) -> None:
    out, _ = odd_run
    key = (
        name.rpartition(".")[0].replace("-", "%2D", 1)
        if name[0] == "-"
        else name[: name.rfind(".")]
    )
    failures = read_failures(Storage(out))
    videos = open_dataset(out).videos
    first, second = ODD_FILES[name]
    if isinstance(first, str):
        assert key not in videos
        assert (failures[key].reason, failures[key].message) == (first, second)
    else:
        assert key not in failures
        video = videos[key]
        assert (video.num_frames, (video.width, video.height)) == (first, second)


def test_odd_files_end_no_worker_and_leave_a_whole_data_set(
    odd_run: tuple[Path, RunReport],
) -> None:
    out, report = odd_run
    assert report.num_lost_workers == 0
    assert (report.num_complete, report.num_failed, report.exit_code) == (7, 5, 1)
    assert verify_dataset(out, deep=True).problems == []
    lines = (out / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == sorted(read_failures(Storage(out)))
