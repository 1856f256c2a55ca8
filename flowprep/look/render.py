"""Pages of panels with labels and scales, and the films and pictures that they are written to.

Page(panels, size) -> page.draw(images, heading) -> write_film(path, pages, fps)

  name, algorithm                   frame 3 > 4
  +-----------+   +-----------+
  |   image   |   |   image   |
  +-----------+   +-----------+
  frame           flow      (wheel) 8 px
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flowprep.config import MAX_SIDE_PX
from flowprep.errors import ConfigError, StorageError
from flowprep.look.color import color_wheel, flow_to_color

__all__ = [
    "FILM_SUFFIXES",
    "Page",
    "Panel",
    "Ramp",
    "check_folder",
    "draw_arrows",
    "error_to_color",
    "fit",
    "histogram_quantile",
    "panel_size",
    "round_scale",
    "write_film",
    "write_picture",
]

RGB = NDArray[np.uint8]  # (H, W, 3)

FILM_SUFFIXES = (".mp4", ".webp", ".gif")
"""Endings of moving pictures, in lower case."""

PAPER = (255, 255, 255)
INK = (34, 38, 43)
FAINT = (112, 119, 128)
RULE = (208, 212, 217)
OUTSIDE = (206, 211, 217)
"""What has no value, such as an error where flow leaves the frame."""

# AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG of FFmpeg's pixfmt.h.
_BT601 = 6
_LIMITED_RANGE = 1

MARGIN_PX = 14
GAP_PX = 12
HEADING_PX = 24
ROW_LABEL_PX = 20
LEGEND_PX = 50
LEAST_PANEL_PX = 200
MOST_PANEL_PX = 640

# From nothing over orange to a brown that is nearly black: errors stand out from quiet paper.
_ERROR_COLORS = np.array(
    [(255, 255, 255), (254, 224, 182), (253, 174, 97), (224, 90, 35), (140, 25, 20), (45, 5, 20)]
)


@dataclass(frozen=True)
class Ramp:
    """The legend of one quantity: a strip of its colours, and what its ends stand for."""

    colors: NDArray[np.uint8]  # (256, 3)
    low: str
    high: str
    outside: str = ""
    """What a gray place means; empty where there is none."""


@dataclass(frozen=True)
class Panel:
    """What stands under one picture: a title, and a legend that is a ramp or a wheel."""

    title: str
    ramp: Ramp | None = None
    wheel: str = ""
    """What the rim of the colour wheel stands for; empty for no wheel."""
    note: str = ""


class Page:
    """A page of panels of one size, in rows; what does not change is drawn once."""

    def __init__(
        self,
        panels: Sequence[Panel],
        size: tuple[int, int],
        *,
        columns: int | None = None,
        name: str = "",
        num_rows: int | None = None,
    ) -> None:
        """Lays the page out; `size` is the (width, height) of a picture in px.

        Without `num_rows`, it holds one moment, whose panels flow into rows of `columns`. With it,
        it is a sheet: each row is a moment, under its own label, and the legends stand below all.
        """
        self.panels = tuple(panels)
        self.width, self.height = size
        self._is_sheet = num_rows is not None
        self.columns = len(panels) if self._is_sheet else columns or _columns(len(panels))
        rows = num_rows or -(-len(panels) // self.columns)
        self._cell = max(self.width, LEAST_PANEL_PX)
        if self._is_sheet:
            pitch, tail = ROW_LABEL_PX + self.height + 8, LEGEND_PX
        else:
            pitch, tail = self.height + LEGEND_PX, 0
        width = 2 * MARGIN_PX + self.columns * (self._cell + GAP_PX) - GAP_PX
        height = MARGIN_PX + HEADING_PX + rows * pitch + tail + MARGIN_PX // 2
        # H.264 at 4:2:0 takes even sides.
        self.size = (width + width % 2, height + height % 2)
        if max(self.size) > MAX_SIDE_PX:
            raise ConfigError(
                f"width must leave a page of at most {MAX_SIDE_PX} px, got "
                f"{self.size[0]}x{self.size[1]} px; take a smaller one, or fewer panels"
            )
        self._pitch = pitch
        self._name = name
        self._paper = self._draw_paper(rows)

    def draw(self, moments: Sequence[Sequence[RGB]], labels: Sequence[str], name: str = "") -> RGB:
        """Returns the page, (H, W, 3) uint8: a picture for each panel, for each moment.

        A film's page has one moment, whose label stands in the heading; a sheet's has one a row.
        Pictures smaller than the panel are centred in it.
        """
        page: RGB = self._paper.copy()
        heading = (name or self._name, "" if self._is_sheet else labels[0])
        self._paste_text(page, heading, MARGIN_PX - 4, HEADING_PX)
        for row, (images, label) in enumerate(zip(moments, labels, strict=True)):
            if self._is_sheet:
                top = MARGIN_PX + HEADING_PX + row * self._pitch - 4
                self._paste_text(page, (label, ""), top, ROW_LABEL_PX, faint=True)
            for number, image in enumerate(images):
                x, y = self._place(number, row)
                height, width = image.shape[:2]
                x += (self.width - width) // 2
                y += (self.height - height) // 2
                page[y : y + height, x : x + width] = image
        return page

    def _place(self, number: int, row: int) -> tuple[int, int]:
        """The upper left corner of a picture."""
        row += number // self.columns
        top = MARGIN_PX + HEADING_PX + (ROW_LABEL_PX if self._is_sheet else 0)
        return (
            MARGIN_PX + (number % self.columns) * (self._cell + GAP_PX),
            top + row * self._pitch,
        )

    def _draw_paper(self, rows: int) -> RGB:
        paper = Image.new("RGB", self.size, PAPER)
        draw = ImageDraw.Draw(paper)
        for number, panel in enumerate(self.panels):
            moments = range(rows) if self._is_sheet else range(1)
            for row in moments:
                x, y = self._place(number, row)
                draw.rectangle((x - 1, y - 1, x + self.width, y + self.height), outline=RULE)
            self._draw_legend(paper, panel, x, y + self.height + 5)
        return np.array(paper)

    def _draw_legend(self, paper: Image.Image, panel: Panel, left: int, top: int) -> None:
        draw = ImageDraw.Draw(paper)
        draw.text((left, top), panel.title, INK, _font(14))
        below = top + 21
        room = self._cell
        if panel.wheel:
            side = 38
            x = left + self._cell - side
            disc = color_wheel(side)
            disc_image = Image.fromarray(disc)
            paper.paste(disc_image, (x, top + 1), disc_image)
            length = draw.textlength(panel.wheel, _font(12))
            draw.text((x - length - 7, top + 13), panel.wheel, FAINT, _font(12))
            room -= side + 7 + math.ceil(length) + 10
        if draw.textlength(panel.note, _font(12)) <= room:
            draw.text((left, below), panel.note, FAINT, _font(12))
        if (ramp := panel.ramp) is not None:
            x = left
            draw.text((x, below), ramp.low, FAINT, _font(12))
            x += round(draw.textlength(ramp.low, _font(12))) + 6
            side = min(96, self._cell // 3)
            places = np.linspace(0, 255, side).round().astype(int)
            strip = np.broadcast_to(ramp.colors[places], (9, side, 3))
            paper.paste(Image.fromarray(np.ascontiguousarray(strip)), (x, below + 3))
            draw.rectangle((x - 1, below + 2, x + side, below + 12), outline=RULE)
            x += side + 6
            draw.text((x, below), ramp.high, FAINT, _font(12))
            x += round(draw.textlength(ramp.high, _font(12))) + 14
            length = draw.textlength(ramp.outside, _font(12))
            if ramp.outside and x + 14 + length <= left + self._cell:
                draw.rectangle((x, below + 3, x + 9, below + 12), fill=OUTSIDE)
                draw.text((x + 14, below), ramp.outside, FAINT, _font(12))

    def _paste_text(
        self, page: RGB, texts: tuple[str, str], top: int, height: int, *, faint: bool = False
    ) -> None:
        """Writes a line with a text at its left and one at its right end."""
        width = self.size[0] - 2 * MARGIN_PX
        line = _text_line(*texts, width, height, faint)
        page[top : top + height, MARGIN_PX : MARGIN_PX + width] = line


def panel_size(
    width: int, height: int, wanted_width: int | None = None, *, most: int = MOST_PANEL_PX
) -> tuple[int, int]:
    """Returns the (width, height) at which pictures of width x height px are drawn.

    Small ones grow by a whole factor, so that each px stays one square; large ones shrink to at
    most `most` px across, and tall ones too. `wanted_width` decides instead where it is given.
    """
    if wanted_width is not None:
        if not 16 <= wanted_width <= 8192:
            raise ConfigError(f"width must be from 16 to 8192 px, got {wanted_width}")
        return wanted_width, max(1, round(height * wanted_width / width))
    if width < LEAST_PANEL_PX:
        factor = max(1, min(-(-LEAST_PANEL_PX // width), 400 // height))
        return width * factor, height * factor
    shrink = max(1.0, width / most, height / most)
    return max(1, round(width / shrink)), max(1, round(height / shrink))


def fit(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Returns (H, W, ...) resized to `size`, (width, height) px; of another shape, inside of it.

    It averages where it shrinks, repeats px where it grows by a whole factor, and is bilinear
    where it grows by another one.
    """
    height, width = image.shape[:2]
    factor = min(size[0] / width, size[1] / height)
    # An exact fit of one side leaves the other to rounding.
    wanted = tuple(
        side if abs(own * factor - side) < 1 else max(1, round(own * factor))
        for own, side in zip((width, height), size, strict=True)
    )
    if wanted == (width, height):
        return image
    if factor < 1:
        way = cv2.INTER_AREA
    elif wanted[0] % width == 0 == wanted[1] % height:
        way = cv2.INTER_NEAREST
    else:
        way = cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, wanted, interpolation=way))


