"""Decodes the JPEGs of flow many at once, straight into an array, and no further than a crop.

Flow is stored as baseline JPEGs of one component (ITU-T T.81). Libraries take one such image at a
time, decode all of it and hand over an array of their own; here one call decodes the images of a
clip, stops after the last row that is wanted, and transforms 16 blocks side by side, those alone
that the crop touches. The pixels are those of libjpeg and libjpeg-turbo, bit for bit: the transform
is their accurate integer one (jidctint.c, "islow", after Loeffler, Ligtenberg and Moschytz).

Any other kind of JPEG, and any that is damaged, is refused, and left to OpenCV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import (
    broadcast_int,
    copy,
    copy_word,
    load_big_endian,
    load_int,
    load_short,
    shift_left,
    shift_right,
    store_bytes,
    store_int,
)
from flowprep.garbage import collector_paused

__all__ = ["decode_planes", "prepare"]

# Codes are looked up by so many bits. Longer ones, a few in a thousand, are searched for.
_LOOKUP_BITS = 10

# An entry of the lookup table holds, from its lowest bit on,
#   6 bits    how many bits to take: the code, and with it the coefficient's own bits where both fit
#   7 bits    zero coefficients before this one; _END for the end of a block
#   1 bit     _SPECIAL: the coefficient's own bits are still to come
#   18 bits   the coefficient, or for _SPECIAL the number of its bits
# An entry of _SPECIAL alone says that the code is longer, or none.
_END = 100
_SPECIAL = 1 << 13

# Most codes are so short that two fit into a lookup. An entry of the table of pairs holds
#   6 bits    how many bits to take
#   7 bits    zero coefficients before the first one
#   1 bit     _SPECIAL: the rest is an entry as above
#   7 bits    how far the second one is from the first; 0 for the first once more
#   6 bits    how many bits to take for the first alone
#   16 bits   at bit 32, the first coefficient
#   16 bits   at bit 48, the second one
_DISTANCE_SHIFT = 14
_FIRST_SHIFT = 21

# Places of the coefficients in a block, in the order in which they are stored (T.81, figure A.6).
_ZIGZAG = np.array(
    [
        *(0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5),
        *(12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28),
        *(35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51),
        *(58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63),
    ],
    np.int64,
)

# A block that is damaged may take so many bytes before that is noticed: 64 times 16 + 11 bits.
_SLACK_BYTES = 256


def decode_planes(
    data: bytes,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    out: NDArray[np.uint8],
    targets: NDArray[np.int64],
    size: tuple[int, int],
    box: tuple[int, int, int, int],
) -> int:
    """Decodes the JPEGs data[starts[i]:ends[i]] into `out`; returns how many before the first that
    it refuses.

    `size` is the width and height that each must have, `box` = (x, y, width, height) the part that
    is wanted. `out` is C-contiguous uint8; image i becomes height x width bytes from its element
    `targets[i]` on.
    """
    assert out.flags.c_contiguous
    x, y, width, height = box
    count = _decode(
        np.frombuffer(data, np.uint8),
        starts,
        ends,
        out.reshape(-1),
        targets,
        *size,
        x,
        y,
        width,
        height,
    )
    return int(count)


def prepare() -> None:
    """Compiles the decoder, or reads it from the disk cache."""
    none = np.empty(0, np.int64)
    with collector_paused():
        decode_planes(b"", none, none, np.empty(0, np.uint8), none, (8, 8), (0, 0, 8, 8))


# ---- kernels


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
def _transform_row(coefficients, columns, band, stride, first, last):  # type: ignore[no-untyped-def]
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


@inline
def _read_table(data, at, is_ac, lookup, codes):  # type: ignore[no-untyped-def]
    """Reads a Huffman table (T.81, B.2.4.2); returns whether it is one.

    `codes` becomes, for each length, the last code and the first, 16 numbers each, the place of the
    first one's symbol, and then all symbols.
    """
    for i in range(1 << _LOOKUP_BITS):
        lookup[i] = _SPECIAL
    code = 0
    place = 0
    for length in range(1, 17):
        count = np.int64(data[at + length - 1])
        if code + count > 1 << length:
            return False
        codes[length] = code + count - 1
        codes[17 + length] = code
        codes[34 + length] = place
        for _ in range(count):
            symbol = np.int64(data[at + 16 + place])
            codes[51 + place] = symbol
            num_bits, run = symbol & 15, symbol >> 4
            if num_bits > (10 if is_ac else 11) or (run > 0 and not is_ac):
                return False
            if is_ac and num_bits == 0 and run != 15:
                run = _END
            if length <= _LOOKUP_BITS:
                first = code << (_LOOKUP_BITS - length)
                rest = _LOOKUP_BITS - length - num_bits
                if num_bits == 0:
                    for i in range(first, first + (1 << rest)):
                        lookup[i] = (run << 6) | length
                elif rest < 0:
                    for i in range(first, first + (1 << (_LOOKUP_BITS - length))):
                        lookup[i] = (num_bits << 14) | _SPECIAL | (run << 6) | length
                else:
                    i = first
                    for bits in range(1 << num_bits):
                        # T.81, F.2.2.1: numbers that begin with 0 are negative.
                        is_positive = bits >= 1 << (num_bits - 1)
                        value = bits if is_positive else bits - (1 << num_bits) + 1
                        for _ in range(1 << rest):
                            lookup[i] = (value << 16) | (run << 6) | (length + num_bits)
                            i += 1
            code += 1
            place += 1
        code <<= 1
    return True


@inline
def _join_pairs(lookup, pairs):  # type: ignore[no-untyped-def]
    """Makes the table of pairs out of the lookup table of an AC code."""
    for i in range(1 << _LOOKUP_BITS):
        entry = np.int64(lookup[i])
        if entry & _SPECIAL:
            pairs[i] = entry
            continue
        first = (entry >> 16) & 0xFFFF
        alone, run = entry & 63, (entry >> 6) & 127
        taken = alone
        following = np.int64(lookup[(i << alone) & ((1 << _LOOKUP_BITS) - 1)])
        distance, second = 0, first
        together = alone + (following & 63)
        if run != _END and not following & _SPECIAL and together <= _LOOKUP_BITS:
            run_between = (following >> 6) & 127
            distance = _END if run_between == _END else run_between + 1
            second = (following >> 16) & 0xFFFF
            taken = together
        pairs[i] = (
            (second << 48)
            | (first << 32)
            | (alone << _FIRST_SHIFT)
            | (distance << _DISTANCE_SHIFT)
            | (run << 6)
            | taken
        )


@inline
def _find_code(bits, codes, is_ac):  # type: ignore[no-untyped-def]
    """Returns what the lookup table would say of a code that it does not hold; 0 for none."""
    for length in range(1, 17):
        code = np.int64(bits >> np.uint64(64 - length))
        if codes[17 + length] <= code <= codes[length]:
            symbol = codes[51 + codes[34 + length] + code - codes[17 + length]]
            num_bits, run = symbol & 15, symbol >> 4
            if is_ac and num_bits == 0 and run != 15:
                run = np.int64(_END)
            return (num_bits << 14) | _SPECIAL | (run << 6) | length
    return np.int64(0)


@inline
def _read_headers(data, at, end, width, height, quantizers, dc, ac, dc_codes, ac_codes, pairs):  # type: ignore[no-untyped-def]
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
                    has_ac = _read_table(data, place + 1, True, ac, ac_codes)
                    _join_pairs(ac, pairs)
                else:
                    has_dc = _read_table(data, place + 1, False, dc, dc_codes)
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
def _unstuff(data, at, end, stream):  # type: ignore[no-untyped-def]
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
    for i in range(_SLACK_BYTES):
        stream[length + i] = 0
    return length


@kernel
def _decode(  # type: ignore[no-untyped-def]
    data, starts, ends, out, targets, width, height, box_x, box_y, box_width, box_height
):
    """Decodes images; see `decode_planes`."""
    num_images = starts.size
    longest = 0
    for image in range(num_images):
        if not 0 <= starts[image] <= ends[image] <= data.size:
            return 0
        longest = max(longest, ends[image] - starts[image])
    stream = np.empty(longest + _SLACK_BYTES + 8, np.uint8)
    num_blocks = (width + 7) // 8
    # Two vectors more than needed at most: the transform begins at any block.
    stride = (num_blocks + 15) // 16 * 16 + 16
    first_block, last_block = box_x // 8, (box_x + box_width + 7) // 8
    first_row, last_row = box_y // 8, (box_y + box_height + 7) // 8
    # A 65th place takes what comes behind the end of a block.
    coefficients = np.empty(65 * stride, np.int16)
    columns = np.empty(1024, np.int32)
    band = np.empty(64 * stride, np.uint8)
    quantizers = np.zeros(320, np.int64)
    places = np.empty(320, np.uint32)
    for i in range(320):
        places[i] = (_ZIGZAG[i] if i < 64 else 64) * stride
    dc = np.empty(1 << _LOOKUP_BITS, np.int32)
    ac = np.empty(1 << _LOOKUP_BITS, np.int32)
    pairs = np.empty(1 << _LOOKUP_BITS, np.int64)
    dc_codes = np.empty(51 + 256, np.int64)
    ac_codes = np.empty(51 + 256, np.int64)
    one, last_place = np.uint64(1), np.uint64(63)
    lookup_shift = np.uint64(64 - _LOOKUP_BITS)
    for image in range(num_images):
        begin = _read_headers(
            data, starts[image], ends[image], width, height,
            quantizers, dc, ac, dc_codes, ac_codes, pairs,
        )  # fmt: skip
        if begin < 0:
            return image
        length = _unstuff(data, begin, ends[image], stream)
        if length < 0:
            return image
        # The next `held` bits, at the upper end, then zeros or the bits that are really there.
        bits, held = np.uint64(0), np.int64(0)
        at = np.int64(0)
        level = np.int64(0)
        for row in range(last_row):
            coefficients[:] = 0
            for block in range(num_blocks):
                bits |= load_big_endian(stream, at) >> np.uint64(held)
                at += (63 - held) >> 3
                held |= 56
                entry = np.int64(dc[bits >> lookup_shift])
                value = entry >> 16
                if entry & _SPECIAL:
                    if entry == _SPECIAL:
                        entry = _find_code(bits, dc_codes, False)
                        if entry == 0:
                            return image
                    bits <<= np.uint64(entry & 63)
                    held -= entry & 63
                    size = entry >> 14
                    value = np.int64(0)
                    if size:
                        value = np.int64(bits >> np.uint64(64 - size))
                        if value < 1 << (size - 1):
                            value -= (1 << size) - 1
                        bits <<= np.uint64(size)
                        held -= size
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
                    if entry & _SPECIAL:
                        if entry == _SPECIAL:
                            entry = _find_code(bits, ac_codes, True)
                            if entry == 0:
                                return image
                        bits <<= np.uint64(entry & 63)
                        held -= entry & 63
                        size = entry >> 14
                        value = np.int64(0)
                        if size:
                            value = np.int64(bits >> np.uint64(64 - size))
                            if value < 1 << (size - 1):
                                value -= (1 << size) - 1
                            bits <<= np.uint64(size)
                            held -= size
                        k += np.uint64((entry >> 6) & 127)
                    else:
                        k += np.uint64((entry >> 6) & 127)
                        coefficients[np.uint64(places[k]) + np.uint64(block)] = np.int16(
                            (entry >> 32) * quantizers[k]
                        )
                        if k == last_place:
                            # Full, without a code for its end: the second one is not of this block.
                            alone = (entry >> _FIRST_SHIFT) & 63
                            bits <<= np.uint64(alone)
                            held -= alone
                            break
                        bits <<= np.uint64(entry & 63)
                        held -= entry & 63
                        k += np.uint64((entry >> _DISTANCE_SHIFT) & 127)
                        value = entry >> 48
                    coefficients[np.uint64(places[k]) + np.uint64(block)] = np.int16(
                        value * quantizers[k]
                    )
                    k += one
                # A run over the end of the block, or data that ended before it.
                is_whole = last_place <= k <= last_place + one
                is_whole = is_whole or np.uint64(_END) < k <= np.uint64(_END + 64)
                if not is_whole or 8 * at - held > 8 * length:
                    return image
            if row >= first_row:
                _transform_row(coefficients, columns, band, stride, first_block, last_block)
                top, bottom = max(8 * row, box_y), min(8 * row + 8, box_y + box_height)
                for y in range(top, bottom):
                    source = 8 * (y - 8 * row) * stride + box_x
                    target = targets[image] + (y - box_y) * box_width
                    copy(out, target, band, source, box_width)
    return num_images
