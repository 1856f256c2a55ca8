"""Files among shards and parts that no run wrote: every command notes them, and works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flowprep.dataset.layout import PARTS_FOLDER, SHARDS_FOLDER
from flowprep.dataset.read import open_dataset
from flowprep.synthetic import action_scene, write_video
from tests.cli.conftest import NUM_FRAMES, Command, Result

STRANGERS = (
    *(".DS_Store", ".nfs00000000001", "000001.tar.bak", "abc.json", "abc.tar", "²²²²²².json"),
    *("1.json", "999999.json", "1000000000000000000000.json"),
)
PART_STRANGERS = (".DS_Store", "abc.json", "000000000.json", "0.cut", ".mjpg", "notes/a.json")
NOTE = "were not written by flowprep and are ignored"


def add(folder: Path, names: tuple[str, ...]) -> dict[Path, bytes]:
    """Writes files that are no JSON and no tar; returns what they hold."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
    (folder / "foo").mkdir()
    return {folder / name: b"mine" for name in names}


def held(files: dict[Path, bytes]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files}


def test_strangers_among_the_shards_are_noted_by_all_and_in_nobodys_way(
    extract: Command, flowprep: Command, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert extract("--shard-size", 1).code == 0
    before = {path.name: path.read_bytes() for path in (out / SHARDS_FOLDER).iterdir()}
    files = add(out / SHARDS_FOLDER, STRANGERS)
    (out / SHARDS_FOLDER / "999998.tar").write_bytes(b"mine")
    lists = tmp_path / "classes.csv"
    lists.write_text("move_left/a,0\nzoom_in/a,1\n")

    def said(result: Result) -> None:
        assert result.code == 0, result
        assert NOTE in result.stdout + result.stderr, result
        assert f"{SHARDS_FOLDER}/.DS_Store" in result.stdout + result.stderr

    said(extract("--shard-size", 1))
    for name in ("status", "info"):
        said(flowprep(name, out))
    said(flowprep("info", out, "--videos"))
    said(flowprep("label", out, "--name", "new", "--list", f"train={lists}"))
    said(flowprep("export", out, tmp_path / "tree", "--layout", "frames", "--workers", 1))
    said(flowprep("compare", out, out))
    assert NOTE in "".join(open_dataset(out).notes)
    assert len(open_dataset(out).videos) == 2
    # It has the name of a shard that no plan knows.
    assert flowprep("verify", out).stdout.count("problem: ") == 1
    (out / SHARDS_FOLDER / "999998.tar").unlink()
    said(flowprep("verify", out, "--deep"))
    assert held(files) == files
    left = {path.name: path.read_bytes() for path in (out / SHARDS_FOLDER).glob("00000?.*")}
    assert {name: left[name] for name in before} == before


def test_strangers_among_the_parts_do_not_keep_a_run_from_going_on(
    extract: Command, flowprep: Command, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert extract("--shard-size", 1).code == 0
    shutil.rmtree(out / SHARDS_FOLDER)
    files = add(out / PARTS_FOLDER, (".DS_Store", "abc/x", "0/y", "²/z"))
    files |= add(out / PARTS_FOLDER / "000000", PART_STRANGERS)
    # A part of a video that the plan does not have.
    (out / PARTS_FOLDER / "000000/00000099.json").write_text(json.dumps({"key": "x"}))
    assert NOTE in flowprep("status", out).stderr
    result = extract("--shard-size", 1, "--dry-run")
    assert result.code == 0, result
    result = extract("--shard-size", 1)
    assert result.code == 0, result
    assert NOTE in result.stdout
    assert held(files) == files
    assert not list((out / PARTS_FOLDER).rglob("0000000?.*"))
    result = flowprep("verify", out)
    assert result.code == 0, result
    assert NOTE in result.stderr
    # The index of a shard is rebuilt all the same.
    (out / SHARDS_FOLDER / "000000.json").unlink()
    assert extract("--shard-size", 1).code == 0
    assert flowprep("verify", out).code == 0


def test_nothing_is_left_of_the_parts_where_nobody_else_put_anything(
    extract: Command, tmp_path: Path
) -> None:
    assert extract().code == 0
    assert not (tmp_path / "out" / PARTS_FOLDER).exists()


@pytest.mark.parametrize("name", ["000000.json", "000000.tar"])
def test_a_shard_that_lost_one_of_its_files_is_no_stranger(
    extract: Command, flowprep: Command, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    assert extract().code == 0
    (out / SHARDS_FOLDER / name).unlink()
    result = flowprep("verify", out)
    assert (result.code, NOTE in result.stderr) == (1, False)


def test_frames_of_a_long_video_among_strangers(
    flowprep: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments go on beside files that only look a little like theirs."""
    out, videos = tmp_path / "out", tmp_path / "videos"
    videos.mkdir()
    scene = action_scene("move_left", num_frames=4 * NUM_FRAMES, width=64, height=48, seed=0)
    write_video(videos / "a.mp4", map(scene.frame, range(4 * NUM_FRAMES)), 25.0)
    command = ("extract", videos, out, "--executor", "inline", "--algorithm", "dis")
    command += ("--segment-frames", NUM_FRAMES)  # type: ignore[assignment]
    assert flowprep(*command).code == 0
    shutil.rmtree(out / SHARDS_FOLDER)
    files = add(out / PARTS_FOLDER / "000000", ("x.cut", "00000000.1-2.segment", "y.mjpg"))
    assert flowprep(*command).code == 0
    assert held(files) == files
