"""Warps a frame and its gradient by a flow field, bicubically, like cv2.remap of OpenCV 5.

The three images that TV-L1 warps are read together. `pack_frame` puts brightness and gradient of a
pixel into four neighboring numbers (the last is 0). So one vector holds the four taps of a row, and
one sum over four rows gives all three results. Around the image are `MARGIN` pixels of 0, which is
OpenCV's value outside (BORDER_CONSTANT). Positions farther out read that margin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    broadcast_int,
    every_fourth_from_0,
    every_fourth_from_1,
    every_fourth_from_2,
    floor,
    fma,
    load,
    load_broadcast,
    load_quadrupled,
    maximum,
    minimum,
    prefetch,
    store_int,
    store_interleaved,
    sum_quarters,
    to_int,
)

__all__ = ["WEIGHTS_SIZE", "pack_frame", "packed_shape", "place_taps", "read_taps"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

MARGIN = 4
"""Pixels of 0 on each side of a packed frame: as many as the taps of one position."""

WEIGHTS_SIZE = 2 * 4 * NUM_LANES
"""Weights of the taps of 16 positions: 4 column weights for each, then 4 row weights for each."""

_CUBIC_A = np.float32(-0.75)
"""The cubic's free parameter (OpenCV, modules/imgproc: interpolateCubic)."""


def packed_shape(width: int, height: int) -> tuple[int, int, int]:
    """Returns the shape of a packed frame of the given size, rows x columns x 4."""
    return height + 2 * MARGIN, width + 2 * MARGIN, 4


@kernel
def pack_frame(image: FloatArray, packed: FloatArray) -> None:
    """Writes `image`, (H, W), and its gradient into `packed`, of `packed_shape`, inside the margin.

    Both are float32 and C-contiguous.

    The gradient is half the difference of the two neighbors, replicated at the border (OpenCV,
    tvl1flow.cpp: CentralGradientBody; IPOL 2013, section 2.3).
    """
    height, width = image.shape
    half, zero = broadcast(np.float32(0.5)), broadcast(np.float32(0))
    last = width - 1
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        target = ((y + MARGIN) * (width + 2 * MARGIN) + MARGIN) * 4
        # The last vector overlaps the one before, to end with the row.
        for start in range(1, last, NUM_LANES):
            x = min(start, last - NUM_LANES)
            if x < 1:
                break
            i = y * width + x
            gradient_x = half * (load(image, i + 1) - load(image, i - 1))
            gradient_y = load(image, below * width + x) - load(image, above * width + x)
            store_interleaved(
                packed, target + 4 * x, load(image, i), gradient_x, half * gradient_y, zero
            )
        # The border; all of a row that is too short for a vector.
        for x in range(0, width, last if last > NUM_LANES else 1):
            left, right = max(x - 1, 0), min(x + 1, last)
            pixel = packed[y + MARGIN, x + MARGIN]
            pixel[0] = image[y, x]
            pixel[1] = np.float32(0.5) * (image[y, right] - image[y, left])
            pixel[2] = np.float32(0.5) * (image[below, x] - image[above, x])


@inline
def _cubic_weights(fraction: Lanes) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """The weights of the pixels at -1, 0, 1 and 2 for a position at distance `fraction` from 0."""
    a = broadcast(_CUBIC_A)
    one = broadcast(np.float32(1))
    inner_a = broadcast(_CUBIC_A + np.float32(2))
    inner_b = broadcast(_CUBIC_A + np.float32(3))
    rest = one - fraction
    before = a * fraction * rest * rest
    first = fma(
        fma(inner_a, fraction, broadcast(np.float32(0)) - inner_b), fraction * fraction, one
    )
    second = fma(fma(inner_a, rest, broadcast(np.float32(0)) - inner_b), rest * rest, one)
    return before, first, second, one - before - first - second


