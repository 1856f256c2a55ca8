"""Pages of panels with labels and scales.

Page(panels, size) -> page.draw(images, heading)

  name, algorithm                   frame 3 > 4
  +-----------+   +-----------+
  |   image   |   |   image   |
  +-----------+   +-----------+
  frame           flow      (wheel) 8 px
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flowprep.errors import ConfigError
from flowprep.frame_size import MAX_SIDE_PX
from flowprep.look.color import OUTSIDE, color_wheel
from flowprep.words import cut_middle

__all__ = [
    "Page",
    "Panel",
    "Ramp",
    "arrow_factor",
    "draw_arrows",
    "fit",
    "font",
    "paled",
    "panel_size",
]

RGB = NDArray[np.uint8]  # (H, W, 3)

PAPER = (255, 255, 255)
INK = (34, 38, 43)
FAINT = (112, 119, 128)
RULE = (208, 212, 217)

MARGIN_PX = 14
GAP_PX = 12
HEADING_PX = 24
ROW_LABEL_PX = 20
LEGEND_PX = 50
LEAST_PANEL_PX = 200
MOST_PANEL_PX = 640


@dataclass(frozen=True)
class Ramp:
    """The legend of one quantity: a strip of its colors, and the meaning of both ends."""

    colors: NDArray[np.uint8]  # (256, 3)
    low: str
    high: str
    outside: str = ""
    """The meaning of gray pixels. Empty if there are none."""


@dataclass(frozen=True)
class Panel:
    """The text under one picture: a title, and a legend that is a ramp or a wheel."""

    title: str
    ramp: Ramp | None = None
    wheel: str = ""
    """The flow at the rim of the color wheel. Empty for no wheel."""
    note: str = ""


class Page:
    """A page of panels of one size, in rows. Unchanging parts are drawn only once."""

    def __init__(
        self,
        panels: Sequence[Panel],
        size: tuple[int, int],
        *,
        columns: int | None = None,
        name: str = "",
        num_rows: int | None = None,
    ) -> None:
        """Lays out the page. `size` is the (width, height) of a picture in px.

        Without `num_rows`, the page holds one moment, and its panels fill rows of `columns`. With
        `num_rows`, the page is a sheet: each row is one moment under its own label, and the legends
        stand at the bottom.
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
        # H.264 at 4:2:0 needs even sides.
        self.size = (width + width % 2, height + height % 2)
        if max(self.size) > MAX_SIDE_PX:
            raise ConfigError(
                f"width must leave a page of at most {MAX_SIDE_PX} px, got "
                f"{self.size[0]}x{self.size[1]} px; take a smaller width, or fewer panels"
            )
        self._pitch = pitch
        self._name = name
        self._paper = self._draw_paper(rows)

    def draw(self, moments: Sequence[Sequence[RGB]], labels: Sequence[str], name: str = "") -> RGB:
        """Returns the page, (H, W, 3) uint8, with a picture for each panel of each moment.

        The page of a film has one moment, with its label in the heading. A sheet has one moment per
        row. A picture that is smaller than its panel is centered.
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
        """Returns the upper left corner of a picture."""
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
        draw.text((left, top), panel.title, INK, font(14))
        below = top + 21
        room = self._cell
        if panel.wheel:
            side = 38
            x = left + self._cell - side
            disc = color_wheel(side)
            disc_image = Image.fromarray(disc)
            paper.paste(disc_image, (x, top + 1), disc_image)
            length = draw.textlength(panel.wheel, font(12))
            draw.text((x - length - 7, top + 13), panel.wheel, FAINT, font(12))
            room -= side + 7 + math.ceil(length) + 10
        if draw.textlength(panel.note, font(12)) <= room:
            draw.text((left, below), panel.note, FAINT, font(12))
        if (ramp := panel.ramp) is not None:
            x = left
            draw.text((x, below), ramp.low, FAINT, font(12))
            x += round(draw.textlength(ramp.low, font(12))) + 6
            side = min(96, self._cell // 3)
            places = np.linspace(0, 255, side).round().astype(int)
            strip = np.broadcast_to(ramp.colors[places], (9, side, 3))
            paper.paste(Image.fromarray(np.ascontiguousarray(strip)), (x, below + 3))
            draw.rectangle((x - 1, below + 2, x + side, below + 12), outline=RULE)
            x += side + 6
            draw.text((x, below), ramp.high, FAINT, font(12))
            x += round(draw.textlength(ramp.high, font(12))) + 14
            length = draw.textlength(ramp.outside, font(12))
            if ramp.outside and x + 14 + length <= left + self._cell:
                draw.rectangle((x, below + 3, x + 9, below + 12), fill=OUTSIDE)
                draw.text((x + 14, below), ramp.outside, FAINT, font(12))

    def _paste_text(
        self, page: RGB, texts: tuple[str, str], top: int, height: int, *, faint: bool = False
    ) -> None:
        """Writes one line with a text at its left end and another at its right end."""
        width = self.size[0] - 2 * MARGIN_PX
        line = _text_line(*texts, width, height, faint)
        page[top : top + height, MARGIN_PX : MARGIN_PX + width] = line


def panel_size(
    width: int, height: int, wanted_width: int | None = None, *, most: int = MOST_PANEL_PX
) -> tuple[int, int]:
    """Returns the (width, height) at which pictures of width x height px are drawn.

    Small pictures grow by a whole factor, so that each px becomes one square. Wide or tall pictures
    shrink to at most `most` px. If `wanted_width` is given, it decides instead.
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


