"""Reads the header of a JPEG without decoding the JPEG (ITU-T T.81, annex B).

A few bytes of a header can ask for gigabytes of pixels. So before decoding bytes of unknown origin,
flowprep compares the header with the expected values.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JPEG_BEGIN", "JPEG_END", "JpegHeader", "read_jpeg_header"]

JPEG_BEGIN = b"\xff\xd8"
JPEG_END = b"\xff\xd9"

# Start of frame: 0xC0 to 0xCF without tables (C4, CC) and the reserved C8 (T.81, table B.1).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM, RST0 to RST7.
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The frame header of a JPEG."""

    width: int
    height: int
    num_components: int


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Returns size and number of components, or None if there is no valid JPEG frame header."""
    if not data.startswith(JPEG_BEGIN):
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _BARE_MARKERS:
            at += 2
            continue
        if marker in _FRAME_MARKERS:
            if at + 10 > len(data):
                return None
            height = data[at + 5] << 8 | data[at + 6]
            width = data[at + 7] << 8 | data[at + 8]
            return JpegHeader(width, height, data[at + 9])
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2 or marker in (0xD8, 0xD9, 0xDA):
            return None
        at += 2 + length
    return None
