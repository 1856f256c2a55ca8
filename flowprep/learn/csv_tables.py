"""Tables as CSV, for people who open them in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from flowprep.printable import one_line

__all__ = ["csv_text"]

_COMPUTED = ("=", "+", "-", "@")
"""Cells that begin so are formulas to a spreadsheet (OWASP, CSV injection); so are those that begin
with a tab or a CR, which is escaped."""


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as CSV with LF line ends.

    A text that a spreadsheet would compute, such as a class called `=1+1`, gets an apostrophe
    before it. Its control characters are escaped. Numbers stay as they are.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_COMPUTED) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()
