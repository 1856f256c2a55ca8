"""Draws flow and errors as colors. The hue is the direction and the saturation is the speed."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec
from flowprep.dataset.quantize import dequantize
from flowprep.errors import ConfigError

__all__ = [
    "OUTSIDE",
    "color_wheel",
    "error_ramp",
    "error_to_color",
    "flow_to_color",
    "gray_ramp",
    "levels_to_color",
    "round_scale",
    "wheel_hues",
]

# Steps from each primary or secondary color to the next, chosen by perceived differences (Baker et
# al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011; colorcode.cpp).
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)  # red, yellow, green, cyan, blue, magenta

# Number of table entries from one hue of the wheel to the next. Two neighboring entries differ by
# an eighth of a level.
_HUES_PER_STEP = 256


def flow_to_color(flow: NDArray[np.floating[Any]], max_flow_px: float) -> NDArray[np.uint8]:
    """Returns flow in the Middlebury color coding.

    `flow` is (..., 2) float px, (u right, v down). The result is (..., 3) uint8 RGB. Zero is white,
    `max_flow_px` is fully saturated, and faster flow is darkened by a quarter. Right is red, down
    yellow, left cyan and up violet. The caller chooses the scale, so that two pictures can be
    compared. NaN and infinities are black. Raises ConfigError for a scale that is not > 0 or not
    finite. Source: Baker et al. (IJCV 2011), colorcode.cpp of their flow code.
    """
    _check_scale(max_flow_px)
    shape = np.shape(flow)[:-1]
    u, v = np.reshape(np.multiply(flow, 1 / max_flow_px, dtype=np.float32), (-1, 2)).T
    with np.errstate(over="ignore", invalid="ignore"):
        radius = np.sqrt(u * u + v * v)
        position = np.arctan2(-v, -u)
        position *= np.float32((len(_wheel()) - 1) / 2 / np.pi * _HUES_PER_STEP)
        position += np.float32((len(_wheel()) - 1) / 2 * _HUES_PER_STEP)
        invalid = ~(np.isfinite(u) & np.isfinite(v))
        position[invalid] = 0
        # 255 minus the hue is the amount of each primary that full saturation takes from white.
        taken = _hues()[np.rint(position).astype(np.int32)]  # (N, 3)
        outside = radius > 1
        color = 255 - radius[..., None] * taken
    color[outside] = 0.75 * (255 - taken[outside])
    color[invalid] = 0
    # colorcode.cpp truncates. A float32 value just below a whole level counts as that level.
    levels: NDArray[np.uint8] = (color + np.float32(1e-3)).astype(np.uint8)
    return levels.reshape(*shape, 3)


def levels_to_color(
    levels: NDArray[np.uint8], spec: FlowSpec, max_flow_px: float
) -> NDArray[np.uint8]:
    """Returns stored flow in the Middlebury color coding, like `flow_to_color` of its px.

    `levels` is (..., 2) uint8, (x, y), as quantized under `spec`. The result is (..., 3) uint8 RGB.
    The colors of all 65536 pairs of levels are in a table, because a film needs millions of them.
    """
    _check_scale(max_flow_px)
    table = _level_colors(spec, float(max_flow_px))
    places = levels[..., 1].astype(np.uint16)
    places <<= 8
    places |= levels[..., 0]
    # Each color has four bytes, so that a lookup is one load.
    packed = table.take(places)
    colors: NDArray[np.uint8] = packed.view(np.uint8).reshape(*places.shape, 4)[..., :3]
    return np.ascontiguousarray(colors)


def color_wheel(side_px: int) -> NDArray[np.uint8]:
    """Returns the disc of all directions: (S, S, 4) uint8 RGBA, transparent around the disc.

    Each pixel has the color of the flow that points to it from the center. The rim is the scale.
    """
    fine = 4 * side_px
    axis = (np.arange(fine) - (fine - 1) / 2) / (fine / 2)
    u, v = np.meshgrid(axis, axis)
    inside = np.hypot(u, v) <= 1
    disc = flow_to_color(np.stack([u, v], axis=-1), 1.0).astype(np.float64)
    blocks = (side_px, 4, side_px, 4)
    cover = inside.reshape(blocks).sum(axis=(1, 3))
    total = (disc * inside[..., None]).reshape(*blocks, 3).sum(axis=(1, 3))
    color = total / np.maximum(cover, 1)[..., None]
    alpha = 255 / 16 * cover
    rgba = np.concatenate([color, alpha[..., None]], axis=-1)
    return np.asarray(np.rint(rgba), np.uint8)


def wheel_hues() -> NDArray[np.uint8]:
    """Returns the hues of the wheel from -pi to pi, (55, 3) uint8 RGB, for other programs.

    Hue n belongs to the angle atan2(-v, -u) = (2 n / 54 - 1) pi.
    """
    return np.rint(255 * _wheel()).astype(np.uint8)


def _check_scale(max_flow_px: float) -> None:
    if not 0 < max_flow_px < np.inf:
        raise ConfigError(f"max_flow_px must be > 0, got {max_flow_px:g}")


@functools.lru_cache(maxsize=16)
def _level_colors(spec: FlowSpec, max_flow_px: float) -> NDArray[np.uint32]:
    """Returns the color of each pair of levels, at 256 y + x: (65536,) uint32 of RGB and zero."""
    y, x = np.mgrid[:256, :256].astype(np.uint8)
    table = np.zeros((65536, 4), np.uint8)
    flow = dequantize(np.stack([x, y], axis=-1), spec)
    table[:, :3] = flow_to_color(flow, max_flow_px).reshape(-1, 3)
    return table.view(np.uint32).ravel()


@functools.cache
def _wheel() -> NDArray[np.float64]:
    """Returns the 55 hues of the wheel, (55, 3) RGB in [0, 1]."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], float)
    hues = []
    for corner, following, steps in zip(
        corners, np.roll(corners, -1, axis=0), _WHEEL_STEPS, strict=True
    ):
        # colorcode.cpp computes with whole levels of 255.
        share = np.floor(255 * np.arange(steps) / steps)[:, None] / 255
        rising = following > corner
        hues.append(np.where(rising, share, np.where(following < corner, 1 - share, corner)))
    return np.concatenate(hues)


