"""The pages of the documentation as their tests see them: code blocks, and the comments on them.

<!-- begins with: clips flow -->        what the page's folder holds at first (prepare.py)
<!-- small: train --steps 2 -->         appended to every `flowprep train` of the page from here
<!-- not run: serves until Ctrl-C -->   the next block is only parsed, for a reason of REASONS
<!-- needs: torch -->                   the next block is skipped where this is not installed
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PAGES",
    "REASONS",
    "ROOT",
    "RUN_PAGES",
    "Block",
    "Page",
    "flowprep_arguments",
    "read_page",
]

ROOT = Path(__file__).resolve().parents[2]

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "examples/cluster/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)

RUN_PAGES = tuple(name for name in PAGES if name != "docs/extending.md")
"""The pages whose blocks run one after the other; test_extending.py runs those of the other."""

REASONS = {
    "CI runs it": 3,
    "installs packages": 3,
    "serves until Ctrl-C": 2,
    "needs a cluster": 3,
    "needs a second machine": 1,
    "needs several processors": 1,
    "measures for a minute": 1,
    "needs Charades": 1,
    "needs Docker": 1,
    "needs EPIC-Kitchens": 1,
    "needs namespaces": 1,
    "needs systemd": 1,
    "needs the weights of C3D": 1,
    "needs the weights of a ViT": 1,
    "needs the weights of VGG-16": 1,
    "needs weights": 1,
    "needs weights of others": 5,
}
"""Why a block is not run -> how many blocks may say so."""

_COMMENT = re.compile(r"<!-- ([a-z ]+): (.*?) -->")
_FENCE = re.compile(r"(`{3,})(\S*)(?: .*)?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Of its first line in the page, counted from 1."""
    small: dict[str, tuple[str, ...]]
    """What is appended to the commands of this block, by their names."""
    not_run: str | None
    needs: str | None

    def commands(self) -> Iterator[tuple[int, str]]:
        """Yields each line of a shell block with its number, continued lines as one."""
        held, first = "", self.line
        for number, line in enumerate(self.text.splitlines(), start=self.line):
            first = first if held else number
            held += line
            if held.endswith("\\"):
                held = held[:-1] + " "
                continue
            if held.strip() and not held.lstrip().startswith("#"):
                yield first, held
            held = ""


@dataclass(frozen=True)
class Page:
    """A page, and what its folder holds before its first block is run."""

    name: str
    begins_with: tuple[str, ...]
    blocks: tuple[Block, ...]
    prose: str
    """The page without its fenced blocks and its comments."""


def read_page(name: str) -> Page:
    """Reads a page of PAGES."""
    begins_with: list[str] = []
    blocks: list[Block] = []
    prose: list[str] = []
    small: dict[str, tuple[str, ...]] = {}
    marks: dict[str, str] = {}
    lines = enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if match := _COMMENT.fullmatch(line):
            key, value = match.groups()
            if key == "begins with":
                begins_with += value.split()
            elif key == "small":
                command, *arguments = value.split()
                small = {**small, command: tuple(arguments)}
            elif key in ("not run", "needs"):
                marks[key] = value
            elif key != "written by":
                raise ValueError(f"{name}, line {number}: no test knows {line}")
        elif match := _FENCE.fullmatch(line):
            fence, language = match.groups()
            text = []
            for _, inner in lines:
                if inner == fence:
                    break
                text.append(inner)
            blocks.append(
                Block(
                    language,
                    "\n".join(text),
                    number + 1,
                    small,
                    marks.pop("not run", None),
                    marks.pop("needs", None),
                )
            )
        else:
            if line and marks:
                raise ValueError(f"{name}, line {number}: no block follows {marks}")
            prose.append(line)
    return Page(name, tuple(begins_with), tuple(blocks), "\n".join(prose))


def flowprep_arguments(line: str) -> list[str] | None:
    """Returns what a shell line gives to flowprep, or None for a line without it."""
    words = shlex.split(line, comments=True)
    return words[words.index("flowprep") + 1 :] if "flowprep" in words else None
