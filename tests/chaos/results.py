"""The results of many runs, one JSON line each, so that several calls add up to one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.events import EVENTS

__all__ = ["append", "done_seeds", "read", "table"]

Result = Mapping[str, Any]


def append(path: Path, result: Result) -> None:
    """Adds a run's result."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def read(path: Path) -> list[Result]:
    """Returns the last result of each seed, in the order of the seeds."""
    if not path.exists():
        return []
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [one for _, one in sorted({one["seed"]: one for one in results}.items())]


def done_seeds(path: Path, commit: str) -> set[int]:
    """Returns the seeds that this commit has a result of."""
    return {one["seed"] for one in read(path) if one["commit"] == commit}


def is_well(result: Result) -> bool:
    """Whether a run ended in the undisturbed bytes, and no sound video was ever blamed."""
    return not result["problem"] and not result["blamed"]


def table(results: Sequence[Result]) -> str:
    """Returns a Markdown table by kind of event; a run counts for each kind that it met."""
    lines = [
        "| event | runs | the undisturbed bytes | sound videos recorded as failed |",
        "|---|---|---|---|",
    ]
    for kind in EVENTS:
        met = [one for one in results if kind in one["events"]]
        if met:
            lines.append(_row(kind, met))
    lines.append(_row("all", results))
    return "\n".join(lines)


def _row(name: str, results: Sequence[Result]) -> str:
    num_equal = sum(not one["problem"] for one in results)
    num_blamed = sum(len(one["blamed"]) for one in results)
    return f"| {name} | {len(results)} | {num_equal} of {len(results)} | {num_blamed} |"
