"""The median filter of float32 planes in blocks of 16 px, by sorting networks of vectors.

Neighboring windows share most of their pixels, and shared pixels are sorted only once. A tile is
2 x 2 windows. Its core is the set of pixels that all four windows share: 2 x 2 px for windows of
3 x 3, and 4 x 4 px for 5 x 5. Three groups are merged into the core, each sorted before: the column
that an upper and a lower window share, the row that a left and a right window share, and the corner
that belongs to one window alone. After each merge, only some ranks (from 0) can still be the median
of the window:

                  3 x 3   5 x 5
    core           0..3    3..12
    and column     1..4    7..12
    and row        3..4   11..12

A pixel outside these ranks already has more pixels below or above it than the median of 9 or 25 has
in the whole window. So each merge keeps only its middle. 5 x 5 takes 50 minima and maxima for 16
px. A network for a single window takes 198 (99 exchanges).

Lane i of a vector is tile i of 16 neighboring tiles. What a tile shares with the next tile is the
same vector shifted by one lane. For this, even and odd columns are stored separately: column 2k - 1
is number k of the left columns, and column 2k is number k of the right columns.

Sources: Adams, "Fast median filters using separable sorting networks", 2021 (the tiles); Batcher,
"Sorting networks and their applications", 1968 (the merge).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba.extending
import numpy as np
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import (
    NUM_LANES,
    broadcast,
    even_lanes,
    interleave_high,
    interleave_low,
    lane_numbers,
    load,
    load_broadcast,
    load_each,
    load_series,
    maximum,
    minimum,
    odd_lanes,
    prefetch,
    store,
    store_series,
)

__all__ = ["median_filter_3", "median_filter_5", "median_scratch_size"]

_NUM_LINES = 6 * 2 + 4 + 4 + 8
"""Lines of scratch: left and right columns of 6 rows; the same columns, 4 px each, sorted; and both
of these merged."""
_TILE_BLOCK = 2 * NUM_LANES
"""Number of columns that one vector of tiles covers."""
_MAX_FLOAT = np.float32(np.finfo(np.float32).max)


def median_scratch_size(width: int) -> int:
    """Returns the number of float32 of scratch that the median filters need for `width` px."""
    return _NUM_LINES * int(_line_length.py_func(width)) + NUM_LANES


@inline
def _line_length(width: int) -> int:
    """Returns the elements of a line of scratch: one vector before the first tile, two after the
    last.

    The result is an odd number of cache lines. Lines of scratch are read side by side. At a
    distance of a power of two, they would compete for the same places in the cache.
    """
    return ((width + _TILE_BLOCK - 1) // _TILE_BLOCK + 3 | 1) * NUM_LANES


@inline
def _first_aligned(scratch: NDArray[np.float32]) -> int:
    """Returns the index of the first element at a 64-byte boundary."""
    return -(scratch.ctypes.data // 4) % NUM_LANES


def _emit_exchange(builder: Any, x: Any, y: Any) -> list[Any]:
    return [builder.select(builder.fcmp_ordered(sign, x, y), x, y) for sign in "<>"]


def _emit_merge(builder: Any, a: Sequence[Any], b: Sequence[Any], crossed: bool) -> list[Any]:
    """Emits Batcher's odd-even merge of two sorted sequences. LLVM removes unused results.

    Every other element of `a` is merged with every other element of `b`, and the remaining elements
    are merged too. For any n, the n smallest elements are split evenly between the two results,
    give or take one. So exchanges of neighbors complete the order. Normally they are between ranks
    1 and 2, 3 and 4, ... If `crossed`, even elements of `a` are merged with odd elements of `b`,
    and the exchanges are between ranks 0 and 1, 2 and 3, ...
    """
    if not a or not b:
        return [*a, *b]
    if len(a) == len(b) == 1:
        return _emit_exchange(builder, a[0], b[0])
    x = _emit_merge(builder, a[0::2], b[int(crossed) :: 2], False)
    y = _emit_merge(builder, a[1::2], b[int(not crossed) :: 2], False)
    merged = [] if crossed else [x.pop(0)]
    for pair in zip(x, y, strict=False):
        merged += _emit_exchange(builder, *pair)
    return merged + x[len(y) :] + y[len(x) :]


def _emit_sort(builder: Any, lanes: Sequence[Any]) -> list[Any]:
    if len(lanes) == 1:
        return list(lanes)
    half = len(lanes) // 2
    sorted_halves = _emit_sort(builder, lanes[:half]), _emit_sort(builder, lanes[half:])
    return _emit_merge(builder, *sorted_halves, False)


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _sort(typing_context: Any, lanes: Any) -> Any:
    """_sort(tuple of Lanes): the same, sorted in each lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result = _emit_sort(builder, cgutils.unpack_tuple(builder, args[0]))
        return cgutils.pack_array(builder, result)

    return lanes(lanes), emit


