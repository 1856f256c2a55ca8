"""Writes a `Report` as one HTML file that needs nothing else: no network, no library, no folder.

Everything that comes from a data set (keys, class names, messages, paths) is escaped. The page's
Content-Security-Policy runs only the page's own script. The template, style and script are in
report.html, report.css and report.js beside this file. page.css of look/web/ comes before
report.css, and page.js and table.js come before report.js.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep._version import __version__
from flowprep.differences import flatten, show_value
from flowprep.errors import FAILURE_REASONS
from flowprep.local_files import partial_file
from flowprep.look.color import flow_to_color
from flowprep.look.film import webp_picture
from flowprep.look.findings.kinds import KINDS, Finding
from flowprep.look.report.bound import BoundAdvice
from flowprep.look.report.charts import bound_charts, video_charts
from flowprep.look.report.markup import code, data_url, escape, join_counts, percent
from flowprep.look.report.report import Report, num_clipped
from flowprep.look.report.survey import ShownFinding
from flowprep.look.web.page import (
    SEVERITIES,
    findings_column,
    key_column,
    name_column,
    number_column,
    page_file,
    page_json,
)
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


def report_page(report: Report) -> str:
    """Returns the page."""
    scripts = ("web/page.js", "web/table.js", "report/report.js")
    script = "".join(map(page_file, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    name = report.location.rstrip("/").rsplit("/", 1)[-1] or report.location
    config = report.description.header.config
    flow = config.flow
    parts = {
        "version": __version__,
        "title": escape(name),
        "subtitle": escape(
            f"{report.location} · {flow.algorithm} "
            f"({report.description.header.implementation}), step {flow.step}, "
            f"bound {flow.bound_px:g} px · {today}"
            + (f" · labels {labels}" if (labels := report.description.labels_name) else "")
        ),
        "style": page_file("web/page.css") + page_file("report/report.css"),
        "script": script,
        "script_hash": f"sha256-{digest}",
        "verdict": _verdict(report),
        "tiles": _tiles(report),
        "sample_note": _sample_note(report),
        "findings": _findings(report),
        "bound": _bound(report),
        "classes": _classes(report),
        "video_charts": video_charts(report.rows),
        "only_options": _only_options(report),
        "cost": _cost(report),
        "config": _configuration(report),
        "data": _table_data(report),
        "footer": escape(
            f"Made by flowprep {__version__} in {format_duration(report.num_seconds)}. "
            "Nothing on this page was loaded from elsewhere."
        ),
    }
    template = page_file("report/report.html")
    # All parts are replaced in one pass, so that inserted text is not searched again.
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
            f" The bound of {bound.current_px:g} px clips {percent(bound.current_share)} of the "
            f"flow. A bound of {bound.recommended_px:g} px would be enough."
        )
    if _is_freed(report):
        known = [row.camera_px for row in report.rows if row.camera_px is not None]
        size = f" of {np.median(known):.2f} px" if known else ""
        num_plain = sum(row.num_plain for row in report.rows)
        plain = f"{format_count(num_plain, 'pair')} {'was' if num_plain == 1 else 'were'}"
        text += f" Camera motion{size} was taken out of the flow; {plain} left plain."
    missing = report.description.num_videos - report.description.num_stored
    missing -= report.description.num_failed
    if missing:
        text += f" {format_count(missing, 'video')} of the plan are not published yet."
    return escape(text)


def _tiles(report: Report) -> str:
    description = report.description
    seconds = sum(row.num_frames / row.fps for row in report.rows if row.fps)
    frames = description.frames
    tiles = [
        ("Videos", f"{description.num_stored:,}", f"of {description.num_videos:,}"),
        ("Failed", f"{description.num_failed:,}", f"{description.num_partial:,} partial"),
        ("Flow fields", f"{description.num_flows:,}", "in each direction"),
        ("Length", format_duration(seconds), f"median {frames[1]:g} frames" if frames else ""),
        ("Classes", f"{len(report.classes):,}", join_counts(description.splits)),
        ("Mean motion", f"{report.total.mean_px:.2f} px", f"99 % under {report.total.p99_px:g} px"),
        ("Clipped", percent(report.total.bound.current_share), "of the components"),
        (
            "Storage",
            format_bytes(description.num_bytes),
            format_count(description.num_shards, "shard"),
        ),
    ]
    return "".join(
        f"<div><dt>{escape(title)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for title, value, more in tiles
    )


def _is_freed(report: Report) -> bool:
    """Whether the flow is freed of the camera's motion."""
    return report.description.header.config.flow.camera_motion != "none"


