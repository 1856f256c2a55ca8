"""The names of clips that are cut from longer videos: `VIDEO_000005_000015`, as in Kinetics.

The numbers are the begin and the end in whole seconds, rounded down. Only clips that would share a
name get milliseconds: `VIDEO_000000200_000004800`. The order of the rows does not matter:

1. A clip keeps the short name if the data set OUT already holds the same range under this name.
2. Otherwise, the clip that begins and ends on whole seconds gets the short name.
3. All other clips with that short name get milliseconds.

So a name depends only on the clips of the same seconds, and a stored key never changes when rows
are added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from flowprep.inputs.keys import escape_key

__all__ = ["Clip", "StoredRanges", "names_of_clips", "precise_name", "short_name"]

Clip = tuple[str, float, float]
"""The beginning of the name (`abseiling/0347ZoDXyP0`), and begin and end in seconds."""


def short_name(stem: str, start: float, end: float) -> str:
    """Returns the name of a clip in whole seconds. A clip without an end is infinitely long."""
    return f"{stem}_{int(start):06d}_{'end' if end == math.inf else f'{int(end):06d}'}"


def precise_name(stem: str, start: float, end: float) -> str:
    """Returns the name of a clip in milliseconds. It never equals a name in seconds."""
    last = "end" if end == math.inf else f"{round(end * 1000):09d}"
    return f"{stem}_{round(start * 1000):09d}_{last}"


StoredRanges = Callable[[Collection[str]], Mapping[str, tuple[float, float]]]
"""A function that returns the ranges (begin and end in seconds) of some keys in OUT."""


def names_of_clips(clips: Sequence[Clip], stored_ranges: StoredRanges | None) -> list[str]:
    """Returns a name for each clip. Clips with equal beginning, begin and end have equal names."""
    names = [short_name(*clip) for clip in clips]
    clips_of: dict[str, set[Clip]] = {}
    for name, clip in zip(names, clips, strict=True):
        clips_of.setdefault(name, set()).add(clip)
    shared = {name: group for name, group in clips_of.items() if len(group) > 1}
    if not shared:
        return names
    keys = set(map(escape_key, shared))
    stored = {} if stored_ranges is None else stored_ranges(keys)
    keeps_short = {name: _owner(name, group, stored) for name, group in shared.items()}
    return [
        precise_name(*clip) if name in shared and clip != keeps_short[name] else name
        for name, clip in zip(names, clips, strict=True)
    ]


def _owner(
    name: str, clips: Iterable[Clip], stored: Mapping[str, tuple[float, float]]
) -> Clip | None:
    key = escape_key(name)
    for clip in clips:
        if stored.get(key) == clip[1:]:
            return clip
    if key in stored:  # The stored range is none of these clips, so no clip may get its name.
        return None
    whole = [clip for clip in clips if all(t.is_integer() or t == math.inf for t in clip[1:])]
    return whole[0] if whole else None
