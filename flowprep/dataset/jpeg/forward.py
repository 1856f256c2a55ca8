"""From pixels to coefficients, 16 blocks side by side: transform.py the other way round.

The transform is libjpeg's accurate integer one, bit for bit (jfdctint.c, "islow", after Loeffler,
Ligtenberg and Moschytz), and so is the rounding of coefficients (jcdctmgr.c): half away from zero.
"""

from __future__ import annotations

import numpy as np

from flowprep.flow.kernel import inline
from flowprep.flow.simd import (
    broadcast,
    broadcast_int,
    load_broadcast,
    load_bytes_apart,
    load_int,
    mark_nonzero,
    shift_left,
    shift_right,
    store_int,
    store_short,
    to_float,
    to_int,
    where_less,
)

__all__ = ["quantize_row"]


@inline
def _transform(d0, d1, d2, d3, d4, d5, d6, d7, rounding, shift):  # type: ignore[no-untyped-def]
    """One dimension of the transform, 16 of them side by side: 8 vectors to 8 vectors.

    Results 0 and 4 are sums alone, and have the 13 bits after the point of the others not.
    """
    t0, t7, t1, t6 = d0 + d7, d0 - d7, d1 + d6, d1 - d6
    t2, t5, t3, t4 = d2 + d5, d2 - d5, d3 + d4, d3 - d4
    t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
    # Constants are jfdctint.c's, 13 bits after the point: 4433 is .541196100.
    z1 = (t12 + t13) * broadcast_int(np.int32(4433)) + rounding
    o2 = z1 + t13 * broadcast_int(np.int32(6270))
    o6 = z1 - t12 * broadcast_int(np.int32(15137))
    z1, z2, z3, z4 = t4 + t7, t5 + t6, t4 + t6, t5 + t7
    z5 = (z3 + z4) * broadcast_int(np.int32(9633)) + rounding
    z1 = z1 * broadcast_int(np.int32(-7373))
    z2 = z2 * broadcast_int(np.int32(-20995))
    z3 = z3 * broadcast_int(np.int32(-16069)) + z5
    z4 = z4 * broadcast_int(np.int32(-3196)) + z5
    o7 = t4 * broadcast_int(np.int32(2446)) + z1 + z3
    o5 = t5 * broadcast_int(np.int32(16819)) + z2 + z4
    o3 = t6 * broadcast_int(np.int32(25172)) + z2 + z3
    o1 = t7 * broadcast_int(np.int32(12299)) + z1 + z4
    return (
        t10 + t11,
        shift_right(o1, shift),
        shift_right(o2, shift),
        shift_right(o3, shift),
        t10 - t11,
        shift_right(o5, shift),
        shift_right(o6, shift),
        shift_right(o7, shift),
    )


@inline
def _rounded(x, scales, halves, place):  # type: ignore[no-untyped-def]
    """Divides the coefficients at one place of 16 blocks by its quantizer, and rounds.

    libjpeg adds half of the divisor, and divides integers. A number of up to 15 bits, of which no
    fraction comes nearer to a whole one than half a divisor's share, loses nothing in float32.
    """
    half = load_broadcast(halves, place)
    value = to_float(x)
    zero = broadcast(np.float32(0))
    value = value + where_less(value, zero, zero - half, half)
    return to_int(value * load_broadcast(scales, place))


@inline
def quantize_row(  # type: ignore[no-untyped-def]
    band, columns, stride, scales, halves, low_bits, high_bits, places, coefficients, low, high
):
    """Turns 8 rows of pixels into a row of blocks of coefficients, and marks those that are not 0.

    `band` is 8 rows of 8 * `stride` pixels. `coefficients` becomes, at k * stride + b, number k of
    block b, in the order in which they are stored; `low` and `high` at b, the bits k and k - 32 of
    those that are not 0. `scales`, `halves`, `low_bits`, `high_bits` and `places` say by the place
    in the block what to multiply with, what to add before, which bits to set and where to write.
    """
    level = broadcast_int(np.int32(8 * 128))
    for block in range(0, stride, 16):
        for y in range(8):
            d = load_bytes_apart(band, 8 * (y * stride + block))
            values = _transform(*d, broadcast_int(np.int32(1 << 10)), np.int32(11))
            at = 128 * y
            # Levels count from 128. Only the sum of all 8 notices.
            store_int(columns, at, shift_left(values[0] - level, np.int32(2)))
            store_int(columns, at + 16, values[1])
            store_int(columns, at + 32, values[2])
            store_int(columns, at + 48, values[3])
            store_int(columns, at + 64, shift_left(values[4], np.int32(2)))
            store_int(columns, at + 80, values[5])
            store_int(columns, at + 96, values[6])
            store_int(columns, at + 112, values[7])
        low_marks = high_marks = broadcast_int(np.int32(0))
        two = broadcast_int(np.int32(2))
        for x in range(8):
            at = 16 * x
            values = _transform(
                load_int(columns, at), load_int(columns, at + 128),
                load_int(columns, at + 256), load_int(columns, at + 384),
                load_int(columns, at + 512), load_int(columns, at + 640),
                load_int(columns, at + 768), load_int(columns, at + 896),
                broadcast_int(np.int32(1 << 14)), np.int32(15),
            )  # fmt: skip
            sums = (
                shift_right(values[0] + two, np.int32(2)),
                shift_right(values[4] + two, np.int32(2)),
            )
            values = (
                sums[0], values[1], values[2], values[3],
                sums[1], values[5], values[6], values[7],
            )  # fmt: skip
            for y in range(8):
                place = 8 * y + x
                value = _rounded(values[y], scales, halves, place)
                low_marks = mark_nonzero(low_marks, value, low_bits[place])
                high_marks = mark_nonzero(high_marks, value, high_bits[place])
                store_short(coefficients, places[place] + block, value)
        store_int(low, block, low_marks)
        store_int(high, block, high_marks)
