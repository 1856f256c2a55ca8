"""The classes of a long video over time: a score for each window, and the segments of each class.

    Predictor.timeline -> Timeline -> find_segments -> TimelineSegment, ...
                                   -> write_timeline -> .csv, .json, .png

Segments. A window speaks for the time around its middle: from halfway to the window before it to
halfway to the window after it. The first window speaks from its own begin, and the last one to its
own end. No window speaks for time that it does not cover. So these spans touch unless the stride is
longer than a window. Windows of length 8 and stride 4, in which x is what each speaks for:

    0                      23
    xxxxxx..
        ..xxxx..
            ..xxxx..
                ..xxxxxx

The neighboring spans of all windows that score the threshold or more are one segment of the class.
Nothing here needs PyTorch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.learn.clips.window_spans import WindowSpans
from flowprep.learn.scores import Scores
from flowprep.learn.timeline_spec import TimelineSpec
from flowprep.words import format_count

__all__ = ["Timeline", "TimelineSegment", "clock", "find_segments", "parse_thresholds"]


@dataclass(frozen=True, eq=False)
class Timeline:
    """The scores of the windows of one video, in the order of time."""

    video: str
    """The name that the user gave."""
    spec: TimelineSpec
    windows: WindowSpans
    scores: Scores
    """A row for each window. Fused if there are several networks."""
    borders: NDArray[np.float64]
    """(frames + 1,) when each frame begins, in seconds, and when the last one ends. NaN if the
    video has no frame rate."""
    fps: float | None = None
    damage: str | None = None
    """Why the video ends early here. None if it is whole."""

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(windows, K) the probability of each class in each window."""
        return self.scores.probabilities

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.scores.names

    @property
    def has_seconds(self) -> bool:
        """Whether times are known. Without a frame rate, there are only frame numbers."""
        return not math.isnan(self.borders[0])

    @property
    def start_seconds(self) -> NDArray[np.float64]:
        """(windows,) when each window begins."""
        return self.borders[self.windows.starts]

    @property
    def end_seconds(self) -> NDArray[np.float64]:
        """(windows,) when each window ends."""
        return self.borders[self.windows.stops]

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns what each window speaks for, as frames: the first, and the one after the last."""
        starts, stops = self.windows.starts, self.windows.stops
        # Halfway between the middles of two windows, in whole frames.
        halfway = (starts[:-1] + stops[:-1] + starts[1:] + stops[1:]) // 4
        first, last = starts.copy(), stops.copy()
        first[1:] = np.maximum(first[1:], halfway)
        last[:-1] = np.minimum(last[:-1], halfway)
        return first, last

    def top(self, number: int) -> list[tuple[str, float]]:
        """Returns the classes with the highest mean over the windows, and these means."""
        means = self.probabilities.mean(axis=0)
        order = np.argsort(-means, kind="stable")[:number]
        return [(self.class_names[label], float(means[label])) for label in order]

    def summary(self) -> str:
        """Returns a line that says what the windows are."""
        spec = self.spec
        count = format_count(len(self.windows), "window")
        words = f"{self.video}: {count} of {spec.window} frames, one every {spec.stride}"
        if self.has_seconds:
            words += f", up to {clock(float(self.end_seconds[-1]))}"
        if self.windows.num_dropped:
            words += f"; the last {format_count(self.windows.num_dropped, 'frame')} left out"
        return words


@dataclass(frozen=True)
class TimelineSegment:
    """A stretch of a video in which one class scores its threshold or more."""

    label: int
    """The class number, 0-based."""
    name: str
    """The name of the class."""
    first_frame: int
    stop_frame: int
    """The frame after the last."""
    start_seconds: float
    end_seconds: float
    score: float
    """The mean probability over the segment's windows."""

    def times(self) -> str:
        """Returns begin and end as text: as times, or as frames if there is no frame rate."""
        if math.isnan(self.start_seconds):
            return f"frames {self.first_frame} to {self.stop_frame - 1}"
        return f"{clock(self.start_seconds)} to {clock(self.end_seconds)}"


def find_segments(
    timeline: Timeline, thresholds: Mapping[int, float], *, min_seconds: float = 0.0
) -> list[TimelineSegment]:
    """Returns the segments of each class number in `thresholds`, by their begin.

    Segments that are shorter than `min_seconds` are left out. Raises ConfigError for `min_seconds`
    below 0, and if it is above 0 for a video without a frame rate.
    """
    if not min_seconds >= 0:
        raise ConfigError(f"min_seconds must be >= 0, got {min_seconds:g}")
    if min_seconds and not timeline.has_seconds:
        raise ConfigError(
            f"min_seconds needs times, but {timeline.video} has no frame rate; leave it out"
        )
    first, last = timeline.spans()
    found = []
    for label, threshold in thresholds.items():
        scores = timeline.probabilities[:, label]
        for begin, end in _runs(scores >= threshold, first, last):
            frames = int(first[begin]), int(last[end - 1])
            seconds = float(timeline.borders[frames[0]]), float(timeline.borders[frames[1]])
            if min_seconds and seconds[1] - seconds[0] < min_seconds:
                continue
            mean = float(scores[begin:end].mean())
            name = timeline.class_names[label]
            found.append(TimelineSegment(label, name, *frames, *seconds, mean))
    return sorted(found, key=lambda one: (one.first_frame, one.stop_frame, one.label))


def _runs(
    is_above: NDArray[np.bool_], first: NDArray[np.int64], last: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Returns (begin, end) of the windows in a row that are above and whose spans touch."""
    runs: list[tuple[int, int]] = []
    for place in np.flatnonzero(is_above).tolist():
        if runs and runs[-1][1] == place and last[place - 1] >= first[place]:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def parse_thresholds(texts: Sequence[str], class_names: Sequence[str]) -> dict[int, float]:
    """Reads `VALUE` for all classes and `CLASS=VALUE` for one, as class number -> threshold.

    If there is no `VALUE`, only the named classes have a threshold. Raises ConfigError for an
    unknown class, for one that occurs twice, and for a value that is not above 0 and at most 1.
    """
    common: float | None = None
    own: dict[int, float] = {}
    numbers = {name: number for number, name in enumerate(class_names)}
    for text in texts:
        name, sign, number = text.rpartition("=")
        value = _threshold(number, text)
        if not sign:
            if common is not None:
                raise ConfigError(f"threshold for all classes must be given once, got {text} too")
            common = value
            continue
        if name not in numbers:
            close = difflib.get_close_matches(name, class_names, 1)
            hint = f"did you mean {close[0]}?" if close else f"one is {class_names[0]}"
            raise ConfigError(f"threshold must name a class of the networks, got {name}; {hint}")
        if own.setdefault(numbers[name], value) != value:
            raise ConfigError(f"threshold of {name} must be given once, got {text} too")
    if common is None:
        return dict(sorted(own.items()))
    return {number: own.get(number, common) for number in range(len(class_names))}


def clock(seconds: float) -> str:
    """Returns a time such as `0:05.2` or `1:00:05.2`."""
    minutes, tenths = divmod(round(10 * seconds), 600)
    hours, minutes = divmod(minutes, 60)
    begin = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{begin}:{tenths / 10:04.1f}"


def _threshold(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ConfigError(
            f"threshold must be a probability above 0 and at most 1, or CLASS=VALUE, got {text!r}"
        )
    return value
