"""One call that decodes the JPEGs of a clip; what is done in which order, and in which memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.jpeg.blocks import ZIGZAG, read_row
from flowprep.dataset.jpeg.codes import LOOKUP_BITS
from flowprep.dataset.jpeg.headers import SLACK_BYTES, read_headers, unstuff
from flowprep.dataset.jpeg.transform import transform_row
from flowprep.flow.kernel import kernel
from flowprep.flow.simd import copy
from flowprep.garbage import collector_paused

__all__ = ["decode_planes", "prepare"]


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
    stream = np.empty(longest + SLACK_BYTES + 8, np.uint8)
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
        places[i] = (ZIGZAG[i] if i < 64 else 64) * stride
    dc = np.empty(1 << LOOKUP_BITS, np.int32)
    ac = np.empty(1 << LOOKUP_BITS, np.int32)
    pairs = np.empty(1 << LOOKUP_BITS, np.int64)
    dc_codes = np.empty(51 + 256, np.int64)
    ac_codes = np.empty(51 + 256, np.int64)
    for image in range(num_images):
        begin = read_headers(
            data, starts[image], ends[image], width, height,
            quantizers, dc, ac, dc_codes, ac_codes, pairs,
        )  # fmt: skip
        if begin < 0:
            return image
        length = unstuff(data, begin, ends[image], stream)
        if length < 0:
            return image
        state = np.uint64(0), np.int64(0), np.int64(0), np.int64(0)
        for row in range(last_row):
            coefficients[:] = 0
            is_sound, state = read_row(
                stream, length, state, num_blocks,
                dc, pairs, dc_codes, ac_codes, quantizers, places, coefficients,
            )  # fmt: skip
            if not is_sound:
                return image
            if row >= first_row:
                transform_row(coefficients, columns, band, stride, first_block, last_block)
                top, bottom = max(8 * row, box_y), min(8 * row + 8, box_y + box_height)
                for y in range(top, bottom):
                    source = 8 * (y - 8 * row) * stride + box_x
                    target = targets[image] + (y - box_y) * box_width
                    copy(out, target, band, source, box_width)
        _, held, at, _ = state
        # Bytes behind the last block: libjpeg complains of them, and says how many.
        if last_row == (height + 7) // 8 and 8 * (length - at) + held >= 8:
            return image
    return num_images
