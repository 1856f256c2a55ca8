"""`flowprep plan`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Command


def test_table_and_json(flowprep: Command, clips: Path) -> None:
    options = ("--algorithm", "dis", "--nodes", 8, "--pairs-per-second", 2000)
    result = flowprep("plan", clips, *options)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith("8 nodes at 2000.0 pairs/s for 340x256 (as given), ")
    for title in ("these videos", "UCF101", "Kinetics-400", "Kinetics-700", "Sports-1M"):
        assert title in result.stdout
    values = json.loads(flowprep("plan", clips, *options, "--json").stdout)
    kinetics = values["rows"][2]
    assert kinetics["num_pairs"] == 306_245 * 249
    hours = kinetics["num_pairs"] * (455 * 256) / (340 * 256) / 2000 / 8 / 3600
    assert abs(kinetics["seconds"] / 3600 - hours) < 0.01
    assert values["config"]["flow"]["algorithm"] == "dis"


def test_options_of_extract_count(flowprep: Command, clips: Path) -> None:
    options = ("--algorithm", "dis", "--pairs-per-second", 100, "--json")
    whole = json.loads(flowprep("plan", clips, *options).stdout)["rows"][1]
    less = json.loads(flowprep("plan", clips, *options, "--no-rgb", "--fps", 12.5).stdout)["rows"][
        1
    ]
    assert less["num_pairs"] < 0.51 * whole["num_pairs"]
    assert less["num_bytes"] < 0.5 * whole["num_bytes"]


def test_mistakes(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    result = flowprep("plan", clips, "--nodes", 0)
    assert (result.code, result.error) == (2, "Error: --nodes must be >= 1, got 0\n")
    assert flowprep("plan").code == 2
    (tmp_path / "x.mp4").write_bytes(b"")
    result = flowprep("plan", tmp_path)
    assert result.code == 2
    assert "no video could be probed" in result.error