def _sample_note(report: Report) -> str:
    config = report.description.header.config
    text = (
        f"Statistics of all {format_count(len(report.rows), 'video')}; pixels of "
        f"{report.num_sampled:,} of them, in a few fields each."
    )
    if report.num_sampled < len(report.rows):
        text += " Videos with unusual statistics are examined first. --sample examines more videos."
    if not config.encode.keep_rgb:
        text += (
            " The data set holds no RGB frames, so flowprep could not look for exchanged or "
            "reversed axes, cuts, or black and turned pictures."
        )
    if len(config.encode.directions) < 2:
        text += " It holds one direction, so forward and backward could not be compared."
    if _is_freed(report):
        text += (
            " The camera's motion was taken out of the flow. Its size is how far it moves the "
            "corner of the frame that it moves farthest, in the middle pair of the middle video. "
            "Plain pairs are those in which it was not found, so that their flow still has it."
        )
    text += "".join(f" {note}." for note in report.notes)
    return escape(text)


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
            f'<h3>{escape(words.title)}</h3><span class="number">{counts[kind]:,}</span></summary>'
            f'<div class="inside beside"><dl class="words">'
            f"<div><dt>What it is</dt><dd>{escape(words.what)}</dd></div>"
            f"<div><dt>Why it matters</dt><dd>{escape(words.why)}</dd></div>"
            f"<div><dt>What to do</dt><dd>{code(words.remedy)}</dd></div></dl>"
            f'<div>{extra}<ul class="items">{items}</ul>{rest}</div></div></details>'
        )
    return "".join(cards)


def _finding_item(report: Report, item: ShownFinding) -> str:
    finding = item.finding
    pictures = "".join(
        f'<figure><img src="{data_url(data)}" '
        f'alt="{escape(f"{finding.key}, {title}")}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for title, data in item.pictures
    )
    text = f'<div class="pictures">{pictures}</div>' if pictures else ""
    text += f'<span class="key">{escape(finding.key)}</span><p>{escape(finding.detail)}</p>'
    if finding.kind != "failed":
        command = escape(_view_command(report.location, finding.key))
        text += (
            f'<button type="button" class="copy" value="{command}" title="{command}">'
            "Copy view command</button>"
        )
    return f"<li>{text}</li>"


def _failure_reasons(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{escape(reason)}</td><td class="n">{number:,}</td>'
        f'<td class="break">{escape(FAILURE_REASONS.get(reason, ""))}</td></tr>'  # type: ignore[call-overload]
        for reason, number in report.description.failures.most_common()
    )
    head = '<tr><th scope="col">Reason</th><th scope="col" class="n">Videos</th>'
    head += '<th scope="col">Meaning</th></tr>'
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


# ---- bound


def _bound(report: Report) -> str:
    bound = report.total.bound
    if not report.rows:
        return "<p>The data set holds no video, so there is no motion to show.</p>"
    clipped = num_clipped(report.findings, report.rows)
    if clipped and bound.recommended_px == bound.current_px:
        text = _keep_bound(bound, clipped)
    else:
        text = _other_bound(bound)
    note = (
        "The shares here are upper limits, because the stored histograms count vector lengths "
        "before clipping. A vector that is longer than a bound has at most one component above "
        "the bound, and two only if it is 1.4 times as long. The counts of extract and the "
        "greatest component make the limits tighter."
    )
    return (
        f'<p class="advice">{text}</p><div class="charts">{bound_charts(report.total)}</div>'
        f'<p class="quiet">{escape(note)}</p>'
    )


def _keep_bound(bound: BoundAdvice, clipped: int) -> str:
    """Returns the advice where the bound suits the data set, but not some of its videos."""
    return (
        f"Recommended: keep <strong>--bound {bound.current_px:g}</strong>. It clips "
        f"{percent(bound.current_share)} of the flow components of this data set; "
        f"{percent(bound.requested_share)} may be clipped. The motion of "
        f"{format_count(clipped, 'video')} reaches it all the same: a smaller bound would clip "
        "more of that motion, and a larger one would make the levels of all videos coarser."
    )


def _other_bound(bound: BoundAdvice) -> str:
    """Returns the advice to take the recommended bound, and what the current one does."""
    text = (
        f"Recommended: <strong>--bound {bound.recommended_px:g}</strong>. It is the smallest "
        f"round bound that clips at most {percent(bound.requested_share)} of the flow components "
        f"of this data set ({percent(bound.recommended_share)} at the very most). The current "
        f"bound of {bound.current_px:g} px clips {percent(bound.current_share)}"
    )
    ratio = bound.current_px / bound.recommended_px
    if ratio >= 1.5:
        text += f"; the recommended bound would make levels {ratio:.1f} times finer."
    else:
        text += "."
    return text


