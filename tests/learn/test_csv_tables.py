"""CSV: a spreadsheet computes no cell, and a reader of CSV gets the values back."""

from __future__ import annotations

import ast
import csv
import io

import numpy as np
import pytest

from flowprep.learn.confusion import confusion_csv
from flowprep.learn.csv_tables import csv_text
from tests.source_code import sources


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('=HYPERLINK("http://evil")', '\'=HYPERLINK("http://evil")'),
        ("+1+1", "'+1+1"),
        ("-walk", "'-walk"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "\\t=1"),
        ("\r=1\n", "\\r=1\\n"),
        ("-0.125", "-0.125"),
        ("+1e-05", "+1e-05"),
        (-3, "-3"),
        ("walk, then =run", "walk, then =run"),
        ("'=1", "'=1"),
        ("", ""),
    ],
)
def test_cells_that_a_spreadsheet_would_compute_are_text(value: object, cell: str) -> None:
    text = csv_text([("a", value), ("b", "c")])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["a", cell], ["b", "c"]]
    # Written once more, as metrics.csv is when a training goes on, they stay as they are.
    assert csv_text(rows) == text


def test_classes_in_a_confusion_are_text() -> None:
    text = confusion_csv(np.array([[1, 0], [0, 2]]), ("=cmd|'/c calc'!A1", "run"))
    assert text.splitlines() == [
        "label,'=cmd|'/c calc'!A1,run",
        "'=cmd|'/c calc'!A1,1,0",
        "run,0,2",
    ]


def test_csv_is_written_in_one_place() -> None:
    writers = {
        path
        for path, source in sources(".py").items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("csv.writer", "csv.DictWriter")
    }
    assert writers == {"learn/csv_tables.py"}
