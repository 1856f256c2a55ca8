"""Encodes levels that came out of a JPEG so that they come out again.

The levels of an exported array were decoded from JPEGs. Encoded once more, one in a few hundred
would change by one, because a decoder rounds to whole levels. But a JPEG that gives exactly these
levels exists: the one that they came from. For each block that changes, its coefficients are looked
for among those that are nearly as close, and libjpeg gets pixels from which it makes them. (The
idea is that of A. B. Lewis and M. G. Kuhn, Exact JPEG recompression, 2010.)
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.jpeg.blocks import ZIGZAG
from flowprep.flow.kernel import inline, kernel

__all__ = ["encode_exactly"]

# At each attempt so many changes of coefficients are tried, those that are closest, and the
# pixels have to give them with so much to spare. At quality 95, 8 of the 64 are stored to the unit,
# which is where decoding loses them.
_ATTEMPTS = ((10, 0.25), (10, 0.2), (10, 0.15), (10, 0.1), (13, 0.15), (16, 0.15), (18, 0.06))
# libjpeg's inverse transform is integer; so far it may be from the exact one.
_TOLERANCE = 0.08
_MAX_TRIALS = 50


def encode_exactly(levels: NDArray[np.uint8], quality: int) -> tuple[bytes, int]:
    """Returns a JPEG of `quality`, and how many pixels it decodes to other levels.

    `levels` is (H, W) uint8. The number is 0 if the levels came from a JPEG of this quality (up to
    97; a higher one leaves too many choices), but for blocks that are cut by the edge or clipped
    and of which too little is known.
    """
    jpeg, differing = _encode(levels, levels, quality)
    if not differing.any():
        return jpeg, 0
    height, width = levels.shape
    rows, columns = -(-height // 8), -(-width // 8)
    # libjpeg completes the blocks at the edge with the last pixels.
    y = np.minimum(np.arange(8 * rows), height - 1)
    x = np.minimum(np.arange(8 * columns), width - 1)
    sources = _blocks((y % 8 * 8)[:, None] + (x % 8)[None, :])
    blocks = _blocks(levels[np.ix_(y, x)]).astype(np.float64) - 128
    best, least = jpeg, int(differing.sum())
    made = blocks.copy()
    for seed, (num_doubtful, slack) in enumerate(_ATTEMPTS, start=1):
        todo = np.flatnonzero(_blocks(differing[np.ix_(y, x)]).any(axis=1))
        some = blocks[todo]
        _repair(some, sources[todo], _quantizers(jpeg), _BASIS, num_doubtful, slack, seed)
        made[todo] = some
        image = (made.reshape(rows, columns, 8, 8) + 128).astype(np.uint8).swapaxes(1, 2)
        image = image.reshape(8 * rows, 8 * columns)[:height, :width]
        jpeg, differing = _encode(np.ascontiguousarray(image), levels, quality)
        if (count := int(differing.sum())) < least:
            best, least = jpeg, count
        if not count:
            break
    return best, least


def _encode(
    image: NDArray[np.uint8], wanted: NDArray[np.uint8], quality: int
) -> tuple[bytes, NDArray[np.bool_]]:
    """Returns the JPEG of an image, and where it does not decode to the wanted levels."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, jpeg = cv2.imencode(".jpg", image, parameters)
    assert done
    decoded = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED), np.uint8)
    return jpeg.tobytes(), np.asarray(decoded != wanted)


def _blocks(image: NDArray[Any]) -> NDArray[Any]:
    """Returns (H, W) as (number of blocks, 64), row by row."""
    height, width = image.shape
    blocks = image.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    return np.ascontiguousarray(blocks.reshape(-1, 64))


def _quantizers(jpeg: bytes) -> NDArray[np.float64]:
    """Returns the steps of the 64 coefficients, row by row."""
    place = jpeg.index(b"\xff\xdb") + 5
    table = np.empty(64)
    table[ZIGZAG] = np.frombuffer(jpeg[place : place + 64], np.uint8)
    return table


def _basis() -> NDArray[np.float64]:
    """Returns the 64 pixels of each coefficient (T.81, A.3.3); the rows are orthonormal."""
    n = np.arange(8)
    one = np.cos((2 * n[None, :] + 1) * n[:, None] * np.pi / 16) / 2
    one[0] /= np.sqrt(2)
    return np.asarray(np.einsum("vy,ux->vuyx", one, one).reshape(64, 64))


_BASIS = _basis()


