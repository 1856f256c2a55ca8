"""Charades: long videos that contain several actions, `c092 11.90 21.20;c147 0.00 12.60`.

By default each action is a clip; `charades="video"` makes one video with all its labels.
"""

from __future__ import annotations

import re
from collections import Counter

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import open_table
from flowprep.inputs.clips import names_of_clips, short_name
from flowprep.inputs.csv_lists import parse_seconds
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.keys import escape_key
from flowprep.words import format_count

__all__ = ["CHARADES_COLUMNS", "read_charades"]

CHARADES_COLUMNS = frozenset(["id", "actions"])

_NUM_CLASSES = 157
"""c000 to c156 (Charades_v1_classes.txt). Charades-Ego has the same classes."""
_CLASS_NAMES = tuple(f"c{number:03d}" for number in range(_NUM_CLASSES))
_ACTION = re.compile(r"c([0-9]{3})\s+([0-9]+\.?[0-9]*)\s+([0-9]+\.?[0-9]*)")


def read_charades(path: str, request: Request) -> Found:
    """Finds the videos of Charades' CSV. Labels are the numbers of its classes: 92 for c092."""
    table, search = open_table(path, request, CHARADES_COLUMNS, "Charades", "id and actions")
    entries: list[Entry] = []
    clips: list[tuple[str, int, float, float, str]] = []
    idle: list[str] = []
    empty: list[str] = []
    for row in table.rows:
        origin = f"line {row.number} of {table.path}"
        video_id = row.get("id")
        if not video_id:
            raise InputError(f"{origin} needs an id, got {row.text!r}")
        actions = [_action(text, origin) for text in row.get("actions").split(";") if text.strip()]
        if request.charades == "video":
            labels = tuple(sorted({action[0] for action in actions}))
            entry = Entry("", escape_key(video_id), origin, labels, listed=video_id)
            search.find(entry, video_id)
            entries.append(entry)
            continue
        if not actions:
            idle.append(video_id)
        for label, start, end in actions:
            if start < end:
                clips.append((video_id, label, start, end, origin))
            else:
                empty.append(f"c{label:03d} {start:g} {end:g} of {video_id}")
    names = names_of_clips(
        [(f"c{label:03d}/{v}", s, e) for v, label, s, e, _ in clips], request.stored_ranges
    )
    times = Counter(short_name(*clip) for clip in {(v, s, e) for v, _, s, e, _ in clips})
    for (video_id, label, start, end, origin), name in zip(clips, names, strict=True):
        short = short_name(video_id, start, end)
        entry = Entry("", escape_key(name), origin, (label,), listed=short, may_repeat=True)
        search.find_clip(entry, video_id, (start, end), is_shared=times[short] > 1)
        entries.append(entry)
    if idle:
        search.notes.append(
            f"left out {format_count(len(idle), 'video')} without an action; first: {idle[0]}; "
            "give --charades video to use them too"
        )
    search.note_empty("action", empty)
    return search.finish(entries, _CLASS_NAMES)


def _action(text: str, origin: str) -> tuple[int, float, float]:
    match = _ACTION.fullmatch(text.strip())
    label, start, end = -1, 0.0, 0.0
    if match is not None:
        label = int(match[1])
        start, end = parse_seconds(match[2]) or 0.0, parse_seconds(match[3]) or 0.0
    if not 0 <= label < _NUM_CLASSES:
        raise InputError(
            f"{origin}: an action must be a class from c000 to c{_NUM_CLASSES - 1} with begin and "
            f"end in seconds, such as 'c092 11.90 21.20', got {text!r}"
        )
    return label, start, end
