"""Damage by chance: what storage, cables, half-written files and enemies do to bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np

__all__ = ["BYTE_MUTATIONS", "FIELDS", "case_random", "change_fields", "number_below"]

Random = np.random.Generator


def case_random(seed: int, index: int, *more: int) -> Random:
    """Returns the source of chance of one case: it depends on no other case."""
    return np.random.default_rng([seed, index, *more])


def number_below(random: Random, end: int) -> int:
    """Returns an integer in [0, end), 0 where there is none."""
    return int(random.integers(end)) if end > 0 else 0


def _place(random: Random, data: bytes) -> int:
    """Returns a position, as often in the first kB, where headers are, as in all the rest."""
    end = min(len(data), 1024) if random.random() < 0.5 else len(data)
    return number_below(random, end)


def _length(random: Random, data: bytes) -> int:
    """Returns a length from one byte to a quarter of the data; short ones are likelier."""
    longest = max(2, len(data) // 4)
    return max(1, int(np.exp(random.uniform(0, np.log(longest)))))


def flip_bit(random: Random, data: bytes, other: bytes) -> bytes:
    """One bit."""
    changed = bytearray(data)
    if changed:
        changed[_place(random, data)] ^= 1 << number_below(random, 8)
    return bytes(changed)


def flip_bits(random: Random, data: bytes, other: bytes) -> bytes:
    """From two bits to two hundred."""
    for _ in range(int(np.exp(random.uniform(np.log(2), np.log(200))))):
        data = flip_bit(random, data, other)
    return data


def zero_run(random: Random, data: bytes, other: bytes) -> bytes:
    """A run of zeros, as a hole in a file reads."""
    at, length = _place(random, data), _length(random, data)
    return data[:at] + bytes(len(data[at : at + length])) + data[at + length :]


def random_run(random: Random, data: bytes, other: bytes) -> bytes:
    """A run of noise."""
    at, length = _place(random, data), _length(random, data)
    return data[:at] + random.bytes(len(data[at : at + length])) + data[at + length :]


def cut_end(random: Random, data: bytes, other: bytes) -> bytes:
    """The end is missing."""
    return data[: number_below(random, len(data))]


def cut_begin(random: Random, data: bytes, other: bytes) -> bytes:
    """The begin is missing."""
    return data[min(len(data), _length(random, data)) :]


def cut_middle(random: Random, data: bytes, other: bytes) -> bytes:
    """A piece is missing."""
    at = _place(random, data)
    return data[:at] + data[at + _length(random, data) :]


def splice(random: Random, data: bytes, other: bytes) -> bytes:
    """The begin of one file and the end of another one."""
    return data[: _place(random, data)] + other[_place(random, other) :]


def insert(random: Random, data: bytes, other: bytes) -> bytes:
    """A piece of another file in the middle."""
    at, begin = _place(random, data), _place(random, other)
    return data[:at] + other[begin : begin + _length(random, other)] + data[at:]


def swap(random: Random, data: bytes, other: bytes) -> bytes:
    """Two blocks have changed places."""
    length = min(_length(random, data), len(data) // 2)
    first = number_below(random, len(data) - 2 * length)
    second = first + length + number_below(random, len(data) - first - 2 * length)
    return (
        data[:first]
        + data[second : second + length]
        + data[first + length : second]
        + data[first : first + length]
        + data[second + length :]
    )


def repeat(random: Random, data: bytes, other: bytes) -> bytes:
    """A block stands there twice."""
    at = _place(random, data)
    return data[: at + _length(random, data)] + data[at:]


BYTE_MUTATIONS: dict[str, Callable[[Random, bytes, bytes], bytes]] = {
    "one bit": flip_bit,
    "many bits": flip_bits,
    "zeros": zero_run,
    "noise": random_run,
    "cut end": cut_end,
    "cut begin": cut_begin,
    "cut middle": cut_middle,
    "splice": splice,
    "insert": insert,
    "swap": swap,
    "repeat": repeat,
}
"""(random, data, another file) -> changed data; they know nothing of what the bytes mean."""


# ---- fields of headers

_SHORTS = (0, 1, 2, 8, 255, 4097, 16383, 16384, 32767, 32768, 65535)
_WORDS = (0, 1, 2, 255, 65535, 65536, 10**9, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

# What follows a pattern: byte order and width of the fields ("<H"), and where they are, counted
# from the pattern's first byte.
_BOX = tuple(range(-4, 52, 4))
FIELDS: tuple[tuple[bytes, str, tuple[int, ...]], ...] = (
    # ISO base media (ISO/IEC 14496-12): sample entries have width and height in 16 bits.
    (rb"avc1|mp4v|hev1|hvc1|av01|vp09|jpeg", ">H", (28, 30)),
    (rb"mvhd|tkhd|mdhd|elst|stts|ctts|stsc|stsz|stco|stss|trak|moov|mdat", ">I", _BOX),
    # AVI (Microsoft's RIFF): the main header, each stream's header and format, the index.
    (rb"avih|strh|strf|idx1|movi", "<I", tuple(range(4, 60, 4))),
    # Matroska (RFC 9559): size of the picture, time scale, durations, cluster.
    (rb"\xb0[\x81\x82]|\xba[\x81\x82]", ">H", (2,)),
    (rb"\x2a\xd7\xb1\x83|\x23\xe3\x83[\x83\x84]|\x44\x89[\x84\x88]", ">I", (3, 4)),
    (rb"\x1f\x43\xb6\x75|\x16\x54\xae\x6b|\x15\x49\xa9\x66", ">I", (4, 8)),
    # GIF89a: the screen, and each picture on it.
    (rb"GIF89a", "<H", (6, 8)),
    (rb"\x21\xf9\x04.{4}\x2c", "<H", (9, 11, 13, 15)),
    # JPEG (ITU-T T.81) and VP8 (RFC 6386): height and width, width and height.
    (rb"\xff\xc0\x00[\x0b\x11]", ">H", (5, 7)),
    (rb"\x9d\x01\x2a", "<H", (3, 5)),
    # MPEG-1 and MPEG-2 sequence header, MPEG-4 video object layer, VP9's sync code.
    (rb"\x00\x00\x01\xb3", ">H", (4, 5, 6)),
    (rb"\x00\x00\x01\x20", ">H", (4, 6, 8, 10)),
    (rb"\x49\x83\x42", ">H", (3, 4, 5, 6)),
    # MPEG-TS: sync byte and header; FLV's tags.
    (rb"\x47[\x40\x41].", ">H", (1, 4)),
    (rb"FLV\x01|\x09\x00..\x00", ">I", (3, 5)),
)
"""Pattern, width and places of the fields of containers and codecs."""

# YUV4MPEG2 W64 H48 F10:1 Ip A1:1 C420jpeg
_Y4M_NUMBER = re.compile(rb"(?<=[ ][WHF])\d+")


def change_fields(random: Random, data: bytes, other: bytes) -> bytes:
    """One to four fields of a header say something extreme."""
    changed = bytearray(data)
    for _ in range(1 + number_below(random, 4)):
        if data.startswith(b"YUV4MPEG2"):
            matches = list(_Y4M_NUMBER.finditer(bytes(changed[:80])))
            if matches:
                match = matches[number_below(random, len(matches))]
                value = _SHORTS[number_below(random, len(_SHORTS))]
                changed[match.start() : match.end()] = b"%d" % value
            continue
        found = []
        for pattern, form, offsets in FIELDS:
            starts = [match.start() for match in re.finditer(pattern, data, re.DOTALL)]
            if starts:
                found.append((starts, form, offsets))
        if not found:
            return flip_bits(random, data, other)
        starts, form, offsets = found[number_below(random, len(found))]
        at = starts[number_below(random, len(starts))]
        at += offsets[number_below(random, len(offsets))]
        values = _SHORTS if form[1] == "H" else _WORDS
        field = struct.pack(form, values[number_below(random, len(values))])
        if 0 <= at <= len(changed) - len(field):
            changed[at : at + len(field)] = field
    return bytes(changed)
