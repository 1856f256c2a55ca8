"""Recognizes the kind of a list by the first lines of its file."""

from __future__ import annotations

from flowprep.errors import InputError
from flowprep.inputs.annotations.ava import AVA_COLUMNS, is_ava_line
from flowprep.inputs.annotations.charades import CHARADES_COLUMNS
from flowprep.inputs.annotations.epic import EPIC_COLUMNS
from flowprep.inputs.annotations.kinetics import KINETICS_COLUMNS
from flowprep.inputs.csv_lists import columns_of
from flowprep.inputs.json_files import read_json
from flowprep.inputs.text_files import header_of, read_lines
from flowprep.inputs.tree import VIDEO_EXTENSIONS, extension_of

__all__ = ["LIST_EXTENSIONS", "format_of_list"]

LIST_EXTENSIONS = frozenset([".csv", ".json", ".list", ".lst", ".tsv", ".txt"])
"""The extensions of lists. A file with any other unknown extension counts as a video."""

_BY_COLUMNS = {
    "kinetics": KINETICS_COLUMNS,
    "charades": CHARADES_COLUMNS,
    "epic": EPIC_COLUMNS,
    "ava": AVA_COLUMNS,
}
"""The columns that the header of each format has at least."""


def format_of_list(path: str) -> str:
    """Returns the name of a list's format: `list` if the list has no known header.

    Raises InputError for JSON of an unknown form.
    """
    if extension_of(path) == ".json":
        return _format_of_json(path)
    first = next((text for _, text in read_lines(path) if text[0] != "#"), "")
    delimiter, columns = header_of(first)
    for name, wanted in _BY_COLUMNS.items():
        if wanted <= set(columns):
            return name
    is_header = "path" in columns_of(columns) and not any(map(_is_value, columns))
    if is_header and (delimiter in first or extension_of(path) in (".csv", ".tsv")):
        return "csv"
    return "ava" if is_ava_line(first) else "list"


def _is_value(cell: str) -> bool:
    return cell.isdigit() or "/" in cell or extension_of(cell) in VIDEO_EXTENSIONS


def _format_of_json(path: str) -> str:
    value = read_json(path)
    if isinstance(value, list):
        return "something"
    if isinstance(value, dict):
        if isinstance(value.get("database"), dict):
            return "activitynet"
        is_kinetics = any(isinstance(item, dict) for item in value.values())
        return "kinetics" if is_kinetics else "something"
    raise InputError(
        f"{path} is not a JSON list that flowprep reads: expected Something-Something's list of "
        f"objects, or the object of clips of Kinetics or ActivityNet, got {str(value)[:100]}; "
        "write a CSV with the columns path,label"
    )