def error_to_color(error: NDArray[np.floating[Any]], most: float) -> RGB:
    """Returns errors as colours, from white for 0 to nearly black for `most` and above.

    `error` is (H, W); the result is (H, W, 3) uint8 RGB, gray where the error is NaN.
    """
    ramp = error_ramp()
    outside = np.isnan(error)
    places = np.clip(np.where(outside, 0, error) * (255 / most), 0, 255)
    colors = ramp[np.rint(places).astype(np.uint8)]
    colors[outside] = OUTSIDE
    return colors


@functools.cache
def error_ramp() -> NDArray[np.uint8]:
    """The 256 colours of errors, (256, 3) RGB."""
    place = np.linspace(0, len(_ERROR_COLORS) - 1, 256)
    known = np.arange(len(_ERROR_COLORS))
    columns = [np.interp(place, known, _ERROR_COLORS[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(columns, axis=-1)), np.uint8)


@functools.cache
def gray_ramp() -> NDArray[np.uint8]:
    """The 256 gray levels, (256, 3) RGB."""
    return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def arrow_factor(max_flow_px: float, scale: float, spacing_px: int) -> float:
    """How many times longer than the flow its arrows are, so that the fastest show well."""
    factor = 2 * spacing_px / (max_flow_px * scale)
    rounded = [f for f in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100) if f <= factor]
    return rounded[-1] if rounded else 0.1


