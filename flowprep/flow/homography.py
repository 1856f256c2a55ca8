"""Homographies between frames: arithmetic that is the same on every processor, and the warp.

from_corners     the homography of the frame's corners, which are rounded
inverse          the other way
warp_back        a frame as a camera that had not moved would see it
with_camera_motion    warped flow -> flow on the screen
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CAMERA_VERSION",
    "IDENTITY",
    "Box",
    "Homography",
    "Matrix",
    "Points",
    "apply",
    "corner_motion_px",
    "frame_corners",
    "from_corners",
    "inverse",
    "with_camera_motion",
]

Homography: TypeAlias = tuple[float, float, float, float, float, float, float, float, float]
"""The rows of a 3x3 matrix; the last number is 1. It takes (x, y, 1) of a point of the background
in one frame to the same point in another, in px."""
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in px. The last two are the first beyond the box."""

Points: TypeAlias = NDArray[np.float64]  # (N, 2): x, y in px
Matrix: TypeAlias = NDArray[np.float64]  # (3, 3)

CAMERA_VERSION = 1
"""A change that finds other homographies, or warps frames otherwise, gets a new number."""

IDENTITY: Homography = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def apply(matrix: Matrix, points: Points) -> Points:
    """Returns where the points go, (N, 2)."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved[:, :2] / moved[:, 2:])


def from_corners(corners: Sequence[Sequence[float]], width: int, height: int) -> Homography:
    """Returns the homography that moves the corners of `frame_corners` to these.

    The formulas are of Heckbert, "Fundamentals of texture mapping", 1989, section 2.2.3.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    right, bottom = width - 1.0, height - 1.0
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    det = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / det, (dx1 * sy - sx * dy1) / det
    return (
        round((x1 - x0 + g * x1) / right, 9),
        round((x3 - x0 + h * x3) / bottom, 9),
        x0,
        round((y1 - y0 + g * y1) / right, 9),
        round((y3 - y0 + h * y3) / bottom, 9),
        y0,
        round(g / right, 12),
        round(h / bottom, 12),
        1.0,
    )


def inverse(homography: Homography) -> Homography:
    """Returns the homography the other way."""
    a, b, c, d, e, f, g, h, i = homography
    scale = a * e - b * d
    return (
        (e * i - f * h) / scale,
        (c * h - b * i) / scale,
        (b * f - c * e) / scale,
        (f * g - d * i) / scale,
        (a * i - c * g) / scale,
        (c * d - a * f) / scale,
        (d * h - e * g) / scale,
        (b * g - a * h) / scale,
        1.0,
    )


def frame_corners(width: int, height: int) -> Points:
    """Returns the centers of the frame's corner pixels, clockwise from the upper left, (4, 2)."""
    right, bottom = width - 1.0, height - 1.0
    return np.array([(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom)])


def corner_motion_px(homography: Homography, width: int, height: int) -> float:
    """Returns how far the camera moves the corner of the frame that it moves farthest, in px."""
    corners = frame_corners(width, height)
    moved = apply(np.array(homography).reshape(3, 3), corners)
    return float(np.hypot(*(moved - corners).T).max())


def with_camera_motion(flow: NDArray[np.float32], homography: Homography) -> NDArray[np.float32]:
    """Returns where pixels are in the other frame, from warped flow: both (H, W, 2) float32 px.

    `homography` is that of the field's direction: for a backward field, the inverse of the pair's.
    """
    height, width = flow.shape[:2]
    a, b, c, d, e, f, g, h, i = homography
    columns, rows = np.arange(width), np.arange(height)[:, None]
    x, y = columns + flow[..., 0].astype(np.float64), rows + flow[..., 1].astype(np.float64)
    depth = g * x + h * y + i
    u, v = (a * x + b * y + c) / depth - columns, (d * x + e * y + f) / depth - rows
    return np.stack([u, v], axis=-1).astype(np.float32)
