"""Help pages, `flowprep --version` and `flowprep synthetic`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowprep as package
from tests.cli.conftest import Command

COMMANDS = [
    "plan",
    "extract",
    "status",
    "verify",
    "info",
    "view",
    "report",
    "browse",
    "compare",
    "metrics",
    "export",
    "import",
    "label",
    "train",
    "evaluate",
    "fuse",
    "predict",
    "imagine",
    "explain",
    "features",
    "probe",
    "weights",
    "synthetic",
    "doctor",
]
PAGES = [(), *((command,) for command in COMMANDS)]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_plain(
    flowprep: Command, page: tuple[str, ...], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = flowprep(*page, flag)
    assert (result.code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert not re.search(r"None|True|False|_px|default: \(|`|INTEGER|FLOAT|TEXT", result.stdout)


def test_commands_stand_in_the_order_of_use_and_are_not_cut(
    flowprep: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = flowprep("--help").stdout
    lines = page[page.index("Commands:") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_every_option_has_words(flowprep: Command) -> None:
    page = flowprep("extract", "--help").stdout
    options = re.split(r"\n +(?=-)", page)[1:]
    assert len(options) > 40
    for option in options:
        assert re.search(r"[a-z].*\.", option.partition("  ")[2], re.DOTALL), option


def test_numbers_and_words_are_shown_as_a_user_writes_them(flowprep: Command) -> None:
    page = flowprep("extract", "--help").stdout
    for default in ("source", "short:256", "no-upscale", "both", "rgb", "20", "120"):
        assert f"[default: {default}]" in re.sub(r"\s+", " ", page)


def test_version(flowprep: Command) -> None:
    result = flowprep("--version")
    assert (result.code, result.stdout) == (0, f"flowprep, version {package.__version__}\n")


def test_synthetic(flowprep: Command, tmp_path: Path) -> None:
    options = ("--videos-per-class", 2, "--frames", 2, "--width", 32, "--height", 32)
    result = flowprep("synthetic", tmp_path / "demo", *options, "--fps", 10, "--seed", 3)
    assert (result.code, result.stderr) == (0, "")
    videos = sorted((tmp_path / "demo/videos").glob("*/*.mp4"))
    assert result.stdout == (
        f"wrote {len(videos)} clips to {tmp_path}/demo/videos, their splits to "
        f"{tmp_path}/demo/annotations\n"
    )
    again = flowprep("synthetic", tmp_path / "again", *options, "--fps", 10, "--seed", 3)
    assert again.code == 0
    other = flowprep("synthetic", tmp_path / "other", *options, "--fps", 10, "--seed", 4)
    assert other.code == 0
    (first,) = {path.relative_to(tmp_path / "demo") for path in videos[:1]}
    data = [(tmp_path / name / first).read_bytes() for name in ("demo", "again", "other")]
    assert data[0] == data[1] != data[2]
