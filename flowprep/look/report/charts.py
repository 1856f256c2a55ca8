"""The report's charts, as inline SVG in the page's own colors."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from flowprep.dataset.quantize import HISTOGRAM_BIN_PX
from flowprep.look.report.bound import NICE_BOUNDS_PX, BoundAdvice
from flowprep.look.report.markup import escape, join_counts
from flowprep.look.report.survey import ClassSummary, VideoRow

__all__ = ["bound_charts", "video_charts"]

# Placeholder colors in a chart, and the CSS variables of the page that replace them.
_CHART_COLORS = {"#010101": "--ink", "#020202": "--quiet", "#030303": "--line", "#040404": "--fill"}
_CHART_COLORS |= {"#050505": "--fault", "#060606": "--accent", "#070707": "--card"}
_INK, _QUIET, _LINE, _FILL, _FAULT, _ACCENT, _CARD = _CHART_COLORS


def bound_charts(total: ClassSummary) -> str:
    """Returns the figures of vector lengths, and of the share that each bound would clip."""
    return _chart(
        "magnitudes",
        "How long the vectors are",
        "Histogram of vector lengths of all fields, with the current and the recommended bound.",
        lambda axes: _draw_magnitudes(axes, total),
    ) + _chart(
        "shares",
        "Upper limit of clipping by bound",
        "Share of clipped components by bound, with the requested share.",
        lambda axes: _draw_shares(axes, total.bound),
    )


def _draw_magnitudes(axes: Axes, total: ClassSummary) -> None:
    histogram = total.histogram / max(1.0, total.histogram.sum())
    edges = HISTOGRAM_BIN_PX * np.arange(histogram.size + 1)
    last = int(np.flatnonzero(histogram)[-1]) + 1 if histogram.any() else 1
    axes.stairs(histogram[:last], edges[: last + 1], fill=True, color=_FILL)
    axes.set_yscale("log")
    axes.set_ylim(max(1e-8, float(histogram[histogram > 0].min(initial=1.0)) / 2), 1)
    axes.set_xlim(0, max(edges[last], 1.05 * total.bound.recommended_px))
    axes.set_xlabel("length, px")
    axes.set_ylabel("share of the vectors")
    _mark_bounds(axes, total.bound)


def _draw_shares(axes: Axes, bound: BoundAdvice) -> None:
    bounds = np.array(NICE_BOUNDS_PX)
    last = int(np.flatnonzero(bound.shares > 0)[-1]) + 2 if bound.shares.any() else 4
    last = max(last, int(np.searchsorted(bounds, bound.recommended_px)) + 2)
    axes.plot(bounds[:last], 100 * bound.shares[:last], color=_FILL, marker="o", markersize=3)
    axes.axhline(100 * bound.requested_share, color=_QUIET, linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    axes.set_xlim(0, bounds[:last][-1])
    axes.set_xlabel("bound, px")
    axes.set_ylabel("clipped components, %")
    _mark_bounds(axes, bound)


def _mark_bounds(axes: Axes, bound: BoundAdvice) -> None:
    right = axes.get_xlim()[1]
    marks = [(bound.recommended_px, "recommended", _ACCENT, "-", 0.98)]
    marks.append((bound.current_px, "present", _FAULT, "--", 0.88))
    for place, name, color, style, height in marks:
        if place > right:
            continue
        axes.axvline(place, color=color, linewidth=1.2, linestyle=style)
        is_left = place < 0.6 * right
        axes.annotate(
            f"{name} {place:g}",
            (place, height),
            xycoords=("data", "axes fraction"),
            xytext=(4 if is_left else -4, 0),
            textcoords="offset points",
            ha="left" if is_left else "right",
            va="top",
            color=color,
            # The box keeps lines from going through the words.
            bbox={"facecolor": _CARD, "edgecolor": "none", "pad": 1},
            zorder=5,
        )


def video_charts(rows: Sequence[VideoRow]) -> str:
    """Returns the figures of lengths, motion and sizes of the videos."""
    if not rows:
        return ""
    lengths = np.array([row.num_frames for row in rows])
    motions = np.array([row.mean_px for row in rows])
    sizes = Counter(f"{row.width}x{row.height}" for row in rows)
    most = sizes.most_common(6)
    other = len(rows) - sum(number for _, number in most)
    bars = [*most, ("others", other)] if other else most

    def draw_sizes(axes: Axes) -> None:
        axes.set_ylim(-0.5, max(4, len(bars)) - 0.5)
        axes.barh([name for name, _ in bars], [number for _, number in bars], color=_FILL)
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("videos")

    def draw_histogram(axes: Axes, values: NDArray[Any], label: str) -> None:
        # Outliers are in the table. In the chart, they would squeeze all others into one bar.
        top = float(np.percentile(values, 99)) * 1.05
        if top <= values.min():
            top = float(values.min()) + 1
        axes.hist(np.minimum(values, top), bins=30, color=_FILL)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=values.dtype.kind == "i"))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel(label)
        axes.set_ylabel("videos")

    return (
        _chart(
            "lengths",
            "Lengths",
            f"Histogram of frames per video: {lengths.min()} to {lengths.max()}.",
            lambda axes: draw_histogram(axes, lengths, "frames (last bar: all longer videos)"),
        )
        + _chart(
            "motions",
            "Motion",
            f"Histogram of the videos' mean lengths, to {motions.max():.2f} px.",
            lambda axes: draw_histogram(axes, motions, "mean length, px; the last, all faster"),
        )
        + _chart(
            "sizes",
            "Sizes",
            "Videos of each stored size: " + join_counts(Counter(dict(bars))),
            draw_sizes,
        )
    )


def _chart(name: str, title: str, description: str, draw: Callable[[Axes], None]) -> str:
    """Returns a figure with an inline SVG that uses the page's colors."""
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _QUIET,
        "ytick.labelcolor": _QUIET,
        "text.color": _INK,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "ytick.minor.size": 0,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # All ids of the page share one namespace.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for color, variable in _CHART_COLORS.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
    return f'<figure class="card"><figcaption>{escape(title)}</figcaption>{svg}</figure>'
