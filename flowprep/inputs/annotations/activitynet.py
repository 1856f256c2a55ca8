"""ActivityNet (1.2, 1.3): segments of long videos in JSON. HACS and others have the same form.

{"database": {ID: {"subset": "training", "annotations": [{"label": ..., "segment": [0.5, 9.5]}]}},
 "taxonomy": [...], "version": "VERSION 1.3"}
"""

from __future__ import annotations

import math
from typing import Any

from flowprep.errors import InputError
from flowprep.inputs.annotations.kinetics import KineticsClip, entries_of_clips, search_for_clips
from flowprep.inputs.annotations.search import file_and_videos
from flowprep.inputs.entries import Found, Request, check_split
from flowprep.inputs.json_files import read_json
from flowprep.words import format_count

__all__ = ["read_activitynet"]

_FILE_PREFIX = "v_"
"""The published videos are called v_ID.mp4, copies from YouTube ID.mp4."""


def read_activitynet(path: str, request: Request) -> Found:
    """Finds a clip for each segment, with its class and the subset of its video as split.

    The annotation gives classes no numbers, so they are numbered in sorted order. Videos without a
    segment, such as those of the test set, are left out with a note.
    """
    json_path, tree = file_and_videos(path, request)
    value = read_json(json_path)
    database = value.get("database") if isinstance(value, dict) else None
    if not isinstance(database, dict):
        raise InputError(
            f"{json_path} is not a JSON of ActivityNet: it must be an object with a database "
            f"{{ID: VIDEO}}, got {str(value)[:100]}; give --format kinetics for Kinetics' JSON"
        )
    clips: list[KineticsClip] = []
    idle: list[str] = []
    empty: list[str] = []
    for video_id, video in database.items():
        segments = _segments(video_id, video, json_path)
        if not segments:
            idle.append(video_id)
        for clip in segments:
            if clip.start < clip.end:
                clips.append(clip)
            else:
                empty.append(f"{clip.label} of {video_id}, {clip.start:g} to {clip.end:g} s")
    search, class_names = search_for_clips(clips, json_path, tree, request)
    if idle:
        search.notes.append(
            f"left out {format_count(len(idle), 'video')} without a segment; first: {idle[0]}; "
            "name their folder without annotations to extract whole videos"
        )
    search.note_empty("segment", empty)
    search.note_order(class_names, "a CSV with numbers as labels")
    entries = entries_of_clips(clips, search, request, _FILE_PREFIX)
    return search.finish(entries, class_names)


def _segments(video_id: str, video: Any, path: str) -> list[KineticsClip]:
    origin = f"{video_id} in {path}"
    fields = video if isinstance(video, dict) else {}
    annotations, split = fields.get("annotations", []), fields.get("subset", "")
    if not isinstance(annotations, list) or not isinstance(split, str):
        raise InputError(
            f"{origin} needs a subset (text) and annotations (a list of objects with label and "
            f"segment), got {str(video)[:200]}"
        )
    check_split(split, f"the subset of {origin}")
    clips = []
    for one in annotations:
        annotation = one if isinstance(one, dict) else {}
        label, segment = annotation.get("label"), annotation.get("segment")
        times = segment if isinstance(segment, list) else []
        if (
            not isinstance(label, str)
            or not label
            or len(times) != 2
            or not all(type(time) in (int, float) and 0 <= time < math.inf for time in times)
        ):
            raise InputError(
                f"{origin} needs a label and a segment [START, END] in seconds >= 0 in each "
                f"annotation, got {str(one)[:200]}"
            )
        start, end = map(float, times)
        clips.append(KineticsClip(video_id, start, end, label, split, origin))
    return clips
