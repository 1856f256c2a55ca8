"""Huffman codes: read from a JPEG's header, and made into tables that bits are looked up in."""

from __future__ import annotations

import numpy as np

from flowprep.flow.kernel import inline

__all__ = [
    "DISTANCE_SHIFT",
    "END",
    "FIRST_SHIFT",
    "LOOKUP_BITS",
    "SPECIAL",
    "find_code",
    "join_pairs",
    "read_table",
]

# Codes are looked up by so many bits. Longer ones, a few in a thousand, are searched for.
LOOKUP_BITS = 10

# An entry of the lookup table holds, from its lowest bit on,
#   6 bits    how many bits to take: the code, and with it the coefficient's own bits where both fit
#   7 bits    zero coefficients before this one; END for the end of a block
#   1 bit     SPECIAL: the coefficient's own bits are still to come
#   18 bits   the coefficient, or for SPECIAL the number of its bits
# An entry of SPECIAL alone says that the code is longer, or none.
END = 100
SPECIAL = 1 << 13

# Most codes are so short that two fit into a lookup. An entry of the table of pairs holds
#   6 bits    how many bits to take
#   7 bits    zero coefficients before the first one
#   1 bit     SPECIAL: the rest is an entry as above
#   7 bits    how far the second one is from the first; 0 for the first once more
#   6 bits    how many bits to take for the first alone
#   16 bits   at bit 32, the first coefficient
#   16 bits   at bit 48, the second one
DISTANCE_SHIFT = 14
FIRST_SHIFT = 21


@inline
def read_table(data, at, is_ac, lookup, codes):  # type: ignore[no-untyped-def]
    """Reads a Huffman table (T.81, B.2.4.2); returns whether it is one.

    `codes` becomes, for each length, the last code and the first, 16 numbers each, the place of the
    first one's symbol, and then all symbols.
    """
    for i in range(1 << LOOKUP_BITS):
        lookup[i] = SPECIAL
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
                run = END
            if length <= LOOKUP_BITS:
                first = code << (LOOKUP_BITS - length)
                rest = LOOKUP_BITS - length - num_bits
                if num_bits == 0:
                    for i in range(first, first + (1 << rest)):
                        lookup[i] = (run << 6) | length
                elif rest < 0:
                    for i in range(first, first + (1 << (LOOKUP_BITS - length))):
                        lookup[i] = (num_bits << 14) | SPECIAL | (run << 6) | length
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
def join_pairs(lookup, pairs):  # type: ignore[no-untyped-def]
    """Makes the table of pairs out of the lookup table of an AC code."""
    for i in range(1 << LOOKUP_BITS):
        entry = np.int64(lookup[i])
        if entry & SPECIAL:
            pairs[i] = entry
            continue
        first = (entry >> 16) & 0xFFFF
        alone, run = entry & 63, (entry >> 6) & 127
        taken = alone
        following = np.int64(lookup[(i << alone) & ((1 << LOOKUP_BITS) - 1)])
        distance, second = 0, first
        together = alone + (following & 63)
        if run != END and not following & SPECIAL and together <= LOOKUP_BITS:
            run_between = (following >> 6) & 127
            distance = END if run_between == END else run_between + 1
            second = (following >> 16) & 0xFFFF
            taken = together
        pairs[i] = (
            (second << 48)
            | (first << 32)
            | (alone << FIRST_SHIFT)
            | (distance << DISTANCE_SHIFT)
            | (run << 6)
            | taken
        )


@inline
def find_code(bits, codes, is_ac):  # type: ignore[no-untyped-def]
    """Returns what the lookup table would say of a code that it does not hold; 0 for none."""
    for length in range(1, 17):
        code = np.int64(bits >> np.uint64(64 - length))
        if codes[17 + length] <= code <= codes[length]:
            symbol = codes[51 + codes[34 + length] + code - codes[17 + length]]
            num_bits, run = symbol & 15, symbol >> 4
            if is_ac and num_bits == 0 and run != 15:
                run = np.int64(END)
            return (num_bits << 14) | SPECIAL | (run << 6) | length
    return np.int64(0)