@inline
def _read_one(
    packed: FloatArray,
    row_stride: int,
    weights: FloatArray,
    starts: IntArray,
    position: int,
    column: int,
) -> Lanes:
    """The four columns of taps of one position, each summed over its rows: 4 taps x 4 numbers.

    The position's column weights begin at `column` in `weights`.
    """
    start = starts[position]
    row = column + WEIGHTS_SIZE // 2
    upper = fma(
        load_broadcast(weights, row),
        load(packed, start),
        load_broadcast(weights, row + 1) * load(packed, start + row_stride),
    )
    lower = fma(
        load_broadcast(weights, row + 2),
        load(packed, start + 2 * row_stride),
        load_broadcast(weights, row + 3) * load(packed, start + 3 * row_stride),
    )
    return load_quadrupled(weights, column) * (upper + lower)


@inline
def _read_four(
    packed: FloatArray,
    row_stride: int,
    weights: FloatArray,
    starts: IntArray,
    position: int,
    column: int,
) -> Lanes:
    """The results of the four positions from `position` on, four numbers each."""
    # Prefetches the one row of taps that the next row of positions needs in addition.
    prefetch(packed, starts[position] + 4 * row_stride)
    return sum_quarters(
        _read_one(packed, row_stride, weights, starts, position, column),
        _read_one(packed, row_stride, weights, starts, position + 1, column + 4),
        _read_one(packed, row_stride, weights, starts, position + 2, column + 8),
        _read_one(packed, row_stride, weights, starts, position + 3, column + 12),
    )


@inline
def place_taps(
    row_stride: int,
    width: int,
    height: int,
    x: Lanes,
    y: Lanes,
    weights: FloatArray,
    starts: IntArray,
    block: int,
) -> None:
    """Records where the taps of 16 positions (x, y), px, are in a packed frame, and their weights.

    `row_stride` is the numbers per row of the packed frame. This writes block `block` of `weights`,
    with `WEIGHTS_SIZE` numbers per block, and of `starts`, with 16. Positions may be anywhere.
    """
    lowest = broadcast(np.float32(1 - MARGIN))
    x = minimum(maximum(x, lowest), broadcast(np.float32(width + 1)))
    y = minimum(maximum(y, lowest), broadcast(np.float32(height + 1)))
    column, row = floor(x), floor(y)
    a, b, c, d = _cubic_weights(x - column)
    store_interleaved(weights, block * WEIGHTS_SIZE, a, b, c, d)
    a, b, c, d = _cubic_weights(y - row)
    store_interleaved(weights, block * WEIGHTS_SIZE + WEIGHTS_SIZE // 2, a, b, c, d)
    # Integers, because float32 cannot count the numbers of a large frame.
    margin = broadcast_int(np.int32(MARGIN - 1))
    first = (to_int(row) + margin) * broadcast_int(np.int32(row_stride)) + (
        to_int(column) + margin
    ) * broadcast_int(np.int32(4))
    store_int(starts, block * NUM_LANES, first)


@inline
def read_taps(
    packed: FloatArray, row_stride: int, weights: FloatArray, starts: IntArray, block: int
) -> tuple[Lanes, Lanes, Lanes]:
    """Returns brightness, d/dx and d/dy of the packed frame at the positions of block `block`.

    `place_taps` has recorded the positions. `packed` is flat. From two pixels outside the image on,
    all three results are 0.
    """
    first, column = block * NUM_LANES, block * WEIGHTS_SIZE
    a = _read_four(packed, row_stride, weights, starts, first, column)
    b = _read_four(packed, row_stride, weights, starts, first + 4, column + 16)
    c = _read_four(packed, row_stride, weights, starts, first + 8, column + 32)
    d = _read_four(packed, row_stride, weights, starts, first + 12, column + 48)
    return (
        every_fourth_from_0(a, b, c, d),
        every_fourth_from_1(a, b, c, d),
        every_fourth_from_2(a, b, c, d),
    )
