"""The warp of native Brox flow: where the flow points to, and the equations' data from there.

A pixel of a packed frame has its gray value and derivatives side by side, so that the four pixels
around a place are two reads. Sources: `flowprep.flow.brox_equations`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.brox_equations import (
    IX,
    IXX,
    IXY,
    IY,
    IYY,
    NUM_DATA,
    REST,
    REST_X,
    REST_Y,
    U,
    V,
    place,
)
from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    broadcast_int,
    even_lanes,
    floor,
    fma,
    interleave_high,
    interleave_low,
    lane_numbers,
    load,
    load_mixed,
    maximum,
    minimum,
    odd_lanes,
    store,
    store_int,
    to_int,
    transpose,
    where_less,
)

__all__ = ["MAX_DISTANCE_PX", "PIXEL", "linearize", "read_flow"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

PIXEL = 8
"""Numbers of a pixel in a packed frame: I, Ix, Iy, Ixx, Ixy, Iyy, and two zeros."""
MAX_DISTANCE_PX = 1e6
"""Positions farther out than this are brought back to it, so that integers can hold them."""


@inline
def _folded(x: Lanes, size: Lanes) -> Lanes:
    """The place within the image that a place outside mirrors; the outer pixels are doubled."""
    zero, half = broadcast(np.float32(0)), broadcast(np.float32(0.5))
    far = broadcast(np.float32(MAX_DISTANCE_PX))
    x = minimum(maximum(x, zero - far), far)
    period = size + size
    shifted = x + half
    shifted = shifted - period * floor(shifted / period)
    folded = minimum(shifted, period - shifted) - half
    # Within the image the place stays as it is, to the last digit.
    outside = x - minimum(maximum(x, zero), size - broadcast(np.float32(1)))
    return where_less(zero, outside * outside, folded, x)


@inline
def _every_second(row: FloatArray, at: int, odd: int) -> Lanes:
    first, second = load(row, at), load(row, at + NUM_LANES)
    if odd:
        return odd_lanes(first, second)
    return even_lanes(first, second)


@inline
def _target_row(
    flow: FloatArray,
    start: int,
    plane: int,
    row: int,
    width: int,
    height: int,
    positions: IntArray,
    fractions: FloatArray,
) -> None:
    """Writes where each pixel of a row points to: a pixel of the packed frame, and fractions."""
    columns, rows = broadcast(np.float32(width)), broadcast(np.float32(height))
    half = broadcast(np.float32(0.5))
    # The texture unit of a GPU takes fractions of 1/256, rounded to nearest.
    steps, per_step = broadcast(np.float32(256)), broadcast(np.float32(1 / 256))
    packed_width, one = broadcast_int(np.int32(width + 2)), broadcast_int(np.int32(1))
    for block in range((width + NUM_LANES - 1) // NUM_LANES):
        i, at = start + block * NUM_LANES, block * 2 * NUM_LANES
        x = broadcast(np.float32(block * NUM_LANES)) + lane_numbers() + load(flow, i)
        x = _folded(x, columns)
        y = _folded(broadcast(np.float32(row)) + load(flow, i + plane), rows)
        left, top = floor(x), floor(y)
        pixel = (to_int(top) + one) * packed_width + (to_int(left) + one)
        store_int(positions, block * NUM_LANES, pixel)
        store(fractions, at, floor(fma(x - left, steps, half)) * per_step)
        store(fractions, at + NUM_LANES, floor(fma(y - top, steps, half)) * per_step)


@inline
def _linearize_row(
    flow: FloatArray,
    own: FloatArray,
    packed: FloatArray,
    start: int,
    plane: int,
    width: int,
    gamma: Lanes,
    row_length: int,
    data_row: FloatArray,
    positions: IntArray,
    fractions: FloatArray,
) -> None:
    """Writes the data of a row's pixels, in their order."""
    for block in range((width + NUM_LANES - 1) // NUM_LANES):
        i, at = start + block * NUM_LANES, block * NUM_LANES
        next_row, below = (width + 2) * PIXEL, 2 * at + NUM_LANES
        corners = transpose(load_mixed(packed, positions, at, next_row, fractions, below))
        # The six numbers of the left and of the right pixel, at a distance of eight.
        part = load(fractions, 2 * at)
        gray = fma(part, corners[8] - corners[0], corners[0])
        ix = fma(part, corners[9] - corners[1], corners[1])
        iy = fma(part, corners[10] - corners[2], corners[2])
        ixx = fma(part, corners[11] - corners[3], corners[3]) * gamma
        ixy = fma(part, corners[12] - corners[4], corners[4]) * gamma
        iyy = fma(part, corners[13] - corners[5], corners[5]) * gamma
        u, v = load(flow, i), load(flow, i + plane)
        iz = gray - load(own, i)
        ixz = (ix - load(own, i + plane)) * gamma
        iyz = (iy - load(own, i + 2 * plane)) * gamma
        store(data_row, at + IX * row_length, ix)
        store(data_row, at + IY * row_length, iy)
        store(data_row, at + IXX * row_length, ixx)
        store(data_row, at + IXY * row_length, ixy)
        store(data_row, at + IYY * row_length, iyy)
        store(data_row, at + REST * row_length, iz - fma(ix, u, iy * v))
        store(data_row, at + REST_X * row_length, ixz - fma(ixx, u, ixy * v))
        store(data_row, at + REST_Y * row_length, iyz - fma(ixy, u, iyy * v))
    # Columns outside of the image have no data term.
    for number in range(NUM_DATA):
        data_row[number * row_length + width : (number + 1) * row_length] = 0


@kernel
def linearize(
    flow: FloatArray,
    own: FloatArray,
    packed: FloatArray,
    system: FloatArray,
    data: FloatArray,
    length: int,
    width: int,
    height: int,
    root_gamma: np.float32,
    data_row: FloatArray,
    positions: IntArray,
    fractions: FloatArray,
) -> None:
    """Warps the second frame by the flow so far, and linearizes both constancies around it.

    `flow` holds u and v, (2, H, 2 L) with rows of 2 * `length` numbers, in px; `own` the first
    frame's I, Ix, Iy and other derivatives, (6, H, 2 L). `packed` is the second frame, with a
    border of one pixel. The flow becomes the unknowns of `system`.
    """
    row_length = 2 * length
    plane = height * row_length
    gamma = broadcast(root_gamma)
    for row in range(height):
        start = row * row_length
        # Positions first, pixels later: the reads then arrive while others are computed.
        _target_row(flow, start, plane, row, width, height, positions, fractions)
        _linearize_row(
            flow,
            own,
            packed,
            start,
            plane,
            width,
            gamma,
            row_length,
            data_row,
            positions,
            fractions,
        )
        for k in range(0, (width + 1) // 2, NUM_LANES):
            for odd in range(2):
                color = (row + odd) & 1
                for number in range(NUM_DATA):
                    i = ((row * 2 + color) * NUM_DATA + number) * length + k
                    store(data, i, _every_second(data_row, number * row_length + 2 * k, odd))
                i = place(length, row, color) + k
                store(system, i + U * length, _every_second(flow, start + 2 * k, odd))
                store(system, i + V * length, _every_second(flow, start + plane + 2 * k, odd))


@kernel
def read_flow(system: FloatArray, flow: FloatArray, length: int, width: int, height: int) -> None:
    """Writes the flow of all cells into `flow`, (2, H, 2 L)."""
    row_length = 2 * length
    for row in range(height):
        for plane in (U, V):
            even = place(length, row, row & 1) + plane * length
            odd = place(length, row, 1 - (row & 1)) + plane * length
            target = (plane * height + row) * row_length
            for k in range(0, (width + 1) // 2, NUM_LANES):
                first, second = load(system, even + k), load(system, odd + k)
                store(flow, target + 2 * k, interleave_low(first, second))
                store(flow, target + 2 * k + NUM_LANES, interleave_high(first, second))
