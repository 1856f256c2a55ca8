"""One call that encodes an image; what is done in which order, and in which memory."""

from __future__ import annotations

import functools
import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.jpeg.blocks import ZIGZAG
from flowprep.dataset.jpeg.color import complete_row, dummy_row, read_band
from flowprep.dataset.jpeg.forward import quantize_row
from flowprep.dataset.jpeg.huffman import (
    AC,
    COLOR,
    DC,
    make_table,
    read_symbols,
    table_of_values,
    write_codes,
)
from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import copy
from flowprep.garbage import collector_paused

__all__ = ["JpegEncoder", "encode", "prepare"]

# A Huffman table has 257 symbols at most, of which one is never sent.
_TABLE_BYTES = 21 + 256
# The streams of a video share an encoder, and its memory stays in the processor's cache: one for
# flow and one for frames, and two more for the next video's size.
_MAX_KEPT = 4
_GRAY_SCAN = np.array([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0], np.uint8)
_COLOR_SCAN = np.array([0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0], np.uint8)


class JpegEncoder:
    """Encodes images of one size and quality, with Huffman tables made for each image.

    The bytes are those of `cv2.imencode` with `IMWRITE_JPEG_OPTIMIZE`: the header is its own, and
    the rest is what libjpeg-turbo would write. Not for several threads at once.
    """

    def __init__(self, shape: tuple[int, ...], quality: int) -> None:
        """`shape` is (H, W) for gray and (H, W, 3) for RGB. Raises ValueError for another one."""
        self.shape = shape
        height, width = shape[:2]
        self._header, quantizers = _header(shape, quality)
        num_blocks = (width + 7) // 8
        # A block has 64 symbols at most. Memory that is never written to costs nothing.
        max_symbols = 64 * (num_blocks + 1) * ((height + 7) // 8 + 1)
        columns = np.empty(1024, np.int32)
        if len(shape) == 2:
            stride = (num_blocks + 15) // 16 * 16
            self._tables: tuple[Any, ...] = (table_of_values(), *_tables(quantizers[0], stride))
            symbols = np.empty(max_symbols, np.int32)
            self._memory: tuple[Any, ...] = (columns, symbols, *_row(stride))
        else:
            stride = (num_blocks + 31) // 32 * 32
            # Two rows of blocks of brightness, and one of each color, half as wide.
            brightness = _tables(quantizers[0], stride)
            color = _tables(quantizers[1], stride // 2)
            several = zip(brightness, brightness, color, color, strict=True)
            self._tables = (table_of_values(), *several)
            symbols = np.empty(max_symbols * 3 // 2, np.int32)
            rows = [_row(width) for width in (stride, stride, stride // 2, stride // 2)]
            full = np.empty((2, 16 * stride), np.uint8)
            self._memory = (columns, symbols, full, *zip(*rows, strict=True))

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the JPEG of a uint8 image of the encoder's shape."""
        assert image.shape == self.shape
        assert image.dtype == np.uint8
        height, width = self.shape[:2]
        function = _encode_gray if image.ndim == 2 else _encode_color
        flat = np.ascontiguousarray(image).reshape(-1)
        jpeg: NDArray[np.uint8] = function(
            flat, width, height, self._header, self._tables, self._memory
        )
        return jpeg


_of_thread = threading.local()


def encode(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Returns the JPEG of an image, (H, W) uint8 gray or (H, W, 3) uint8 RGB.

    Raises ValueError for a size that JPEGs do not have.
    """
    kept: dict[Any, JpegEncoder] = _of_thread.__dict__.setdefault("kept", {})
    key = image.shape, quality
    encoder = kept.get(key)
    if encoder is None:
        encoder = JpegEncoder(*key)
        while len(kept) >= _MAX_KEPT:
            del kept[next(iter(kept))]
        kept[key] = encoder
    return encoder.encode(image)


def prepare() -> None:
    """Compiles the encoder, or reads it from the disk cache."""
    with collector_paused():
        for shape in ((8, 8), (8, 8, 3)):
            JpegEncoder(shape, 95).encode(np.zeros(shape, np.uint8))


@functools.lru_cache(maxsize=_MAX_KEPT)
def _header(shape: tuple[int, ...], quality: int) -> tuple[NDArray[np.uint8], list[NDArray[Any]]]:
    """Returns all that OpenCV writes before the Huffman tables, and the tables of quantizers."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    done, jpeg = cv2.imencode(".jpg", np.zeros(shape, np.uint8), parameters)
    if not done:
        raise ValueError(f"cv2.imencode refused an image of shape {shape}")
    at = 2
    quantizers = []
    while jpeg[at + 1] != 0xC4:
        following = at + 2 + int(jpeg[at + 2]) * 256 + int(jpeg[at + 3])
        if jpeg[at + 1] == 0xDB:
            quantizers += [jpeg[i + 1 : i + 65].copy() for i in range(at + 4, following, 65)]
        at = following
    return jpeg[:at].copy(), quantizers


def _tables(quantizers: NDArray[np.uint8], stride: int) -> tuple[NDArray[Any], ...]:
    """Returns what `quantize_row` needs to know of each place in a block."""
    divisors = np.zeros(64, np.float32)
    divisors[ZIGZAG] = 8 * quantizers.astype(np.float32)
    order = np.zeros(64, np.int64)
    order[ZIGZAG] = np.arange(64)
    # The level is not among the marks: it is always coded.
    bits = np.array([0, *(1 << k for k in range(1, 32)), *(1 << k for k in range(32))])
    bits = bits.astype(np.uint32).view(np.int32)[order]
    return (
        np.float32(1) / divisors,
        divisors / 2 + np.float32(0.5),
        np.where(order < 32, bits, 0).astype(np.int32),
        np.where(order < 32, 0, bits).astype(np.int32),
        order * stride,
    )


def _row(stride: int) -> tuple[NDArray[Any], ...]:
    """Returns memory for the pixels of a row of blocks, its coefficients and their marks."""
    return (
        np.empty(64 * stride, np.uint8),
        np.empty(64 * stride, np.int16),
        np.empty(stride, np.int32),
        np.empty(stride, np.int32),
    )


@kernel
def _encode_gray(image, width, height, header, tables, memory):  # type: ignore[no-untyped-def]
    """Encodes a gray image; see `JpegEncoder`."""
    values, scales, halves, low_bits, high_bits, places = tables
    columns, symbols, band, coefficients, low, high = memory
    stride = low.size
    frequencies = np.zeros(COLOR, np.int64)
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
        for block in range((width + 7) // 8):
            count, level = read_symbols(
                coefficients, low, high, stride, block, values, 0, level,
                symbols, count, frequencies,
            )  # fmt: skip
    return _finish(header, _GRAY_SCAN, frequencies, symbols, count)


@kernel
def _encode_color(image, width, height, header, tables, memory):  # type: ignore[no-untyped-def]
    """Encodes an RGB image; see `JpegEncoder`."""
    values, scales, halves, low_bits, high_bits, places = tables
    columns, symbols, full, bands, coefficients, low, high = memory
    stride = low[0].size
    num_blocks = (width + 7) // 8
    frequencies = np.zeros(2 * COLOR, np.int64)
    count, levels = np.int64(0), np.zeros(3, np.int64)
    for top in range(0, height, 16):
        read_band(image, width, height, top, stride, full, bands)
        for plane in range(4):
            if plane == 1 and top + 8 >= height:
                dummy_row(coefficients[1], low[1], high[1], num_blocks, coefficients[0])
                continue
            quantize_row(
                bands[plane], columns, low[plane].size, scales[plane], halves[plane],
                low_bits[plane], high_bits[plane], places[plane],
                coefficients[plane], low[plane], high[plane],
            )  # fmt: skip
            if plane < 2:
                complete_row(coefficients[plane], low[plane], high[plane], num_blocks)
        for group in range((num_blocks + 1) // 2):
            # Four blocks of brightness, two above two, and one of each color.
            for i in range(6):
                plane = i // 2 if i < 4 else i - 2
                block = 2 * group + (i & 1) if i < 4 else group
                component = max(plane - 1, 0)
                count, levels[component] = read_symbols(
                    coefficients[plane], low[plane], high[plane], low[plane].size, block, values,
                    0 if i < 4 else COLOR, levels[component], symbols, count, frequencies,
                )  # fmt: skip
    return _finish(header, _COLOR_SCAN, frequencies, symbols, count)


@inline
def _finish(header, scan, frequencies, symbols, count):  # type: ignore[no-untyped-def]
    """Returns the JPEG of what was found, with tables made for it."""
    codes = np.empty(frequencies.size, np.int64)
    lengths = np.zeros(frequencies.size, np.int64)
    tables = np.empty(frequencies.size // (COLOR // 2) * _TABLE_BYTES, np.uint8)
    end = 0
    for kind in range(0, frequencies.size, COLOR):
        number = kind // COLOR
        end = make_table(frequencies, kind + DC, codes, lengths, tables, end, number)
        end = make_table(frequencies, kind + AC, codes, lengths, tables, end, 16 + number)
    num_bits = 0
    for number in range(frequencies.size):
        num_bits += frequencies[number] * (lengths[number] + (number & 15))
    begin = header.size + end + scan.size
    # Each byte may be followed by another one.
    jpeg = np.empty(begin + 2 * (num_bits // 8 + 1) + 2, np.uint8)
    copy(jpeg, 0, header, 0, header.size)
    copy(jpeg, header.size, tables, 0, end)
    copy(jpeg, header.size + end, scan, 0, scan.size)
    end = write_codes(symbols, count, codes, lengths, jpeg, begin)
    jpeg[end] = 0xFF
    jpeg[end + 1] = 0xD9
    return jpeg[: end + 2]
