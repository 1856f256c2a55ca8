"""RGB pixels as brightness and color, the latter at half the size: what JPEGs of 4:2:0 hold.

The arithmetic is libjpeg's (jccolor.c and jcsample.c, h2v2_downsample), bit for bit.
"""

from __future__ import annotations

import numpy as np

from flowprep.flow.kernel import inline

__all__ = ["complete_row", "dummy_row", "read_band"]


@inline
def read_band(rgb, width, height, top, stride, full, bands):  # type: ignore[no-untyped-def]
    """Converts 16 rows of pixels, from row `top` on, and completes them at the edges.

    `bands` are two of 8 rows of 8 * `stride` pixels for brightness, and one of each color, half as
    wide. `full` is working space for two rows of both colors.
    """
    row_size = 8 * stride
    half_size = row_size // 2
    num_rows = min(16, height - top)
    full_cb, full_cr = full[0], full[1]
    for row in range(16):
        y = bands[row // 8][row % 8 * row_size : (row % 8 + 1) * row_size]
        # Below the last row, brightness is repeated.
        source = rgb[3 * width * (top + min(row, num_rows - 1)) :]
        cb, cr = full_cb[row % 2 * row_size :], full_cr[row % 2 * row_size :]
        for x in range(width):
            r, g = np.int32(source[3 * x]), np.int32(source[3 * x + 1])
            b = np.int32(source[3 * x + 2])
            y[x] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
            cb[x] = (32768 * b - 11059 * r - 21709 * g + _HALF) >> 16
            cr[x] = (32768 * r - 27439 * g - 5329 * b + _HALF) >> 16
        y[width:] = y[width - 1]
        cb[width:row_size] = cb[width - 1]
        cr[width:row_size] = cr[width - 1]
        if row % 2 == 0:
            continue
        begin = row // 2 * half_size
        for plane in range(2):
            half = bands[2 + plane][begin : begin + half_size]
            if row <= num_rows:
                _halve(full[plane], row_size, half)
            else:
                # Color is repeated after it was halved.
                half[:] = bands[2 + plane][begin - half_size : begin]


# 128, and a half that is rounded down.
_HALF = (128 << 16) + 32767


@inline
def _halve(full, row_size, half):  # type: ignore[no-untyped-def]
    """Means of two by two pixels; halves are rounded down and up by turns."""
    above, below = full[:row_size], full[row_size : 2 * row_size]
    for x in range(half.size):
        four = (
            np.int32(above[2 * x])
            + np.int32(above[2 * x + 1])
            + np.int32(below[2 * x])
            + np.int32(below[2 * x + 1])
        )
        half[x] = (four + np.int32(1) + np.int32(x & 1)) >> np.int32(2)


@inline
def complete_row(coefficients, low, high, num_blocks):  # type: ignore[no-untyped-def]
    """Makes the number of blocks of a row even. The dummy has the level of the last one."""
    if num_blocks & 1:
        coefficients[num_blocks] = coefficients[num_blocks - 1]
        low[num_blocks] = high[num_blocks] = 0


@inline
def dummy_row(coefficients, low, high, num_blocks, above):  # type: ignore[no-untyped-def]
    """Makes a row below the last one: each pair of blocks has the level of the right one above."""
    for block in range(num_blocks + (num_blocks & 1)):
        coefficients[block] = above[block | 1]
        low[block] = high[block] = 0
