"""Films and sheets of flow: beside its frames, as colors, levels and arrows, and with its errors.

draw_pages   Moment -> panels -> page, page, ...
view         all steps from a data set or a video to a file
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from flowprep.config import DIRECTIONS, Direction, ExtractConfig, check_choice
from flowprep.dataset.layout import DATASET_FILE
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.look.film import FILM_SUFFIXES, check_folder, write_film, write_picture
from flowprep.look.findings.statistics import CameraSummary
from flowprep.look.panel_names import CAMERA, PANELS
from flowprep.look.panels import (
    ARROW_SPACING_PX,
    Moment,
    check_panels,
    legend,
    moments,
    paint,
)
from flowprep.look.render import RGB, Page, arrow_factor, largest_inside, panel_size
from flowprep.look.sources import FlowSource, StoredFlow, compute_video, is_dataset

__all__ = ["Drawing", "DrawingSpec", "ViewReport", "draw_pages", "view"]

PICTURE_SUFFIX = ".png"

DEFAULT_NUM_FIELDS = 300
"""Number of fields of a video that are computed if no length is given."""

# Pillow holds all pages of a WebP or GIF until it writes them. An MP4 is written page by page.
_MOST_HELD_BYTES = 1 << 30


@dataclass(frozen=True)
class DrawingSpec:
    """Which part of the flow is drawn, and how."""

    panels: tuple[str, ...] | None = None
    """Panels to draw, in this order. The default is rgb and flow, or only flow without RGB."""
    start: int = 0
    """The first field."""
    length: int | None = None
    """Number of fields, or fewer if the video ends earlier."""
    direction: Direction = "forward"
    """`backward` draws the flow from frame t + step to t."""
    max_flow_px: float | None = None
    """Flow at the rim of the color wheel in px. The default covers 99 % of the video."""
    width: int | None = None
    """Width of each panel in px. The default is the video's width, up to 640, or a multiple."""
    play_fps: float | None = None
    """Pages per second. The default is the video's own rate."""
    num_pictures: int = 6
    """Number of rows of a PNG sheet, spread evenly over the range."""

    def __post_init__(self) -> None:
        for name in self.panels or ():
            names = (*PANELS, CAMERA)
            if name not in names:
                close = get_close_matches(name, names, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(f"panels must be of {', '.join(names)}, got {name!r}{hint}")
        if self.panels is not None and not self.panels:
            raise ConfigError(f"panels must name one or more of {', '.join(PANELS)}, got none")
        check_choice("direction", self.direction, Direction)
        if self.start < 0:
            raise ConfigError(f"start must be >= 0, got {self.start}")
        if self.length is not None and self.length < 1:
            raise ConfigError(f"length must be >= 1, got {self.length}")
        if self.max_flow_px is not None and not 0 < self.max_flow_px <= 1e5:
            raise ConfigError(
                f"max_flow_px must be > 0 and at most 100000, got {self.max_flow_px:g}"
            )
        if self.play_fps is not None and not 0 < self.play_fps <= 1000:
            raise ConfigError(f"play_fps must be > 0 and <= 1000, got {self.play_fps:g}")
        if not 1 <= self.num_pictures <= 100:
            raise ConfigError(f"num_pictures must be from 1 to 100, got {self.num_pictures}")


@dataclass(frozen=True)
class ViewReport:
    """A report of what was drawn."""

    path: str
    num_pages: int
    """Pages of a film, rows of a sheet."""
    names: tuple[str, ...]
    """The names of the videos, in order."""
    max_flow_px: float
    width: int
    height: int
    seconds: float
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Returns one line of text."""
        noun = "row" if self.path.lower().endswith(PICTURE_SUFFIX) else "picture"
        return (
            f"{self.path}: {self.num_pages} {noun}{'s' * (self.num_pages != 1)} of "
            f"{self.width}x{self.height} px, scale {self.max_flow_px:g} px, {self.seconds:.1f} s"
        )


# ---- drawing


@dataclass(frozen=True)
class Drawing:
    """Pages that are drawn only when they are needed."""

    pages: Iterator[RGB]
    num_pages: int
    size: tuple[int, int]
    fps: float
    max_flow_px: float
    num_moments: int
    """Pages of a film, rows of a sheet."""


def draw_pages(sources: Sequence[FlowSource], spec: DrawingSpec, *, sheet: bool = False) -> Drawing:
    """Draws videos one after the other with one scale: one page per field, or all on one sheet.

    All panels have the size of the first video's panels. Raises ConfigError for panels that the
    videos cannot give, and for a start past the end.
    """
    panels = spec.panels or (("rgb", "flow") if sources[0].has_rgb else ("flow",))
    direction = spec.direction
    ranges = []
    for source in sources:
        check_panels(source, panels, direction)
        if spec.start >= source.num_flows:
            raise ConfigError(
                f"start must be at most {source.num_flows - 1}, the last field of {source.name}, "
                f"got {spec.start}"
            )
        stop = source.num_flows
        if spec.length is not None:
            stop = min(stop, spec.start + spec.length)
        ranges.append(range(spec.start, stop))
    max_flow_px = spec.max_flow_px or max(one.suggest_scale(direction) for one in sources)
    first = sources[0]
    most = 640 if len(panels) <= 4 else 480
    size = panel_size(first.width, first.height, spec.width, most=most)
    scale = size[0] / first.width
    arrows = arrow_factor(max_flow_px, scale, ARROW_SPACING_PX)
    legends = [legend(name, first.spec, max_flow_px, arrows) for name in panels]
    shape = [(source.width, source.height) for source in sources]
    sizes = [largest_inside(one, size) for one in shape]

    def images(number: int, moment: Moment) -> list[RGB]:
        source = sources[number]
        return [paint(p, moment, source.spec, sizes[number], max_flow_px, arrows) for p in panels]

    if sheet:
        share = max(1, spec.num_pictures // len(sources))
        rows, labels = [], []
        for number, (source, fields) in enumerate(zip(sources, ranges, strict=True)):
            places = np.linspace(0, len(fields) - 1, min(share, len(fields)))
            chosen = [fields[round(place)] for place in places.tolist()]
            for moment in moments(source, chosen, panels, direction):
                rows.append(images(number, moment))
                prefix = f"{source.name} · " if len(sources) > 1 else ""
                labels.append(prefix + _label(source, moment.index, direction))
        name = _title(first, direction, named=len(sources) == 1)
        page = Page(legends, size, name=name, num_rows=len(rows))
        drawn = iter([page.draw(rows, labels)])
        return Drawing(drawn, 1, page.size, 1.0, max_flow_px, len(rows))

    page = Page(legends, size)

    def pages() -> Iterator[RGB]:
        for number, (source, fields) in enumerate(zip(sources, ranges, strict=True)):
            title = _title(source, direction)
            for moment in moments(source, fields, panels, direction):
                label = _label(source, moment.index, direction)
                yield page.draw([images(number, moment)], [label], title)

    count = sum(map(len, ranges))
    fps = spec.play_fps or first.fps or 25.0
    return Drawing(pages(), count, page.size, fps, max_flow_px, count)


def _label(source: FlowSource, index: int, direction: Direction) -> str:
    first, last = source.first + index, source.first + index + source.spec.step
    seconds = "" if not source.fps else f" · {first / source.fps:.2f} s"
    if direction == "backward":
        first, last = last, first
    return f"frame {first} to {last}{seconds}"


def _title(source: FlowSource, direction: Direction, *, named: bool = True) -> str:
    parts = [source.spec.algorithm]
    if source.spec.step != 1:
        parts.append(f"step {source.spec.step}")
    if direction == "backward":
        parts.append("backward")
    return f"{source.name} · {', '.join(parts)}" if named else ", ".join(parts)


# ---- the whole way


def view(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    keys: Sequence[str] = (),
    spec: DrawingSpec | None = None,
    *,
    config: ExtractConfig | None = None,
    device: str = "auto",
) -> ViewReport:
    """Draws the flow of a data set's videos, or of one video, as a film or a sheet.

    `source` is a data set, or a video file or folder of images. Of a data set, the videos `keys`
    are drawn, or the first video if there are no keys. For a video file or folder, the flow is
    computed by `config` on `device`. `to` ends in .mp4, .webp, .gif or .png (a sheet). Raises
    InputError for any other source, and ConfigError for options that do not fit the source.
    """
    began = time.perf_counter()
    spec = spec or DrawingSpec()
    suffix = Path(to).suffix.lower()
    if suffix not in (*FILM_SUFFIXES, PICTURE_SUFFIX):
        endings = f"{', '.join(FILM_SUFFIXES)} or {PICTURE_SUFFIX}"
        raise ConfigError(f"to must end in {endings}, got {os.fspath(to)}")
    # The folder is checked first, so that no flow is computed for nothing.
    check_folder(to)
    with contextlib.ExitStack() as stack:
        sources, spec, notes = _open(source, keys, spec, config, device, stack)
        drawing = draw_pages(sources, spec, sheet=suffix == PICTURE_SUFFIX)
        if suffix == PICTURE_SUFFIX:
            write_picture(to, next(drawing.pages))
        else:
            _check_room(suffix, drawing)
            write_film(to, drawing.pages, drawing.fps)
        notes += tuple(_camera_note(one) for one in sources if one.homographies is not None)
    return ViewReport(
        path=os.fspath(to),
        num_pages=drawing.num_moments,
        names=tuple(one.name for one in sources),
        max_flow_px=drawing.max_flow_px,
        width=drawing.size[0],
        height=drawing.size[1],
        seconds=time.perf_counter() - began,
        notes=notes,
    )


def _camera_note(source: FlowSource) -> str:
    """Says how much camera motion was taken out of a video's flow, and where it was not."""
    summary = CameraSummary.of(source.homographies, source.width, source.height)
    assert summary is not None
    return f"{source.name}: {summary.words()}"


def _check_room(suffix: str, drawing: Drawing) -> None:
    num_bytes = 3 * drawing.num_pages * drawing.size[0] * drawing.size[1]
    if suffix != ".mp4" and num_bytes > _MOST_HELD_BYTES:
        most = _MOST_HELD_BYTES * drawing.num_pages // num_bytes
        raise ConfigError(
            f"length must be at most {most} for a {suffix} of {drawing.size[0]}x{drawing.size[1]} "
            f"px, which is held in memory, got {drawing.num_pages}; take fewer, or write an .mp4"
        )


def _open(
    source: str | os.PathLike[str],
    keys: Sequence[str],
    spec: DrawingSpec,
    config: ExtractConfig | None,
    device: str,
    stack: contextlib.ExitStack,
) -> tuple[list[FlowSource], DrawingSpec, tuple[str, ...]]:
    if is_dataset(source):
        dataset = open_dataset(source)
        if config is not None:
            raise ConfigError(
                f"algorithm and the other options of flow are only for a video file, but {source} "
                f"is a data set of {dataset.config.flow.algorithm} flow; leave them out"
            )
        stack.callback(dataset.close)
        sources, notes = _stored(dataset, keys)
        return sources, spec, (*dataset.notes, *notes)
    if not os.path.exists(source):
        raise InputError(f"SOURCE does not exist: {source}; name a data set or a video")
    if keys:
        raise InputError(
            f"a KEY is only for a data set, but {source} is not one: it has no {DATASET_FILE}"
        )
    config = config or ExtractConfig()
    needed: tuple[Direction, ...] = (spec.direction,)
    if spec.panels is not None and "consistency" in spec.panels:
        needed = DIRECTIONS
    config = replace(config, encode=replace(config.encode, directions=needed))
    length = DEFAULT_NUM_FIELDS if spec.length is None else spec.length
    flow = compute_video(source, config, start=spec.start, length=length, device=device)
    stack.callback(flow.close)
    notes = ()
    if spec.length is None and flow.num_flows == DEFAULT_NUM_FIELDS:
        notes = (f"drew the first {DEFAULT_NUM_FIELDS} fields; give --length for another number",)
    return [flow], replace(spec, start=0, length=None), notes


def _stored(dataset: FlowDataset, keys: Sequence[str]) -> tuple[list[FlowSource], tuple[str, ...]]:
    if not len(dataset.videos):
        raise DatasetError(
            f"{dataset.location} holds no video yet; run extract until a shard is published"
        )
    if not keys:
        first = dataset.videos[0].key
        count = len(dataset.videos)
        notes = (f"drew {first}, the first of {count} videos; name a KEY to draw another one",)
        return [StoredFlow(dataset, first)], notes if count > 1 else ()
    known = {video.key for video in dataset.videos}
    for key in keys:
        if key not in known:
            close = get_close_matches(key, sorted(known)[:2000], 1, 0.5)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(
                f"no video of {dataset.location} has the key {key!r}; {hint}"
                f"`flowprep info {dataset.location} --videos` lists them"
            )
    return [StoredFlow(dataset, key) for key in keys], ()
