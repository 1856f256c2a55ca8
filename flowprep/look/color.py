"""Flow as colour: hue says the direction, saturation the speed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError

__all__ = ["flow_to_color"]

# Steps from each primary and secondary colour to the next, after perceived differences (Baker et
# al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011; colorcode.cpp).
_WHEEL_STEPS = (15, 6, 4, 11, 13, 6)  # red, yellow, green, cyan, blue, magenta


def flow_to_color(flow: NDArray[np.floating[Any]], max_flow_px: float) -> NDArray[np.uint8]:
    """Returns flow in the Middlebury colour coding.

    `flow` is (..., 2) float px, (u right, v down); the result is (..., 3) uint8 RGB. Zero is white,
    `max_flow_px` is fully saturated, and what is faster is darkened by a quarter. The scale is the
    caller's, so that two pictures can be compared. NaN and infinities are black. Raises ConfigError
    for a scale that is not > 0. Source: Baker et al. (IJCV 2011), colorcode.cpp of their flow code.
    """
    if not max_flow_px > 0:
        raise ConfigError(f"max_flow_px must be > 0, got {max_flow_px:g}")
    wheel = _wheel()
    invalid = ~np.isfinite(flow).all(axis=-1)
    u, v = np.moveaxis(np.where(invalid[..., None], 0, flow) / max_flow_px, -1, 0)
    radius = np.hypot(u, v)
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = position.astype(np.intp)
    share = (position - low)[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    inside = 1 - np.minimum(radius, 1)[..., None] * (1 - hue)
    color = np.where((radius <= 1)[..., None], inside, 0.75 * hue)
    color[invalid] = 0
    levels: NDArray[np.uint8] = (255 * color).astype(np.uint8)
    return levels


@functools.cache
def _wheel() -> NDArray[np.float64]:
    """The 55 hues of the wheel, (55, 3) RGB in [0, 1]."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], float)
    hues = []
    for corner, following, steps in zip(
        corners, np.roll(corners, -1, axis=0), _WHEEL_STEPS, strict=True
    ):
        # colorcode.cpp counts in whole levels of 255.
        share = np.floor(255 * np.arange(steps) / steps)[:, None] / 255
        rising = following > corner
        hues.append(np.where(rising, share, np.where(following < corner, 1 - share, corner)))
    return np.concatenate(hues)
