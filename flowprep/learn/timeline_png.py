"""A timeline as a picture: a row for each of the highest classes, over one axis of time."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from flowprep.learn.timeline import Timeline, TimelineSegment
from flowprep.printable import one_line

__all__ = ["drawn_classes", "timeline_png"]

_ROW_INCHES = 0.52
_WIDTH_INCHES = 11.0
_LONGEST_NAME = 28

_AREA, _SEGMENT, _RULE = "#9ecae1", "#08519c", "#d62728"
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


def drawn_classes(
    timeline: Timeline, segments: Sequence[TimelineSegment], number: int
) -> list[int]:
    """Returns the classes to draw: those with the longest segments, then those that rise highest.

    They are in the order in which they rise highest, so that a picture reads from left to right.
    """
    frames = np.zeros(len(timeline.class_names))
    for one in segments:
        frames[one.label] += one.stop_frame - one.first_frame
    peaks = timeline.probabilities.max(axis=0)
    chosen = np.lexsort((-peaks, -frames))[:number]
    places = timeline.probabilities.argmax(axis=0)
    return sorted(chosen.tolist(), key=lambda label: (int(places[label]), -float(peaks[label])))


def timeline_png(
    timeline: Timeline,
    segments: Sequence[TimelineSegment] = (),
    thresholds: Mapping[int, float] | None = None,
    *,
    num_drawn: int = 10,
) -> bytes:
    """Returns a picture as PNG. The rest of the classes is described in a line below it."""
    thresholds = thresholds or {}
    labels = drawn_classes(timeline, segments, num_drawn)
    height = 1.5 + _ROW_INCHES * len(labels)
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edges, places = _steps(timeline)
    for row, label in enumerate(labels):
        # Row 0 is at the top. A probability of 1 fills 0.82 of a row.
        base = len(labels) - 1 - row
        values = 0.82 * timeline.probabilities[places, label]
        values[np.isnan(edges)] = np.nan
        axes.fill_between(edges, base, base + values, color=_AREA, linewidth=0.0)
        axes.plot(edges, base + values, color=_SEGMENT, linewidth=0.6)
        axes.axhline(base, color="0.75", linewidth=0.6)
        if label in thresholds:
            level = base + 0.82 * thresholds[label]
            axes.axhline(level, color=_RULE, linewidth=0.7, linestyle=(0, (4, 4)))
    _draw_segments(axes, timeline, segments, labels)
    _label_rows(axes, timeline, labels)
    _label_time(axes, timeline)
    name = _shortened(one_line(os.path.basename(timeline.video.rstrip("/")) or "video"), 60)
    words: dict[str, Any] = {"parse_math": False}
    axes.set_title(_utf8(name), fontsize=12, loc="left", **words)
    figure.supxlabel(_utf8(_footer(timeline, segments, thresholds, labels)), fontsize=8.5, **words)
    png = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes, which is good enough.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(png, format="png")
    return png.getvalue()


def _steps(timeline: Timeline) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the outline of the windows' spans: times, and the window of each.

    Time that no window speaks for gives NaN, which leaves a gap.
    """
    times = _times(timeline)
    first, last = timeline.spans()
    edges, places = [], []
    for number, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        if number and begin > last[number - 1]:
            edges.append(np.nan)
            places.append(number)
        edges += [times[begin], times[end]]
        places += [number, number]
    return np.array(edges), np.array(places)


def _times(timeline: Timeline) -> NDArray[np.float64]:
    """Returns when each frame begins: in seconds, or its number without a frame rate."""
    if timeline.has_seconds:
        return timeline.borders
    return np.arange(len(timeline.borders), dtype=np.float64)


def _draw_segments(
    axes: Any, timeline: Timeline, segments: Sequence[TimelineSegment], labels: Sequence[int]
) -> None:
    times = _times(timeline)
    for one in segments:
        if one.label in labels:
            base = len(labels) - 1 - labels.index(one.label)
            begin, end = times[one.first_frame], times[one.stop_frame]
            axes.broken_barh([(begin, end - begin)], (base - 0.07, 0.11), color=_SEGMENT)


def _label_rows(axes: Any, timeline: Timeline, labels: Sequence[int]) -> None:
    bases = [len(labels) - 1 - row for row in range(len(labels))]
    names = [_utf8(_shortened(one_line(timeline.class_names[n]), _LONGEST_NAME)) for n in labels]
    axes.set_yticks([base + 0.4 for base in bases], names, fontsize=9.5, parse_math=False)
    peaks = timeline.probabilities.max(axis=0)
    for base, label in zip(bases, labels, strict=True):
        axes.text(
            1.005,
            base + 0.4,
            f"{100 * peaks[label]:.0f} %",
            transform=axes.get_yaxis_transform(),
            fontsize=9,
            color="0.35",
            va="center",
        )
    axes.text(
        1.005,
        len(labels) - 0.02,
        "highest",
        transform=axes.get_yaxis_transform(),
        fontsize=8,
        color="0.35",
        va="bottom",
    )
    axes.set_ylim(-0.15, len(labels) - 0.05)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _label_time(axes: Any, timeline: Timeline) -> None:
    times = _times(timeline)
    first, last = timeline.spans()
    begin, end = float(times[first[0]]), float(times[last[-1]])
    axes.set_xlim(begin, max(end, begin + 1e-6))
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=9)
    if not timeline.has_seconds:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("frame", fontsize=9)
        return
    step = next((step for step in _TICK_SECONDS if (end - begin) / step <= 12), None)
    if step is not None and end - begin >= 4:
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))
        axes.set_xlabel("time (h:min:s)" if end >= 3600 else "time (min:s)", fontsize=9)
    else:
        axes.set_xlabel("time (s)", fontsize=9)


def _clock(seconds: float) -> str:
    """Returns `1:05` or `1:00:05`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _footer(
    timeline: Timeline,
    segments: Sequence[TimelineSegment],
    thresholds: Mapping[int, float],
    labels: Sequence[int],
) -> str:
    spec = timeline.spec
    lines = [
        f"Probability of each class in windows of {spec.window} frames, one every {spec.stride}. "
        "A full row is 100 %."
    ]
    if thresholds:
        lines[0] += " Red: the threshold. Dark bars: segments."
    if rest := sorted(set(range(len(timeline.class_names))) - set(labels)):
        peaks = timeline.probabilities[:, rest].max(axis=0)
        noun = "class" if len(rest) == 1 else "classes"
        line = f"Not drawn: {len(rest)} {noun}, never above {100 * peaks.max():.1f} %"
        if left := sum(one.label in rest for one in segments):
            line += f", with {left} segment{'' if left == 1 else 's'}"
        lines.append(f"{line}.")
    if timeline.damage is not None:
        lines.append("The video is damaged; the time after the damage is missing.")
    return "\n".join(lines)


def _shortened(text: str, longest: int) -> str:
    """Returns text without its middle if it is too long: its begin and its end tell it apart."""
    if len(text) <= longest:
        return text
    front = (longest - 1) // 2
    return f"{text[:front]}…{text[len(text) - (longest - 1 - front) :]}"


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
