"""`flowprep export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import NUM_FRAMES, Command


@pytest.fixture(scope="module")
def made(flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    assert flowprep("extract", clips, out, "--algorithm", "dis", "--executor", "inline").code == 0
    return out


def test_export_and_again(flowprep: Command, made: Path, tmp_path: Path) -> None:
    arguments = ("export", made, tmp_path / "tree", "--layout", "mmaction2", "--workers", 1)
    result = flowprep(*arguments)
    assert (result.code, result.stderr) == (0, "")
    flows = 2 * (NUM_FRAMES - 1)
    lines = result.stdout.splitlines()
    assert lines[0] == f"complete: 2 of 2 videos in {tmp_path}/tree"
    assert lines[1].startswith(f"  holds       {flows} flows, {2 * NUM_FRAMES} frames; ")
    assert lines[2] == f"  lists       classInd.txt, flow.txt, rgb.txt in {tmp_path}/tree-lists"
    count = NUM_FRAMES - 1
    listed = (tmp_path / "tree-lists/flow.txt").read_text()
    assert listed == f"move_left/a {count} 0\nzoom_in/a {count} 1\n"
    result = flowprep(*arguments)
    assert result.code == 0
    assert "  done before 2 videos" in result.stdout.splitlines()
    assert "0 B written" in result.stdout


def test_options_reach_the_library(flowprep: Command, made: Path, tmp_path: Path) -> None:
    result = flowprep(
        *("export", made, tmp_path / "x", "--layout", "denseflow", "--format", "npz"),
        *("--values", "levels", "--direction", "backward", "--class", "zoom_in", "--workers", 1),
    )
    assert result.code == 0
    assert result.stderr == "note: levels stand for -20 to 20 px; give `-b=20` to denseflow\n"
    assert [path.name for path in (tmp_path / "x").rglob("*.npz")] == ["a.npz"]
    told = json.loads((tmp_path / "x-lists/flowprep.json").read_text())
    assert (told["direction"], told["values"], told["classes"]) == (
        "backward",
        "levels",
        ["zoom_in"],
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--layout", "tsn", "--format", "np"), "'np' is not one of jpg, zip, flo, npy, npz"),
        (("--layout", "gpu-flow", "--format", "npz"), "--format of layout gpu-flow must be one of"),
        (("--layout", "tsn", "--workers", "0"), "--workers must be >= 1, got 0"),
        (
            ("--layout", "frames", "--no-rgb"),
            "--layout frames holds only RGB frames; leave out --no-rgb",
        ),
        (("--layout", "tsn", "--values", "levels"), "--values levels are for the formats npy"),
        (("--layout", "tsn", "--class", "fly"), "--class must be of"),
        (("--layout", "tsn", "--shard-size", "0"), "--shard-size must be >= 1, got 0"),
        (("--layout", "tsn", "--flat"), "--layout tsn has no class folders; leave out --flat"),
        (("--layout", "tsm", "--lists", "x/lists"), "--lists must lie outside DEST, where a fol"),
        (("--layout", "tsm", "--list-names", "a.txt"), "--list-names must be a file name with {s"),
        (("--layout", "tsm", "--clip-length", "4"), "--clip-length is for the format webdataset"),
        ((), "Missing option '--layout'"),
    ],
)
def test_mistakes_are_named(
    flowprep: Command, made: Path, tmp_path: Path, options: tuple[str, ...], error: str
) -> None:
    inside = [f"{tmp_path}/{one}" if one == "x/lists" else one for one in options]
    result = flowprep("export", made, tmp_path / "x", *inside)
    assert result.code == 2
    assert error in result.error
    assert not (tmp_path / "x").exists()


def test_lists_and_clips_go_where_they_are_wanted(
    flowprep: Command, made: Path, tmp_path: Path
) -> None:
    result = flowprep(
        *("export", made, tmp_path / "x", "--layout", "gpu-flow", "--flat", "--workers", 1),
        *("--lists", tmp_path / "lists", "--list-names", "mine_{split}_{stream}.txt"),
    )
    assert result.code == 0
    names = {path.name for path in (tmp_path / "lists").iterdir()}
    assert {"mine_all_flow.txt", "frame_count.pickle", "x.flowprep.json"} <= names
    # Two videos are called a, so their paths are whole keys.
    folders = {path.name for path in (tmp_path / "x/u").iterdir() if path.is_dir()}
    assert folders == {"move_left%2Fa", "zoom_in%2Fa"}
    result = flowprep(
        *("export", made, tmp_path / "clips", "--layout", "tsm", "--workers", 1),
        *("--format", "webdataset", "--clip-length", NUM_FRAMES - 1),
    )
    assert result.code == 0
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["all-000000.tar"]


def test_what_is_no_data_set_is_refused(flowprep: Command, tmp_path: Path) -> None:
    result = flowprep("export", tmp_path, tmp_path / "x", "--layout", "tsn")
    assert result.code == 1
    assert "is not a flowprep data set" in result.error


def test_a_damaged_video_is_told_by_the_exit_code(
    flowprep: Command, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "out/shards").mkdir(parents=True)
    for path in made.rglob("*.*"):
        if path.is_file() and path.parent.name in ("out", "shards"):
            (tmp_path / path.relative_to(made.parent)).write_bytes(path.read_bytes())
    tar = tmp_path / "out/shards/000000.tar"
    index = json.loads((tmp_path / "out/shards/000000.json").read_text())
    offset, _ = index["videos"][0]["members"]["flow_x"]
    data = bytearray(tar.read_bytes())
    data[offset : offset + 3] = b"bad"
    tar.write_bytes(data)
    result = flowprep("export", tmp_path / "out", tmp_path / "x", "--layout", "tsm")
    assert result.code == 1
    assert "INCOMPLETE: 1 of 2 videos" in result.stdout
    assert "  failed      move_left/a: move_left/a: flow_x 0 is not a JPEG" in result.stdout
