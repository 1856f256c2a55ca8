"""From coefficients to pixels, 16 blocks side by side.

The transform is libjpeg's accurate integer one, bit for bit (jidctint.c, "islow", after Loeffler,
Ligtenberg and Moschytz).
"""

from __future__ import annotations

import numpy as np

from flowprep.flow.kernel import inline
from flowprep.flow.simd import (
    broadcast_int,
    load_int,
    load_short,
    shift_left,
    shift_right,
    store_bytes,
    store_int,
)

__all__ = ["transform_row"]


@inline
def _transform(i0, i1, i2, i3, i4, i5, i6, i7, rounding, shift):  # type: ignore[no-untyped-def]
    """One dimension of the inverse transform, 16 of them side by side: 8 vectors to 8 vectors."""
    # Constants are jidctint.c's, 13 bits after the point: 4433 is .541196100.
    z1 = (i2 + i6) * broadcast_int(np.int32(4433))
    t2 = z1 - i6 * broadcast_int(np.int32(15137))
    t3 = z1 + i2 * broadcast_int(np.int32(6270))
    t0 = shift_left(i0 + i4, np.int32(13)) + rounding
    t1 = shift_left(i0 - i4, np.int32(13)) + rounding
    e0, e3 = t0 + t3, t0 - t3
    e1, e2 = t1 + t2, t1 - t2
    z1, z2, z3, z4 = i7 + i1, i5 + i3, i7 + i3, i5 + i1
    z5 = (z3 + z4) * broadcast_int(np.int32(9633))
    z1 = z1 * broadcast_int(np.int32(-7373))
    z2 = z2 * broadcast_int(np.int32(-20995))
    z3 = z3 * broadcast_int(np.int32(-16069)) + z5
    z4 = z4 * broadcast_int(np.int32(-3196)) + z5
    o3 = i7 * broadcast_int(np.int32(2446)) + z1 + z3
    o2 = i5 * broadcast_int(np.int32(16819)) + z2 + z4
    o1 = i3 * broadcast_int(np.int32(25172)) + z2 + z3
    o0 = i1 * broadcast_int(np.int32(12299)) + z1 + z4
    return (
        shift_right(e0 + o0, shift),
        shift_right(e1 + o1, shift),
        shift_right(e2 + o2, shift),
        shift_right(e3 + o3, shift),
        shift_right(e3 - o3, shift),
        shift_right(e2 - o2, shift),
        shift_right(e1 - o1, shift),
        shift_right(e0 - o0, shift),
    )


@inline
def transform_row(coefficients, columns, band, stride, first, last):  # type: ignore[no-untyped-def]
    """Turns a row of blocks into 8 rows of pixels, from block `first` to before block `last`.

    `coefficients` has place k of block b at k * stride + b, so that a vector is one place of 16
    blocks; `band` is 8 rows of 8 * stride pixels. `columns` is working space.
    """
    rounding = broadcast_int(np.int32(1 << 10))
    # 128 is the level of a block whose coefficients are all zero.
    rounding_and_level = broadcast_int(np.int32((1 << 17) + (128 << 18)))
    block = first
    while block < last:
        for u in range(8):
            at = u * stride + block
            step = 8 * stride
            values = _transform(
                load_short(coefficients, at),
                load_short(coefficients, at + step),
                load_short(coefficients, at + 2 * step),
                load_short(coefficients, at + 3 * step),
                load_short(coefficients, at + 4 * step),
                load_short(coefficients, at + 5 * step),
                load_short(coefficients, at + 6 * step),
                load_short(coefficients, at + 7 * step),
                rounding,
                np.int32(11),
            )
            store_int(columns, 16 * u, values[0])
            store_int(columns, 16 * u + 128, values[1])
            store_int(columns, 16 * u + 256, values[2])
            store_int(columns, 16 * u + 384, values[3])
            store_int(columns, 16 * u + 512, values[4])
            store_int(columns, 16 * u + 640, values[5])
            store_int(columns, 16 * u + 768, values[6])
            store_int(columns, 16 * u + 896, values[7])
        for y in range(8):
            values = _transform(
                load_int(columns, 128 * y),
                load_int(columns, 128 * y + 16),
                load_int(columns, 128 * y + 32),
                load_int(columns, 128 * y + 48),
                load_int(columns, 128 * y + 64),
                load_int(columns, 128 * y + 80),
                load_int(columns, 128 * y + 96),
                load_int(columns, 128 * y + 112),
                rounding_and_level,
                np.int32(18),
            )
            store_bytes(band, 8 * (y * stride + block), values)
        block += 16
