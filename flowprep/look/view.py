"""Films and sheets of flow: beside its frames, as colours, levels and arrows, and what it misses.

StoredFlow, ComputedFlow   what a picture is made of: levels and frames of one video
draw_pages                 Moment -> panels -> page, page, ...
view                       the whole way from a data set or a video to a file
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction, ExtractConfig, FlowSpec
from flowprep.dataset.layout import DATASET_FILE, FLOW_STREAMS, RGB_STREAM
from flowprep.dataset.quantize import HISTOGRAM_BIN_PX, dequantize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.write import JpegStream
from flowprep.errors import ConfigError, DatasetError, InputError, VideoError
from flowprep.flow.consistency import consistency_error, warp_error
from flowprep.look.color import levels_to_color
from flowprep.look.render import (
    FILM_SUFFIXES,
    RGB,
    Page,
    Panel,
    Ramp,
    arrow_factor,
    check_folder,
    draw_arrows,
    error_ramp,
    error_to_color,
    fit,
    gray_ramp,
    histogram_quantile,
    panel_size,
    round_scale,
    write_film,
    write_picture,
)
from flowprep.urls import as_path, is_url

__all__ = [
    "PANELS",
    "ComputedFlow",
    "FlowSource",
    "StoredFlow",
    "ViewReport",
    "ViewSpec",
    "compute_video",
    "draw_pages",
    "is_dataset",
    "view",
]

PANELS: dict[str, str] = {
    "rgb": "the frame on whose grid the flow is",
    "flow": "Middlebury's colours: hue is the direction, saturation the speed",
    "x": "the stored levels of the horizontal component",
    "y": "those of the vertical component, down is bright",
    "arrows": "arrows over the frame",
    "consistency": "how far forward and backward flow miss one another, px",
    "warp": "how far the warped next frame is from this one, gray levels",
}
"""The panels by name."""

PICTURE_SUFFIX = ".png"

DEFAULT_NUM_FIELDS = 300
"""Fields that are computed of a video where no length is given."""

# Of the speeds in a video, the share that the automatic scale covers; the fastest are darkened.
_SCALE_SHARE = 0.99
# The same in every film, so that two can be compared; beyond 3 px KITTI counts an outlier.
CONSISTENCY_PX = 3.0
WARP_LEVELS = 64.0
_ARROW_SPACING_PX = 24
# Pillow holds all pages of a WebP or GIF until it writes them; an MP4 is written as it is drawn.
_MOST_HELD_BYTES = 1 << 30
# Moments that are read at once.
_CHUNK = 16


@dataclass(frozen=True)
class ViewSpec:
    """What of the flow is drawn, and how."""

    panels: tuple[str, ...] | None = None
    """Which panels, in their order; rgb and flow, or flow alone without RGB frames."""
    start: int = 0
    """The first field."""
    length: int | None = None
    """How many fields, as far as the video goes."""
    direction: Direction = "forward"
    """`backward` draws the flow from frame t + step to t."""
    max_flow_px: float | None = None
    """Flow at the rim of the wheel, one for all pictures; 99 % of the video where not given."""
    width: int | None = None
    """Width of each panel in px; its own up to 640, small ones grow by a whole factor."""
    play_fps: float | None = None
    """Pages a second; the video's own rate."""
    num_pictures: int = 6
    """Rows of a PNG sheet, evenly from the range."""

    def __post_init__(self) -> None:
        for name in self.panels or ():
            if name not in PANELS:
                close = get_close_matches(name, PANELS, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(f"panels must be of {', '.join(PANELS)}, got {name!r}{hint}")
        if self.panels is not None and not self.panels:
            raise ConfigError(f"panels must name one or more of {', '.join(PANELS)}, got none")
        if self.direction not in DIRECTIONS:
            raise ConfigError(f"direction must be forward or backward, got {self.direction!r}")
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
    """What was drawn."""

    path: str
    num_pages: int
    """Pages of a film, rows of a sheet."""
    names: tuple[str, ...]
    """The videos, in order."""
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


class FlowSource(ABC):
    """The quantised flow of one video, and its frames."""

    name: str
    width: int
    height: int
    fps: float | None
    num_flows: int
    first: int
    """The number of its first frame in the video."""
    spec: FlowSpec
    directions: tuple[Direction, ...]
    has_rgb: bool

    @abstractmethod
    def levels(self, start: int, length: int, direction: Direction) -> NDArray[np.uint8]:
        """Returns (L, H, W, 2) uint8 levels."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Returns (n, H, W, 3) uint8 RGB."""

    @abstractmethod
    def speeds(self, direction: Direction) -> tuple[Sequence[int], float]:
        """Returns the histogram of the flow's lengths, and the width of its bins in px."""

    def suggest_scale(self, direction: Direction) -> float:
        """Returns the scale in px that covers 99 % of the speeds, rounded up; at least 1 px."""
        quantile = histogram_quantile(*self.speeds(direction), _SCALE_SHARE)
        return min(round_scale(quantile), round_scale(math.sqrt(2) * self.spec.bound_px))


class StoredFlow(FlowSource):
    """A video of a data set."""

    def __init__(self, dataset: FlowDataset, key: str) -> None:
        video = dataset.videos[key]
        self.name = key
        self.width, self.height, self.fps = video.width, video.height, video.fps
        self.num_flows, self.first = video.num_flows, 0
        self.spec = dataset.config.flow
        self.directions = dataset.config.encode.directions
        self.has_rgb = dataset.config.encode.keep_rgb
        self._dataset = dataset

    def levels(self, start: int, length: int, direction: Direction) -> NDArray[np.uint8]:
        """Reads (L, H, W, 2) uint8 levels."""
        return self._dataset.quantized(self.name, start, length, direction)

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Reads (n, H, W, 3) uint8 RGB."""
        return self._dataset.frames(self.name, indices)

    def speeds(self, direction: Direction) -> tuple[Sequence[int], float]:
        """Returns the histogram that extraction kept, of the flow before it was cut."""
        summary = self._dataset.metadata(self.name).flow[direction]
        return summary.magnitude_histogram, summary.histogram_bin_px


class ComputedFlow(FlowSource):
    """Flow that was computed now, kept as JPEGs like in a data set: memory stays small."""

    def __init__(
        self,
        frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
        config: ExtractConfig,
        *,
        name: str,
        first: int = 0,
        fps: float | None = None,
        device: str = "auto",
    ) -> None:
        """Computes the flow of `frames`, (H, W, 3) uint8 RGB and (H, W) uint8 gray each."""
        from flowprep.dataset.quantize import FieldQuantizer
        from flowprep.flow import build_estimator

        encode = config.encode
        self.name, self.first, self.fps, self.spec = name, first, fps, config.flow
        self.directions, self.has_rgb = encode.directions, True
        self.width = self.height = 0
        names = [stream for one in encode.directions for stream in FLOW_STREAMS[one]]
        self._streams = {stream: JpegStream(encode.jpeg_quality) for stream in names}
        self._streams[RGB_STREAM] = JpegStream(encode.rgb_jpeg_quality)
        quantizers = {one: FieldQuantizer(config.flow) for one in encode.directions}
        estimator = build_estimator(config.flow.algorithm, config.flow.parameters, device)

        def grays() -> Iterator[NDArray[np.uint8]]:
            for rgb, gray in frames:
                self.height, self.width = gray.shape
                if min(gray.shape) < estimator.min_side_px:
                    raise VideoError(
                        "too-small",
                        f"frames of {self.width}x{self.height} px are too small for flow; "
                        f"each side needs at least {estimator.min_side_px} px",
                    )
                bgr = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)
                self._streams[RGB_STREAM].append(bgr)
                yield gray

        step = config.flow.step
        self.num_flows = 0
        try:
            for pair in estimator.pairs(grays(), step=step, directions=encode.directions):
                for one in encode.directions:
                    flow = pair.forward if one == "forward" else pair.backward
                    assert flow is not None
                    planes = quantizers[one].quantize(flow)
                    for stream, plane in zip(FLOW_STREAMS[one], planes, strict=True):
                        self._streams[stream].append(plane)
                self.num_flows += 1
            if not self.num_flows:
                count = len(self._streams[RGB_STREAM].sizes)
                raise VideoError(
                    "too-few-frames",
                    f"{count} frame{'s' * (count != 1)} from frame {first} on, and flow at "
                    f"step {step} needs {step + 1}; start earlier",
                )
        except BaseException:
            self.close()
            raise
        self._statistics = {one: item.statistics for one, item in quantizers.items()}
        self._offsets = {
            stream: np.concatenate(([0], np.cumsum(file.sizes, dtype=np.int64)))
            for stream, file in self._streams.items()
        }

    def close(self) -> None:
        """Frees memory and temporary files."""
        for stream in self._streams.values():
            stream.close()

    def levels(self, start: int, length: int, direction: Direction) -> NDArray[np.uint8]:
        """Returns (L, H, W, 2) uint8 levels."""
        levels = np.empty((length, self.height, self.width, 2), np.uint8)
        for axis, stream in enumerate(FLOW_STREAMS[direction]):
            for number in range(length):
                levels[number, ..., axis] = self._decode(
                    stream, start + number, cv2.IMREAD_GRAYSCALE
                )
        return levels

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Returns (n, H, W, 3) uint8 RGB."""
        images = [self._decode(RGB_STREAM, index, cv2.IMREAD_COLOR) for index in indices]
        return np.stack([cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) for bgr in images])

    def speeds(self, direction: Direction) -> tuple[Sequence[int], float]:
        """Returns the histogram of what was computed, before it was cut."""
        return self._statistics[direction].histogram.tolist(), HISTOGRAM_BIN_PX

    def _decode(self, stream: str, index: int, flags: int) -> NDArray[np.uint8]:
        begin, end = self._offsets[stream][index : index + 2].tolist()
        file = self._streams[stream].rewound()
        file.seek(begin)
        image = cv2.imdecode(np.frombuffer(file.read(end - begin), np.uint8), flags)
        assert image is not None
        return np.asarray(image, np.uint8)


