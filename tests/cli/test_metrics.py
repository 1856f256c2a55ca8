"""`flowprep metrics`: a table or JSON of known errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowprep.flow.files import write_flow
from tests.cli.conftest import Command


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Estimates that are off by 1 px and by 4 px, and one quarter of the truth unknown."""
    truth = np.zeros((8, 10, 2), np.float32)
    known = np.ones((8, 10), bool)
    known[:2] = False
    for name, offset in (("a", (1, 0)), ("b", (0, 4))):
        for folder in ("estimate", "truth"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_flow(tmp_path / f"estimate/{name}.flo", truth + np.float32(offset))
        write_flow(tmp_path / f"truth/{name}.png", truth, known)
    return tmp_path / "estimate", tmp_path / "truth"


def test_two_files(flowprep: Command, folders: tuple[Path, Path]) -> None:
    result = flowprep("metrics", folders[0] / "a.flo", folders[1] / "a.png")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == (
        "         EPE px   AAE deg   Fl-all     valid\n"
        "a.flo     1.000    45.000   0.00 %   75.00 %\n"
    )


def test_two_folders(flowprep: Command, folders: tuple[Path, Path]) -> None:
    result = flowprep("metrics", *folders)
    assert result.code == 0
    last = result.stdout.splitlines()[-1].split()
    assert last[:2] == ["all", "2.500"]
    assert last[3:] == ["50.00", "%", "75.00", "%"]
    values = json.loads(flowprep("metrics", *folders, "--json").stdout)
    assert [one["epe_px"] for one in values["files"]] == [1, 4]
    assert values["all"]["fl_all"] == 0.5


def test_an_estimate_with_holes_is_noted(flowprep: Command, folders: tuple[Path, Path]) -> None:
    known = np.ones((8, 10), bool)
    known[5] = False
    write_flow(folders[0] / "a.flo", np.zeros((8, 10, 2), np.float32), known)
    result = flowprep("metrics", folders[0] / "a.flo", folders[1] / "a.png")
    assert result.stdout.endswith(
        "note: 16.67 % of the pixels with known truth have no estimate and are not scored\n"
    )


def test_mistakes(flowprep: Command, folders: tuple[Path, Path]) -> None:
    result = flowprep("metrics", "nowhere.flo", folders[1])
    assert (result.code, result.error) == (
        2,
        "Error: ESTIMATE does not exist: nowhere.flo; check the path\n",
    )
    (folders[0] / "a.flo").write_bytes(b"PIEH")
    result = flowprep("metrics", *folders)
    assert result.code == 2
    assert "a.flo is cut: a .flo begins with 12 B, it has 4" in result.error
