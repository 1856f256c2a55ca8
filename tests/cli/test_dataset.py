"""`flowprep verify` and `flowprep info`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import FPS, NUM_FRAMES, Command


@pytest.fixture(scope="module")
def made(flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole data set of two videos in two shards."""
    out = tmp_path_factory.mktemp("made") / "out"
    options = ("--algorithm", "dis", "--executor", "inline", "--shard-size", 1)
    assert flowprep("extract", clips, out, *options).code == 0
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "out"))


def test_whole(flowprep: Command, made: Path) -> None:
    size = sum(path.stat().st_size for path in made.glob("shards/*.tar"))
    # Per video five pairs both ways, x and y, and six RGB frames.
    counts = f"2 of 2 videos stored, 0 failed, 10 flows per direction, {2 * (20 + 6)} JPEGs"
    result = flowprep("verify", made)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == f"whole: {counts}, {size / 1000:.1f} kB\n"
    result = flowprep("verify", "--deep", made)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == f"whole: {counts} decoded, {size / 1000:.1f} kB\n"


def test_lost_sidecar_is_a_problem_until_repaired(flowprep: Command, out: Path) -> None:
    before = json.loads((out / "shards/000001.json").read_text())
    (out / "shards/000001.json").unlink()
    result = flowprep("verify", out)
    assert (result.code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "problem: shards/000001.json is missing; `flowprep verify --repair` rebuilds it"
    )
    assert lines[-1].startswith(f"NOT WHOLE: {len(lines) - 1} problems; 1 of 2 videos stored")
    result = flowprep("verify", "--repair", out)
    assert result.code == 0
    assert result.stdout.splitlines()[0] == "rebuilt shards/000001.json"
    after = json.loads((out / "shards/000001.json").read_text())
    assert after["sha256"] == before["sha256"]
    assert flowprep("verify", out).code == 0


def test_a_lost_list_of_failures_is_a_problem_until_repaired(flowprep: Command, out: Path) -> None:
    (out / "failures.jsonl").unlink()
    result = flowprep("verify", out)
    assert (result.code, result.stderr) == (1, "")
    assert result.stdout.splitlines()[0] == (
        "problem: failures.jsonl is missing; `flowprep verify --repair` makes failures.jsonl anew "
        "from the indexes"
    )
    result = flowprep("verify", "--repair", out)
    assert result.code == 0
    assert result.stdout.splitlines()[0] == "rebuilt failures.jsonl"
    assert flowprep("verify", out).code == 0


def test_sources_are_looked_at_when_asked(flowprep: Command, out: Path, clips: Path) -> None:
    assert flowprep("verify", "--sources", "--hash", out).stderr == ""
    manifest = out / "manifest.jsonl"
    text = manifest.read_text()
    first = json.loads(text.splitlines()[0])["source"]
    manifest.write_text(text.replace(first, f"{first}.gone"))
    result = flowprep("verify", "--sources", out)
    assert result.code == 0
    assert result.stderr.startswith("note: the sources of 1 video are not there any more (first: ")
    sources = sorted(path for path in clips.rglob("*") if path.is_file())
    other = next(str(path) for path in sources if str(path) != first)
    manifest.write_text(text.replace(first, other))
    result = flowprep("verify", "--sources", "--hash", out)
    assert result.code == 1
    assert "problem: 1 video changed after it was extracted (" in result.stdout
    assert "extract with --redo-changed, which computes them again" in result.stdout
    assert flowprep("verify", out).code == 0


def test_hash_needs_sources(flowprep: Command, out: Path) -> None:
    result = flowprep("verify", "--hash", out)
    assert result.code == 2
    assert "--hash compares sources; give --sources too." in result.stderr


def test_flipped_bit(flowprep: Command, out: Path) -> None:
    tar = out / "shards/000000.tar"
    data = bytearray(tar.read_bytes())
    index = json.loads((out / "shards/000000.json").read_text())
    offset, size = index["videos"][0]["members"]["rgb"]
    data[offset + size // 2] ^= 1
    tar.write_bytes(data)
    result = flowprep("verify", out)
    assert result.code == 1
    assert "problem: shards/000000.tar has another SHA-256 than its sidecar says" in result.stdout


def test_equal_problems_are_summed_up_and_unlike_ones_are_cut(flowprep: Command, out: Path) -> None:
    for number in range(53):
        (out / f"stranger-{number:02d}").touch()
    lines = flowprep("verify", out).stdout.splitlines()
    assert lines[:2] == [
        "problem: stranger-00 does not belong to the data set; remove it",
        "  and 52 more like it: stranger-01, stranger-02, stranger-03, ...",
    ]
    assert len(lines) == 3
    assert lines[-1].startswith("NOT WHOLE: 53 problems; ")
    for number in range(60):
        letters = chr(97 + number // 26) + chr(97 + number % 26)
        (out / f"unlike-{letters}").touch()
    lines = flowprep("verify", out).stdout.splitlines()
    assert lines[-2] == "... and 11 more of other kinds"
    assert lines[-1].startswith("NOT WHOLE: 113 problems; ")


def test_info(flowprep: Command, made: Path) -> None:
    result = flowprep("info", made)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        str(made),
        "  videos      2 of 2 stored, 0 failed",
        "  flow        10 fields per direction, forward and backward, with RGB frames",
    ]
    assert "  lengths     6 to 6 frames, median 6" in lines
    assert "  sizes       64x48 (2)" in lines
    assert "  classes     move_left (1), zoom_in (1)" in lines


def test_info_videos(flowprep: Command, made: Path) -> None:
    result = flowprep("info", "--videos", made)
    assert (result.code, result.stderr) == (0, "")
    head, *rows = (line.split("\t") for line in result.stdout.splitlines())
    assert head == "key labels split frames flows width height fps status".split(" ")  # noqa: SIM905
    fps, frames, flows = f"{FPS:.3f}", str(NUM_FRAMES), str(NUM_FRAMES - 1)
    assert rows == [
        ["move_left/a", "0", "", frames, flows, "64", "48", fps, "complete"],
        ["zoom_in/a", "1", "", frames, flows, "64", "48", fps, "complete"],
    ]


def test_info_json(flowprep: Command, made: Path) -> None:
    result = flowprep("info", "--json", made)
    assert (result.code, result.stderr) == (0, "")
    values = json.loads(result.stdout)
    assert values["num_videos"] == values["num_stored"] == values["num_shards"] == 2
    assert values["class_names"] == ["move_left", "zoom_in"]
    assert values["config"] == json.loads((made / "dataset.json").read_text())["config"]


def test_info_does_not_mix_its_formats(flowprep: Command, made: Path) -> None:
    result = flowprep("info", "--json", "--videos", made)
    assert result.code == 2
    assert result.error == "Error: --videos and --json cannot be given together; leave one out.\n"
