"""Damage to JSON that still is JSON: other values, keys and depths."""

from __future__ import annotations

import copy
import json
import math
import re
from typing import Any

import numpy as np

from tests.fuzzing.mutations import number_below

__all__ = ["change_json", "change_lines"]

_DEEP = "@deep@"
_DEPTH = 100_000
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1 << 31, 1 << 63, -(1 << 63), 10**30, 10**400),
    *(0.5, -0.5, 1e308, -1e308, math.nan, math.inf, -math.inf),
    *(
        "",
        "x",
        "7",
        "../../x",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        "\udc80",
        "é" * 500,
        "\n\t\x1b[31m",
    ),
    *([], {}, [[]], [None], ["x"], {"a": 1}, [0] * 500, [1, 2], {"": {}}, _DEEP),
)


def change_json(random: np.random.Generator, text: bytes) -> bytes:
    """Returns JSON with one to three of its values, keys or places changed."""
    values = json.loads(text)
    for _ in range(1 + number_below(random, 3)):
        values = _changed(random, values)
    indent = 2 if b"\n  " in text else None
    separators = (",", ": ") if b'": ' in text else (",", ":")
    changed = json.dumps(values, indent=indent, separators=separators)
    if random.random() < 0.1:
        changed = _doubled_key(random, changed)
    deep = "[" * _DEPTH + "]" * _DEPTH
    return changed.replace(f'"{_DEEP}"', deep).encode() + b"\n"


def change_lines(random: np.random.Generator, text: bytes) -> bytes:
    """Returns lines of JSON of which one is changed, or lacks, or stands elsewhere, or twice."""
    lines = text.splitlines(keepends=True)
    at = number_below(random, len(lines))
    kind = number_below(random, 6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(number_below(random, len(lines) + 1), lines[at])
    elif kind == 2:
        lines.insert(number_below(random, len(lines)), lines.pop(at))
    else:
        lines[at] = change_json(random, lines[at])
    return b"".join(lines)


def _changed(random: np.random.Generator, values: Any) -> Any:
    places = list(_places(values, ()))
    path = places[number_below(random, len(places))]
    if not path:
        return copy.deepcopy(VALUES[number_below(random, len(VALUES))])
    holder = values
    for step in path[:-1]:
        holder = holder[step]
    step = path[-1]
    old = holder[step]
    kind = number_below(random, 10)
    if kind == 0:
        del holder[step]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{step}x"] = holder.pop(step)
    elif kind == 2 and isinstance(holder, list):
        holder.insert(number_below(random, len(holder) + 1), old)
    elif kind <= 3:
        others = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        other = others[number_below(random, len(others))]
        holder[step], holder[other] = holder[other], holder[step]
    elif kind <= 6 and type(old) in (int, float):
        holder[step] = (old + 1, old - 1, 2 * old, -old, old + 0.5, float(old))[
            number_below(random, 6)
        ]
    elif kind <= 6 and isinstance(old, str) and old:
        at = number_below(random, len(old))
        holder[step] = old[:at] + chr(32 + number_below(random, 95)) + old[at + 1 :]
    else:
        # A copy: what is done to it later must not be in the next case.
        holder[step] = copy.deepcopy(VALUES[number_below(random, len(VALUES))])
    return values


def _places(values: Any, path: tuple[Any, ...]) -> Any:
    yield path
    if isinstance(values, dict):
        for name in values:
            yield from _places(values[name], (*path, name))
    elif isinstance(values, list):
        for number in range(len(values)):
            yield from _places(values[number], (*path, number))


def _doubled_key(random: np.random.Generator, text: str) -> str:
    """JSON allows a key twice; Python takes the last one, others the first."""
    keys = list(re.finditer(r'"[a-z_0-9]+": ?(?:-?[0-9.]+|"[^"\\]*")(?=[,}\n])', text))
    if not keys:
        return text
    match = keys[number_below(random, len(keys))]
    name = match[0].partition(":")[0]
    return f"{text[: match.end()]}, {name}: 3{text[match.end() :]}"