def draw_arrows(
    frame: RGB, flow: NDArray[np.float32], *, scale: float, factor: float, spacing_px: int
) -> RGB:
    """Returns a paled frame with an arrow every `spacing_px`: where what is there goes.

    `frame` is (H, W, 3) uint8 RGB as drawn; `flow` is (H, W, 2) float32 px of the video, of which
    one is `scale` px here; arrows are `factor` times as long. A dot is a motion below .25 px.
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    paled = np.asarray(np.rint(gray * 0.62 + 82), np.uint8)
    page = cv2.cvtColor(paled, cv2.COLOR_GRAY2RGB)
    height, width = gray.shape
    first = spacing_px // 2
    y, x = np.mgrid[first:height:spacing_px, first:width:spacing_px]
    shift = flow[y, x] * (scale * factor)
    # In sixteenths of a px: whole ones would make arrows tremble from frame to frame.
    bits = 4
    starts = np.stack([x, y], axis=-1).reshape(-1, 2) * (1 << bits)
    ends = np.rint(starts + shift.reshape(-1, 2) * (1 << bits)).astype(int)
    for color, thickness in (((60, 64, 70), 3), ((255, 221, 30), 1)):
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            length_px = math.dist(start, end) / (1 << bits)
            if length_px < 0.25 * factor * scale or length_px < 2:
                radius = thickness * (1 << bits) // 2
                cv2.circle(page, start, radius, color, cv2.FILLED, cv2.LINE_AA, bits)
                continue
            cv2.line(page, start, end, color, thickness, cv2.LINE_AA, bits)
            angle = math.atan2(end[1] - start[1], end[0] - start[0])
            barb = min(4.5, 0.35 * length_px) * (1 << bits)
            for turn in (math.pi - 0.5, math.pi + 0.5):
                tip = (
                    round(end[0] + barb * math.cos(angle + turn)),
                    round(end[1] + barb * math.sin(angle + turn)),
                )
                cv2.line(page, end, tip, color, thickness, cv2.LINE_AA, bits)
    return np.asarray(page, np.uint8)


def histogram_quantile(counts: Sequence[int], bin_px: float, share: float) -> float:
    """Returns the upper end in px of the bin in which the `share` quantile lies; 0 for no counts.

    `counts` are of bins of `bin_px` from 0, as data sets keep them.
    """
    total = np.cumsum(counts, dtype=np.int64)
    if not len(total) or not total[-1]:
        return 0.0
    return float((np.searchsorted(total, share * total[-1]) + 1) * bin_px)


def round_scale(px: float) -> float:
    """Returns the next number from 1 upwards that reads well: 1, 1.5, 2, 3, 4, 5, 6, 8, 10 ..."""
    if px <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(px))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return next(step * power for step in steps if step * power >= px * (1 - 1e-9))


# ---- files


def write_film(path: str | os.PathLike[str], pages: Iterable[RGB], fps: float) -> int:
    """Writes pages of one size as MP4 (H.264), animated WebP or GIF, by the path's ending.

    Pages are (H, W, 3) uint8 RGB with even sides; the film appears when it is complete. Returns how
    many there were. Raises ConfigError for another ending and a rate that is not > 0, and
    StorageError where the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FILM_SUFFIXES:
        raise ConfigError(f"a film must end in {', '.join(FILM_SUFFIXES)}, got {path}")
    if not 0 < fps <= 1000:
        raise ConfigError(f"play_fps must be > 0 and <= 1000, got {fps:g}")
    writer = {".mp4": _write_mp4, ".webp": write_webp, ".gif": _write_gif}[suffix]
    count = 0

    def format_count() -> Iterator[RGB]:
        nonlocal count
        for page in pages:
            count += 1
            yield page

    with _published(path) as partial:
        writer(partial, format_count(), fps)
    return count