@functools.cache
def _hues() -> NDArray[np.float32]:
    """Returns 255 minus each hue, from the wheel's first to its last, (54 * 256 + 1, 3) float32."""
    wheel = _wheel()
    place = np.arange((len(wheel) - 1) * _HUES_PER_STEP + 1) / _HUES_PER_STEP
    columns = [np.interp(place, np.arange(len(wheel)), 255 * (1 - wheel[:, c])) for c in range(3)]
    return np.stack(columns, axis=-1).astype(np.float32)


OUTSIDE = (206, 211, 217)
"""Color of a pixel without a value, for example the error of flow that leaves the frame."""

# From white over orange to a brown that is nearly black, so that errors stand out.
_ERROR_COLORS = np.array(
    [(255, 255, 255), (254, 224, 182), (253, 174, 97), (224, 90, 35), (140, 25, 20), (45, 5, 20)]
)


def error_to_color(error: NDArray[np.floating[Any]], most: float) -> NDArray[np.uint8]:
    """Returns errors as colors, from white for 0 to nearly black for `most` and above.

    `error` is (H, W). The result is (H, W, 3) uint8 RGB. NaN errors are gray.
    """
    ramp = error_ramp()
    outside = np.isnan(error)
    places = np.clip(np.where(outside, 0, error) * (255 / most), 0, 255)
    colors = ramp[np.rint(places).astype(np.uint8)]
    colors[outside] = OUTSIDE
    return colors


@functools.cache
def error_ramp() -> NDArray[np.uint8]:
    """Returns the 256 colors of errors, (256, 3) RGB."""
    place = np.linspace(0, len(_ERROR_COLORS) - 1, 256)
    known = np.arange(len(_ERROR_COLORS))
    columns = [np.interp(place, known, _ERROR_COLORS[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(columns, axis=-1)), np.uint8)


@functools.cache
def gray_ramp() -> NDArray[np.uint8]:
    """Returns the 256 gray levels, (256, 3) RGB."""
    return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def round_scale(px: float) -> float:
    """Rounds up to a number that reads well: 1, 1.5, 2, 3, 4, 5, 6, 8, 10 ..."""
    if px <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(px))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return next(step * power for step in steps if step * power >= px * (1 - 1e-9))
