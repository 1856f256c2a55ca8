"""Huffman tables made for one image, and its codes written with them (T.81, F.1.2 and K.2).

The tables are those of libjpeg (jchuff.c, jpeg_gen_optimal_table), down to the order of symbols
that are equally frequent, so that the bytes are the same.
"""

from __future__ import annotations

import functools

import numpy as np

from flowprep.flow.kernel import inline
from flowprep.flow.simd import lowest_bit

__all__ = [
    "AC",
    "COLOR",
    "DC",
    "make_table",
    "read_symbols",
    "table_of_values",
    "write_codes",
]

# Symbols are counted in one array: those of DC from 0 on, those of AC from 272 on, and from 544 on
# those of color. The lowest four bits are always how many of the coefficient's own follow.
DC = 0
AC = 272
COLOR = 544
# A code is followed by at most 11 bits of the coefficient.
NUM_VALUES = 1 << 12
_LONGEST = 32


@functools.cache
def table_of_values() -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Returns, at value + NUM_VALUES / 2, the number of a value's bits | 16 bits to the left, them.

    A symbol of the stream is the run of zeros, 4 bits, before the number of bits, and fits below.
    """
    values = np.arange(NUM_VALUES) - NUM_VALUES // 2
    num_bits = np.array([abs(int(value)).bit_length() for value in values])
    # T.81, F.1.2.1: of a negative number, the bits of the one below.
    bits = np.where(values < 0, values - 1, values) & ((1 << num_bits) - 1)
    return np.asarray((bits << 16) | num_bits, np.int32)


@inline
def read_symbols(  # type: ignore[no-untyped-def]
    coefficients, low, high, stride, block, values, kind, level, symbols, count, frequencies
):
    """Appends the symbols of a block to `symbols`, and counts them in `frequencies`.

    A symbol has its number among `frequencies` in 16 bits, and behind them the coefficient's own.
    `kind` is 0 or COLOR, `level` that of the block before. Returns how many symbols there are, and
    the level of this block.
    """
    middle = NUM_VALUES // 2
    new_level = np.int64(coefficients[block])
    symbol = values[middle + new_level - level] + DC + kind
    symbols[count] = symbol
    frequencies[symbol & 0xFFFF] += 1
    count += 1
    upper, lower = np.uint64(np.uint32(high[block])), np.uint64(np.uint32(low[block]))
    marks = (upper << np.uint64(32)) | lower
    last = np.int64(0)
    while marks:
        k = np.int64(lowest_bit(marks))
        marks &= marks - np.uint64(1)
        run = k - last - 1
        while run > 15:
            symbols[count] = AC + kind + 0xF0
            frequencies[AC + kind + 0xF0] += 1
            count += 1
            run -= 16
        value = values[middle + np.int64(coefficients[k * stride + block])]
        symbol = value + AC + kind + (run << 4)
        symbols[count] = symbol
        frequencies[symbol & 0xFFFF] += 1
        count += 1
        last = k
    if last < 63:
        symbols[count] = AC + kind
        frequencies[AC + kind] += 1
        count += 1
    return count, new_level


@inline
def make_table(frequencies, first, codes, lengths, out, at, number):  # type: ignore[no-untyped-def]
    """Writes the table of the symbols from `first` on, and fills `codes` and `lengths` with it.

    `out` gets the marker with the table's `number` at `at`. `frequencies` gets one for a symbol
    that is never sent. Returns where `out` goes on.
    """
    symbols = np.empty(257, np.int64)
    weights = np.empty(257, np.int64)
    num_symbols = 0
    # One more symbol, never sent, takes the code of ones alone, which is forbidden.
    frequencies[first + 256] = 1
    for symbol in range(257):
        if frequencies[first + symbol]:
            symbols[num_symbols] = symbol
            weights[num_symbols] = frequencies[first + symbol]
            num_symbols += 1
    sizes = np.zeros(257, np.int64)
    others = np.full(257, -1, np.int64)
    while True:
        # The two least frequent; of equal ones, the last.
        one = two = -1
        for i in range(num_symbols):
            if weights[i] == 0:
                continue
            if one < 0 or weights[i] <= weights[one]:
                two = one
                one = i
            elif two < 0 or weights[i] <= weights[two]:
                two = i
        if two < 0:
            break
        weights[one] += weights[two]
        weights[two] = 0
        i = one
        sizes[i] += 1
        while others[i] >= 0:
            i = others[i]
            sizes[i] += 1
        others[i] = two
        i = two
        sizes[i] += 1
        while others[i] >= 0:
            i = others[i]
            sizes[i] += 1
    counts = np.zeros(_LONGEST + 1, np.int64)
    for i in range(num_symbols):
        counts[min(sizes[i], _LONGEST)] += 1
    _limit(counts)
    out[at] = 0xFF
    out[at + 1] = 0xC4
    out[at + 4] = number
    for length in range(1, 17):
        out[at + 4 + length] = counts[length]
    start = at
    at += 21
    # By length before the limit, and then by number, as libjpeg sorts them.
    length, left, code = 1, counts[1], 0
    for size in range(1, _LONGEST + 1):
        for i in range(num_symbols):
            if min(sizes[i], _LONGEST) != size or symbols[i] == 256:
                continue
            while left == 0:
                length += 1
                left = counts[length]
                code <<= 1
            out[at] = symbols[i]
            at += 1
            codes[first + symbols[i]] = code
            lengths[first + symbols[i]] = length
            code += 1
            left -= 1
    size = at - start - 2
    out[start + 2] = size >> 8
    out[start + 3] = size & 255
    return at


@inline
def _limit(counts):  # type: ignore[no-untyped-def]
    """Shortens codes of more than 16 bits (T.81, figure K.3), and takes the one of ones away."""
    for length in range(_LONGEST, 16, -1):
        while counts[length] > 0:
            shorter = length - 2
            while counts[shorter] == 0:
                shorter -= 1
            counts[length] -= 2
            counts[length - 1] += 1
            counts[shorter + 1] += 2
            counts[shorter] -= 1
    length = 16
    while counts[length] == 0:
        length -= 1
    counts[length] -= 1


@inline
def write_codes(symbols, count, codes, lengths, out, at):  # type: ignore[no-untyped-def]
    """Writes the codes of all symbols, each with its coefficient's bits; returns where `out` ends.

    A byte of ones is followed by one of zeros, and the last byte is filled up with ones.
    """
    bits, held = np.uint64(0), np.int64(0)
    for i in range(count):
        symbol = np.int64(symbols[i])
        number = symbol & 0xFFFF
        num_bits = number & 15
        code = (np.int64(codes[number]) << num_bits) | (symbol >> 16)
        length = lengths[number] + num_bits
        bits = (bits << np.uint64(length)) | np.uint64(code)
        held += length
        if held >= 32:
            held -= 32
            word = (bits >> np.uint64(held)) & np.uint64(0xFFFFFFFF)
            ones = word & ~(word + np.uint64(0x01010101)) & np.uint64(0x80808080)
            for shift in (24, 16, 8, 0):
                byte = (word >> np.uint64(shift)) & np.uint64(255)
                out[at] = byte
                at += 1
                if ones and byte == 255:
                    out[at] = 0
                    at += 1
    filling = -held & 7
    bits = (bits << np.uint64(filling)) | np.uint64((1 << filling) - 1)
    held += filling
    while held > 0:
        held -= 8
        byte = (bits >> np.uint64(held)) & np.uint64(255)
        out[at] = byte
        at += 1
        if byte == 255:
            out[at] = 0
            at += 1
    return at