def write_picture(path: str | os.PathLike[str], page: RGB) -> None:
    """Writes a page, (H, W, 3) uint8 RGB, as PNG; it appears when it is complete."""
    with _published(Path(path)) as partial:
        Image.fromarray(page).save(partial, format="PNG")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises StorageError where the folder that `path` is to be written to does not exist."""
    if not Path(path).parent.is_dir():
        raise StorageError(f"the folder of {path} does not exist; make it first")


class _published:  # noqa: N801
    """A file beside `path` that takes its place when all went well, and goes away when not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".partial-{os.getpid()}-{path.name}")

    def __enter__(self) -> str:
        check_folder(self._path)
        return str(self._partial)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            if error is None:
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
            raise StorageError(
                f"{self._path} cannot be written: {error}; choose another place"
            ) from error


def _write_mp4(path: str, pages: Iterator[RGB], fps: float) -> None:
    options = {"movflags": "+faststart"}
    with av.open(path, "w", format="mp4", options=options) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = cast(
            VideoStream,
            container.add_stream("libx264", rate, {"crf": "18", "preset": "veryfast"}),
        )
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 0
        # BT.601, limited range: what FFmpeg makes of RGB. Said, so that no player takes large
        # pictures for those of high definition.
        stream.codec_context.colorspace = _BT601
        stream.codec_context.color_range = _LIMITED_RANGE
        for number, page in enumerate(pages):
            if number == 0:
                stream.height, stream.width = page.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
        container.mux(stream.encode(None))