@numba.extending.intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _middle_of_merge(typing_context: Any, a: Any, b: Any, count: Any) -> Any:
    """_middle_of_merge(a, b, count): merges two sorted tuples of Lanes, and returns the middle
    `count` (a literal); as many are dropped below as above."""
    num_dropped = (len(a) + len(b) - count.literal_value) // 2

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (cgutils.unpack_tuple(builder, argument) for argument in args[:2])
        # Choose the merge whose last exchanges never pair a rank that is kept with a dropped one.
        crossed = num_dropped > 0 and num_dropped % 2 == 0
        merged = _emit_merge(builder, x, y, crossed)
        return cgutils.pack_array(builder, merged[num_dropped : len(merged) - num_dropped])

    return types.UniTuple(a.dtype, count.literal_value)(a, b, count), emit


@inline
def _copy_rows(
    planes: NDArray[np.float32],
    start: int,
    row_stride: int,
    block_stride: int,
    width: int,
    height: int,
    y: int,
    scratch: NDArray[np.float32],
    target: int,
    length: int,
) -> None:
    """Copies rows y and y + 1, or the nearest existing rows, and replicates the border at the ends.

    From `target` on, `scratch` gets four lines of `length` elements: the left and the right columns
    of row y, then the left and the right columns of row y + 1.
    """
    last_block = (width - 1) // NUM_LANES * block_stride
    for row in range(y, y + 2):
        index = start + min(max(row, 0), height - 1) * row_stride
        first_px = load_broadcast(planes, index)
        last_px = load_broadcast(planes, index + last_block + (width - 1) % NUM_LANES)
        left = target + (row - y) * 2 * length
        right = left + length
        # Columns -1 and -2; earlier columns are not used.
        store(scratch, left + 1 - NUM_LANES, first_px)
        store(scratch, right - NUM_LANES, first_px)
        for block in range((width + _TILE_BLOCK - 1) // _TILE_BLOCK):
            k = block * NUM_LANES
            first = load(planes, index + 2 * block * block_stride)
            second = load(planes, index + min((2 * block + 1) * block_stride, last_block))
            store(scratch, left + k + 1, odd_lanes(first, second))
            store(scratch, right + k, even_lanes(first, second))
        # Columns `width` and `width` + 1; later columns are not used.
        store(scratch, left + width // 2 + 1, last_px)
        store(scratch, right + (width + 1) // 2, last_px)


@inline
def _store_medians(
    planes: NDArray[np.float32],
    index: int,
    row_stride: int,
    block_stride: int,
    last_block: int,
    block: int,
    sides: Any,
    row_px: Any,
    corners: Any,
) -> None:
    """Stores the medians of the 16 left and 16 right windows of a block of tiles.

    `index` is the first pixel of the row. `sides` are the pixels shared with the windows above or
    below, limited to the ranks that can be the median. `row_px` are the pixels shared between left
    and right. Both are sorted. `corners` are the pixels of one window alone. `sides` and `corners`
    are pairs for left and right.
    """
    low, high = _middle_of_merge(sides[0], row_px, 2)
    even = minimum(high, maximum(low, corners[0]))
    low, high = _middle_of_merge(sides[1], row_px, 2)
    odd = minimum(high, maximum(low, corners[1]))
    first = index + 2 * block * block_stride
    second = index + min((2 * block + 1) * block_stride, last_block)
    # If the row has no second block, the first one is stored over it.
    store(planes, second, interleave_high(even, odd))
    store(planes, first, interleave_low(even, odd))
    # Copying has no other work to hide the time it waits for a row.
    prefetch(planes, first + 4 * row_stride)
    prefetch(planes, second + 4 * row_stride)


@inline
def _clear_pads(
    planes: NDArray[np.float32],
    start: int,
    row_stride: int,
    block_stride: int,
    width: int,
    height: int,
    y: int,
) -> None:
    """Sets the lanes after the last column to zero in row y and, if it exists, in row y + 1."""
    num_valid = (width - 1) % NUM_LANES + 1
    zero = broadcast(np.float32(0))
    limit = maximum(broadcast(np.float32(num_valid)) - lane_numbers(), zero)
    # Infinity, or the largest number, for pixels; zero for padding.
    limit = limit * broadcast(_MAX_FLOAT)
    block = start + y * row_stride + (width - 1) // NUM_LANES * block_stride
    for _ in range(y, min(y + 2, height)):
        store(planes, block, minimum(maximum(load(planes, block), zero - limit), limit))
        block += row_stride


@kernel
def median_filter_5(
    planes: NDArray[np.float32],
    start: int,
    row_stride: int,
    block_stride: int,
    width: int,
    height: int,
    scratch: NDArray[np.float32],
) -> None:
    """Replaces a plane with the medians of its 5 x 5 windows; the border is replicated.

    Pixel (x, y) of the plane, float32 and finite, is element `start + y * row_stride + x // 16 *
    block_stride + x % 16` of `planes`, a flat array. The padding of the last block of a row is
    read, and it stays zero. `scratch` is flat float32 with `median_scratch_size(width)` elements.
    """
    length = _line_length(width)
    last_block = (width - 1) // NUM_LANES * block_stride
    # Each of these is the index of left column 0; left column -1 is the element before.
    above = _first_aligned(scratch) + NUM_LANES
    middle = above + 4 * length
    below = middle + 4 * length
    sorted_left = below + 4 * length
    sorted_right = sorted_left + 4 * length
    sorted_pairs = sorted_right + 4 * length
    for y in range(-4, height, 2):
        # Rows y - 2 and y - 1, y and y + 1, y + 2 and y + 3.
        above, middle, below = middle, below, above
        _copy_rows(
            planes, start, row_stride, block_stride, width, height, y + 2, scratch, below, length
        )
        if y < 0:
            continue
        # The 4 px of each column that upper and lower windows share, from column -2 to column
        # `width` + 1, and the same for merged pairs of columns.
        for k in range(-NUM_LANES, (width + 2) // 2 + 1, NUM_LANES):
            r0, r1, r2, r3 = above + 2 * length + k, middle + k, middle + 2 * length + k, below + k
            left = _sort(load_each(scratch, (r0, r1, r2, r3)))
            right = _sort(load_each(scratch, (r0 + length, r1 + length, r2 + length, r3 + length)))
            store_series(scratch, sorted_left + k, length, left)
            store_series(scratch, sorted_right + k, length, right)
            store_series(scratch, sorted_pairs + k, length, _middle_of_merge(left, right, 8))
        for block in range((width + _TILE_BLOCK - 1) // _TILE_BLOCK):
            k = block * NUM_LANES
            core = _middle_of_merge(
                load_series(scratch, sorted_pairs + k, length, 8),
                load_series(scratch, sorted_pairs + k + 1, length, 8),
                10,
            )
            sides = (
                _middle_of_merge(core, load_series(scratch, sorted_right + k - 1, length, 4), 6),
                _middle_of_merge(core, load_series(scratch, sorted_left + k + 2, length, 4), 6),
            )
            # Row y - 2 is only in windows of row y, and row y + 3 only in windows of row y + 1.
            for row in range(y, min(y + 2, height)):
                line = k + (above if row == y else below + 2 * length)
                columns = line, line + length, line + 1, line + length + 1
                row_px = _sort(load_each(scratch, columns))
                corners = load_each(scratch, (line + length - 1, line + 2))
                index = start + row * row_stride
                _store_medians(
                    planes,
                    index,
                    row_stride,
                    block_stride,
                    last_block,
                    block,
                    sides,
                    row_px,
                    corners,
                )
        _clear_pads(planes, start, row_stride, block_stride, width, height, y)


@kernel
def median_filter_3(
    planes: NDArray[np.float32],
    start: int,
    row_stride: int,
    block_stride: int,
    width: int,
    height: int,
    scratch: NDArray[np.float32],
) -> None:
    """Replaces a plane with the medians of its 3 x 3 windows; see `median_filter_5`."""
    length = _line_length(width)
    last_block = (width - 1) // NUM_LANES * block_stride
    above = _first_aligned(scratch) + NUM_LANES
    below = above + 4 * length
    for y in range(-2, height, 2):
        # Rows y - 1 and y, y + 1 and y + 2.
        above, below = below, above
        _copy_rows(
            planes, start, row_stride, block_stride, width, height, y + 1, scratch, below, length
        )
        if y < 0:
            continue
        for block in range((width + _TILE_BLOCK - 1) // _TILE_BLOCK):
            k = block * NUM_LANES
            upper, lower = above + 2 * length + k, below + k
            left = _sort(load_each(scratch, (upper, lower)))
            right = _sort(load_each(scratch, (upper + length, lower + length)))
            left1 = _sort(load_each(scratch, (upper + 1, lower + 1)))
            right1 = _sort(load_each(scratch, (upper + length + 1, lower + length + 1)))
            core = _middle_of_merge(right, left1, 4)
            sides = _middle_of_merge(core, left, 4), _middle_of_merge(core, right1, 4)
            for row in range(y, min(y + 2, height)):
                line = k + (above if row == y else below + 2 * length)
                row_px = _sort(load_each(scratch, (line + length, line + 1)))
                corners = load_each(scratch, (line, line + length + 1))
                index = start + row * row_stride
                _store_medians(
                    planes,
                    index,
                    row_stride,
                    block_stride,
                    last_block,
                    block,
                    sides,
                    row_px,
                    corners,
                )
        _clear_pads(planes, start, row_stride, block_stride, width, height, y)
