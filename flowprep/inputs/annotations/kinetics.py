"""Kinetics: clips of YouTube's videos, as CSV (400, 600, 700, 700-2020, CVDF's) or JSON.

label,youtube_id,time_start,time_end,split     label and split are optional; other columns may exist
{ID: {"annotations": {"label": ..., "segment": [START, END]}, "subset": ...}}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import Search, file_and_videos
from flowprep.inputs.clips import names_of_clips, short_name
from flowprep.inputs.csv_lists import SPLIT_NAMES
from flowprep.inputs.entries import Entry, Found, Request, check_split, comment_notes
from flowprep.inputs.json_files import read_json
from flowprep.inputs.keys import escape_key
from flowprep.inputs.text_files import read_table
from flowprep.inputs.tree import Tree

__all__ = [
    "KINETICS_COLUMNS",
    "KineticsClip",
    "entries_of_clips",
    "kinetics_clips",
    "read_kinetics",
    "search_for_clips",
]

KINETICS_COLUMNS = frozenset(["youtube_id", "time_start", "time_end"])
"""The columns that the header has in every edition."""


@dataclass(frozen=True, slots=True)
class KineticsClip:
    """A clip that a list names."""

    video_id: str
    start: float
    end: float
    label: str
    split: str
    """As in the list. Label and split are empty if the list has none."""
    origin: str
    """`line 3 of LIST`."""


def read_kinetics(path: str, request: Request) -> Found:
    """Finds the clips of a list: trimmed files by id and times, or ranges of whole videos by id.

    If the request has annotations, `path` is the folder of the videos. Otherwise it is the list.
    """
    list_path, tree = file_and_videos(path, request)
    clips, notes = kinetics_clips(list_path)
    search, class_names = search_for_clips(clips, list_path, tree, request)
    search.notes += notes
    return search.finish(entries_of_clips(clips, search, request), class_names)


def search_for_clips(
    clips: Sequence[KineticsClip], list_path: str, tree: Tree, request: Request
) -> tuple[Search, list[str]]:
    """Returns what finds the videos of clips, and the sorted names of their classes."""
    class_names = sorted({clip.label for clip in clips if clip.label})
    folder_names = [*class_names, *(name.replace(" ", "_") for name in class_names)]
    return Search(tree, list_path, request, folder_names), class_names


def entries_of_clips(
    clips: Sequence[KineticsClip], search: Search, request: Request, file_prefix: str = ""
) -> list[Entry]:
    """Returns an entry with the key `CLASS/ID_SECONDS_SECONDS` for each clip.

    `file_prefix` may stand before the id in the name of the file of the whole video.
    """
    prefixes = [
        f"{clip.label.replace('/', '_')}/{clip.video_id}" if clip.label else clip.video_id
        for clip in clips
    ]
    names = names_of_clips(
        [(name, clip.start, clip.end) for name, clip in zip(prefixes, clips, strict=True)],
        request.stored_ranges,
    )
    shorts = [short_name(clip.video_id, clip.start, clip.end) for clip in clips]
    ranges = {(short, c.start, c.end) for short, c in zip(shorts, clips, strict=True)}
    num_ranges = Counter(short for short, _, _ in ranges)
    entries = []
    for clip, name, short in zip(clips, names, shorts, strict=True):
        split = SPLIT_NAMES.get(clip.split, clip.split)
        entry = Entry(
            "",
            escape_key(name),
            clip.origin,
            class_name=clip.label or None,
            split=split or None,
            listed=short,
        )
        folders = (clip.label, clip.label.replace(" ", "_"), clip.split, split)
        times = (clip.start, clip.end)
        is_shared = num_ranges[short] > 1
        video = clip.video_id
        if file_prefix and search.knows(file_prefix + video):
            video = file_prefix + video
        search.find_clip(entry, video, times, folders, short=short, is_shared=is_shared)
        entries.append(entry)
    return entries


def kinetics_clips(path: str) -> tuple[list[KineticsClip], list[str]]:
    """Returns the clips of a CSV or JSON file, and notes. Raises InputError for any other form."""
    notes: list[str] = []
    is_json = path.lower().endswith(".json")
    return list(_of_json(path) if is_json else _of_table(path, notes)), notes


def _of_table(path: str, notes: list[str]) -> Iterator[KineticsClip]:
    table = read_table(path)
    if not set(table.columns) >= KINETICS_COLUMNS:
        raise InputError(
            f"{path} is not a Kinetics CSV: its first line must name the columns "
            "label,youtube_id,time_start,time_end,split (label and split are optional), got "
            f"{','.join(table.columns)[:200]!r}; give --format csv for a table with a column path"
        )
    comments = list(table.comments)
    for row in table.rows:
        origin = f"line {row.number} of {path}"
        try:
            start, end = float(row.get("time_start")), float(row.get("time_end"))
        except ValueError:
            if row.text[0] == "#":
                comments.append(f"line {row.number}, {row.text!r}")
                continue
            start = end = math.nan
        video_id = row.get("youtube_id")
        if not video_id or not 0 <= start < end < math.inf:
            raise InputError(
                f"{origin} needs a youtube_id and times in seconds with 0 <= time_start < "
                f"time_end, got {row.text!r}"
            )
        split = row.get("split")
        check_split(split, f"the split on {origin}")
        yield KineticsClip(video_id, start, end, row.get("label"), split, origin)
    notes += comment_notes(comments, path)


def _of_json(path: str) -> Iterator[KineticsClip]:
    for video_id, clip in _items(read_json(path), path):
        origin = f"{video_id} in {path}"
        fields = clip if isinstance(clip, dict) else {}
        annotations = fields.get("annotations", fields)
        if not isinstance(annotations, dict):
            annotations = {}
        segment = annotations.get("segment")
        times = segment if isinstance(segment, list) else []
        is_range = len(times) == 2 and all(type(time) in (int, float) for time in times)
        if not is_range or not 0 <= times[0] < times[1] < math.inf:
            raise InputError(
                f"{origin} needs annotations with a segment [START, END] in seconds, with "
                f"0 <= START < END, got {str(clip)[:200]}"
            )
        label, split = annotations.get("label", ""), fields.get("subset", "")
        if not isinstance(label, str) or not isinstance(split, str):
            raise InputError(f"{origin}: label and subset must be text, got {label!r}, {split!r}")
        start, end = map(float, times)
        yield KineticsClip(video_id, start, end, label, "" if split == "None" else split, origin)


def _items(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a Kinetics JSON: it must be an object {{ID: CLIP}}")
    yield from value.items()
