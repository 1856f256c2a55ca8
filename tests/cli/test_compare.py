"""`flowprep compare`: tables, JSON and pictures of two flows of the same videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command

QUICK = ("--executor", "inline", "--no-rgb")


@pytest.fixture(scope="module")
def outs(
    flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compare")
    for name in ("dis", "farneback"):
        result = flowprep("extract", clips, folder / name, "--algorithm", name, *QUICK)
        assert result.code == 0
    return folder / "dis", folder / "farneback"


def test_two_data_sets(flowprep: Command, outs: tuple[Path, Path], tmp_path: Path) -> None:
    result = flowprep("compare", *outs, "--to", tmp_path / "worst", "--worst", 2)
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"A  {outs[0]}: dis, step 1, bound 20 px, round"
    assert lines[2:4] == ["differing (A | B)", "  flow.algorithm  dis | farneback"]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert {"move_left/a", "zoom_in/a", "all"} <= set(rows)
    mean, median, p90, p99, most = map(float, rows["zoom_in/a"][1:6])
    assert 0 <= median <= p90 <= p99 <= most
    assert 0 < mean < most
    assert lines[-1] == f"drew the 2 fields that differ most in {tmp_path}/worst"
    assert len(list((tmp_path / "worst").glob("*.png"))) == 2


def test_json(flowprep: Command, outs: tuple[Path, Path]) -> None:
    result = flowprep("compare", *outs, "--json", "--sample", 0)
    assert result.code == 0
    values = json.loads(result.stdout)
    assert values["all"]["num_fields"] == 10
    assert values["differing"]["flow.algorithm"] == ["dis", "farneback"]
    assert 0 < values["all"]["equal_share"] < values["all"]["within_one_share"] <= 1


def test_two_algorithms(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    video = clips / "zoom_in/a.mp4"
    words = ("--algorithms", "dis,farneback", "--sample", 2, "--step", 2, "--bound", 10)
    result = flowprep("compare", video, *words, "--to", tmp_path / "worst")
    assert (result.code, result.stderr) == (0, "")
    assert f"B  {video}: farneback, step 2, bound 10 px, round" in result.stdout
    assert len(list((tmp_path / "worst").glob("*.png"))) == 2


# fmt: off
MISTAKES = [
    ("OUT", "Give two data sets A and B, or one video A and --algorithms."),
    ("OUT OUT --algorithms dis,tvl1",
     "Give two data sets A and B, or one video A and --algorithms."),
    ("OUT nowhere", "nowhere is not a flowprep data set; name a folder that extract wrote"),
    ("OUT OUT --step 2",
     "The options for decoding and flow need --algorithms; leave them out for A and B."),
    ("OUT OUT --sample -1", "--sample must be >= 0, got -1."),
    ("OUT OUT --worst 0", "--worst must be >= 1, got 0"),
    ("VIDEO --algorithms dis", "--algorithms must name two, got dis"),
    ("VIDEO --algorithms dis,flownet",
     "algorithm must be one of tvl1, tvl1-opencv, farneback, farneback-opencv, brox, dis, "
     "raft, got 'flownet'"),
    ("OUT --algorithms dis,tvl1",
     "{out} is a data set; give --algorithms with a video file instead"),
]
# fmt: on


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes(
    flowprep: Command, outs: tuple[Path, Path], clips: Path, words: str, message: str
) -> None:
    places = {"OUT": outs[0], "VIDEO": clips / "zoom_in/a.mp4"}
    result = flowprep("compare", *(places.get(word, word) for word in words.split()))
    assert result.code == 2
    assert result.error == f"Error: {message.format(out=outs[0])}\n"
