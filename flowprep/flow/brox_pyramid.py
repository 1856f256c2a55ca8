"""The pyramid of native Brox flow: frames down, derivatives, and the flow up.

All of it is OpenCV's CUDA code (opencv_contrib, modules/cudalegacy/src/cuda: "NCV" is
NCVBroxOpticalFlow.cu, "NPP" is NPP_staging.cu), with its sizes, borders and weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    copy,
    fma,
    load,
    load_broadcast,
    load_series,
    store,
    store_half_square,
    store_series,
    transpose,
)

__all__ = [
    "DOWN_TAPS",
    "Taps",
    "area_taps",
    "derive",
    "down_taps",
    "level_sizes",
    "line_size",
    "memory_size",
    "resample",
    "up_taps",
]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

LEAST_SIDE_PX = 15
"""Below a level of at most this side there is no other (NCV: `prev_level_width > 15`)."""
LEAST_LEVEL_PX = 4
"""The derivatives of five pixels mirror at the border, which needs so many."""


def level_sizes(width: int, height: int, scale_factor: float, most: int) -> list[tuple[int, int]]:
    """Returns width and height of each level, the finest first (NCV: the loop over scales).

    Sizes are rounded up, and follow from the size of the frame, not of the level before.
    """
    sizes = [(width, height)]
    scale = factor = np.float32(scale_factor)
    while min(sizes[-1]) > LEAST_SIDE_PX and len(sizes) < most:
        size = (math.ceil(np.float32(width) * scale), math.ceil(np.float32(height) * scale))
        if min(size) < LEAST_LEVEL_PX:
            break
        sizes.append(size)
        scale = np.float32(scale * factor)
    return sizes


@inline
def _whole_vectors(size: int) -> int:
    return (size + NUM_LANES - 1) // NUM_LANES * NUM_LANES


@dataclass(frozen=True)
class Taps:
    """For each place along one side: where its neighbors begin, and their weights, of sum 1."""

    begins: IntArray
    """(n,) int32."""
    weights: FloatArray
    """(n, taps) float32, flat; taps beyond the image have weight 0."""
    num_before: int
    """Pixels of the side that is read."""


def down_taps(size: int, before: int, factor: float) -> Taps:
    """Returns the taps of NPP's supersampling, from `before` pixels to `size` by 1 / `factor`.

    The window reaches a whole new pixel to both sides of the center, so 2.5 old ones at a factor of
    .8. Its first pixel counts by the part inside, its last by ceil(end) - end, which is 0 at a
    whole end (NPP: resizeSuperSample_32f).
    """
    rate = np.float32(1 / factor)
    rows = []
    for place in range(size):
        center = rate * np.float32(place)
        begin = max(center - rate, np.float32(0))
        end = min(center + rate, np.float32(before - 1))
        first, last = math.floor(begin), math.ceil(end)
        weights = [1.0] * (last - first + 1)
        if last > first:
            weights[0] = float(1 - (begin - np.float32(first)))
            weights[-1] = float(np.float32(last) - end)
        rows.append((first, weights))
    return _joined(rows, before)


def area_taps(size: int, before: int, factor: float) -> Taps:
    """Returns the taps that weigh each old pixel by its area within the new one.

    The sides of the two images coincide, as in cv2.resize with INTER_AREA, so `factor` only decides
    the sizes.
    """
    rate = before / size
    rows = []
    for place in range(size):
        begin, end = place * rate, min((place + 1) * rate, before)
        # Slivers of a thousandth of a pixel are roundings (OpenCV, computeResizeAreaTab).
        first, last = math.floor(begin + 1e-3), math.ceil(end - 1e-3)
        rows.append((first, [min(tap + 1, end) - max(tap, begin) for tap in range(first, last)]))
    return _joined(rows, before)


def up_taps(size: int, before: int, factor: float) -> Taps:
    """Returns the taps of NPP's bicubic resampling of the flow, from `before` pixels to `size`.

    Catmull-Rom splines (a = -.5) around factor * place; what lies outside is left out (NPP:
    resizeBicubic).
    """
    rows = []
    for place in range(size):
        center = np.float32(factor) * np.float32(place)
        first = max(math.ceil(center - np.float32(2)), 0)
        last = min(math.floor(center + np.float32(2)), before - 1)
        rows.append((first, [_spline(float(center) - tap) for tap in range(first, last + 1)]))
    return _joined(rows, before)


def _spline(distance: float) -> float:
    """The bicubic kernel of NPP with a = -.5."""
    x = abs(distance)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _joined(rows: list[tuple[int, list[float]]], before: int) -> Taps:
    most = max(len(weights) for _, weights in rows)
    joined = np.zeros((len(rows), most), np.float64)
    begins = np.zeros(len(rows), np.int32)
    for place, (first, weights) in enumerate(rows):
        # Moved to the left where it would read beyond the end.
        begin = max(0, min(first, before - most))
        joined[place, first - begin : first - begin + len(weights)] = weights
        begins[place] = begin
    return Taps(begins, (joined / joined.sum(1, keepdims=True)).astype(np.float32).ravel(), before)


DOWN_TAPS = {"ncv": down_taps, "area": area_taps}
"""How a frame becomes smaller, for each filter of the pyramid."""


@kernel
def resample(
    image: FloatArray,
    start: int,
    row_stride: int,
    num_columns: int,
    num_rows: int,
    column_begins: IntArray,
    column_weights: FloatArray,
    row_begins: IntArray,
    row_weights: FloatArray,
    factor: np.float32,
    memory: FloatArray,
    out: FloatArray,
    out_start: int,
    out_row_stride: int,
) -> None:
    """Writes `factor` times the resampled image: along its rows first, then along its columns.

    `image` and `out` are flat; their images begin at `start` and `out_start`, and have rows of so
    many numbers. After the last row, 16 more may be read. `memory` is for `memory_size` numbers.
    """
    width, height = column_begins.size, row_begins.size
    line = _whole_vectors(width)
    squares = _whole_vectors(num_rows) * line
    columns = squares + _whole_vectors(num_columns) * NUM_LANES
    num_taps = column_weights.size // width
    for row in range(0, num_rows, NUM_LANES):
        # Rows become lanes, so that a neighbor along the row is another vector.
        for x in range(0, num_columns, NUM_LANES):
            square = transpose(
                load_series(image, start + row * row_stride + x, row_stride, NUM_LANES)
            )
            store_series(memory, squares + x * NUM_LANES, NUM_LANES, square)
        for x in range(width):
            i = squares + column_begins[x] * NUM_LANES
            total = load_broadcast(column_weights, x * num_taps) * load(memory, i)
            for tap in range(1, num_taps):
                weight = load_broadcast(column_weights, x * num_taps + tap)
                total = fma(weight, load(memory, i + tap * NUM_LANES), total)
            store(memory, columns + x * NUM_LANES, total)
        for x in range(0, width, NUM_LANES):
            square = transpose(load_series(memory, columns + x * NUM_LANES, NUM_LANES, NUM_LANES))
            store_series(memory, row * line + x, line, square)
    num_taps = row_weights.size // height
    scale = broadcast(factor)
    for row in range(height):
        begin, target = row_begins[row] * line, out_start + row * out_row_stride
        for x in range(0, width, NUM_LANES):
            total = load_broadcast(row_weights, row * num_taps) * load(memory, begin + x)
            for tap in range(1, num_taps):
                weight = load_broadcast(row_weights, row * num_taps + tap)
                total = fma(weight, load(memory, begin + tap * line + x), total)
            store(out, target + x, total * scale)


def memory_size(before: tuple[int, int], after: tuple[int, int]) -> int:
    """Returns the numbers that `resample` needs, from and to sizes of width and height."""
    sides = [-(-side // NUM_LANES) * NUM_LANES for side in (*before, after[0])]
    return sides[1] * sides[2] + (sides[0] + sides[2]) * NUM_LANES


# ---- derivatives


def line_size(width: int) -> int:
    """Returns the numbers of the line that `derive` needs."""
    return -(-width // NUM_LANES) * NUM_LANES + 3 * NUM_LANES


@inline
def _mirrored(index: int, size: int) -> int:
    """The index within a side that an index outside stands for.

    The end is mirrored with its pixel doubled. The beginning is not, by a slip of NCV's that its
    numbers have: -1 stands for 2 (NCV: `1 - index`).
    """
    if index < 0:
        return 1 - index
    return 2 * size - 1 - index if index >= size else index


@inline
def _difference(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> Lanes:
    """The derivative from the neighbors at -2, -1, 1 and 2 (NCV: 1, -8, 0, 8, -1 over 12)."""
    return fma(broadcast(np.float32(8)), c - b, a - d) * broadcast(np.float32(1 / 12))


@inline
def _derive_rows(
    planes: FloatArray,
    source: int,
    target: int,
    stride: int,
    width: int,
    height: int,
    line: FloatArray,
) -> None:
    """Derives the plane that begins at `source` along x, into the one that begins at `target`."""
    for row in range(height):
        begin = source + row * stride
        copy(line, NUM_LANES, planes, begin, width)
        for x in (-2, -1):
            line[NUM_LANES + x] = planes[begin + _mirrored(x, width)]
        for x in (width, width + 1):
            line[NUM_LANES + x] = planes[begin + _mirrored(x, width)]
        for x in range(0, width, NUM_LANES):
            i = NUM_LANES + x
            a, b = load(line, i - 2), load(line, i - 1)
            c, d = load(line, i + 1), load(line, i + 2)
            store(planes, target + row * stride + x, _difference(a, b, c, d))


@inline
def _derive_columns(
    planes: FloatArray, source: int, target: int, stride: int, width: int, height: int
) -> None:
    """Derives the plane that begins at `source` along y, into the one that begins at `target`."""
    for row in range(height):
        above, left = row - 1, row - 2
        a = source + _mirrored(left, height) * stride
        b = source + _mirrored(above, height) * stride
        c = source + _mirrored(row + 1, height) * stride
        d = source + _mirrored(row + 2, height) * stride
        for x in range(0, width, NUM_LANES):
            value = _difference(
                load(planes, a + x), load(planes, b + x), load(planes, c + x), load(planes, d + x)
            )
            store(planes, target + row * stride + x, value)


@kernel
def derive(
    planes: FloatArray,
    stride: int,
    width: int,
    height: int,
    packed: FloatArray,
    line: FloatArray,
) -> None:
    """Fills a frame of one level from its gray values, which the first of six planes holds.

    `planes` is flat, (6, H, stride), and becomes I, Ix, Iy, Ixx, Ixy and Iyy. `packed` is flat too,
    for H + 2 rows of W + 2 pixels of 8 numbers, and 16 pixels more: the same side by side, with a
    border that doubles the outer pixels. `line` is for `line_size(width)` numbers.
    """
    plane = height * stride
    _derive_rows(planes, 0, plane, stride, width, height, line)
    _derive_columns(planes, 0, 2 * plane, stride, width, height)
    _derive_rows(planes, plane, 3 * plane, stride, width, height, line)
    _derive_rows(planes, 2 * plane, 4 * plane, stride, width, height, line)
    _derive_columns(planes, 2 * plane, 5 * plane, stride, width, height)
    zero = broadcast(np.float32(0))
    for row in range(-1, height + 1):
        source = min(max(row, 0), height - 1) * stride
        target = (row + 1) * (width + 2)
        for x in range(0, width, NUM_LANES):
            a, b, c, d, e, f = load_series(planes, source + x, plane, 6)
            pixels = transpose(
                (a, b, c, d, e, f, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
            )
            # The last pixels of the last vector are overwritten by the next row.
            store_half_square(packed, (target + 1 + x) * 8, 8, pixels)
        copy(packed, target * 8, packed, (target + 1) * 8, 8)
        copy(packed, (target + width + 1) * 8, packed, (target + width) * 8, 8)
