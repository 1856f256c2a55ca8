"""A `Report` as one HTML file that needs nothing else: no network, no library, no folder.

All that comes from a data set (keys, class names, messages, paths) is escaped, and the page's
Content-Security-Policy runs no script but its own. Template, style and script stand in report.html,
report.css and report.js beside this file; page.css and page.js go before the latter two.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import io
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from flowprep._version import __version__
from flowprep.dataset.layout import flatten
from flowprep.dataset.quantize import HISTOGRAM_BIN_PX
from flowprep.errors import FAILURE_REASONS
from flowprep.look.color import flow_to_color
from flowprep.look.findings import KINDS, Finding
from flowprep.look.page import (
    SEVERITIES,
    findings_column,
    key_column,
    name_column,
    number_column,
    page_file,
)
from flowprep.look.report import NICE_BOUNDS_PX, BoundAdvice, ClassSummary, Report, ShownFinding
from flowprep.storage_errors import translated_errors
from flowprep.words import format_bytes, format_count, format_duration

__all__ = ["report_page", "write_report"]

_STREAMS = {
    "json": "metadata",
    "flow_x": "forward flow, x",
    "flow_y": "forward flow, y",
    "back_x": "backward flow, x",
    "back_y": "backward flow, y",
    "rgb": "RGB frames",
}
_MAX_OPEN_CARDS = 12

# Colours that stand for the page's own in a chart, by the CSS variable that takes their place.
_CHART_COLORS = {"#010101": "--ink", "#020202": "--quiet", "#030303": "--line", "#040404": "--fill"}
_CHART_COLORS |= {"#050505": "--fault", "#060606": "--accent", "#070707": "--card"}
_INK, _QUIET, _LINE, _FILL, _FAULT, _ACCENT, _CARD = _CHART_COLORS


def report_page(report: Report) -> str:
    """Returns the page."""
    script = page_file("page.js") + page_file("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    name = report.location.rstrip("/").rsplit("/", 1)[-1] or report.location
    config = report.description.header.config
    flow = config.flow
    parts = {
        "version": __version__,
        "title": _escape(name),
        "subtitle": _escape(
            f"{report.location} · {flow.algorithm} "
            f"({report.description.header.implementation}), step {flow.step}, "
            f"bound {flow.bound_px:g} px · {today}"
            + (f" · labels {labels}" if (labels := report.description.labels_name) else "")
        ),
        "style": page_file("page.css") + page_file("report.css"),
        "script": script,
        "script_hash": f"sha256-{digest}",
        "verdict": _verdict(report),
        "tiles": _tiles(report),
        "sample_note": _sample_note(report),
        "findings": _findings(report),
        "bound": _bound(report),
        "classes": _classes(report),
        "video_charts": _video_charts(report),
        "only_options": _only_options(report),
        "cost": _cost(report),
        "config": _configuration(report),
        "data": _table_data(report),
        "footer": _escape(
            f"Made by flowprep {__version__} in {format_duration(report.num_seconds)}. "
            "Nothing on this page was loaded from elsewhere."
        ),
    }
    template = page_file("report.html")
    # One pass: what is put in is not searched again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


# ---- in short


def _verdict(report: Report) -> str:
    counts = _counts(report.findings)
    faults = sum(counts[kind] for kind in counts if KINDS[kind].severity == "fault")
    doubts = sum(counts[kind] for kind in counts if KINDS[kind].severity == "suspicion")
    videos = format_count(len(report.rows), "video")
    if faults or doubts:
        counted = [(faults, "fault"), (doubts, "suspicion")]
        text = " and ".join(format_count(number, noun) for number, noun in counted if number)
        text += f" in {videos}."
    else:
        text = f"Nothing wrong was found in {videos}."
    bound = report.total.bound
    if bound.current_share > bound.requested_share:
        text += (
            f" The bound of {bound.current_px:g} px clips {_percent(bound.current_share)} of the "
            f"flow; {bound.recommended_px:g} px would do."
        )
    missing = report.description.num_videos - report.description.num_stored
    missing -= report.description.num_failed
    if missing:
        text += f" {format_count(missing, 'video')} of the plan are not published yet."
    return _escape(text)


def _tiles(report: Report) -> str:
    description = report.description
    seconds = sum(row.num_frames / row.fps for row in report.rows if row.fps)
    frames = description.frames
    tiles = [
        ("Videos", f"{description.num_stored:,}", f"of {description.num_videos:,}"),
        ("Failed", f"{description.num_failed:,}", f"{description.num_partial:,} partial"),
        ("Flow fields", f"{description.num_flows:,}", "in each direction"),
        ("Length", format_duration(seconds), f"median {frames[1]:g} frames" if frames else ""),
        ("Classes", f"{len(report.classes):,}", _join_counts(description.splits)),
        ("Mean motion", f"{report.total.mean_px:.2f} px", f"99 % under {report.total.p99_px:g} px"),
        ("Clipped", _percent(report.total.bound.current_share), "of the components"),
        (
            "Storage",
            format_bytes(description.num_bytes),
            format_count(description.num_shards, "shard"),
        ),
    ]
    return "".join(
        f"<div><dt>{_escape(title)}</dt><dd>{_escape(value)}<small>{_escape(more)}</small></dd></div>"
        for title, value, more in tiles
    )


def _sample_note(report: Report) -> str:
    config = report.description.header.config
    text = (
        f"Statistics of all {format_count(len(report.rows), 'video')}; pixels of "
        f"{report.num_sampled:,} of them, a few fields each."
    )
    if report.num_sampled < len(report.rows):
        text += " Videos with odd statistics come first; --sample looks at more."
    if not config.encode.keep_rgb:
        text += (
            " The data set holds no RGB frames, so nothing that needs them could be tested: "
            "exchanged or reversed axes, cuts, black and turned pictures."
        )
    if len(config.encode.directions) < 2:
        text += " It holds one direction, so forward and backward could not be compared."
    text += "".join(f" {note}." for note in report.notes)
    return _escape(text)


# ---- findings


def _findings(report: Report) -> str:
    counts = _counts(report.findings)
    if not counts:
        return "<p>None.</p>"
    shown: dict[str, list[ShownFinding]] = {}
    for item in report.shown:
        shown.setdefault(item.finding.kind, []).append(item)
    cards = []
    for number, kind in enumerate(kind for kind in KINDS if kind in counts):
        words = KINDS[kind]
        is_open = words.severity != "note" and number < _MAX_OPEN_CARDS
        items = "".join(_finding_item(report, item) for item in shown.get(kind, ()))
        more = counts[kind] - len(shown.get(kind, ()))
        rest = ""
        if more > 0:
            rest = f"and {more:,} more"
            if kind != "failed":
                bit = list(KINDS).index(kind)
                rest += (
                    f' <button type="button" class="more" value="{bit}">show in the table</button>'
                )
            rest = f"<p>{rest}</p>"
        extra = _failure_reasons(report) if kind == "failed" else ""
        cards.append(
            f'<details class="card"{" open" if is_open else ""}><summary>'
            f'<span class="mark {words.severity}">{SEVERITIES[words.severity]}</span>'
            f'<h3>{_escape(words.title)}</h3><span class="number">{counts[kind]:,}</span></summary>'
            f'<div class="inside beside"><dl class="words">'
            f"<div><dt>What it is</dt><dd>{_escape(words.what)}</dd></div>"
            f"<div><dt>Why it matters</dt><dd>{_escape(words.why)}</dd></div>"
            f"<div><dt>What to do</dt><dd>{_code(words.remedy)}</dd></div></dl>"
            f'<div>{extra}<ul class="items">{items}</ul>{rest}</div></div></details>'
        )
    return "".join(cards)


def _finding_item(report: Report, item: ShownFinding) -> str:
    finding = item.finding
    pictures = "".join(
        f'<figure><img src="{_data_url(data)}" '
        f'alt="{_escape(f"{finding.key}, {title}")}">'
        f"<figcaption>{_escape(title)}</figcaption></figure>"
        for title, data in item.pictures
    )
    text = f'<div class="pictures">{pictures}</div>' if pictures else ""
    text += f'<span class="key">{_escape(finding.key)}</span><p>{_escape(finding.detail)}</p>'
    if finding.kind != "failed":
        command = _escape(_view_command(report.location, finding.key))
        text += (
            f'<button type="button" class="copy" value="{command}" title="{command}">'
            "Copy view command</button>"
        )
    return f"<li>{text}</li>"


def _failure_reasons(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{_escape(reason)}</td><td class="n">{number:,}</td>'
        f'<td class="break">{_escape(FAILURE_REASONS.get(reason, ""))}</td></tr>'  # type: ignore[call-overload]
        for reason, number in report.description.failures.most_common()
    )
    head = '<tr><th scope="col">Reason</th><th scope="col" class="n">Videos</th>'
    head += '<th scope="col">Meaning</th></tr>'
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


# ---- bound


def _bound(report: Report) -> str:
    bound = report.total.bound
    if not report.rows:
        return "<p>No video, no motion.</p>"
    text = (
        f"Recommended: <strong>--bound {bound.recommended_px:g}</strong>. It is the smallest round "
        f"bound that clips at most {_percent(bound.requested_share)} of the flow components of "
        f"this data set ({_percent(bound.recommended_share)} at the very most). "
        f"The present {bound.current_px:g} px clip {_percent(bound.current_share)}"
    )
    ratio = bound.current_px / bound.recommended_px
    if ratio >= 1.5:
        text += f"; a level would be {ratio:.1f} times finer with the recommended one."
    else:
        text += "."
    note = (
        "The stored histograms are of vector lengths before clipping. A vector has one component "
        "beyond a bound at most, and two only if it is 1.4 times as long; what extract counted and "
        "the greatest component narrow it down further. So the shares here are upper limits."
    )
    charts = _chart(
        "magnitudes",
        "How long the vectors are",
        "Histogram of vector lengths of all fields, with the present and the recommended bound.",
        lambda axes: _draw_magnitudes(axes, report.total),
    ) + _chart(
        "shares",
        "What a bound would clip, at most",
        "Share of clipped components by bound, with the requested share.",
        lambda axes: _draw_shares(axes, bound),
    )
    return (
        f'<p class="advice">{text}</p><div class="charts">{charts}</div>'
        f'<p class="quiet">{_escape(note)}</p>'
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
            # So that no line goes through the words.
            bbox={"facecolor": _CARD, "edgecolor": "none", "pad": 1},
            zorder=5,
        )


# ---- classes


def _classes(report: Report) -> str:
    legend = _data_url(_webp(_wheel()))
    text = (
        f'<p class="quiet legend"><img class="wheel" src="{legend}" alt="Colour wheel">'
        "<span>The mean field of each class, from the sampled videos. Hue is the direction: red is "
        "right, yellow down, cyan left, violet up; saturation is the length. All classes share one "
        "scale. Clipped shares and bounds are those of all videos.</span></p>"
    )
    greatest = max((item.mean_px for item in report.classes), default=0.0) or 1.0
    fields = [item.mean_flow for item in report.classes if item.mean_flow is not None]
    lengths = [float(np.percentile(np.hypot(f[..., 0], f[..., 1]), 98)) for f in fields]
    scale = max(0.25, max(lengths, default=0.25))
    heads = ("Mean field", "Class", "Videos", "Mean length", "99 % under", "Clipped", "Bound")
    numbers = {"Videos", "99 % under", "Clipped", "Bound"}
    head = "".join(
        f'<th scope="col"{" class=n" if name in numbers else ""}>{name}</th>' for name in heads
    )
    rows = []
    for item in [*report.classes, report.total] if report.classes else [report.total]:
        picture = ""
        if item.mean_flow is not None:
            data = _webp(flow_to_color(item.mean_flow, scale))
            picture = f'<img src="{_data_url(data)}" alt="">'
        width = 6 * item.mean_px / greatest
        rows.append(
            f"<tr><td>{picture}</td><td>{_escape(item.name)}</td>"
            f'<td class="n">{item.num_videos:,}</td>'
            f'<td><span class="bar" style="width:{min(width, 6):.2f}rem"></span>'
            f"{item.mean_px:.2f} px</td>"
            f'<td class="n">{item.p99_px:g} px</td>'
            f'<td class="n">{_percent(item.bound.current_share)}</td>'
            f'<td class="n">{item.bound.recommended_px:g} px</td></tr>'
        )
    return (
        f'{text}<div class="wide card" tabindex="0" role="region" aria-label="Table of classes">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _wheel() -> NDArray[np.uint8]:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    return flow_to_color(np.stack([x, y], axis=-1), 1.0)


# ---- videos


def _video_charts(report: Report) -> str:
    if not report.rows:
        return ""
    lengths = np.array([row.num_frames for row in report.rows])
    motions = np.array([row.mean_px for row in report.rows])
    sizes = Counter(f"{row.width}x{row.height}" for row in report.rows)
    most = sizes.most_common(6)
    other = len(report.rows) - sum(number for _, number in most)
    bars = [*most, ("others", other)] if other else most

    def draw_sizes(axes: Axes) -> None:
        axes.set_ylim(-0.5, max(4, len(bars)) - 0.5)
        axes.barh([name for name, _ in bars], [number for _, number in bars], color=_FILL)
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("videos")

    def draw_histogram(axes: Axes, values: NDArray[Any], label: str) -> None:
        # Outliers are in the table; here they would squeeze all others into one bar.
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
            f"Histogram of frames a video: {lengths.min()} to {lengths.max()}.",
            lambda axes: draw_histogram(axes, lengths, "frames; the last bar holds all longer"),
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
            "Videos of each stored size: " + _join_counts(Counter(dict(bars))),
            draw_sizes,
        )
    )


def _only_options(report: Report) -> str:
    counts = _counts(f for f in report.findings if f.kind != "failed")
    options = ['<option value="all">all videos</option>']
    if counts:
        options.append('<option value="any">with any finding</option>')
    options += [
        f'<option value="{bit}">{_escape(KINDS[kind].title)} ({counts[kind]:,})</option>'
        for bit, kind in enumerate(KINDS)
        if counts[kind]
    ]
    return "".join(options)


def _table_data(report: Report) -> str:
    """Returns the table as JSON, a list of values for each column."""
    rows = report.rows
    bits: Counter[str] = Counter()
    order = {kind: bit for bit, kind in enumerate(KINDS)}
    for key, kind in {(f.key, f.kind) for f in report.findings if f.kind != "failed"}:
        bits[key] += 1 << order[kind]
    sizes = [f"{row.width}x{row.height}" for row in rows]

    columns = [
        key_column([row.key for row in rows], "21em"),
        findings_column([bits[row.key] for row in rows], "10.5em"),
        name_column("Class", [row.label for row in rows], "8.8em"),
        name_column("Split", [row.split for row in rows], "4.4em"),
        number_column("Frames", (row.num_frames for row in rows), 0, "5em"),
        name_column("Size", sizes, "5.8em"),
        number_column("fps", (row.fps for row in rows), 2, "4.4em"),
        number_column("Mean px", (row.mean_px for row in rows), 2, "5.6em"),
        number_column("Max px", (row.max_px for row in rows), 1, "5.4em"),
        number_column("Clipped %", (100 * row.clipped_share for row in rows), 3, "6.4em"),
        number_column("Blank %", (100 * row.blank_share for row in rows), 1, "5.6em"),
        number_column("kB", (row.num_bytes / 1000 for row in rows), 0, "4.9em"),
    ]
    data = {
        "count": len(rows),
        "view": f"flowprep view {shlex.quote(report.location)}",
        "columns": columns,
    }
    # Inside a script element nothing but `<` can end it or begin another.
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


# ---- cost and configuration


def _cost(report: Report) -> str:
    stored: Counter[str] = Counter(
        {_STREAMS.get(name, name): size for name, size in report.bytes_by_stream.items()}
    )
    fields = max(1, report.description.num_flows)
    spent = report.description.seconds
    total_seconds = sum(spent.values())
    storage = _bar_table(
        ("Stored", "Size", "Share"),
        [(name, size, format_bytes(size)) for name, size in stored.most_common()],
    )
    stages = _bar_table(
        ("Stage", "Time", "Share"),
        [(name, seconds, format_duration(seconds)) for name, seconds in spent.most_common()],
    )
    words = (
        f"{format_bytes(report.description.num_bytes / fields)} for each field and its frame; "
        f"{format_duration(total_seconds)} of work over all workers, "
        f"{1000 * total_seconds / fields:.1f} ms for each field."
    )
    return f'<p>{_escape(words)}</p><div class="two">{storage}{stages}</div>'


def _bar_table(heads: tuple[str, str, str], rows: Sequence[tuple[str, float, str]]) -> str:
    total = sum(value for _, value, _ in rows) or 1
    body = "".join(
        f'<tr><td>{_escape(name)}</td><td class="n">{_escape(text)}</td>'
        f'<td><span class="bar" style="width:{5 * value / total:.2f}rem"></span>'
        f"{100 * value / total:.0f}\u00a0%</td></tr>"
        for name, value, text in rows
    )
    head = f'<th scope="col">{heads[0]}</th><th scope="col" class="n">{heads[1]}</th>'
    head += f'<th scope="col">{heads[2]}</th>'
    return (
        f'<div class="card"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _configuration(report: Report) -> str:
    header = report.description.header
    values = flatten(header.config.to_dict()) | {"implementation": header.implementation}
    if report.devices:
        values["computed on"] = _join_counts(report.devices)

    def table(title: str, items: Mapping[str, Any]) -> str:
        rows = "".join(
            f"<tr><td>{_escape(name)}</td>"
            f'<td class="break"><code>{_escape(_shown(value))}</code></td></tr>'
            for name, value in items.items()
        )
        head = f'<tr><th scope="col">{title}</th><th scope="col">Value</th></tr>'
        return f'<div class="card"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'

    tables = table("Configuration", values) + table("Version", header.versions)
    return f'<div class="two">{tables}</div>'


# ---- pieces


def _chart(name: str, title: str, description: str, draw: Callable[[Axes], None]) -> str:
    """Returns a figure with an inline SVG whose colours are the page's."""
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
    # Ids are one namespace for the whole page.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for color, variable in _CHART_COLORS.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{_escape(description)}"', 1)
    return f'<figure class="card"><figcaption>{_escape(title)}</figcaption>{svg}</figure>'


