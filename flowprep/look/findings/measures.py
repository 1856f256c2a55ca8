"""What the pixels of a video say: one field against the two frames it joins.

measure_pair(frames, flows)   a field and its frames -> PairMeasures
plateau(flow, ...)            whether a field was cut off at a bound
repeats(differences)          which frames repeat the frame before
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec
from flowprep.flow.homography import Homography, inverse, with_camera_motion
from flowprep.look.findings.statistics import MOVING_PX

__all__ = [
    "MOTION_SHAPE",
    "PICTURE_SHAPE",
    "PairMeasures",
    "VideoSample",
    "measure_pair",
    "plateau",
    "repeats",
]

PICTURE_SHAPE = (24, 32, 3)
MOTION_SHAPE = (4, 4, 2)

_MAX_SIDE_PX = 400
"""Larger fields are shrunk before they are measured. The measures are shares and ratios."""

Plane = NDArray[np.float32]  # (H, W)

_CANDIDATES: dict[str, Callable[[Plane, Plane], tuple[Plane, Plane]]] = {
    "stored": lambda u, v: (u, v),
    "zero": lambda u, v: (0 * u, 0 * v),
    "swapped": lambda u, v: (v, u),
    "reversed": lambda u, v: (-u, -v),
    "mirrored-x": lambda u, v: (-u, v),
    "mirrored-y": lambda u, v: (u, -v),
}
"""The ways in which a field may be wrong, each with the change that would correct the field."""
_MAX_POINTS = 16384
"""Number of moving pixels that are compared, at equal distances."""


@dataclass(frozen=True)
class PairMeasures:
    """Measures of one field and its two frames. Shares are from 0 to 1, errors in gray levels."""

    pair: int
    num_pixels: int
    num_moving: int
    """Number of moving pixels over which the errors are summed."""
    errors: Mapping[str, float]
    """For each way in which the field may be wrong, the sum over the moving pixels of
    |second frame, moved back - first frame|."""
    inconsistent: float
    """Share of pixels where forward and backward flow disagree (Sundaram et al., ECCV 2010)."""
    mean_px: float
    median_px: float
    camera_px: float
    """Length of the border's median vector."""
    camera_share: float
    """Share of the pixels that move like the border."""
    is_blank: bool
    """Whether the field is zero to within a level."""
    difference: float
    """Mean |second frame - first frame|."""
    structure: float
    """Correlation of the two frames, 1 for the same scene."""
    brightness: float
    """Mean of the first frame."""
    contrast: float
    """Distance of the 2nd and 98th percentile of the first frame."""