def largest_inside(own: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest (width, height) inside `size` with the aspect ratio of `own`.

    If the ratios are equal up to rounding, the result is `size` itself.
    """
    factor = min(size[0] / own[0], size[1] / own[1])
    width, height = (
        side if abs(one * factor - side) < 1 else max(1, round(one * factor))
        for one, side in zip(own, size, strict=True)
    )
    return width, height


def fit(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Returns an image (H, W, ...) resized to fit inside `size`, (width, height) px.

    The image keeps its aspect ratio. Shrinking averages. Growing by a whole factor repeats px, and
    growing by any other factor is bilinear.
    """
    height, width = image.shape[:2]
    wanted = largest_inside((width, height), size)
    if wanted == (width, height):
        return image
    if wanted[0] < width or wanted[1] < height:
        way = cv2.INTER_AREA
    elif wanted[0] % width == 0 == wanted[1] % height:
        way = cv2.INTER_NEAREST
    else:
        way = cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, wanted, interpolation=way))


def arrow_factor(max_flow_px: float, scale: float, spacing_px: int) -> float:
    """Returns the length of arrows relative to the flow, so that the fastest show well."""
    factor = 2 * spacing_px / (max_flow_px * scale)
    rounded = [f for f in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100) if f <= factor]
    return rounded[-1] if rounded else 0.1


def paled(frame: RGB) -> RGB:
    """Returns a frame (H, W, 3) in light grays, on which colors stand out."""
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    light = np.asarray(np.rint(gray * 0.62 + 82), np.uint8)
    return np.asarray(cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), np.uint8)


def draw_arrows(
    frame: RGB,
    flow: NDArray[np.float32],
    *,
    scale: float,
    factor: float,
    spacing_px: int,
    pales: bool = True,
) -> RGB:
    """Returns a paled frame with an arrow every `spacing_px` that shows the motion there.

    `frame` is (H, W, 3) uint8 RGB as drawn. `flow` is (H, W, 2) float32 px of the video. One px of
    the video is `scale` px of the drawing. Arrows are `factor` times as long as the flow. A dot
    means a motion below .25 px. Without `pales`, the frame keeps its colors.
    """
    page = paled(frame) if pales else frame.copy()
    height, width = page.shape[:2]
    first = spacing_px // 2
    y, x = np.mgrid[first:height:spacing_px, first:width:spacing_px]
    shift = flow[y, x] * (scale * factor)
    # In sixteenths of a px. Whole px would make arrows tremble from frame to frame.
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


# ---- files


# ---- text


def _columns(num_panels: int) -> int:
    return num_panels if num_panels <= 3 else {4: 2, 5: 3, 6: 3}.get(num_panels, 4)


@functools.cache
def font(size_px: int) -> Any:
    """Returns the font of all pages in a size."""
    # Pillow's own font, so that pictures are the same on a machine without fonts.
    return ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=64)
def _text_line(left: str, right: str, width: int, height: int, faint: bool) -> RGB:
    line = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(line)
    letters = font(12 if faint else 14)
    room = width
    if right:
        length = draw.textlength(right, letters)
        draw.text((width - length, 2), right, FAINT, letters)
        room = int(width - length - 16)
    whole, most = left, len(left)
    while most > 3 and draw.textlength(left, letters) > room:
        most -= 1
        left = cut_middle(whole, most)
    draw.text((0, 2), left, FAINT if faint else INK, letters)
    return np.array(line)
