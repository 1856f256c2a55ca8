"""`flowprep imagine` and `flowprep explain`: networks in, pictures, films and numbers out."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from PIL import Image

from flowprep.dataset.read import open_dataset
from flowprep.learn.checkpoint import save_checkpoint
from tests.cli.conftest import Command
from tests.learn.conftest import little_motion
from tests.learn.small import RGB, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["little_motion", "one_thread"]


@pytest.fixture(scope="module")
def root(little_motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `videos/`, the data set `motion`, and networks `flow.pt` and `rgb.pt`."""
    root = tmp_path_factory.mktemp("seeing")
    for path in little_motion.parent.iterdir():
        (root / path.name).symlink_to(path)
    dataset = open_dataset(root / "motion")
    save_checkpoint(root / "flow.pt", make_checkpoint(dataset))
    save_checkpoint(root / "rgb.pt", make_checkpoint(dataset, clip=RGB))
    return root


def film_length(path: Path) -> int:
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


def test_imagine(flowprep: Command, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/imagined"
    options = ("--class", "move_left", "--class", "zoom_in", "--steps", 2, "--out", out)
    result = flowprep("imagine", "--checkpoint", root / "flow.pt", *options)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"written to {out}/imagined.{ending}" for ending in ("png", "mp4", "json")]
    assert [line.split("%  ")[1] for line in lines[3:]] == [
        f"{name}, {motion}" for name in ("move_left", "zoom_in") for motion in ("slow", "fast")
    ]
    # Three fields, repeated to at least four seconds of eight pages.
    assert film_length(out / "imagined.mp4") == 33
    with Image.open(out / "imagined.png") as picture:
        assert picture.width > 600
    values = json.loads((out / "imagined.json").read_text())
    assert [one["stream"] for one in values] == ["flow"] * 4
    assert all(0 < one["probability"] < 1 for one in values)


def test_imagine_frames_as_a_gif(flowprep: Command, root: Path, tmp_path: Path) -> None:
    options = ("--class", "move_up", "--steps", 1, "--film", "gif", "--out", tmp_path)
    result = flowprep("imagine", "--checkpoint", root / "rgb.pt", *options)
    # A single frame has no motion that could be slow or fast.
    assert (result.code, len(result.stdout.splitlines())) == (0, 4)
    assert (tmp_path / "imagined.gif").read_bytes().startswith(b"GIF89a")


def test_explain_two_networks_side_by_side(flowprep: Command, root: Path, tmp_path: Path) -> None:
    key = open_dataset(root / "motion").videos[0].key
    networks = ("--checkpoint", root / "rgb.pt", "--checkpoint", root / "flow.pt")
    few = ("--clips", 2, "--crops", 1, "--moments", 3, "--steps", 2, "--out", tmp_path)
    result = flowprep("explain", root / "motion", key, *networks, *few)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{root}/motion {key}: ")
    assert lines[0].endswith(", the most probable class")
    assert [line.split(":")[0] for line in lines if line.startswith("  resnet18")] == [
        "  resnet18 (rgb)",
        "  resnet18 (flow)",
    ]
    assert film_length(tmp_path / "explained.mp4") == 14
    values = json.loads((tmp_path / "explained.json").read_text())
    for one in values["networks"]:
        assert [moment["frames"] for moment in one["moments"]] == [[0, 5], [5, 9], [9, 14]]
        assert len(one["frame_weights"][one["stream"]]) == 14
    assert lines[-3:] == [
        f"  written to {tmp_path}/explained.{ending}" for ending in ("png", "mp4", "json")
    ]


@pytest.mark.parametrize(
    ("command", "options", "code", "message"),
    [
        ("imagine", ("--class", "x"), 2, "--class must be one of move_left, "),
        ("imagine", ("--class", "zoom_in", "--steps", 0), 2, "--steps must be >= 1, got 0"),
        ("explain", ("motion", "x"), 1, "no video has the key 'x'"),
        ("explain", ("motion",), 2, "KEY must name a video of the data set motion, got none"),
        ("explain", ("no.mp4",), 2, "VIDEO does not exist"),
        ("explain", ("bad.mp4",), 1, "bad.mp4: unreadable: "),
    ],
)
def test_mistakes(
    flowprep: Command,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: tuple[object, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(root)
    (root / "bad.mp4").write_text("no video")
    result = flowprep(command, *options, "--checkpoint", "flow.pt", "--out", tmp_path / "out")
    assert (result.code, result.stdout) == (code, "")
    assert message in result.stderr
    assert not (tmp_path / "out").exists()
