"""docs/extending.md: each example is applied to a copy of the package, and run; files are counted.

A `python` block begins with the name of a new file, such as `# flowprep/...`; another name is a
file in the folder in which the example runs. A `diff` block changes a file: its lines with a blank
in front must stand in it, those with `+` are added. An `sh` block is run, with the changed package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "extending.md"

MOST_FILES = {
    "A gray estimator": 3,
    "An RGB estimator": 3,
    "An estimator outside of flowprep": 0,
    "Learned flow by ptlflow": 0,
    "A network of one stream": 2,
    "A network that joins segments": 2,
    "A network of both streams": 2,
    "An export layout": 1,
    "An annotation format": 2,
}
"""How many files of the package an example may touch, by its heading."""

PTLFLOW = "Learned flow by ptlflow"
NEEDS_TORCH = frozenset(heading for heading in MOST_FILES if "network" in heading)
"""Examples that train."""
REQUIRE_TORCH = os.environ.get("FLOWPREP_REQUIRE_TORCH") == "1"


PROGRAM = """#!/bin/sh
# Ray takes seconds to start, and its workers would run the same code.
[ "$1" = extract ] && set -- "$@" --executor inline
exec "{python}" -m flowprep "$@"
"""
"""What the examples call `flowprep`."""


@dataclass
class Example:
    """One section of the page."""

    heading: str
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """Language and content."""


def read_examples(text: str) -> dict[str, Example]:
    """Returns the sections (`## HEADING`) that hold blocks, by heading."""
    examples: dict[str, Example] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, rest = section.partition("\n")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
        if blocks:
            examples[heading.strip()] = Example(heading.strip(), blocks)
    return examples


def apply(example: Example, root: Path, folder: Path) -> set[str]:
    """Applies an example to the package in `root`; returns the files of it that change."""
    touched = set()
    for language, content in example.blocks:
        if language == "python":
            first, _, rest = content.partition("\n")
            name = first.removeprefix("# ").strip()
            assert name.endswith(".py"), f"{first!r} must name a file"
            if not name.startswith("flowprep/"):
                (folder / name).write_text(rest)
                continue
            path = root / name
            assert not path.exists(), f"{name} is there already; change it by a diff block"
            path.write_text(rest)
        elif language == "diff":
            lines = content.splitlines()
            name = lines[0].removeprefix("+++ ")
            path = root / name
            hunks: list[list[str]] = []
            for line in lines[1:]:
                if line == "@@":
                    hunks.append([])
                    continue
                assert line == "" or line[0] in " +", f"{line!r} must begin with a blank or +"
                hunks[-1].append(line)
            for hunk in hunks:
                old = [line[1:] for line in hunk if not line.startswith("+")]
                new = [line[1:] for line in hunk]
                source = path.read_text()
                wanted = "\n".join(["", *old, ""])
                assert source.count(wanted) == 1, f"{name} must hold once:{wanted}"
                path.write_text(source.replace(wanted, "\n".join(["", *new, ""])))
        else:
            continue
        touched.add(name)
    return touched


def run(example: Example, root: Path, folder: Path) -> None:
    """Runs the commands of an example with the package in `root`."""
    programs = root / "bin"
    programs.mkdir()
    command = programs / "flowprep"
    command.write_text(PROGRAM.format(python=sys.executable))
    command.chmod(0o755)
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(path), "PYTHONPATH": str(root)}
    for language, content in example.blocks:
        if language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", content],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, f"{content}\n{done.stdout}{done.stderr}"


EXAMPLES = read_examples(PAGE.read_text())


def test_the_page_has_each_example() -> None:
    assert set(EXAMPLES) == set(MOST_FILES)


@pytest.mark.parametrize("heading", sorted(EXAMPLES))
def test_example(heading: str, tmp_path: Path) -> None:
    if heading in NEEDS_TORCH and importlib.util.find_spec("torch") is None:
        assert not REQUIRE_TORCH, "torch is not installed"
        pytest.skip("needs torch")
    if heading == PTLFLOW and importlib.util.find_spec("ptlflow") is None:
        pytest.skip("needs ptlflow")
    root, folder = tmp_path / "root", tmp_path / "work"
    folder.mkdir()
    shutil.copytree(
        REPOSITORY / "flowprep", root / "flowprep", ignore=shutil.ignore_patterns("__pycache__")
    )
    example = EXAMPLES[heading]
    if heading == PTLFLOW:
        # Random weights, which need no network.
        blocks = [(kind, text.replace("=things", "=")) for kind, text in example.blocks]
        example = Example(heading, blocks)
        shutil.copy(REPOSITORY / "tests" / "torchvision_hook.py", root / "sitecustomize.py")
    touched = apply(example, root, folder)
    assert len(touched) <= MOST_FILES[heading], sorted(touched)
    run(example, root, folder)