def measure_pair(
    pair: int,
    frames: NDArray[np.uint8] | None,
    forward: NDArray[np.float32],
    backward: NDArray[np.float32] | None,
    spec: FlowSpec,
    homography: Homography | None = None,
) -> PairMeasures:
    """Compares a field with the two frames that it joins.

    `frames` is (2, H, W, 3) uint8 RGB or None. `forward` is (H, W, 2) float32 px on the grid of the
    first frame. `backward` is the same on the grid of the second frame, or None. `homography` is
    the camera's motion that the flow was freed of, from the first frame to the second.
    """
    levels = spec.px_per_level
    freed = forward
    if homography is not None:
        # The frames and the other direction know where things are, with the camera's motion.
        forward = with_camera_motion(forward, homography)
        if backward is not None:
            backward = with_camera_motion(backward, inverse(homography))
    greatest = float(np.abs(freed).max())
    is_blank = greatest <= 1.01 * levels
    scale = min(1.0, _MAX_SIDE_PX / max(forward.shape[:2]))
    if scale < 1:
        size = (round(forward.shape[1] * scale), round(forward.shape[0] * scale))
        ratio = np.array([size[0] / forward.shape[1], size[1] / forward.shape[0]], np.float32)
        forward = cv2.resize(forward, size, interpolation=cv2.INTER_AREA) * ratio
        freed = cv2.resize(freed, size, interpolation=cv2.INTER_AREA) * ratio
        if backward is not None:
            backward = cv2.resize(backward, size, interpolation=cv2.INTER_AREA) * ratio
        if frames is not None:
            frames = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
    height, width = forward.shape[:2]
    u, v = np.ascontiguousarray(forward[..., 0]), np.ascontiguousarray(forward[..., 1])
    length = cv2.magnitude(u, v)
    x, y = _grid(height, width)
    end_x, end_y = x + u, y + v
    inside = (end_x >= 0) & (end_x < width) & (end_y >= 0) & (end_y < height)
    inconsistent = 0.0
    if backward is not None:
        inconsistent = _inconsistent_share(u, v, backward, end_x, end_y, inside, levels)
    border = _border(height, width)
    own_u, own_v = np.ascontiguousarray(freed[..., 0]), np.ascontiguousarray(freed[..., 1])
    shift = float(np.median(own_u[border])), float(np.median(own_v[border]))
    camera_px = float(np.hypot(*shift))
    apart = cv2.magnitude(own_u - np.float32(shift[0]), own_v - np.float32(shift[1]))
    own_length = cv2.magnitude(own_u, own_v)
    camera_share = float((apart < 0.5 * camera_px + 0.1).mean())
    errors: dict[str, float] = {}
    num_moving = 0
    difference = brightness = contrast = 0.0
    structure = 1.0
    if frames is not None:
        first, second = (
            cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (3, 3), 0).astype(np.float32)
            for frame in frames
        )
        points = np.flatnonzero((length > max(MOVING_PX, 2 * levels)) & inside)
        num_moving = points.size
        if num_moving:
            points = points[:: -(-num_moving // _MAX_POINTS)]
            errors = {
                name: error * num_moving
                for name, error in _warp_errors(first, second, u, v, backward, points).items()
            }
        small = [cv2.resize(f, (32, 24), interpolation=cv2.INTER_AREA) for f in (first, second)]
        difference = float(np.abs(second - first).mean())
        structure = _correlation(small[0], small[1])
        brightness = float(first.mean())
        low, high = np.percentile(first[::2, ::2], (2, 98))
        contrast = float(high - low)
    return PairMeasures(
        pair=pair,
        num_pixels=height * width,
        num_moving=num_moving,
        errors=errors,
        inconsistent=inconsistent,
        mean_px=float(own_length.mean()) / scale,
        median_px=float(np.median(own_length)) / scale,
        camera_px=camera_px / scale,
        camera_share=camera_share,
        is_blank=is_blank,
        difference=difference,
        structure=structure,
        brightness=brightness,
        contrast=contrast,
    )


@functools.lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[Plane, Plane]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


@functools.lru_cache(maxsize=4)
def _border(height: int, width: int) -> NDArray[np.bool_]:
    mask = np.ones((height, width), bool)
    mask[height // 8 : -(height // 8) or None, width // 8 : -(width // 8) or None] = False
    return mask


def _warp_errors(
    first: Plane,
    second: Plane,
    u: Plane,
    v: Plane,
    backward: NDArray[np.float32] | None,
    points: NDArray[np.intp],
) -> dict[str, float]:
    """Returns the mean error at `points`, which index the flat planes, for each way in which the
    field may be wrong."""
    x, y = (plane.reshape(-1)[points] for plane in _grid(*first.shape))
    ours = first.reshape(-1)[points]
    ends = {
        name: change(u.reshape(-1)[points], v.reshape(-1)[points])
        for name, change in _CANDIDATES.items()
    }
    if backward is not None:
        taken = backward.reshape(-1, 2)[points]
        ends["exchanged"] = (taken[:, 0], taken[:, 1])
    return {
        name: float(np.abs(_look_up(second, x + dx, y + dy) - ours).mean())
        for name, (dx, dy) in ends.items()
    }


def _look_up(image: NDArray[np.float32], x: Plane, y: Plane) -> Plane:
    """Returns a picture at points between its pixels. Points outside get the border's value."""
    maps = np.atleast_2d(x), np.atleast_2d(y)
    found = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(*x.shape, *image.shape[2:])


def _inconsistent_share(
    u: Plane,
    v: Plane,
    backward: NDArray[np.float32],
    end_x: Plane,
    end_y: Plane,
    inside: NDArray[np.bool_],
    level_px: float,
) -> float:
    there = _look_up(backward, end_x, end_y)
    there_u, there_v = there[..., 0], there[..., 1]
    gap = (u + there_u) ** 2 + (v + there_v) ** 2
    # Sundaram, Brox and Keutzer, "Dense point trajectories by GPU-accelerated large displacement
    # optical flow", ECCV 2010, equation 5; two levels of quantizing are forgiven on top.
    allowed = u * u + v * v + there_u * there_u + there_v * there_v
    allowed = 0.01 * allowed + (0.5 + (2 * level_px) ** 2)
    num_inside = int(inside.sum())
    return float(((gap > allowed) & inside).sum() / num_inside) if num_inside else 1.0


def plateau(flow: NDArray[np.float32], spec: FlowSpec) -> tuple[float, float]:
    """Returns the share of the moving components at their greatest value, and that value in px.

    `flow` is one field as stored, (H, W, 2) px.

    The share is 0 if there is no cliff. A cliff is a level with 1.5 times as many components as the
    level below it, and almost none above it. If all components are on this level, the motion is
    rigid and not cut off.
    """
    lengths, level_px = np.abs(flow), spec.px_per_level
    parts = lengths[lengths > max(MOVING_PX, 3 * level_px)]
    # With fewer components, the greatest ones mean nothing.
    if parts.size < 0.005 * lengths.size:
        return 0.0, float(lengths.max())
    counts = np.bincount(np.rint(parts / level_px - 0.5).astype(np.int64), minlength=3) / parts.size
    top = int(np.searchsorted(np.cumsum(counts), 0.99))
    top = max(range(max(1, top - 1), min(top + 2, counts.size)), key=lambda n: counts[n])
    on_it, above, below = counts[top], counts[top + 1 :].sum(), counts[top - 1]
    is_cliff = above < 0.1 * on_it and below < on_it / 1.5 and on_it < 0.97
    # Below ten levels, a steady motion is also all on one level.
    is_high = top >= 10
    return float(on_it) if is_cliff and is_high else 0.0, (top + 0.5) * level_px


def _correlation(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    a, b = a - a.mean(), b - b.mean()
    # Each picture gets a level of noise, so that two blank pictures count as alike.
    power = float(np.sqrt(((a**2).mean() + 1) * ((b**2).mean() + 1)))
    return float((a * b).mean() + 1) / power


@dataclass(frozen=True)
class VideoSample:
    """Measures of one video's pixels: a few fields at equal distances, and suspicious fields."""

    pairs: tuple[PairMeasures, ...]
    """Fields at equal distances."""
    probes: tuple[PairMeasures, ...]
    """Fields that are suspicious by the sizes of their JPEGs, with their neighbors."""
    num_pixels: int
    """Number of pixels of a field, as measured."""
    has_frames: bool
    has_backward: bool
    width: int
    plateaus: tuple[tuple[int, float, float], ...] = ()
    """For the fields with the largest JPEGs: the index and the result of `plateau`."""
    run: tuple[float, ...] = ()
    """Differences of neighboring frames in levels, in the run with the most motion."""
    run_start: int = 0
    """The first frame of `run`."""
    copies: tuple[tuple[int, float], ...] = ()
    """Frames that may be copies of the frame before, each with its difference in levels."""
    picture: NDArray[np.float32] | None = None
    """The small mean frame, `PICTURE_SHAPE`. None without RGB."""
    motion: NDArray[np.float32] | None = None
    """The mean flow on a coarse grid, divided by the mean length, `MOTION_SHAPE`."""


def repeats(differences: NDArray[np.float64]) -> list[int]:
    """Returns the places of dips in the differences of neighboring frames, (N,) levels."""
    dips = []
    for t in range(1, differences.size - 1):
        before, after = differences[max(0, t - 2) : t].max(), differences[t + 1 : t + 3].max()
        if min(before, after) > max(1.0, 4 * differences[t]):
            dips.append(t)
    return dips
