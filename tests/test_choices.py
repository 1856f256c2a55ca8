"""Each list of choices stands once: a `Literal`, whose values everything else takes from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import flowprep

PACKAGE = Path(flowprep.__file__).parent

Choices = frozenset[str]

# What is something else where it is no choice: columns, axes, an order.
_COMMON = frozenset(map(frozenset, (("x", "y"), ("flow", "rgb"), ("flow", "rgb", "both"))))


def literals(tree: ast.AST) -> Iterator[ast.Subscript]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal":
            yield node


def texts(nodes: list[ast.expr]) -> Choices:
    return frozenset(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def choices_of(tree: ast.AST) -> Iterator[tuple[Choices, int]]:
    for node in literals(tree):
        values = texts(node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])
        if len(values) > 1:
            yield values, node.lineno


def repeated(sources: dict[str, str]) -> list[str]:
    """Returns the places of what repeats the values of a Literal of these modules."""
    trees = {place: ast.parse(source) for place, source in sources.items()}
    known: dict[Choices, str] = {}
    found = []
    for place, tree in trees.items():
        for values, line in choices_of(tree):
            if values in known:
                found.append(f"{place}:{line} is {known[values]} again")
            known.setdefault(values, f"{place}:{line}")
    named = {values: where for values, where in known.items() if values not in _COMMON}
    for place, tree in trees.items():
        own = {id(part) for node in literals(tree) for part in ast.walk(node)}
        for node in ast.walk(tree):
            if id(node) in own:
                continue
            # The keys of a dict say what each choice is; that is no list of them.
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                values = texts(node.elts)
                if len(values) == len(node.elts) and values in named:
                    found.append(f"{place}:{node.lineno} repeats {named[values]}")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += [
                    f"{place}:{node.lineno} says {values}"
                    for values in listed(node.value)
                    if frozenset(values) in named
                ]
    return found


def listed(text: str) -> Iterator[list[str]]:
    """Yields all that three or more words in a row may list: `a, b or c`, `a|b|c`."""
    for part in re.findall(r"[\w-]+(?:(?:, or |, | or |\|)[\w-]+)+", text):
        words = re.split(r", or |, | or |\|", part)
        for begin in range(len(words)):
            for end in range(begin + 3, len(words) + 1):
                yield words[begin:end]


def test_no_list_of_choices_is_repeated() -> None:
    sources = {
        str(path.relative_to(PACKAGE.parent)): path.read_text() for path in PACKAGE.rglob("*.py")
    }
    assert sum(1 for source in sources.values() for _ in choices_of(ast.parse(source))) > 30
    found = repeated(sources)
    assert not found, "\n".join(found)


def test_what_repeats_choices_is_found() -> None:
    sources = {
        "a.py": 'Way = Literal["up", "down", "left"]\n',
        "b.py": 'def go(way: Literal["left", "up", "down"]) -> None: ...\n',
        "c.py": 'Choice(("down", "up", "left"))\nnames = {"up": 1, "down": 2, "left": 3}\n',
        "d.py": 'raise ConfigError(f"way must be up, down or left, got {way}")\nx = "up|down"\n',
    }
    assert repeated(sources) == [
        "b.py:1 is a.py:1 again",
        "c.py:1 repeats a.py:1",
        "d.py:1 says ['up', 'down', 'left']",
    ]
