"""The Python code that the pages of `flowprep report` and `flowprep browse` share.

page.css, page.js and table.js are the other half: colors, and the table that shows these columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from flowprep.look.findings.kinds import KINDS, Severity

__all__ = [
    "SEVERITIES",
    "findings_column",
    "key_column",
    "name_column",
    "number_column",
    "page_file",
]

SEVERITIES: dict[Severity, str] = {
    "fault": "✕ Fault",
    "suspicion": "▲ Suspicion",
    "note": "● Note",
}
"""The mark and the word of each severity."""


def page_file(name: str) -> str:
    """Returns the text of a file of flowprep/look, such as `web/page.css`."""
    return resources.files("flowprep.look").joinpath(name).read_text(encoding="utf-8")


def key_column(values: Sequence[str], width: str) -> dict[str, Any]:
    """Returns the column of keys."""
    return {"title": "Key", "kind": "key", "width": width, "values": list(values)}


def findings_column(values: Sequence[int], width: str) -> dict[str, Any]:
    """Returns the column of findings. Bit n of a value stands for the n-th of `KINDS`."""
    return {
        "title": "Findings",
        "kind": "set",
        "width": width,
        "names": [words.title for words in KINDS.values()],
        "values": list(values),
    }


def name_column(title: str, values: Sequence[str], width: str) -> dict[str, Any]:
    """Returns a column of names with few different values."""
    places: Mapping[str, int] = {value: n for n, value in enumerate(sorted(set(values)))}
    return {
        "title": title,
        "kind": "name",
        "names": list(places),
        "width": width,
        "values": [places[value] for value in values],
    }


def number_column(
    title: str, values: Iterable[float | None], digits: int, width: str
) -> dict[str, Any]:
    """Returns a column of numbers, rounded to `digits` digits. None gives an empty cell."""
    rounded = [None if v is None else round(v, digits) for v in values]
    if digits == 0:
        rounded = [None if v is None else int(v) for v in rounded]
    return {"title": title, "kind": "number", "digits": digits, "width": width, "values": rounded}
