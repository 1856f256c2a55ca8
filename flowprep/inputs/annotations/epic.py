"""EPIC-Kitchens (100 and 55): segments of long videos, with the number of their verb.

narration_id,participant_id,video_id,...,start_timestamp,stop_timestamp,...,verb,verb_class,...
"""

from __future__ import annotations

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import open_table
from flowprep.inputs.clips import names_of_clips
from flowprep.inputs.csv_lists import parse_seconds
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.keys import escape_key
from flowprep.inputs.listed import integers_in

__all__ = ["EPIC_COLUMNS", "read_epic"]

EPIC_COLUMNS = frozenset(["video_id", "start_timestamp", "stop_timestamp"])


def read_epic(path: str, request: Request) -> Found:
    """Finds the segments of EPIC-Kitchens' CSV. The label is verb_class; test lists have none.

    A key is the id of the narration (`P01_01_0`). EPIC-55 has a uid instead, and the key is then
    the id of the video and the uid.
    """
    header = "video_id,start_timestamp,stop_timestamp (and narration_id, verb_class)"
    table, search = open_table(path, request, EPIC_COLUMNS, "EPIC-Kitchens", header)
    if "verb_class" in table.columns:
        search.notes.append(
            f"labels are the column verb_class of {table.path}; write a CSV with the columns "
            f"path,label,start,end for nouns or actions"
        )
    clips, entries = [], []
    for row in table.rows:
        origin = f"line {row.number} of {table.path}"
        video_id = row.get("video_id")
        start = parse_seconds(row.get("start_timestamp"))
        end = parse_seconds(row.get("stop_timestamp"))
        labels = integers_in(row.get("verb_class"))
        if not video_id or start is None or end is None or not 0 <= start < end or labels is None:
            raise InputError(
                f"{origin} needs a video_id, times such as 00:00:03.37 with start_timestamp < "
                f"stop_timestamp, and an integer as verb_class, got {row.text[:200]!r}"
            )
        narration = row.get("narration_id")
        if not narration and row.get("uid"):
            narration = f"{video_id}_{row.get('uid')}"
        entry = Entry("", narration, origin, labels, listed=narration or video_id)
        names = [narration] if narration else []
        search.find_clip(entry, video_id, (start, end), names=names, is_shared=True)
        clips.append((video_id, start, end))
        entries.append(entry)
    for entry, name in zip(entries, names_of_clips(clips, request.stored_ranges), strict=True):
        entry.key = escape_key(entry.key or name)
    return search.finish(entries)
