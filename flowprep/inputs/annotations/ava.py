"""AVA: people's actions around single seconds of films; no header.

VIDEO_ID,SECOND,X1,Y1,X2,Y2,ACTION,PERSON
"""

from __future__ import annotations

import csv
import io
import re

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import Search, file_and_videos
from flowprep.inputs.clips import names_of_clips
from flowprep.inputs.csv_lists import parse_seconds
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.keys import escape_key
from flowprep.inputs.text_files import read_text

__all__ = ["is_ava_line", "read_ava"]

_HALF_CLIP_SECONDS = 1.5
"""A key frame represents the three seconds around the frame (AVA, section 3.1: annotations at 1 Hz
in clips of 3 s)."""

_BOX = r"(?:[01](?:\.[0-9]*)?)?"
_LINE = re.compile(rf"[^,]+,[0-9]+(?:\.[0-9]+)?(?:,{_BOX}){{4}},[0-9]*(?:,[0-9.]*)*")


def is_ava_line(line: str) -> bool:
    """Whether a line has the form of AVA: an id, a second, a box, an action."""
    return _LINE.fullmatch(line) is not None


def read_ava(path: str, request: Request) -> Found:
    """Finds a clip of three seconds for each key frame, with the actions of all its people.

    Labels are the numbers of the actions, from 1 to 80.
    """
    csv_path, tree = file_and_videos(path, request)
    reader = csv.reader(io.StringIO(read_text(csv_path), newline=""))
    moments: dict[tuple[str, float], tuple[str, dict[int, None]]] = {}
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            origin = f"line {reader.line_num} of {csv_path}"
            if not moments and cells[0] == "video_id":
                continue
            second = parse_seconds(cells[1]) if len(cells) > 1 else None
            action = cells[6] if len(cells) > 6 else ""
            is_action = action == "" or (action.isascii() and action.isdigit())
            if not cells[0] or second is None or second < 0 or not is_action:
                raise InputError(
                    f"{origin} must be VIDEO_ID,SECOND,X1,Y1,X2,Y2,ACTION,PERSON as AVA has it, "
                    f"got {','.join(values)[:200]!r}"
                )
            _, actions = moments.setdefault((cells[0], second), (origin, {}))
            if action:
                actions[int(action)] = None
    except csv.Error as error:
        raise InputError(
            f"line {reader.line_num} of {csv_path} is not CSV: {error}; correct the line"
        ) from error
    clips = [
        (video_id, max(0.0, second - _HALF_CLIP_SECONDS), second + _HALF_CLIP_SECONDS)
        for video_id, second in moments
    ]
    search = Search(tree, csv_path, request)
    entries = []
    names = names_of_clips(clips, request.stored_ranges)
    for (video_id, start, end), name, (origin, actions) in zip(
        clips, names, moments.values(), strict=True
    ):
        entry = Entry("", escape_key(name), origin, tuple(sorted(actions)), listed=name)
        search.find_clip(entry, video_id, (start, end))
        entries.append(entry)
    return search.finish(entries)
