"""AVA: people's actions around single seconds of films; usually without a header.

VIDEO_ID,SECOND,X1,Y1,X2,Y2,ACTION,PERSON
VIDEO_ID,SECOND              in ava_train_excluded_timestamps_v2.2.csv, beside ava_train_v2.2.csv
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator

from flowprep.errors import InputError
from flowprep.inputs.annotations.beside import file_beside
from flowprep.inputs.annotations.search import Search, file_and_videos
from flowprep.inputs.clips import names_of_clips
from flowprep.inputs.csv_lists import parse_seconds
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.keys import escape_key
from flowprep.inputs.text_files import read_text
from flowprep.words import format_count

__all__ = ["AVA_COLUMNS", "is_ava_line", "read_ava"]

AVA_COLUMNS = frozenset(["video_id", "action_id"])
"""The columns that a header has in the copies that have one."""

_HALF_CLIP_SECONDS = 1.5
"""A key frame represents the three seconds around the frame (AVA, section 3.1: annotations at 1 Hz
in clips of 3 s)."""

_BOX = r"(?:[01](?:\.[0-9]*)?)?"
_LINE = re.compile(rf"[^,]+,[0-9]+(?:\.[0-9]+)?(?:,{_BOX}){{4}},[0-9]*(?:,[0-9.]*)*")
_VERSION = re.compile(r"(ava_[a-z]+)(_v[0-9.]+\.csv)")


def is_ava_line(line: str) -> bool:
    """Whether a line has the form of AVA: an id, a second, a box, an action."""
    return _LINE.fullmatch(line) is not None


def read_ava(path: str, request: Request) -> Found:
    """Finds a clip of three seconds for each key frame, with the actions of all its people.

    Labels are the numbers of the actions, from 1 to 80. A second without an action has no label.
    The seconds that AVA's file of excluded timestamps names, if it is beside the list, are left
    out.
    """
    csv_path, tree = file_and_videos(path, request)
    moments: dict[tuple[str, float], tuple[str, dict[int, None]]] = {}
    for origin, video_id, second, cells in _rows(csv_path, "X1,Y1,X2,Y2,ACTION,PERSON"):
        action = cells[6] if len(cells) > 6 else ""
        if action and not (action.isascii() and action.isdigit()):
            raise InputError(
                f"{origin} must have the number of an action in the seventh column, or nothing, "
                f"got {action!r}"
            )
        _, actions = moments.setdefault((video_id, second), (origin, {}))
        if action:
            actions[int(action)] = None
    notes = _leave_out_excluded(moments, csv_path)
    clips = [
        (video_id, max(0.0, second - _HALF_CLIP_SECONDS), second + _HALF_CLIP_SECONDS)
        for video_id, second in moments
    ]
    search = Search(tree, csv_path, request)
    search.notes += notes
    entries = []
    names = names_of_clips(clips, request.stored_ranges)
    for (video_id, start, end), name, (origin, actions) in zip(
        clips, names, moments.values(), strict=True
    ):
        entry = Entry("", escape_key(name), origin, tuple(sorted(actions)), listed=name)
        search.find_clip(entry, video_id, (start, end))
        entries.append(entry)
    return search.finish(entries)


def _rows(path: str, columns: str) -> Iterator[tuple[str, str, float, list[str]]]:
    """Yields place, video, second and all cells of each row, without the header."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    is_first = True
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            origin = f"line {reader.line_num} of {path}"
            if is_first and cells[0] == "video_id":
                continue
            is_first = False
            second = parse_seconds(cells[1]) if len(cells) > 1 else None
            if not cells[0] or second is None or second < 0:
                raise InputError(
                    f"{origin} must be VIDEO_ID,SECOND{',' if columns else ''}{columns} as AVA "
                    f"has it, got {','.join(values)[:200]!r}"
                )
            yield origin, cells[0], second, cells
    except csv.Error as error:
        raise InputError(
            f"line {reader.line_num} of {path} is not CSV: {error}; correct the line"
        ) from error


def _leave_out_excluded(
    moments: dict[tuple[str, float], tuple[str, dict[int, None]]], csv_path: str
) -> list[str]:
    match = _VERSION.fullmatch(os.path.basename(csv_path))
    path = file_beside(csv_path, [f"{match[1]}_excluded_timestamps{match[2]}"]) if match else None
    if path is None:
        return []
    excluded = [(video_id, second) for _, video_id, second, _ in _rows(path, "")]
    number = sum(moments.pop(moment, None) is not None for moment in excluded)
    if not number:
        return []
    return [
        f"left out {format_count(number, 'second')} that {path} excludes; move it away to use them"
    ]
