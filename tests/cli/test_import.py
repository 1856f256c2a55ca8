"""`flowprep import`, and the other commands on what it made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.exchange import readers


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    readers.write_tree(tmp_path / "tree", {"run/a": 4, "swim/b": 3}, rgb=True)
    return tmp_path / "tree"


def test_import_and_again(flowprep: Command, tree: Path, tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("run/a 4 1\n")
    arguments = (
        *("import", tree, tmp_path / "out", "--layout", "mmaction2", "--bound", 20),
        *("--list", f"train={listed}", "--workers", 1),
    )
    result = flowprep(*arguments)
    assert result.code == 0
    assert result.stderr == (
        "note: 1 videos are in no list and get no label; add them to a list for labels\n"
    )
    assert result.stdout.splitlines()[0] == f"complete: 2 of 2 videos in {tmp_path}/out"
    assert "  imported    2 videos, 7 flows, " in result.stdout
    again = flowprep(*arguments)
    assert again.code == 0
    assert "  done before 2 videos" in again.stdout


def test_a_failure_is_told_by_the_exit_code(flowprep: Command, tree: Path, tmp_path: Path) -> None:
    (tree / "run/a/flow_y_00004.jpg").unlink()
    arguments = ("--layout", "tsm", "--bound", 20, "--workers", 1)
    result = flowprep("import", tree, tmp_path / "out", *arguments)
    assert result.code == 1
    assert result.stdout.splitlines()[0] == f"INCOMPLETE: 1 of 2 videos in {tmp_path}/out"
    assert "  failed      1 incomplete; failures.jsonl says which and why" in result.stdout
    assert flowprep("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ((), "--bound must be given, because the images do not say"),
        (("--bound", "0"), "--bound must be > 0, got 0"),
        (("--bound", "20", "--step", "0"), "--step must be an integer >= 1, got 0"),
        (("--bound", "20", "--workers", "0"), "--workers must be >= 1, got 0"),
        (("--bound", "20", "--directions", "both"), "--directions must be forward for layout tsm"),
        (("--bound", "20", "--list", "none.txt"), "cannot read the list none.txt"),
    ],
)
def test_mistakes_are_named(
    flowprep: Command, tree: Path, tmp_path: Path, options: tuple[str, ...], error: str
) -> None:
    result = flowprep("import", tree, tmp_path / "out", "--layout", "tsm", *options)
    assert result.code == 2
    assert error in result.error
    assert not (tmp_path / "out").exists()


def test_what_was_imported_is_a_data_set_like_others(
    flowprep: Command, tree: Path, tmp_path: Path, clips: Path
) -> None:
    out = tmp_path / "out"
    options = ("--layout", "mmaction2", "--bound", 20, "--workers", 1)
    assert flowprep("import", tree, out, *options).code == 0
    assert flowprep("verify", "--deep", out).code == 0
    info = flowprep("info", out)
    assert info.code == 0
    assert "algorithm   not known, step 1; imported from" in info.stdout
    assert flowprep("info", "--json", out).code == 0
    view = flowprep("view", out, "run/a", "--to", tmp_path / "a.png")
    assert (view.code, (tmp_path / "a.png").exists()) == (0, True)
    report = flowprep("report", out, "--to", tmp_path / "report.html")
    assert report.code == 0, report.stderr
    refused = flowprep("extract", clips, out, "--executor", "inline")
    assert refused.code == 1
    assert "implementation: imported in the data set" in refused.error
    assert flowprep("verify", out).code == 0


def test_messages_name_options(flowprep: Command, tree: Path, tmp_path: Path) -> None:
    arguments = ("import", tree, tmp_path / "out", "--layout", "mmaction2", "--workers", 1)
    (tree / "run/a/img_00005.jpg").unlink()
    (tree / "run/a/img_00004.jpg").unlink()
    (tree / "swim/b/img_00004.jpg").unlink()
    (tree / "swim/b/img_00003.jpg").unlink()
    assert flowprep(*arguments, "--bound", 20).code == 1
    failures = (tmp_path / "out/failures.jsonl").read_text()
    assert failures.count("import with --no-rgb") == 2
    # The remedy works in the same OUT, because nothing is stored in it.
    again = flowprep(*arguments, "--bound", 20, "--no-rgb")
    assert again.code == 0
    assert "held no video yet, so it was begun anew" in again.stderr
    assert flowprep("verify", tmp_path / "out").code == 0
    refused = flowprep(*arguments, "--bound", 8, "--quantizer", "floor", "--rgb")
    assert refused.code == 1
    for line in (
        "  --bound: 20.0 in the data set, 8.0 in this run",
        "  --quantizer: round in the data set, floor in this run",
        "  RGB frames: --no-rgb in the data set, --rgb in this run",
    ):
        assert line in refused.stderr
    for field in ("bound_px", "keep_rgb", "quantizer:"):
        assert field not in refused.stderr.replace("--quantizer:", "")


def test_an_export_of_arrays_comes_back(flowprep: Command, tree: Path, tmp_path: Path) -> None:
    first = ("import", tree, tmp_path / "out", "--layout", "mmaction2", "--bound", 20)
    assert flowprep(*first, "--workers", 1).code == 0
    export = ("export", tmp_path / "out", tmp_path / "npy", "--layout", "tsm", "--format", "npy")
    assert flowprep(*export, "--workers", 1).code == 0
    back = ("import", tmp_path / "npy", tmp_path / "back", "--layout", "tsm", "--workers", 1)
    wrong = flowprep(*back, "--unit", "bound")
    assert wrong.code == 2
    assert "--unit must be px, as" in wrong.error
    wrong = flowprep(*back, "--rgb")
    assert wrong.code == 2
    assert "--rgb is not in arrays of flow (npy); leave out --rgb" in wrong.error
    result = flowprep(*back)
    assert result.code == 0, result.stderr
    assert "  imported    2 videos, 7 flows, " in result.stdout