def compute_video(
    path: str | os.PathLike[str],
    config: ExtractConfig,
    *,
    start: int = 0,
    length: int | None = None,
    device: str = "auto",
) -> ComputedFlow:
    """Computes the flow of `length` fields from `start` of a video file or a folder of images.

    All of them where `length` is None. Raises VideoError for what is wrong with the video.
    """
    from flowprep.inputs.video import Video
    from flowprep.video.decode import open_video

    source = os.path.abspath(path)
    name = os.path.basename(source)
    end = None if length is None else start + length + config.flow.step
    with named_video(path), open_video(Video(name, source), config.decode) as reader:
        frames = ((frame.rgb, frame.gray) for frame in islice(reader, start, end))
        fps = config.decode.fps or reader.info.fps
        return ComputedFlow(frames, config, name=name, first=start, fps=fps, device=device)


@contextlib.contextmanager
def named_video(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the video in a VideoError, which in a run is said beside it."""
    try:
        yield
    except VideoError as error:
        raise VideoError(error.reason, f"{path}: {error}", num_frames=error.num_frames) from error


# ---- drawing


@dataclass(frozen=True)
class _Moment:
    """One field, and what is drawn with it; None where no panel asks for it."""

    index: int
    levels: NDArray[np.uint8]  # (H, W, 2)
    reverse: NDArray[np.uint8] | None  # (H, W, 2)
    frame: NDArray[np.uint8] | None  # (H, W, 3), the one on whose grid the flow is
    target: NDArray[np.uint8] | None  # (H, W, 3), the one that it points into


@dataclass(frozen=True)
class Drawing:
    """Pages that are drawn as they are asked for."""

    pages: Iterator[RGB]
    num_pages: int
    size: tuple[int, int]
    fps: float
    max_flow_px: float
    num_moments: int
    """Pages of a film, rows of a sheet."""


def draw_pages(sources: Sequence[FlowSource], spec: ViewSpec, *, sheet: bool = False) -> Drawing:
    """Draws videos one after the other at one scale: a page a field, or all on one sheet.

    The panels are as large as those of the first video. Raises ConfigError for panels that the
    videos cannot give, and for a start past the end.
    """
    panels = spec.panels or (("rgb", "flow") if sources[0].has_rgb else ("flow",))
    direction = spec.direction
    ranges = []
    for source in sources:
        _check_panels(source, panels, direction)
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
    arrows = arrow_factor(max_flow_px, scale, _ARROW_SPACING_PX)
    legends = [_legend(name, first.spec, max_flow_px, arrows) for name in panels]
    shape = [(source.width, source.height) for source in sources]
    sizes = [_inside(one, size) for one in shape]

    def images(number: int, moment: _Moment) -> list[RGB]:
        source = sources[number]
        return [_paint(p, moment, source.spec, sizes[number], max_flow_px, arrows) for p in panels]

    if sheet:
        share = max(1, spec.num_pictures // len(sources))
        rows, labels = [], []
        for number, (source, fields) in enumerate(zip(sources, ranges, strict=True)):
            places = np.linspace(0, len(fields) - 1, min(share, len(fields)))
            chosen = [fields[round(place)] for place in places.tolist()]
            for moment in _moments(source, chosen, panels, direction):
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
            for moment in _moments(source, fields, panels, direction):
                label = _label(source, moment.index, direction)
                yield page.draw([images(number, moment)], [label], title)

    count = sum(map(len, ranges))
    fps = spec.play_fps or first.fps or 25.0
    return Drawing(pages(), count, page.size, fps, max_flow_px, count)


def _check_panels(source: FlowSource, panels: Sequence[str], direction: Direction) -> None:
    if direction not in source.directions:
        raise ConfigError(
            f"{source.name} has no {direction} flow; it has {', '.join(source.directions)}"
        )
    for name in panels:
        if name in ("rgb", "arrows", "warp") and not source.has_rgb:
            raise ConfigError(
                f"panels {name} needs RGB frames, and {source.name} was extracted without; "
                f"leave it out, or extract with --rgb"
            )
        if name == "consistency" and len(source.directions) < 2:
            raise ConfigError(
                f"panels consistency needs forward and backward flow, and {source.name} has "
                f"{source.directions[0]} only; leave it out, or extract with --directions both"
            )


def _moments(
    source: FlowSource, fields: Sequence[int], panels: Sequence[str], direction: Direction
) -> Iterator[_Moment]:
    step = source.spec.step
    grid, aim = (0, step) if direction == "forward" else (step, 0)
    reverse: Direction = "backward" if direction == "forward" else "forward"
    with_frame = not {"rgb", "arrows", "warp"}.isdisjoint(panels)
    for begin in range(0, len(fields), _CHUNK):
        chunk = list(fields[begin : begin + _CHUNK])
        # A sheet's fields lie far apart, and are read one by one.
        runs = [chunk] if chunk[-1] - chunk[0] == len(chunk) - 1 else [[one] for one in chunk]
        for run in runs:
            start, count = run[0], len(run)
            levels = source.levels(start, count, direction)
            back = source.levels(start, count, reverse) if "consistency" in panels else None
            frames = source.frames([one + grid for one in run]) if with_frame else None
            targets = source.frames([one + aim for one in run]) if "warp" in panels else None
            for number, index in enumerate(run):
                yield _Moment(
                    index,
                    levels[number],
                    None if back is None else back[number],
                    None if frames is None else frames[number],
                    None if targets is None else targets[number],
                )


def _paint(
    panel: str,
    moment: _Moment,
    spec: FlowSpec,
    size: tuple[int, int],
    max_flow_px: float,
    arrows: float,
) -> RGB:
    """Draws one panel, (H, W, 3) uint8 of `size`, (width, height)."""
    levels = moment.levels
    shrinks = size[0] < levels.shape[1]
    if panel == "rgb":
        assert moment.frame is not None
        return fit(moment.frame, size)
    if panel == "flow":
        # Levels are linear in px: their mean is the mean flow, and there are fewer to colour.
        if shrinks:
            levels = fit(levels, size)
        return fit(levels_to_color(levels, spec, max_flow_px), size)
    if panel in ("x", "y"):
        plane = fit(np.ascontiguousarray(levels[..., 0 if panel == "x" else 1]), size)
        return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB), np.uint8)
    flow = dequantize(levels, spec)
    if panel == "arrows":
        assert moment.frame is not None
        return draw_arrows(
            fit(moment.frame, size),
            np.asarray(cv2.resize(flow, size, interpolation=cv2.INTER_AREA), np.float32),
            scale=size[0] / flow.shape[1],
            factor=arrows,
            spacing_px=_ARROW_SPACING_PX,
        )
    if panel == "consistency":
        assert moment.reverse is not None
        error = consistency_error(flow, dequantize(moment.reverse, spec))
        return fit(error_to_color(error, CONSISTENCY_PX), size)
    assert moment.frame is not None
    assert moment.target is not None
    error = warp_error(moment.frame, moment.target, flow)
    return fit(error_to_color(error, WARP_LEVELS), size)


def _legend(panel: str, spec: FlowSpec, max_flow_px: float, arrows: float) -> Panel:
    bound = f"{spec.bound_px:g} px"
    if panel == "rgb":
        return Panel("frame")
    if panel == "flow":
        return Panel("flow", wheel=f"{max_flow_px:g} px", note="hue: direction, strength: speed")
    if panel in ("x", "y"):
        title = "x as stored, right is bright" if panel == "x" else "y as stored, down is bright"
        return Panel(title, Ramp(gray_ramp(), f"-{bound}", f"+{bound}"))
    if panel == "arrows":
        note = "as long as the flow" if arrows == 1 else f"{arrows:g} times the flow"
        return Panel("arrows", note=note)
    if panel == "consistency":
        ramp = Ramp(error_ramp(), "0", f"{CONSISTENCY_PX:g} px", "leaves the frame")
        return Panel("forward against backward", ramp)
    ramp = Ramp(error_ramp(), "0", f"{WARP_LEVELS:g} levels", "leaves the frame")
    return Panel("warped frame against frame", ramp)


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


def _inside(own: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of `own`'s shape in `size`; `size` itself up to rounding."""
    factor = min(size[0] / own[0], size[1] / own[1])
    width, height = (
        side if abs(one * factor - side) < 1 else max(1, round(one * factor))
        for one, side in zip(own, size, strict=True)
    )
    return width, height


# ---- the whole way


def view(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    keys: Sequence[str] = (),
    spec: ViewSpec | None = None,
    *,
    config: ExtractConfig | None = None,
    device: str = "auto",
) -> ViewReport:
    """Draws the flow of a data set's videos, or of a video, to a film or a sheet.

    `source` is a data set with the videos `keys` (its first one where there are none), or a video
    file or folder of images, whose flow is computed by `config` on `device`. `to` ends in .mp4,
    .webp, .gif or .png (a sheet). Raises InputError for a source that is neither, and ConfigError
    for options that do not fit it.
    """
    began = time.perf_counter()
    spec = spec or ViewSpec()
    suffix = Path(to).suffix.lower()
    if suffix not in (*FILM_SUFFIXES, PICTURE_SUFFIX):
        endings = f"{', '.join(FILM_SUFFIXES)} or {PICTURE_SUFFIX}"
        raise ConfigError(f"to must end in {endings}, got {os.fspath(to)}")
    # Said before the flow of a video is computed for nothing.
    check_folder(to)
    with contextlib.ExitStack() as stack:
        sources, spec, notes = _open(source, keys, spec, config, device, stack)
        drawing = draw_pages(sources, spec, sheet=suffix == PICTURE_SUFFIX)
        if suffix == PICTURE_SUFFIX:
            write_picture(to, next(drawing.pages))
        else:
            _check_room(suffix, drawing)
            write_film(to, drawing.pages, drawing.fps)
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


def _check_room(suffix: str, drawing: Drawing) -> None:
    num_bytes = 3 * drawing.num_pages * drawing.size[0] * drawing.size[1]
    if suffix != ".mp4" and num_bytes > _MOST_HELD_BYTES:
        most = _MOST_HELD_BYTES * drawing.num_pages // num_bytes
        raise ConfigError(
            f"length must be at most {most} for a {suffix} of {drawing.size[0]}x{drawing.size[1]} "
            f"px, which is held in memory, got {drawing.num_pages}; take fewer, or write an .mp4"
        )


def is_dataset(source: str | os.PathLike[str]) -> bool:
    """Whether a source names a data set: a URL, or a folder with `dataset.json`."""
    place = as_path(os.fspath(source))
    return is_url(place) or os.path.isfile(os.path.join(place, DATASET_FILE))


def _open(
    source: str | os.PathLike[str],
    keys: Sequence[str],
    spec: ViewSpec,
    config: ExtractConfig | None,
    device: str,
    stack: contextlib.ExitStack,
) -> tuple[list[FlowSource], ViewSpec, tuple[str, ...]]:
    if is_dataset(source):
        dataset = open_dataset(source)
        if config is not None:
            raise ConfigError(
                f"algorithm and what belongs to it go with a video, and {source} is a data set of "
                f"{dataset.config.flow.algorithm} flow"
            )
        stack.callback(dataset.close)
        sources, notes = _stored(dataset, keys)
        return sources, spec, notes
    if not os.path.exists(source):
        raise InputError(f"SOURCE does not exist: {source}; name a data set or a video")
    if keys:
        raise InputError(
            f"a KEY goes with a data set, and {source} is none: it has no {DATASET_FILE}"
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
