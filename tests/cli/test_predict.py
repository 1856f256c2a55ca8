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
from tests.learn.conftest import extract_actions
from tests.learn.small import RGB, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `videos/`, and two networks: `flow/best.pt` and `rgb.pt`."""
    root = tmp_path_factory.mktemp("root")
    dataset = open_dataset(extract_actions(root, "motion", seed=2, num_videos_per_class=2))
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
