"""Reads tables with a header that has any of the columns path, label, split, start, end and fps.

read_csv_list:  header -> COLUMNS -> a row -> its path, label, split and range -> place_entries
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from flowprep.errors import InputError
from flowprep.inputs.clips import Clip, names_of_clips
from flowprep.inputs.entries import Entry, Found, Request, check_split, comment_notes, first_of
from flowprep.inputs.listed import finder_of, integers_in, mixed_labels, place_entries, set_source
from flowprep.inputs.path_finder import PathFinder, join_path
from flowprep.inputs.text_files import Row, Table, read_table
from flowprep.inputs.tree import VIDEO_EXTENSIONS, extension_of
from flowprep.words import format_count

__all__ = ["COLUMNS", "SPLIT_NAMES", "columns_of", "parse_seconds", "read_csv_list"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "filepath", "file_path", "video_path", "clip_path", "file", "filename"),
        *(
            "file_name",
            "video_file",
            "video",
            "video_name",
            "clip",
            "clip_name",
            "video_id",
            "youtube_id",
            "id",
        ),
    ),
    "label": (
        *("label", "labels", "class", "class_name", "category", "action", "label_name", "target"),
        *("label_id", "class_id", "class_index", "class_idx"),
    ),
    "split": ("split", "subset", "set", "partition"),
    "start": (
        *("start", "start_seconds", "start_time", "time_start", "start_sec", "begin", "t_start"),
        "start_timestamp",
    ),
    "end": (
        *("end", "end_seconds", "end_time", "time_end", "end_sec", "stop", "t_end"),
        *("stop_seconds", "stop_time", "stop_timestamp", "end_timestamp"),
    ),
    "fps": ("fps", "frame_rate", "framerate"),
}
"""The possible names of each column. If a header has several of them, the first here counts."""

SPLIT_NAMES = {"validate": "val", "validation": "val", "valid": "val", "training": "train"} | {
    "testing": "test"
}
"""Alternative names of splits, with the usual name of each."""

_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]*)?)")


def columns_of(columns: Sequence[str]) -> dict[str, str]:
    """Returns which column of a header is the path, the label and so on."""
    there = set(columns)
    roles = {}
    for role, names in COLUMNS.items():
        if (name := next((name for name in names if name in there), None)) is not None:
            roles[role] = name
    return roles


def read_csv_list(path: str, request: Request) -> Found:
    """Finds the videos, or the ranges of videos, that the rows of a table name.

    Raises InputError for a header without a column of paths, and for a row that breaks a rule.
    """
    list_path, finder = finder_of(path, request)
    table = read_table(list_path)
    roles = columns_of(table.columns)
    if "path" not in roles:
        raise InputError(
            f"{list_path} has no column of paths: the header must name one of "
            f"{', '.join(COLUMNS['path'])} (and may name label, split, start, end, fps), got "
            f"{','.join(table.columns)[:200]!r}; rename the column, or give --format list for "
            f"'PATH LABEL' lines without a header"
        )
    notes = []
    if ignored := [name or "''" for name in table.columns if name not in roles.values()]:
        read = ", ".join(
            name if name == role else f"{name} as {role}" for role, name in roles.items()
        )
        word = "column" if len(ignored) == 1 else "columns"
        notes.append(
            f"{list_path}: read {read}; did not read the {word} "
            f"{first_of(ignored, 8)}; rename a column if it should be read"
        )
    entries = list(_entries(table, roles, finder, request, notes))
    if not entries:
        raise InputError(f"{list_path} names no video: write a row with a path for each video")
    if all(e.is_missing and extension_of(e.listed) not in VIDEO_EXTENSIONS for e in entries):
        raise InputError(
            f"no row of {list_path} names a video that exists: expected paths in the column "
            f"{roles['path']}, found {entries[0].listed[:200]!r} on {entries[0].origin}; name the "
            f"column of paths 'path', or give --root if the paths start from another folder"
        )

    def clip_names(names: Sequence[str]) -> list[str]:
        clips: list[Clip] = []
        where = []
        result = list(names)
        for number, (name, entry) in enumerate(zip(names, entries, strict=True)):
            if entry.start_seconds is not None:
                end = math.inf if entry.end_seconds is None else entry.end_seconds
                clips.append((name, entry.start_seconds, end))
                where.append(number)
        for number, name in zip(where, names_of_clips(clips, request.stored_ranges), strict=True):
            result[number] = name
        return result

    return place_entries(entries, finder, list_path, request, notes, clip_names)


def _entries(
    table: Table,
    roles: Mapping[str, str],
    finder: PathFinder,
    request: Request,
    notes: list[str],
) -> Iterator[Entry]:
    comments = list(table.comments)
    pathless: list[str] = []
    decimals: list[str] = []
    rates: set[float] = set()
    timed: list[str] = []
    numbered = named = ""
    for row in table.rows:
        origin = f"line {row.number} of {table.path}"
        listed = _cell(row, roles, "path")
        if not listed:
            kind_of_row = comments if row.text[0] == "#" else pathless
            kind_of_row.append(f"line {row.number}, {row.text!r}")
            continue
        entry = Entry(join_path(finder.base, listed), "", origin, listed=listed)
        kind, hit = finder.kind(entry.source), None
        if kind is None:
            hit = finder.find(listed, deep=listed[0] != "#" or "/" not in listed)
            if hit is not None:
                entry.source, kind = hit.source, hit.kind
        if row.text[0] == "#" and kind is None:
            comments.append(f"line {row.number}, {row.text!r}")
            continue
        set_source(entry, kind, hit, finder)
        label = _cell(row, roles, "label")
        if re.fullmatch(r"[0-9]+\.0+", label):  # pandas writes integers so if a cell is empty
            decimals.append(f"{origin}, {label}")
            label = label.partition(".")[0]
        if (numbers := integers_in(label)) is not None:
            entry.labels = numbers
            numbered = numbered or (f"{origin} has the number {label!r}" if label else "")
        else:
            _check_name(label, origin)
            entry.class_name = label
            named = named or f"{origin} has the name {label!r}"
        if numbered and named:
            raise mixed_labels(numbered, named)
        split = _cell(row, roles, "split")
        check_split(split, f"the split on {origin}")
        entry.split = SPLIT_NAMES.get(split, split) or None
        _set_range(entry, row, roles, origin)
        if (fps := _cell(row, roles, "fps")) and entry.is_folder:
            _check_rate(entry, fps, rates, request)
        elif fps and not entry.is_missing:
            timed.append(entry.listed)
        yield entry
    notes += comment_notes(comments, table.path)
    if pathless:
        notes.append(
            f"left out {format_count(len(pathless), 'row')} without a path; first: {pathless[0]}; "
            f"write the path into the column {roles['path']}"
        )
    if decimals:
        notes.append(
            f"read {format_count(len(decimals), 'label')} with a decimal point as integers; first: "
            f"{decimals[0]}; write integers"
        )
    if timed:
        notes.append(
            f"{table.path}: ignored the column fps for {format_count(len(timed), 'video')} with a "
            f"clock of their own; first: {timed[0]}; give --fps for another rate"
        )
    if rates and request.image_fps is None:
        notes.append(
            f"{table.path}: the frame rate of a folder of images is not taken from the column fps; "
            f"give --image-fps {max(rates):g} (image_fps={max(rates):g}) to have it"
        )


def _cell(row: Row, roles: Mapping[str, str], role: str) -> str:
    # A column without a name, such as the index that pandas writes, has no role.
    return row.get(roles[role]) if role in roles else ""


def _check_name(label: str, origin: str) -> None:
    try:
        float(label)
    except ValueError:
        return
    raise InputError(
        f"{origin}: labels must be integers >= 0 or names of classes, got {label!r}; leave the "
        "cell empty for a video without a label"
    )


def _set_range(entry: Entry, row: Row, roles: Mapping[str, str], origin: str) -> None:
    texts = [_cell(row, roles, role) for role in ("start", "end")]
    if texts == ["", ""]:
        return
    start = parse_seconds(texts[0]) if texts[0] else 0.0
    end = parse_seconds(texts[1]) if texts[1] else math.inf
    if start is None or end is None or not 0 <= start < end:
        raise InputError(
            f"{origin}: start and end must be seconds (12.5) or times (00:00:12.5) with "
            f"0 <= start < end, got start {texts[0]!r} and end {texts[1]!r}"
        )
    if (start, end) != (0.0, math.inf):
        entry.start_seconds = start
        entry.end_seconds = None if end == math.inf else end


def parse_seconds(text: str) -> float | None:
    """Returns the seconds of `12.5` or `00:00:12.5`, or None for any other text."""
    if match := _CLOCK.fullmatch(text):
        return int(match[1] or 0) * 3600 + int(match[2]) * 60 + float(match[3])
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _check_rate(entry: Entry, text: str, rates: set[float], request: Request) -> None:
    """Compares the column fps with the single frame rate of a run's image folders."""
    fps = parse_seconds(text)
    if fps is None or fps <= 0:
        raise InputError(f"{entry.origin}: fps must be a number > 0, got {text!r}")
    rates.add(fps)
    if len(rates) > 1 or request.image_fps not in (None, fps):
        other = request.image_fps if request.image_fps not in (None, fps) else min(rates - {fps})
        raise InputError(
            f"{entry.origin}: fps of the folder of images {entry.listed} is {fps:g}, but this run "
            f"uses {other:g} for all folders of images; extract the folders of each frame rate in "
            "a run of their own, with --image-fps"
        )
    if entry.start_seconds is not None and request.image_fps is None:
        raise InputError(
            f"{entry.origin} gives a range in seconds for the folder of images {entry.listed}, "
            f"which has no frame rate of its own; give --image-fps {fps:g} (image_fps={fps:g})"
        )
