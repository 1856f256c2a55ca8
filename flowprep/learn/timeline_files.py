"""A timeline as files: .csv for tables, .json for programs, .png for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from flowprep.errors import ConfigError
from flowprep.learn.csv_tables import csv_text
from flowprep.learn.timeline import Timeline, TimelineSegment
from flowprep.storage import Storage

__all__ = ["check_timeline_file", "segments_file", "timeline_values", "write_timeline"]

_ENDINGS = (".csv", ".png", ".json")
_DIGITS = 6


def check_timeline_file(path: str) -> None:
    """Raises ConfigError unless `path` has an ending that `write_timeline` knows."""
    if not path.lower().endswith(_ENDINGS):
        raise ConfigError(f"timeline must end in {', '.join(_ENDINGS)}, got {path!r}")


def segments_file(path: str) -> str:
    """Returns the path of the segments that belong to a .csv file of scores."""
    return f"{path[: -len('.csv')]}.segments.csv"


def write_timeline(
    timeline: Timeline,
    path: str,
    *,
    segments: Sequence[TimelineSegment] = (),
    thresholds: Mapping[int, float] | None = None,
    num_drawn: int = 10,
) -> list[str]:
    """Writes a timeline to `path`, whose ending chooses the format. Returns the written paths.

    `thresholds` and `segments` are those of `find_segments`. A .csv file has a row for each window;
    if there are thresholds, the segments are in a second file, `segments_file(path)`. A .png shows
    `num_drawn` classes. Raises ConfigError for another ending, StorageError if it cannot be
    written.
    """
    check_timeline_file(path)
    thresholds = thresholds or {}
    ending = path.lower().rpartition(".")[2]
    if ending == "json":
        files = {path: _utf8(json.dumps(timeline_values(timeline, segments, thresholds)) + "\n")}
    elif ending == "png":
        # Imported late: matplotlib takes a second.
        from flowprep.learn.timeline_png import timeline_png

        files = {path: timeline_png(timeline, segments, thresholds, num_drawn=num_drawn)}
    else:
        files = {path: _utf8(csv_text(_window_rows(timeline)))}
        if thresholds:
            files[segments_file(path)] = _utf8(csv_text(_segment_rows(segments)))
    for name, content in files.items():
        folder, file = os.path.split(name)
        storage = Storage(folder or ".")
        storage.make_folder()
        storage.write_bytes(file, content)
    return list(files)


def timeline_values(
    timeline: Timeline, segments: Sequence[TimelineSegment], thresholds: Mapping[int, float]
) -> dict[str, Any]:
    """Returns a timeline as JSON values.

    The entries of `segments` have the names of ActivityNet's results: `label`, `score`, `segment`.
    """
    names = timeline.class_names
    starts, stops = timeline.windows.starts.tolist(), timeline.windows.stops.tolist()
    return {
        "video": timeline.video,
        "fps": timeline.fps,
        "damage": timeline.damage,
        "window": timeline.spec.window,
        "stride": timeline.spec.stride,
        "tail": timeline.spec.tail,
        "class_names": list(names),
        "streams": timeline.scores.stream,
        "windows": [
            {"segment": [_time(start), _time(end)], "frames": [first, stop], "scores": row}
            for start, end, first, stop, row in zip(
                timeline.start_seconds.tolist(),
                timeline.end_seconds.tolist(),
                starts,
                stops,
                timeline.probabilities.round(_DIGITS).tolist(),
                strict=True,
            )
        ],
        "thresholds": {names[label]: value for label, value in thresholds.items()},
        "segments": [
            {
                "label": one.name,
                "score": round(one.score, _DIGITS),
                "segment": [_time(one.start_seconds), _time(one.end_seconds)],
                "frames": [one.first_frame, one.stop_frame],
            }
            for one in segments
        ],
    }


def _window_rows(timeline: Timeline) -> list[list[object]]:
    rows: list[list[object]] = [[*_SPAN_COLUMNS, *timeline.class_names]]
    for number, row in enumerate(timeline.probabilities.round(_DIGITS).tolist()):
        rows.append(
            [
                _cell(float(timeline.start_seconds[number])),
                _cell(float(timeline.end_seconds[number])),
                int(timeline.windows.starts[number]),
                int(timeline.windows.stops[number]),
                *row,
            ]
        )
    return rows


def _segment_rows(segments: Sequence[TimelineSegment]) -> list[list[object]]:
    rows: list[list[object]] = [[*_SPAN_COLUMNS, "class", "score"]]
    for one in segments:
        start, end = _cell(one.start_seconds), _cell(one.end_seconds)
        score = round(one.score, _DIGITS)
        rows.append([start, end, one.first_frame, one.stop_frame, one.name, score])
    return rows


_SPAN_COLUMNS = ("start_seconds", "end_seconds", "first_frame", "stop_frame")


def _time(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, _DIGITS)


def _cell(seconds: float) -> object:
    return "" if math.isnan(seconds) else round(seconds, _DIGITS)


def _utf8(text: str) -> bytes:
    # Names of classes are those of folders, which need not be UTF-8.
    return text.encode("utf-8", "backslashreplace")
