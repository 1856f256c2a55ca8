"""What a command imports before it knows what to do: modules are counted, and no seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.test_help import PAGES

SLOW = {"av", "cv2", "decord", "fsspec", "numba", "numpy", "PIL", "ray", "torch", "tqdm"}

RUN = """
import contextlib, io, sys
from flowprep.cli import main
text = io.StringIO()
with contextlib.redirect_stdout(text):
    try:
        main({arguments!r})
    except SystemExit as end:
        code = end.code
print(code, len(text.getvalue()), *sys.modules)
"""


def slow_modules(code: str) -> tuple[list[str], set[str]]:
    """Returns what `code` prints first, and which of the slow libraries it names after it."""
    command = [sys.executable, "-c", code]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return words[:2], SLOW & set(words[2:])


@pytest.mark.parametrize("page", [*PAGES, ("--version",)], ids=" ".join)
def test_a_help_page_imports_no_slow_library(page: tuple[str, ...]) -> None:
    arguments = list(page) if page == ("--version",) else [*page, "--help"]
    (exit_code, length), slow = slow_modules(RUN.format(arguments=arguments))
    assert exit_code == "0"
    assert int(length) > 10
    assert slow == set()


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = RUN.format(arguments=["--help"])
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = names.stdout.split()
    assert "flowprep.cli" in modules
    # All commands print through this one.
    modules.remove("flowprep.cli.output")
    assert not [name for name in modules if name.startswith("flowprep.cli.")]


@pytest.mark.parametrize("arguments", [["extract"], ["verify", "--no-such-option"], ["nothing"]])
def test_a_mistake_is_told_without_a_slow_library(arguments: list[str]) -> None:
    (exit_code, _), slow = slow_modules(RUN.format(arguments=arguments))
    assert exit_code == "2"
    assert slow == set()


def test_importing_flowprep_imports_no_slow_library() -> None:
    names, slow = slow_modules("import sys, flowprep, flowprep.learn; print(0, 0, *sys.modules)")
    assert names == ["0", "0"]
    assert slow == set()


def test_config_and_presets_need_no_slow_library() -> None:
    code = "import sys, flowprep; flowprep.PRESETS['tsn']; flowprep.RunOptions()"
    _, slow = slow_modules(f"{code}; print(0, 0, *sys.modules)")
    assert slow == set()
