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

__all__ = ["Taps", "derive", "down_taps", "level_sizes", "resample", "up_taps"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

LEAST_SIDE_PX = 15
"""Below a level of at most this side there is no other (NCV: `prev_level_width > 15`)."""
LEAST_LEVEL_PX = 4
"""The derivatives of five pixels mirror at the border, which needs so many."""


def level_sizes(
    width: int, height: int, scale_factor: float, most: int
) -> list[tuple[int, int]]:
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


@dataclass(frozen=True)
class Taps:
    """For each place along one side: where its neighbors begin, and their weights, of sum 1."""

    begins: IntArray
    """(n,) int32."""
    weights: FloatArray
    """(n, taps) float32; taps beyond the image have weight 0, and are not read."""


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
        weights[0] = float(1 - (begin - np.float32(first)))
        weights[-1] = float(np.float32(last) - end)
        rows.append((first, weights))
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
        # Moved to the left where it would be read beyond the end.
        begin = max(0, min(first, before - most))
        joined[place, first - begin : first - begin + len(weights)] = weights
        begins[place] = begin
    return Taps(begins, (joined / joined.sum(1, keepdims=True)).astype(np.float32))


@kernel
def resample(
    image: FloatArray,
    row_stride: int,
    num_rows: int,
    column_begins: IntArray,
    column_weights: FloatArray,
    row_begins: IntArray,
    row_weights: FloatArray,
    factor: np.float32,
    memory: FloatArray,
    out: FloatArray,
    out_row_stride: int,
) -> None:
    """Writes `factor` times the resampled image: along its rows first, then along its columns.

    `image` and `out` are flat, with rows of so many numbers. `memory` holds (rows of the image,
    columns of `out`).
    """
    width, num_taps = column_weights.shape
    for row in range(num_rows):
        start = row * row_stride
        for x in range(width):
            begin = start + column_begins[x]
            total = column_weights[x, 0] * image[begin]
            for tap in range(1, num_taps):
                total += column_weights[x, tap] * image[begin + tap]
            memory[row * width + x] = total
    height, num_taps = row_weights.shape
    for row in range(height):
        start = row * out_row_stride
        weight = row_weights[row, 0] * factor
        begin = row_begins[row] * width
        for x in range(width):
            out[start + x] = weight * memory[begin + x]
        for tap in range(1, num_taps):
            weight = row_weights[row, tap] * factor
            begin = (row_begins[row] + tap) * width
            for x in range(width):
                out[start + x] += weight * memory[begin + x]


@inline
def _mirrored(index: int, size: int) -> int:
    """The index within a side that an index outside stands for.

    The end is mirrored with its pixel doubled. The beginning is not, by a slip of NCV's that its
    numbers have: -1 stands for 2 (NCV: `1 - index`).
    """
    if index < 0:
        return 1 - index
    return 2 * size - 1 - index if index >= size else index


@kernel
def _derive_rows(image: FloatArray, stride: int, width: int, height: int, out: FloatArray) -> None:
    """Writes the derivative along x (NCV: the filter 1, -8, 0, 8, -1 over 12)."""
    scale = np.float32(1 / 12)
    eight = np.float32(8)
    for row in range(height):
        s = row * stride
        for x in range(2, width - 2):
            i = s + x
            out[i] = (
                (image[i - 2] - image[i + 2]) + eight * (image[i + 1] - image[i - 1])
            ) * scale
        for x in (0, 1, width - 2, width - 1):
            a, b = image[s + _mirrored(x - 2, width)], image[s + _mirrored(x - 1, width)]
            c, d = image[s + _mirrored(x + 1, width)], image[s + _mirrored(x + 2, width)]
            out[s + x] = ((a - d) + eight * (c - b)) * scale


@kernel
def _derive_columns(
    image: FloatArray, stride: int, width: int, height: int, out: FloatArray
) -> None:
    """Writes the derivative along y."""
    scale = np.float32(1 / 12)
    eight = np.float32(8)
    for row in range(height):
        a, b = _mirrored(row - 2, height) * stride, _mirrored(row - 1, height) * stride
        c, d = _mirrored(row + 1, height) * stride, _mirrored(row + 2, height) * stride
        s = row * stride
        for x in range(width):
            out[s + x] = (
                (image[a + x] - image[d + x]) + eight * (image[c + x] - image[b + x])
            ) * scale


@kernel
def _pack(planes: FloatArray, stride: int, width: int, height: int, packed: FloatArray) -> None:
    """Lays six planes side by side, pixel by pixel, with a border that doubles the outer pixels."""
    plane = height * stride
    for row in range(-1, height + 1):
        source = min(max(row, 0), height - 1) * stride
        target = (row + 1) * (width + 2)
        for x in range(width):
            i = (target + x + 1) * 8
            for number in range(6):
                packed[i + number] = planes[number * plane + source + x]
        first, last = target * 8, (target + width + 1) * 8
        for number in range(6):
            packed[first + number] = packed[first + 8 + number]
            packed[last + number] = packed[last - 8 + number]


def derive(planes: FloatArray, width: int, packed: FloatArray) -> None:
    """Fills a frame of one level from its gray values, which the first of six planes holds.

    `planes`, (6, H, stride), becomes I, Ix, Iy, Ixx, Ixy and Iyy; `packed`, (H + 2, W + 2, 8), the
    same side by side.
    """
    _, height, stride = planes.shape
    image, ix, iy, ixx, ixy, iyy = (plane.ravel() for plane in planes)
    _derive_rows(image, stride, width, height, ix)
    _derive_columns(image, stride, width, height, iy)
    _derive_rows(ix, stride, width, height, ixx)
    _derive_rows(iy, stride, width, height, ixy)
    _derive_columns(iy, stride, width, height, iyy)
    _pack(planes.ravel(), stride, width, height, packed.ravel())