# ---- classes


def _classes(report: Report) -> str:
    legend = data_url(webp_picture(_wheel(), 75))
    text = (
        f'<p class="quiet legend"><img class="wheel" src="{legend}" alt="Color wheel">'
        "<span>The mean field of each class, from the sampled videos. Hue is the direction: red is "
        "right, yellow down, cyan left, violet up. Saturation is the length. All classes share one "
        "scale. Clipped shares and bounds come from all videos. The last column is the bound that "
        "would do for a class alone; one bound serves all of a data set.</span></p>"
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
            data = webp_picture(flow_to_color(item.mean_flow, scale), 75)
            picture = f'<img src="{data_url(data)}" alt="">'
        width = 6 * item.mean_px / greatest
        rows.append(
            f"<tr><td>{picture}</td><td>{escape(item.name)}</td>"
            f'<td class="n">{item.num_videos:,}</td>'
            f'<td><span class="bar" style="width:{min(width, 6):.2f}rem"></span>'
            f"{item.mean_px:.2f} px</td>"
            f'<td class="n">{item.p99_px:g} px</td>'
            f'<td class="n">{percent(item.bound.current_share)}</td>'
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


def _only_options(report: Report) -> str:
    counts = _counts(f for f in report.findings if f.kind != "failed")
    options = ['<option value="all">all videos</option>']
    if counts:
        options.append('<option value="any">with any finding</option>')
    options += [
        f'<option value="{bit}">{escape(KINDS[kind].title)} ({counts[kind]:,})</option>'
        for bit, kind in enumerate(KINDS)
        if counts[kind]
    ]
    return "".join(options)


def _table_data(report: Report) -> str:
    """Returns the table as JSON, with a list of values for each column."""
    rows = report.rows
    bits: Counter[str] = Counter()
    order = {kind: bit for bit, kind in enumerate(KINDS)}
    for key, kind in {(f.key, f.kind) for f in report.findings if f.kind != "failed"}:
        bits[key] += 1 << order[kind]
    sizes = [f"{row.width}x{row.height}" for row in rows]

    camera = [
        number_column("Camera px", (row.camera_px for row in rows), 2, "6.2em"),
        number_column("Plain", (row.num_plain for row in rows), 0, "4.4em"),
    ]
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
        *(camera if _is_freed(report) else ()),
    ]
    data = {
        "count": len(rows),
        "view": f"flowprep view {shlex.quote(report.location)}",
        "columns": columns,
    }
    # Inside a script element, only `<` can end the element or begin another one.
    return page_json(data).replace("<", "\\u003c")


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
    return f'<p>{escape(words)}</p><div class="two">{storage}{stages}</div>'


def _bar_table(heads: tuple[str, str, str], rows: Sequence[tuple[str, float, str]]) -> str:
    total = sum(value for _, value, _ in rows) or 1
    body = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{escape(text)}</td>'
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
        values["computed on"] = join_counts(report.devices)

    def table(title: str, items: Mapping[str, Any]) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td>"
            f'<td class="break"><code>{escape(_shown(value))}</code></td></tr>'
            for name, value in items.items()
        )
        head = f'<tr><th scope="col">{title}</th><th scope="col">Value</th></tr>'
        return f'<div class="card"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'

    tables = table("Configuration", values) + table("Version", header.versions)
    return f'<div class="two">{tables}</div>'


# ---- pieces


def _counts(findings: Iterable[Finding]) -> Counter[str]:
    return Counter(finding.kind for finding in findings)


def _view_command(location: str, key: str) -> str:
    # report.js makes the same name for the rows of the table.
    film = re.sub(r"[^\w.-]+", "_", key.rsplit("/", 1)[-1], flags=re.ASCII).lstrip("-") + ".mp4"
    return f"flowprep view {shlex.quote(location)} {shlex.quote(key)} --to {film}"


def _shown(value: Any) -> str:
    return "the source's" if value is None else show_value(value)


def write_report(report: Report, to: str | os.PathLike[str]) -> None:
    """Writes a report as one HTML file. The file appears when it is complete."""
    path = Path(to)
    # Names of files need not be UTF-8, which a page is.
    page = report_page(report).encode("utf-8", "backslashreplace")
    with translated_errors("write", str(path)), partial_file(path) as partial:
        partial.write_bytes(page)