def _counts(findings: Iterable[Finding]) -> Counter[str]:
    return Counter(finding.kind for finding in findings)


def _view_command(location: str, key: str) -> str:
    # As report.js makes it for the rows of the table.
    film = re.sub(r"[^\w.-]+", "_", key.rsplit("/", 1)[-1], flags=re.ASCII).lstrip("-") + ".mp4"
    return f"flowprep view {shlex.quote(location)} {shlex.quote(key)} --to {film}"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _code(text: str) -> str:
    """Returns escaped text with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", _escape(text))


def _data_url(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def _webp(image: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 75])
    return data.tobytes()


def _shown(value: Any) -> str:
    if value is None:
        return "the source's"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _join_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.most_common(6))


def _percent(share: float) -> str:
    percent = 100 * share
    if 0 < percent < 0.001:
        return "under 0.001\u00a0%"
    digits = 0 if percent in (0, 1) or percent >= 10 else 3 if percent < 0.1 else 2
    return f"{percent:.{digits}f}\u00a0%"


def write_report(report: Report, to: str | os.PathLike[str]) -> None:
    """Writes a report as one HTML file, which appears when it is complete."""
    path = Path(to)
    page = report_page(report).encode()
    partial = path.with_name(f".partial-{path.name}")
    with translated_errors("write", str(path)):
        try:
            partial.write_bytes(page)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
