"""EPIC-Kitchens (100 and 55): segments of long videos, with the number of their verb.

narration_id,participant_id,video_id,...,start_timestamp,stop_timestamp,...,verb,verb_class,...
"""

from __future__ import annotations

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import Search, file_and_videos
from flowprep.inputs.clips import names_of_clips
from flowprep.inputs.csv_lists import parse_seconds
from flowprep.inputs.entries import Entry, Found, Request, comments_note
from flowprep.inputs.keys import escape_key
from flowprep.inputs.lists import integers_in
from flowprep.inputs.text_files import read_table

__all__ = ["EPIC_COLUMNS", "read_epic"]

EPIC_COLUMNS = frozenset(["video_id", "start_timestamp", "stop_timestamp"])


def read_epic(path: str, request: Request) -> Found:
    """Finds the segments of EPIC-Kitchens' CSV; the label is verb_class, which tests lack.

    A key is the narration's id (`P01_01_0`), which EPIC-55 has as a uid of its own.
    """
    csv_path, tree = file_and_videos(path, request)
    table = read_table(csv_path)
    if not set(table.columns) >= EPIC_COLUMNS:
        raise InputError(
            f"{csv_path} is no CSV of EPIC-Kitchens: its first line must name the columns "
            f"video_id,start_timestamp,stop_timestamp (and narration_id, verb_class), got "
            f"{','.join(table.columns)[:200]!r}; give --format csv for a table with a column path"
        )
    search = Search(tree, csv_path, request)
    if table.comments:
        search.notes.append(comments_note(table.comments, csv_path))
    if "verb_class" in table.columns:
        search.notes.append(
            f"labels are the column verb_class of {csv_path}; write a CSV with the columns "
            f"path,label,start,end for nouns or actions"
        )
    clips, entries = [], []
    for row in table.rows:
        origin = f"line {row.number} of {csv_path}"
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
