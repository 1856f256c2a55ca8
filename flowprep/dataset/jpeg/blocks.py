"""From bits to coefficients: a row of blocks at a time (T.81, F.2.2)."""

from __future__ import annotations

import numpy as np

from flowprep.dataset.jpeg.codes import (
    DISTANCE_SHIFT,
    END,
    FIRST_SHIFT,
    LOOKUP_BITS,
    SPECIAL,
    find_code,
)
from flowprep.flow.kernel import inline
from flowprep.flow.simd import load_big_endian

__all__ = ["ZIGZAG", "read_row"]

# Places of the coefficients in a block, in the order in which they are stored (T.81, figure A.6).
ZIGZAG = np.array(
    [
        *(0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5),
        *(12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28),
        *(35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51),
        *(58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63),
    ],
    np.int64,
)


@inline
def _take_special(bits, held, entry, codes, is_ac):  # type: ignore[no-untyped-def]
    """Takes a code whose coefficient's own bits are still to come, and those bits.

    Returns what is left, the code's entry, 0 if there is no such code, and the coefficient.
    """
    if entry == SPECIAL:
        entry = find_code(bits, codes, is_ac)
        if entry == 0:
            return bits, held, entry, np.int64(0)
    bits <<= np.uint64(entry & 63)
    held -= entry & 63
    size = entry >> 14
    value = np.int64(0)
    if size:
        value = np.int64(bits >> np.uint64(64 - size))
        # T.81, F.2.2.1: numbers that begin with 0 are negative.
        if value < 1 << (size - 1):
            value -= (1 << size) - 1
        bits <<= np.uint64(size)
        held -= size
    return bits, held, entry, value


@inline
def read_row(  # type: ignore[no-untyped-def]
    stream,
    length,
    state,
    num_blocks,
    dc,
    pairs,
    dc_codes,
    ac_codes,
    quantizers,
    places,
    coefficients,
):
    """Reads the coefficients of a row of blocks; returns whether they are sound, and the new state.

    `state` is what the row before has left: the next `held` bits of the stream, at the upper end of
    `bits`, then zeros or the bits that are really there; `held`; where the stream goes on; and the
    level of the last block. `places` has where each coefficient of block 0 goes in `coefficients`.
    """
    bits, held, at, level = state
    one, last_place = np.uint64(1), np.uint64(63)
    lookup_shift = np.uint64(64 - LOOKUP_BITS)
    for block in range(num_blocks):
        bits |= load_big_endian(stream, at) >> np.uint64(held)
        at += (63 - held) >> 3
        held |= 56
        entry = np.int64(dc[bits >> lookup_shift])
        value = entry >> 16
        if entry & SPECIAL:
            bits, held, entry, value = _take_special(bits, held, entry, dc_codes, False)
            if entry == 0:
                return False, (bits, held, at, level)
        else:
            bits <<= np.uint64(entry & 63)
            held -= entry & 63
        level += value
        coefficients[np.uint64(block)] = np.int16(level * quantizers[0])
        k = one
        while k <= last_place:
            bits |= load_big_endian(stream, at) >> np.uint64(held)
            at += (63 - held) >> 3
            held |= 56
            entry = pairs[bits >> lookup_shift]
            if entry & SPECIAL:
                bits, held, entry, value = _take_special(bits, held, entry, ac_codes, True)
                if entry == 0:
                    return False, (bits, held, at, level)
                k += np.uint64((entry >> 6) & 127)
            else:
                k += np.uint64((entry >> 6) & 127)
                coefficients[np.uint64(places[k]) + np.uint64(block)] = np.int16(
                    (entry >> 32) * quantizers[k]
                )
                if k == last_place:
                    # Full, without a code for its end: the second one is not of this block.
                    alone = (entry >> FIRST_SHIFT) & 63
                    bits <<= np.uint64(alone)
                    held -= alone
                    break
                bits <<= np.uint64(entry & 63)
                held -= entry & 63
                k += np.uint64((entry >> DISTANCE_SHIFT) & 127)
                value = entry >> 48
            coefficients[np.uint64(places[k]) + np.uint64(block)] = np.int16(value * quantizers[k])
            k += one
        # A run over the end of the block, or data that ended before it.
        is_whole = last_place <= k <= last_place + one
        is_whole = is_whole or np.uint64(END) < k <= np.uint64(END + 64)
        if not is_whole or 8 * at - held > 8 * length:
            return False, (bits, held, at, level)
    return True, (bits, held, at, level)