@inline
def _transform(values, at, step, rounding, shift, out, to, along):  # type: ignore[no-untyped-def]
    """One dimension of libjpeg's inverse transform (jidctint.c, "islow"): 8 values to 8 values."""
    i1, i2, i3 = values[at + step], values[at + 2 * step], values[at + 3 * step]
    i5, i6, i7 = values[at + 5 * step], values[at + 6 * step], values[at + 7 * step]
    z1 = (i2 + i6) * 4433
    t2, t3 = z1 - i6 * 15137, z1 + i2 * 6270
    t0 = ((values[at] + values[at + 4 * step]) << 13) + rounding
    t1 = ((values[at] - values[at + 4 * step]) << 13) + rounding
    z5 = (i7 + i3 + i5 + i1) * 9633
    z1, z2 = (i7 + i1) * -7373, (i5 + i3) * -20995
    z3, z4 = (i7 + i3) * -16069 + z5, (i5 + i1) * -3196 + z5
    odd = (i1 * 12299 + z1 + z4, i3 * 25172 + z2 + z3, i5 * 16819 + z2 + z4, i7 * 2446 + z1 + z3)
    even = (t0 + t3, t1 + t2, t1 - t2, t0 - t3)
    for i in range(4):
        out[to + i * along] = (even[i] + odd[i]) >> shift
        out[to + (7 - i) * along] = (even[i] - odd[i]) >> shift


@inline
def _decodes_to(coefficients, levels, source, columns):  # type: ignore[no-untyped-def]
    """Whether libjpeg decodes coefficients to a block, as far as the block is known."""
    values = coefficients.astype(np.int64)
    pixels = np.empty(64, np.int64)
    for u in range(8):
        _transform(values, u, 8, 1 << 10, 11, columns, u, 8)
    for y in range(8):
        _transform(columns, 8 * y, 1, 1 << 17, 18, pixels, 8 * y, 1)
    for p in range(64):
        if source[p] == p and min(max(pixels[p], -128), 127) != levels[p]:
            return False
    return True


@kernel
def _repair(blocks, sources, quantizers, basis, num_doubtful, slack, seed):  # type: ignore[no-untyped-def]
    """Replaces blocks of levels - 128, (n, 64), by pixels of which libjpeg makes the levels.

    A pixel whose source is another one lies beyond the edge: nobody knows it. A block for which
    nothing is found stays as it is.
    """
    state = np.uint64(seed)
    doubtful = np.empty(num_doubtful, np.int64)
    steps = np.empty(num_doubtful)
    margins = np.empty(128)
    columns = np.empty(64, np.int64)
    limits = quantizers / 2 - slack
    for block in range(len(blocks)):
        levels, source = blocks[block].copy(), sources[block]
        exact = basis @ levels / quantizers
        rounded = np.rint(exact)
        # How far the next number is on either side: now and then the right one is not the second
        # closest, but the third.
        margins[:64] = (0.5 - exact + rounded) * quantizers
        margins[64:] = (0.5 + exact - rounded) * quantizers
        for i in range(num_doubtful):
            place = np.argmin(margins)
            margins[place] = np.inf
            doubtful[i] = place % 64
            steps[i] = 1.0 if place < 64 else -1.0
        pixels = (rounded * quantizers) @ basis
        is_found = False
        # A Gray code: each of the choices differs from the one before in one coefficient.
        for choice in range(1 << num_doubtful):
            if choice:
                bit = 0
                while not choice >> bit & 1:
                    bit += 1
                k = doubtful[bit]
                rounded[k] += steps[bit]
                pixels += steps[bit] * quantizers[k] * basis[k]
                steps[bit] = -steps[bit]
            is_near = True
            for p in range(64):
                off = levels[p] - pixels[p]
                # Beyond the ends of the levels everything is clipped.
                is_clipped = (off < 0 and levels[p] == 127) or (off > 0 and levels[p] == -128)
                if abs(off) > 0.5 + _TOLERANCE and source[p] == p and not is_clipped:
                    is_near = False
                    break
            if is_near and _decodes_to(rounded * quantizers, levels, source, columns):
                is_found = True
                break
        if not is_found:
            continue
        state = _find_pixels(blocks[block], rounded * quantizers, source, limits, basis, state)


@inline
def _find_pixels(block, wanted, source, limits, basis, state):  # type: ignore[no-untyped-def]
    """Changes a block so that its coefficients become the wanted ones, if such pixels are found.

    Returns the next state of the random numbers.
    """
    moves = np.zeros((64, 64))
    for p in range(64):
        moves[source[p]] += basis[:, p]
    exact = wanted @ basis
    pixels = np.empty(64)
    for trial in range(_MAX_TRIALS):
        for p in range(64):
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            noise = np.float64(state >> np.uint64(40)) / (1 << 24) - 0.5 if trial else 0.0
            pixels[p] = min(max(np.rint(exact[p] + noise), -128.0), 127.0)
        for p in range(64):
            pixels[p] = pixels[source[p]]
        off = basis @ pixels - wanted
        cost = (np.maximum(np.abs(off) - limits, 0.0) ** 2).sum()
        while cost > 0:
            least, place, step = cost, -1, 0.0
            for p in range(64):
                for sign in (-1.0, 1.0):
                    if source[p] != p or not -128 <= pixels[p] + sign <= 127:
                        continue
                    after = 0.0
                    for k in range(64):
                        after += max(abs(off[k] + sign * moves[p, k]) - limits[k], 0.0) ** 2
                        if after >= least:
                            break
                    if after < least:
                        least, place, step = after, p, sign
            if place < 0:
                break
            off += step * moves[place]
            pixels[place] += step
            cost = least
        if cost == 0:
            for p in range(64):
                block[p] = pixels[source[p]]
            break
    return state
