"""All that stands before a JPEG's entropy-coded data, and that data made ready to be read."""

from __future__ import annotations

import numpy as np

from flowprep.dataset.jpeg.codes import join_pairs, read_table
from flowprep.flow.kernel import inline
from flowprep.flow.simd import copy_word

__all__ = ["SLACK_BYTES", "read_headers", "unstuff"]

# A block that is damaged may take so many bytes before that is noticed: 64 times 16 + 11 bits.
SLACK_BYTES = 256


@inline
def read_headers(data, at, end, width, height, quantizers, dc, ac, dc_codes, ac_codes, pairs):  # type: ignore[no-untyped-def]
    """Reads all up to the entropy-coded data and returns where that begins; -1 for another kind."""
    if end - at < 4 or data[at] != 0xFF or data[at + 1] != 0xD8:
        return np.int64(-1)
    at += 2
    has_quantizers = has_dc = has_ac = has_frame = False
    while at + 4 <= end and data[at] == 0xFF:
        marker = data[at + 1]
        size = np.int64(data[at + 2]) * 256 + data[at + 3]
        place, following = at + 4, at + 2 + size
        if size < 2 or following > end:
            break
        if marker == 0xDB:
            while place < following:
                # One table of 8-bit numbers; another one would be for another component.
                if data[place] != 0 or place + 65 > following:
                    return np.int64(-1)
                for i in range(64):
                    quantizers[i] = data[place + 1 + i]
                has_quantizers = True
                place += 65
        elif marker == 0xC0:
            if (
                size != 11
                or data[place] != 8
                or np.int64(data[place + 1]) * 256 + data[place + 2] != height
                or np.int64(data[place + 3]) * 256 + data[place + 4] != width
                or data[place + 5] != 1
                or data[place + 8] != 0
            ):
                break
            has_frame = True
        elif marker == 0xC4:
            while place < following:
                if place + 17 > following or data[place] & 0xEF:
                    return np.int64(-1)
                count = 0
                for i in range(16):
                    count += np.int64(data[place + 1 + i])
                if count > 256 or place + 17 + count > following:
                    return np.int64(-1)
                is_ac = data[place] != 0
                if is_ac:
                    has_ac = read_table(data, place + 1, True, ac, ac_codes)
                    join_pairs(ac, pairs)
                else:
                    has_dc = read_table(data, place + 1, False, dc, dc_codes)
                place += 17 + count
        elif marker == 0xDA:
            is_whole = size == 8 and data[place] == 1 and data[place + 2] == 0
            is_whole = is_whole and data[place + 3] == 0 and data[place + 4] == 63
            if is_whole and data[place + 5] == 0 and has_quantizers and has_dc and has_ac:
                return following if has_frame else np.int64(-1)
            break
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            break
        at = following
    return np.int64(-1)


@inline
def unstuff(data, at, end, stream):  # type: ignore[no-untyped-def]
    """Copies entropy-coded data without the zeros that follow each 255; returns its length.

    Returns -1 where it does not end as a JPEG does.
    """
    length = 0
    while True:
        while at + 8 <= end:
            # No byte is 255 where none of the inverted ones is 0.
            word = ~copy_word(stream, length, data, at)
            if (word - np.uint64(0x0101010101010101)) & ~word & np.uint64(0x8080808080808080):
                break
            length += 8
            at += 8
        while at < end and data[at] != 0xFF:
            stream[length] = data[at]
            length += 1
            at += 1
        if at + 1 >= end:
            return -1
        if data[at + 1] != 0:
            break
        stream[length] = 0xFF
        length += 1
        at += 2
    if data[at + 1] != 0xD9:
        return -1
    for i in range(SLACK_BYTES):
        stream[length + i] = 0
    return length
