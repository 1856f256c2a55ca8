"""The motion of the camera between two frames: a homography that the background follows.

    track_frame(gray)            once for each frame: its picture and corners -> TrackedFrame
    camera_homography(a, b)      corners followed from a to b -> robust fit -> Homography or None

The steps are those of improved dense trajectories (Wang and Schmid, ICCV 2013, section 3.1) and of
TSN's warped flow (dense_flow): corners are matched, a homography is fitted robustly, and matches
that miss it, such as those on people who move, have no part in it.

Equal frames give the same homography to the last bit, on every processor and with any number of
threads. Corners come from whole numbers. OpenCV follows them in code that is the same for all
processors of one kind. The random search has a fixed seed. The fit is repeated until it stands
still, and rounded to 1/1000 px at the frame's corners, far above the last bits in which linear
algebra differs. A pair depends on its two frames only, so segments change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.homography import (
    IDENTITY,
    Box,
    Homography,
    Matrix,
    Points,
    apply,
    frame_corners,
    from_corners,
)
from flowprep.flow.warp_back import warp_back

__all__ = ["TrackedFrame", "camera_homography", "track_frame"]

NUM_CORNERS = 500
"""About as many corners are followed: the strongest of each square of the picture."""
MIN_MATCHES = 50
"""More matches are needed (dense_flow, dense_warp_flow_gpu.cpp)."""
MIN_INLIERS = 25
"""More of them must fit (dense_flow, dense_warp_flow_gpu.cpp)."""
INLIER_PX = 1.0
"""A match that misses by less fits (RANSAC's threshold of both references)."""
MAX_MEDIAN_MISS_PX = 0.5
"""Half of the matches that fit must miss by less. Chance puts .71 px of 1 px there."""
MIN_SHARE = 0.4
"""Share of the picture that must move like the camera. On clips of UCF101 it was .4 to 1 where the
fit was right, but also down to .12 where motion blurred the frames."""
MIN_DOUBTFUL_SHARE = 0.1
"""A smaller share does if the warp itself shows that the fit is right: see the next number."""
CLOSER_FACTOR = 3
"""The warp must bring so many times more of the picture closer to the first frame than apart, each
by a tenth. On the same clips, this was so for all fits of .1 to .4 that were right and none that
was wrong."""
STILL_FACTOR = 1.25
"""The camera stands still if so much more of the picture does than moves in any one way."""
STILL_PX = 0.1
"""The camera stands still if no corner of the frame moves by more."""
MAX_SHIFT = 0.5
"""No corner of the frame may move by more than this share of the frame's diagonal."""
MAX_STRETCH = 2.0
"""Nothing may become larger or smaller by more than this factor of area."""
MAX_BAR_LEVEL = 24
"""Black bars have no brighter pixels. Black is 0, and 16 where a range is marked wrongly."""

_GRID = (8, 6)
"""Columns and rows of the cells of the picture."""
_MAX_MOTIONS = 2
_MAX_SEARCHES, _CONFIDENCE = 2000, 0.999
_BAR_EDGE_PX = 2
"""An encoder smears the edge of a bar by about as much."""
_MAX_BRIGHT_SHARE = 0.02
"""Share of brighter pixels in a row of a bar. Encoders write a few beside an edge."""
_CORNER_BLOCK_PX = 3
_MIN_CORNER_SHARE = 0.001
"""A corner has at least this share of the strongest corner's strength (dense_flow, warp_flow.h)."""
_MIN_CORNER_STRENGTH = 500.0
"""And at least this one, which is above that of noise of two gray levels on a blank wall."""
_MAX_RETURN_PX = 0.5
"""A corner that is followed to the second frame and back must return to within this."""
_LUCAS_KANADE = {
    "winSize": (15, 15),
    "maxLevel": 4,
    "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
}
_FIRST_ROUNDS, _ROUNDS = 8, 24
_FIRST_CUT_PX, _MIN_CUT_PX = 1.5, 0.2

Mask = NDArray[np.bool_]  # (N,), of matches


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """What the fit needs of one frame."""

    gray: NDArray[np.uint8]
    picture: Box
    """The part within black bars, which stand still whatever the camera does."""
    corners: NDArray[np.float32]
    """(N, 2): x, y in px, all within the picture."""


def track_frame(gray: NDArray[np.uint8]) -> TrackedFrame:
    """Prepares a frame, (H, W) uint8."""
    left, top, right, bottom = _find_picture(gray)
    corners = _find_corners(np.ascontiguousarray(gray[top:bottom, left:right]))
    corners += np.array((left, top), np.float32)
    return TrackedFrame(gray, (left, top, right, bottom), corners)


def _find_picture(gray: NDArray[np.uint8]) -> Box:
    """Returns the part of a frame within its black bars.

    A frame that would keep less than half of its height or width is dark, and has no bars.
    """
    is_bright = gray > MAX_BAR_LEVEL
    bounds = []
    for axis in (0, 1):
        size, across = gray.shape[1 - axis], gray.shape[axis]
        bright = np.flatnonzero(is_bright.sum(axis=axis) > _MAX_BRIGHT_SHARE * across)
        begin, end = (int(bright[0]), int(bright[-1]) + 1) if len(bright) else (0, 0)
        begin, end = begin + _BAR_EDGE_PX * (begin > 0), end - _BAR_EDGE_PX * (end < size)
        bounds.append((begin, end) if 2 * (end - begin) >= size else (0, size))
    (left, right), (top, bottom) = bounds
    return left, top, right, bottom


def _find_corners(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the strongest corner (Shi and Tomasi 1994) of each square, (N, 2) float32."""
    height, width = gray.shape
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    # All sums are of whole numbers below 2^24, which float32 holds exactly. So no order of adding
    # matters.
    block = (_CORNER_BLOCK_PX, _CORNER_BLOCK_PX)
    products = (dx * dx, dx * dy, dy * dy)
    xx, xy, yy = (cv2.boxFilter(one, -1, block, normalize=False) for one in products)
    half_difference = (xx - yy) * np.float32(0.5)
    strength = (xx + yy) * np.float32(0.5)
    strength -= np.sqrt(half_difference * half_difference + xy * xy)
    side = max(4, round((height * width / NUM_CORNERS) ** 0.5))
    rows, columns = height // side, width // side
    squares = strength[: rows * side, : columns * side].reshape(rows, side, columns, side)
    squares = squares.transpose(0, 2, 1, 3).reshape(rows * columns, side * side)
    best = squares.argmax(axis=1)
    found = squares.max(axis=1, initial=0)
    top, left = np.divmod(np.arange(rows * columns), max(1, columns))
    points = np.stack([left * side + best % side, top * side + best // side], axis=1)
    least = max(_MIN_CORNER_STRENGTH, _MIN_CORNER_SHARE * float(found.max(initial=0)))
    return np.asarray(points[found >= least], np.float32)


def camera_homography(first: TrackedFrame, second: TrackedFrame) -> Homography | None:
    """Returns the homography from `first` to `second` that the background follows.

    It is the identity if the camera stands still, and None if too few matches agree. The background
    is what holds most of the picture. An actor may have more of the corners.
    """
    start, end = _match(first, second)
    if len(start) <= MIN_MATCHES:
        return None
    height, width = first.gray.shape
    area = _Area(start, first.picture)
    still_share = area.share(np.hypot(*(end - start).T) < INLIER_PX)
    best, share = None, MIN_DOUBTFUL_SHARE
    for matrix, fits in _motions(start, end, (width, height)):
        if area.share(fits) > share:
            best, share = matrix, area.share(fits)
    if still_share >= max(MIN_SHARE, STILL_FACTOR * share):
        return IDENTITY
    homography = None if best is None else _checked(best, width, height)
    if homography is None or share >= MIN_SHARE or _brings_closer(first, second, homography):
        return homography
    return None


def _brings_closer(first: TrackedFrame, second: TrackedFrame, homography: Homography) -> bool:
    """Whether the warp makes far more cells of the picture alike than it makes unlike."""
    picture = left, top, right, bottom = first.picture
    warped = warp_back(first.gray, second.gray, homography, picture)
    rows = np.linspace(0, bottom - top, _GRID[1], endpoint=False).astype(np.int64)
    columns = np.linspace(0, right - left, _GRID[0], endpoint=False).astype(np.int64)
    before, after = (
        np.add.reduceat(
            np.add.reduceat(cv2.absdiff(first.gray, other)[top:bottom, left:right], rows, 0, int),
            *(columns, 1),
        )
        for other in (second.gray, warped)
    )
    weights = _cell_weights()
    closer = weights[10 * after < 9 * before].sum()
    return bool(closer > CLOSER_FACTOR * weights[9 * after > 10 * before].sum())


def _match(first: TrackedFrame, second: TrackedFrame) -> tuple[Points, Points]:
    """Follows the corners of `first` to `second`. Returns those that the way back confirms."""
    if not len(first.corners):
        return np.empty((0, 2)), np.empty((0, 2))
    one, two, start = first.gray, second.gray, first.corners
    end, ahead, _ = cv2.calcOpticalFlowPyrLK(one, two, start, None, **_LUCAS_KANADE)  # type: ignore[call-overload]
    back, home, _ = cv2.calcOpticalFlowPyrLK(two, one, end, None, **_LUCAS_KANADE)  # type: ignore[call-overload]
    returns = np.abs(back - start).max(axis=1) < _MAX_RETURN_PX
    good = (ahead[:, 0] == 1) & (home[:, 0] == 1) & returns
    return start[good].astype(np.float64), end[good].astype(np.float64)


def _cell_weights() -> NDArray[np.int64]:
    """Returns how much each cell of the grid counts. Actors are rarely at the border."""
    weights = np.full(_GRID[::-1], 2)
    weights[1:-1, 1:-1] = 1
    return weights


class _Area:
    """How much of the picture moves in one way."""

    def __init__(self, start: Points, picture: Box) -> None:
        left, top, right, bottom = picture
        place = (start - (left, top)) / (right - left, bottom - top) * _GRID
        columns, rows = np.minimum(place.astype(np.int64), np.array(_GRID) - 1).T
        self._cell = rows * _GRID[0] + columns
        self._weights = _cell_weights().ravel()
        self._counts = np.bincount(self._cell, minlength=self._weights.size)
        self._total = float(self._weights[self._counts > 0].sum())

    def share(self, fits: Mask) -> float:
        """Returns the share of the cells with matches in which most matches fit."""
        fitting = np.bincount(self._cell[fits], minlength=self._weights.size)
        return float(self._weights[2 * fitting > self._counts].sum()) / self._total


def _motions(start: Points, end: Points, size: tuple[int, int]) -> Iterator[tuple[Matrix, Mask]]:
    """Yields a few homographies and the matches that fit. Each is found in what is left over."""
    left = np.ones(len(start), bool)
    for _ in range(_MAX_MOTIONS):
        if left.sum() <= MIN_INLIERS:
            return
        # This search has a fixed seed, and one thread.
        rough, _ = cv2.findHomography(
            start[left], end[left], cv2.USAC_MAGSAC, INLIER_PX, None, _MAX_SEARCHES, _CONFIDENCE
        )
        if rough is None:
            return
        matrix = _refine(np.asarray(rough, np.float64), start, end, size)
        if matrix is None:
            return
        misses = _misses(matrix, start, end)
        fits = misses < INLIER_PX
        if fits.sum() > MIN_INLIERS and np.median(misses[fits]) < MAX_MEDIAN_MISS_PX:
            yield matrix, fits
        left &= ~fits


def _misses(matrix: Matrix, start: Points, end: Points) -> NDArray[np.float64]:
    """Returns by how many px each match misses, (N,)."""
    return np.asarray(np.hypot(*(apply(matrix, start) - end).T))


def _refine(rough: Matrix, start: Points, end: Points, size: tuple[int, int]) -> Matrix | None:
    """Returns the homography of the least robust error near `rough`, by reweighted least squares.

    Tukey's weights, first for misses up to `_FIRST_CUT_PX`, then up to four standard deviations.
    So the result is that of all matches, and not of the few of a random sample.
    """
    center, scale = np.array(size) / 2, max(size) / 2
    norm = np.array([(1, 0, -center[0]), (0, 1, -center[1]), (0, 0, scale)]) / scale
    matrix = norm @ rough @ np.linalg.inv(norm)
    matrix /= matrix[2, 2]
    points, wanted = apply(norm, start), apply(norm, end)
    x, y = points.T
    zero = np.zeros_like(x)
    cut_px = _FIRST_CUT_PX
    for number in range(_ROUNDS):
        u, v = apply(matrix, points).T
        du, dv = wanted[:, 0] - u, wanted[:, 1] - v
        miss_px = np.hypot(du, dv) * scale
        if number == _FIRST_ROUNDS:
            inliers = miss_px[miss_px < INLIER_PX]
            if not len(inliers):
                return None
            # The median of a Rayleigh distribution is 1.1774 standard deviations.
            cut_px = min(max(4 * float(np.median(inliers)) / 1.1774, _MIN_CUT_PX), _FIRST_CUT_PX)
        weight = np.square(np.maximum(0, 1 - np.square(miss_px / cut_px)))
        # The derivatives of (u, v) by the first eight numbers of the matrix.
        w = 1 / (matrix[2, 0] * x + matrix[2, 1] * y + 1)
        xw, yw = x * w, y * w
        by_u = np.stack([xw, yw, w, zero, zero, zero, -u * xw, -u * yw], axis=1)
        by_v = np.stack([zero, zero, zero, xw, yw, w, -v * xw, -v * yw], axis=1)
        normal = (by_u * weight[:, None]).T @ by_u + (by_v * weight[:, None]).T @ by_v
        right = by_u.T @ (weight * du) + by_v.T @ (weight * dv)
        try:
            change = np.linalg.solve(normal, right)
        except np.linalg.LinAlgError:
            return None
        matrix = matrix + np.append(change, 0).reshape(3, 3)
    result = np.linalg.inv(norm) @ matrix @ norm
    if not np.isfinite(result).all() or result[2, 2] == 0:
        return None
    return np.asarray(result / result[2, 2])


def _checked(matrix: Matrix, width: int, height: int) -> Homography | None:
    """Returns the homography with rounded corners of the frame, or None for an absurd one."""
    corners = frame_corners(width, height)
    depth = corners @ matrix[2, :2] + matrix[2, 2]
    # Beyond the horizon, nothing is seen.
    if not (depth > 0).all():
        return None
    moved = np.round(apply(matrix, corners), 3)
    farthest_px = float(np.hypot(*(moved - corners).T).max())
    if farthest_px <= STILL_PX:
        return IDENTITY
    # A homography changes the area at a point by its determinant / depth^3.
    stretch = np.linalg.det(matrix) / depth**3
    if farthest_px > MAX_SHIFT * float(np.hypot(width, height)) or not (
        1 / MAX_STRETCH <= stretch.min() <= stretch.max() <= MAX_STRETCH
    ):
        return None
    return from_corners(moved.tolist(), width, height)