def write_webp(target: str | IO[bytes], pages: Iterator[RGB], fps: float) -> None:
    """Writes pages of one size as an endless animated WebP to a path or a binary file."""
    first = Image.fromarray(next(pages))
    first.save(
        target,
        format="WEBP",
        save_all=True,
        append_images=(Image.fromarray(page) for page in pages),
        duration=max(1, round(1000 / fps)),
        loop=0,
        quality=85,
        method=2,
    )


def _write_gif(path: str, pages: Iterator[RGB], fps: float) -> None:
    # One palette for the film, from its first pages: one for each page would make colours flicker.
    begin = list(itertools.islice(pages, 12))
    palette = _gif_palette(np.concatenate(begin[:: max(1, len(begin) // 3)]))

    def quantized(page: RGB) -> Image.Image:
        return Image.fromarray(page).quantize(palette=palette, dither=Image.Dither.NONE)

    rest = (quantized(page) for page in itertools.chain(begin[1:], pages))
    quantized(begin[0]).save(
        path,
        format="GIF",
        save_all=True,
        append_images=rest,
        # GIF counts in hundredths of a second, and viewers slow down what is below two.
        duration=max(20, 10 * round(100 / fps)),
        loop=0,
    )


def _gif_palette(sample: RGB) -> Image.Image:
    """Half of the 256 colours are of paper, ink, wheel and errors; half are the picture's own."""
    angle = np.linspace(-np.pi, np.pi, 30, endpoint=False)
    rays = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    hues = [flow_to_color(speed * rays, 1.0) for speed in (0.25, 0.5, 0.75, 0.999)]
    grays = np.linspace(255, 0, 6)[:, None].repeat(3, axis=1)
    fixed = np.concatenate([*hues, grays, error_ramp()[::28], [INK, FAINT]]).astype(np.uint8)
    own = Image.fromarray(sample).quantize(256 - len(fixed), Image.Quantize.MEDIANCUT)
    rest = np.array(own.getpalette(), np.uint8).reshape(-1, 3)
    # Pillow compares in steps of four levels, and would take another near white for paper.
    rest[rest.min(axis=1) >= 246] = PAPER
    colors = np.concatenate([fixed, rest]).ravel().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colors[: 3 * 256])
    return palette


def webp_bytes(pages: Iterator[RGB], fps: float) -> bytes:
    """Returns pages of one size as an endless animated WebP."""
    file = io.BytesIO()
    write_webp(file, pages, fps)
    return file.getvalue()


# ---- text


def _columns(num_panels: int) -> int:
    return num_panels if num_panels <= 3 else {4: 2, 5: 3, 6: 3}.get(num_panels, 4)


@functools.cache
def _font(size_px: int) -> Any:
    # Pillow's own, so that pictures are the same on a machine without fonts.
    return ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=64)
def _text_line(left: str, right: str, width: int, height: int, faint: bool) -> RGB:
    line = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(line)
    font = _font(12 if faint else 14)
    room = width
    if right:
        length = draw.textlength(right, font)
        draw.text((width - length, 2), right, FAINT, font)
        room = int(width - length - 16)
    if draw.textlength(left, font) > room:
        while left and draw.textlength(left + "...", font) > room:
            left = left[:-1]
        left += "..."
    draw.text((0, 2), left, FAINT if faint else INK, font)
    return np.array(line)
