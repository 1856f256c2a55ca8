"""The text of lists and annotations: encodings, line ends, lines and tables.

read_text -> read_lines            a line of a list
          -> read_table -> Table   a row of a CSV, by the columns that its header names
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flowprep.errors import InputError, StorageError
from flowprep.inputs.places import read_place

__all__ = ["Row", "Table", "column_name", "header_of", "read_lines", "read_table", "read_text"]

# UTF-32 comes first, because its little-endian mark begins with the mark of UTF-16.
_WIDE_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_DELIMITERS = (",", "\t", ";")


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each line that is not blank."""
    for number, line in enumerate(_unix_lines(read_text(path)).split("\n"), start=1):
        if text := line.strip(" \t\r"):
            yield number, text


def read_text(path: str) -> str:
    """Returns the text of a list in UTF-8. Other bytes become surrogates, as in `os.fsdecode`.

    Raises InputError for a file that cannot be read or that is not text in UTF-8.
    """
    try:
        data = read_place(path)
    except OSError as error:
        raise InputError(
            f"cannot read the list {path}: {error.strerror}; make it readable"
        ) from error
    except StorageError as error:
        if error.reason not in ("missing", "forbidden"):
            raise
        raise InputError(f"cannot read the list {path}: {error}; make it readable") from error
    for mark, encoding in _WIDE_ENCODINGS:
        if data.startswith(mark):
            raise InputError(
                f"{path} is text in {encoding}, but a list must be text in UTF-8; save it as "
                f"UTF-8: iconv -f {encoding} -t UTF-8 {path} > NEW"
            )
    if b"\0" in data:
        raise InputError(
            f"{path} is not text in UTF-8 (it has NUL bytes, like UTF-16 text and files that are "
            "not text); name a text file, or save it as UTF-8"
        )
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _unix_lines(text: str) -> str:
    # In files of old Macs, lines end with CR alone.
    return text.replace("\r", "\n") if "\r" in text and "\n" not in text else text


# ---- tables


def column_name(cell: str) -> str:
    """Returns the form of a column's name for comparison: `start_time` for `Start Time`."""
    return "_".join(cell.strip().lower().replace("-", " ").split())


def header_of(line: str) -> tuple[str, tuple[str, ...]]:
    """Returns the delimiter of a header and the names of its columns."""
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    return delimiter, tuple(map(column_name, cells))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    number: int
    """Number of the row's (last) line in the file."""
    cells: Mapping[str, str]
    """Stripped text by column name."""
    text: str

    def get(self, column: str) -> str:
        """Returns the text in a column, empty if there is no such column."""
        return self.cells.get(column, "")


@dataclass(frozen=True)
class Table:
    """A file with a header."""

    path: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    """Can be read once. Raises InputError for a row whose cells are not as many as the header's."""
    comments: list[str]
    """Lines above the header that begin with #, such as `line 1, '# mine'`."""


def read_table(path: str) -> Table:
    """Reads a CSV (commas, tabs or semicolons) with a header. Comments below the header are rows.

    Raises InputError for a file that cannot be read, and for a header that names a column twice.
    """
    text = _unix_lines(read_text(path))
    lines = io.StringIO(text, newline="")
    skipped = 0
    header = ""
    comments = []
    for header in lines:
        skipped += 1
        if header.startswith("#"):
            comments.append(f"line {skipped}, {header.strip()!r}")
        elif header.strip():
            break
    delimiter, columns = header_of(header.rstrip("\r\n"))
    for column in columns:
        if column and columns.count(column) > 1:
            raise InputError(
                f"line {skipped} of {path} names the column {column} twice; rename one of them"
            )
    return Table(path, columns, _rows(path, lines, skipped, delimiter, columns), comments)


def _rows(
    path: str, lines: io.StringIO, skipped: int, delimiter: str, columns: Sequence[str]
) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        for values in reader:
            number = skipped + reader.line_num
            if not any(map(str.strip, values)):
                continue
            while len(values) > len(columns) and not values[-1].strip():
                values.pop()
            is_comment = values[0].startswith("#")
            if len(values) != len(columns) and not is_comment:
                raise InputError(
                    f"line {number} of {path} has {len(values)} columns, but the header has "
                    f"{len(columns)} ({','.join(columns)[:200]}), got "
                    f"{delimiter.join(values)[:200]!r}; put text that holds {delimiter!r} in "
                    "double quotes"
                )
            cells = dict(zip(columns, map(str.strip, values), strict=False))
            yield Row(number, cells, delimiter.join(values))
    except csv.Error as error:
        raise InputError(
            f"line {skipped + reader.line_num} of {path} is not CSV: {error}; correct the line"
        ) from error
