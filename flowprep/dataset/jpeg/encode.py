"""One call that encodes an image of flow; what is done in which order, and in which memory."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.jpeg.blocks import ZIGZAG
from flowprep.dataset.jpeg.forward import quantize_row
from flowprep.dataset.jpeg.huffman import (
    AC,
    DC,
    make_table,
    read_symbols,
    table_of_values,
    write_codes,
)
from flowprep.flow.kernel import kernel
from flowprep.flow.simd import copy
from flowprep.garbage import collector_paused

__all__ = ["GrayEncoder", "prepare"]

# Start of the two Huffman tables, 255 symbols at most in each, the scan's header and the end.
_TABLES_BYTES = 2 * (21 + 255)
_SCAN = np.frombuffer(bytes.fromhex("ffda0008010100003f00"), np.uint8).copy()


class GrayEncoder:
    """Encodes gray images of one size and quality, with Huffman tables made for each image.

    The bytes are those of `cv2.imencode` with `IMWRITE_JPEG_OPTIMIZE`: the header is its own, and
    the rest is what libjpeg-turbo would write. Not for several threads at once.
    """

    def __init__(self, height: int, width: int, quality: int) -> None:
        self.shape = (height, width)
        self._header, quantizers = _header(height, width, quality)
        num_blocks, num_rows = (width + 7) // 8, (height + 7) // 8
        stride = (num_blocks + 15) // 16 * 16
        divisors = np.zeros(64, np.float32)
        divisors[ZIGZAG] = 8 * quantizers.astype(np.float32)
        order = np.zeros(64, np.int64)
        order[ZIGZAG] = np.arange(64)
        bits = np.array([1 << k & 0xFFFFFFFE for k in range(32)] + [1 << k for k in range(32)])
        bits = bits.astype(np.uint32).view(np.int32)[order]
        self._tables = (
            np.float32(1) / divisors,
            divisors / 2 + np.float32(0.5),
            np.where(order < 32, bits, 0).astype(np.int32),
            np.where(order < 32, 0, bits).astype(np.int32),
            order * stride,
            table_of_values(),
        )
        self._memory = (
            np.empty(64 * stride, np.uint8),
            np.empty(1024, np.int32),
            np.empty(64 * stride, np.int16),
            np.empty(stride, np.int32),
            np.empty(stride, np.int32),
            # A block has 64 symbols at most. Memory that is never written to costs nothing.
            np.empty(64 * num_blocks * num_rows, np.int32),
        )

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the JPEG of an image, (H, W) uint8 of the encoder's size."""
        assert image.shape == self.shape
        height, width = self.shape
        flat = np.ascontiguousarray(image).reshape(-1)
        jpeg: NDArray[np.uint8] = _encode(
            flat, width, height, self._header, _SCAN, self._tables, self._memory
        )
        return jpeg


def prepare() -> None:
    """Compiles the encoder, or reads it from the disk cache."""
    with collector_paused():
        GrayEncoder(8, 8, 95).encode(np.zeros((8, 8), np.uint8))


@functools.lru_cache(maxsize=8)
def _header(height: int, width: int, quality: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns all that OpenCV writes before the Huffman tables, and the table of quantizers."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, jpeg = cv2.imencode(".jpg", np.zeros((height, width), np.uint8), parameters)
    if not done:
        raise ValueError(f"cv2.imencode refused an image of shape {(height, width)}")
    at = 2
    quantizers = None
    while jpeg[at + 1] != 0xC4:
        if jpeg[at + 1] == 0xDB:
            quantizers = jpeg[at + 5 : at + 69]
        at += 2 + int(jpeg[at + 2]) * 256 + int(jpeg[at + 3])
    assert quantizers is not None
    return jpeg[:at].copy(), quantizers.copy()


@kernel
def _encode(image, width, height, header, scan, tables, memory):  # type: ignore[no-untyped-def]
    """Encodes an image; see `GrayEncoder`."""
    scales, halves, low_bits, high_bits, places, values = tables
    band, columns, coefficients, low, high, symbols = memory
    stride = low.size
    num_blocks = (width + 7) // 8
    frequencies = np.zeros(AC + 257, np.int64)
    count, level = np.int64(0), np.int64(0)
    for top in range(0, height, 8):
        for y in range(8):
            # libjpeg completes the blocks at the edge with the last pixels.
            source = min(top + y, height - 1) * width
            target = 8 * stride * y
            copy(band, target, image, source, width)
            band[target + width : target + 8 * stride] = image[source + width - 1]
        quantize_row(
            band, columns, stride, scales, halves, low_bits, high_bits, places,
            coefficients, low, high,
        )  # fmt: skip
        count, level = read_symbols(
            coefficients, low, high, stride, num_blocks, values, level, symbols, count, frequencies
        )
    codes = np.empty(AC + 257, np.int64)
    lengths = np.zeros(AC + 257, np.int64)
    tables_bytes = np.empty(_TABLES_BYTES, np.uint8)
    tables_end = make_table(frequencies, DC, codes, lengths, tables_bytes, 0, 0)
    tables_end = make_table(frequencies, AC, codes, lengths, tables_bytes, tables_end, 16)
    num_bits = 0
    for number in range(AC + 257):
        num_bits += frequencies[number] * (lengths[number] + (number & 15))
    begin = header.size + tables_end + scan.size
    # Each byte may be stuffed.
    jpeg = np.empty(begin + 2 * (num_bits // 8 + 1) + 2, np.uint8)
    copy(jpeg, 0, header, 0, header.size)
    copy(jpeg, header.size, tables_bytes, 0, tables_end)
    copy(jpeg, header.size + tables_end, scan, 0, scan.size)
    end = write_codes(symbols, count, codes, lengths, jpeg, begin)
    jpeg[end] = 0xFF
    jpeg[end + 1] = 0xD9
    return jpeg[: end + 2]
