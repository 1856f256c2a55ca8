"""`flowprep report`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def made(flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two videos, and a file that is none."""
    folder = tmp_path_factory.mktemp("made")
    (clips / "move_left/broken.mp4").write_bytes(b"no video")
    options = ("--algorithm", "dis", "--executor", "inline")
    assert flowprep("extract", clips, folder / "out", *options).code == 1
    (clips / "move_left/broken.mp4").unlink()
    return folder / "out"


def test_page_beside_the_data_set(flowprep: Command, made: Path) -> None:
    result = flowprep("report", f"{made}/")
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "     1  fault      Not extracted"
    assert lines[-2].startswith("2 videos, pixels of 2; bound 20 px clips ")
    assert lines[-1] == f"written to {made}-report.html"
    page = Path(f"{made}-report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "move_left/broken" in page
    # The data set is left as it was.
    assert flowprep("verify", made).code == 0


def test_chosen_file(flowprep: Command, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    options = ("--sample", 0, "--clipped-share", "0.5", "--to", target)
    result = flowprep("report", made, *options)
    assert (result.code, result.stderr) == (0, "")
    assert "pixels of 0;" in result.stdout
    assert result.stdout.endswith(f"written to {target}\n")
    assert target.exists()


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        (["--sample", "-1"], 2, "Error: --sample must be >= 0, got -1\n"),
        (["--clipped-share", "2"], 2, "Error: --clipped-share must be >= 0 and < 1, got 2\n"),
    ],
)
def test_wrong_numbers(
    flowprep: Command, made: Path, options: list[str], code: int, error: str
) -> None:
    result = flowprep("report", made, *options)
    assert (result.code, result.error) == (code, error)


def test_what_is_not_there(flowprep: Command, tmp_path: Path) -> None:
    result = flowprep("report", tmp_path / "none")
    assert result.code == 1
    assert result.error.startswith(f"Error: OUT does not exist: {tmp_path}/none")
    result = flowprep("report", tmp_path)
    assert result.code == 1
    assert "is not a flowprep data set" in result.error


def test_without_matplotlib(
    flowprep: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = flowprep("report", made, "--to", tmp_path / "page.html")
    assert result.code == 1
    assert result.error == (
        "Error: `flowprep report` needs matplotlib, which cannot be imported; "
        "run `pip install 'flowprep[report]'`\n"
    )
