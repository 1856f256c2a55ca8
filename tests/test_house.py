"""The rooms of the package: a room imports only rooms below it, and no modules import in a circle.

Imports are read from the source, also those inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import flowprep

ROOMS = (
    "flowprep._version",
    "flowprep.lazy",
    "flowprep.urls",
    "flowprep.words",
    "flowprep.printable",
    "flowprep.garbage",
    "flowprep.errors",
    "flowprep.differences",
    "flowprep.extras",
    "flowprep.machine",
    "flowprep.processes",
    "flowprep.images",
    "flowprep.storage_errors",
    "flowprep.ending",
    "flowprep.locks",
    "flowprep.local_files",
    "flowprep.file_info",
    "flowprep.range_reader",
    "flowprep.storage_conditions",
    "flowprep.storage",
    "flowprep.frame_size",
    "flowprep.flow",
    "flowprep.config",
    "flowprep.presets",
    "flowprep.synthetic",
    "flowprep.inputs",
    "flowprep.video",
    "flowprep.dataset",
    "flowprep.run",
    "flowprep.exchange",
    "flowprep.learn.clip_inputs",
    "flowprep.learn.motion_spec",
    "flowprep.learn.network_options",
    "flowprep.learn.normalizations",
    "flowprep.learn.layers",
    "flowprep.learn.models",
    "flowprep.learn.network_entry",
    "flowprep.learn.network_builders",
    "flowprep.learn.recurrent_networks",
    "flowprep.learn.recent_networks",
    "flowprep.learn.history_networks",
    "flowprep.learn.networks",
    "flowprep.learn.training_specs",
    "flowprep.learn.config",
    "flowprep.learn.recurrent_trainings",
    "flowprep.learn.recent_trainings",
    "flowprep.learn.trainings",
    "flowprep.learn.recipe_entry",
    "flowprep.learn.fusion_recipes",
    "flowprep.learn.recurrent_recipes",
    "flowprep.learn.recent_recipes",
    "flowprep.learn.history_recipes",
    "flowprep.learn.recipes",
    "flowprep.learn.weights",
    "flowprep.learn.clips",
    "flowprep.learn",
    "flowprep.learn.seeing",
    "flowprep.look",
    "flowprep.doctor",
    "flowprep",
    "flowprep.cli",
    "flowprep.__main__",
)
"""From the ground up. `flowprep` is what `import flowprep` shows: flowprep/__init__.py."""


@dataclass(frozen=True)
class Taken:
    """One import: which module takes what from which."""

    by: str
    of: str
    names: str
    line: int

    def __str__(self) -> str:
        return f"{_file(self.by)}:{self.line} takes {self.names} from {_file(self.of)}"


def _file(module: str) -> str:
    return module.replace(".", "/") + ".py"


def sources(package: Path) -> dict[str, str]:
    """Returns the source of each module below a folder, by dotted name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports(modules: Mapping[str, str]) -> Iterator[Taken]:
    """Yields each import of one of `modules` (name -> source) by another."""
    for by, source in modules.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                wanted = [(alias.name, "itself") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                # `from package import module` takes the module.
                wanted = [
                    (full if full in modules else node.module, alias.name)
                    for alias in node.names
                    for full in [f"{node.module}.{alias.name}"]
                ]
            elif isinstance(node, ast.ImportFrom):
                raise AssertionError(f"{_file(by)}:{node.lineno}: imports name the whole path")
            else:
                continue
            for of, names in itertools.groupby(sorted(wanted), key=lambda pair: pair[0]):
                if of in modules and of != by:
                    yield Taken(by, of, ", ".join(name for _, name in names), node.lineno)


def room_of(module: str) -> int:
    """Returns the place of a module's room in ROOMS: that of the longest name that fits."""
    fits = [
        room
        for room in ROOMS
        if module == room or (room != "flowprep" and module.startswith(f"{room}."))
    ]
    assert fits, f"{_file(module)} is in no room; add its room to ROOMS"
    return ROOMS.index(max(fits, key=len))


def upward(modules: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each import of a room that is not below."""
    found = []
    for taken in imports(modules):
        by, of = ROOMS[room_of(taken.by)], ROOMS[room_of(taken.of)]
        if ROOMS.index(of) > ROOMS.index(by):
            found.append(f"{taken}, which is above it: {of} is above {by}")
    return found


def circles(modules: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each import that is part of a circle."""
    taken: dict[str, list[Taken]] = {}
    for one in imports(modules):
        taken.setdefault(one.by, []).append(one)

    def leads_to(start: str, goal: str) -> bool:
        seen, left = {start}, [start]
        while left:
            for one in taken.get(left.pop(), ()):
                if one.of == goal:
                    return True
                if one.of not in seen:
                    seen.add(one.of)
                    left.append(one.of)
        return False

    return [
        f"{one}, which leads back to it"
        for several in taken.values()
        for one in several
        if leads_to(one.of, one.by)
    ]


@pytest.fixture(scope="module")
def package() -> dict[str, str]:
    return sources(Path(flowprep.__file__).parent)


def test_imports_run_downward(package: dict[str, str]) -> None:
    assert upward(package) == []


def test_no_circles(package: dict[str, str]) -> None:
    assert circles(package) == []


def test_every_room_is_there(package: dict[str, str]) -> None:
    assert set(ROOMS) <= package.keys()
    assert {room_of(module) for module in package} == set(range(len(ROOMS)))


def test_names_both_files_and_what_is_taken() -> None:
    inside = "def late():\n    from flowprep.run.driver import run_extract\n"
    modules = {"flowprep.dataset.read": inside, "flowprep.run.driver": ""}
    assert upward(modules) == [
        "flowprep/dataset/read.py:2 takes run_extract from flowprep/run/driver.py, which is above "
        "it: flowprep.run is above flowprep.dataset"
    ]
    assert (
        upward({"flowprep.run.driver": "import flowprep.flow.base", "flowprep.flow.base": ""}) == []
    )
    both = {
        "flowprep.look.a": "from flowprep.look import b",
        "flowprep.look.b": "from flowprep.look.a import x, y",
        "flowprep.look.c": "from flowprep.look.a import x",
    }
    assert circles(both) == [
        "flowprep/look/a.py:1 takes b from flowprep/look/b.py, which leads back to it",
        "flowprep/look/b.py:1 takes x, y from flowprep/look/a.py, which leads back to it",
    ]
