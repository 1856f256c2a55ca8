"""`flowprep predict`: raw videos in, classes out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flowprep.dataset.read import open_dataset
from flowprep.learn.checkpoint import load_checkpoint, save_checkpoint
from flowprep.learn.predict import Predictor
from flowprep.learn.recipes import VIEWS
from tests.cli.conftest import Command
from tests.learn.conftest import little_motion
from tests.learn.small import RGB, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["little_motion", "one_thread"]


@pytest.fixture(scope="module")
def root(little_motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `videos/`, and two networks: `flow/best.pt` and `rgb.pt`."""
    root = tmp_path_factory.mktemp("root")
    for path in little_motion.parent.iterdir():
        (root / path.name).symlink_to(path)
    dataset = open_dataset(root / "motion")
    (root / "flow").mkdir()
    save_checkpoint(root / "flow/best.pt", make_checkpoint(dataset))
    save_checkpoint(root / "rgb.pt", make_checkpoint(dataset, clip=RGB))
    return root


@pytest.fixture
def videos(root: Path) -> list[Path]:
    return sorted(root.glob("videos/*/*.mp4"))[::7]


def test_classes_are_printed(flowprep: Command, root: Path, videos: list[Path]) -> None:
    result = flowprep("predict", *videos, "--checkpoint", root / "flow", "--views", "center")
    assert (result.code, result.stderr) == (0, "")
    predictor = Predictor([load_checkpoint(root / "flow/best.pt")], VIEWS["center"])
    lines = []
    for video in videos:
        (prediction,) = predictor.predict(video)
        lines.append(str(video))
        lines += [f"  {100 * value:5.1f} %  {name}" for name, value in prediction.top(5)]
    assert result.stdout.splitlines() == lines
    assert len(lines) == 6 * len(videos)


def test_json(flowprep: Command, root: Path, videos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    names = (videos[0], tmp_path / "bad.mp4", videos[1])
    options = ("--checkpoint", root / "flow", "--checkpoint", root / "rgb.pt", "--top", 2)
    result = flowprep("predict", *names, *options, "--json", "--method", "weighted")
    assert (result.code, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert [item["video"] for item in found] == [str(name) for name in names]
    assert found[1]["error"].startswith("unreadable: ")
    for item in (found[0], found[2]):
        assert len(item["classes"]) == 2
        first, second = (line["probability"] for line in item["classes"])
        assert 1 > first > second > 0


def test_bad_videos_are_named_and_the_others_go_on(
    flowprep: Command, root: Path, videos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    bad, no = tmp_path / "bad.mp4", tmp_path / "no.mp4"
    result = flowprep("predict", bad, no, videos[0], "--checkpoint", root / "flow", "--top", 1)
    assert result.code == 1
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"{bad}: unreadable: ")
    assert lines[1].startswith(f"{no}: does not exist: {no}")
    assert len(lines) == 2
    assert len(result.stdout.splitlines()) == 2


def test_nothing_is_left_behind(
    flowprep: Command,
    root: Path,
    videos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert flowprep("predict", videos[0], "--checkpoint", root / "flow").code == 0
    assert os.listdir(tmp_path) == []


def test_timeline(flowprep: Command, root: Path, videos: list[Path], tmp_path: Path) -> None:
    files = [tmp_path / f"new/scores.{ending}" for ending in ("csv", "json", "png")]
    options = [item for file in files for item in ("--timeline", file)]
    windows = ("--window", 6, "--stride", 2, "--threshold", ".0001", "--top", 2)
    networks = ("--checkpoint", root / "flow", "--checkpoint", root / "rgb.pt")
    result = flowprep("predict", videos[0], *networks, *options, *windows)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    # 13 fields: 4 windows that begin at 0, 2, 4, 6, and the last one at 7.
    assert lines[0] == f"{videos[0]}: 5 windows of 6 frames, one every 2, up to 0:00.5"
    assert lines[3] == "  8 segments"
    assert all("0:00.0 to 0:00.5" in line for line in lines[4:12])
    assert lines[12:] == [
        f"  written to {path}"
        for path in (files[0], tmp_path / "new/scores.segments.csv", *files[1:])
    ]
    values = json.loads(files[1].read_text())
    assert len(values["windows"]) == 5
    assert values["streams"] == "flow+rgb"
    assert len(files[0].read_text().splitlines()) == 6
    assert files[2].read_bytes().startswith(b"\x89PNG")
    as_json = flowprep("predict", videos[0], *networks, *options[:2], *windows, "--json")
    printed = json.loads(as_json.stdout)
    assert printed["segments"] == values["segments"]
    assert [item["name"] for item in printed["classes"]] == [
        line.split("%  ")[1] for line in lines[1:3]
    ]


def test_timeline_of_a_bad_video(flowprep: Command, root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    to = tmp_path / "scores.csv"
    options = ("--timeline", to, "--window", 6)
    result = flowprep("predict", bad, "--checkpoint", root / "flow", *options)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{bad}: unreadable: ")
    assert not to.exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--weights", "1,2"), 2, "are for several checkpoints, got one"),
        (("--method", "svm"), 2, "'svm' is not one of mean, weighted, logits"),
        (("--checkpoint", "rgb.pt", "--weights", "1"), 2, "--weights must be one for each of the"),
        (("--checkpoint", "flow", "--method", "weighted"), 2, "--weights must be given for the"),
        (("--checkpoint", "no.pt"), 1, "Error: cannot read no.pt"),
        (("--task", "a", "--device", "x"), 2, "--device must be auto, cpu, cuda or cuda:N"),
        (("--top", 0), 2, "--top"),
        (("--window", 4), 2, "--window is for a timeline; add --timeline FILE"),
        (("--timeline", "a.txt"), 2, "--timeline must end in .csv, .png, .json, got 'a.txt'"),
        (("--timeline", "a.csv", "--threshold", "x=.5"), 2, "--threshold must name a class"),
        (
            ("--timeline", "a.csv", "--min-seconds", 1),
            2,
            "--min-seconds is for segments, got 1 and",
        ),
        (("--timeline", "a.csv", "--window", 2), 2, "--window must be at least 3, because a clip"),
        (("--timeline", "a.csv", "b.mp4"), 2, "--timeline is of one video, got 2"),
    ],
)
def test_mistakes(
    flowprep: Command,
    root: Path,
    videos: list[Path],
    options: tuple[object, ...],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)
    result = flowprep("predict", videos[0], "--checkpoint", "flow", *options)
    assert (result.code, result.stdout) == (code, "")
    assert message in result.stderr
