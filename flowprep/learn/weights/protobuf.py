"""The wire format of Google's protocol buffers: numbered fields, one after another.

    field = tag (a varint: number << 3 | wire type), then a value by its wire type:
            0 a varint, 1 eight bytes, 5 four bytes, 2 a length (a varint) and so many bytes

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowprep.learn.weights.reading import FormatError

__all__ = ["BYTES", "FIXED32", "FIXED64", "VARINT", "fields", "read_field", "read_varint", "signed"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: bytes | memoryview, wanted: Mapping[int, int | None]) -> Iterator[tuple[int, Any]]:
    """Yields number and value of the message's fields in `wanted`, and skips other fields.

    `wanted` maps a field's number to its wire type, or to None if both varint and bytes are
    allowed. Varints and fixed-size numbers are unsigned integers; everything else is a part of
    `data`. Raises FormatError if a field goes beyond its message or has another wire type.
    """
    position = 0
    while position < len(data):
        number, wire_type, value, position = read_field(data, position)
        if number not in wanted:
            continue
        expected = wanted[number]
        if wire_type != expected and (expected is not None or wire_type not in (VARINT, BYTES)):
            raise FormatError(f"field {number} has wire type {wire_type}, expected {expected}")
        yield number, value


def read_field(data: bytes | memoryview, position: int) -> tuple[int, int, Any, int]:
    """Returns the number, wire type and value of the field at `position`, and the position after
    it. Raises FormatError if the field goes beyond the end of `data`."""
    tag, position = read_varint(data, position)
    number, wire_type = tag >> 3, tag & 7
    if number == 0:
        raise FormatError("a field has the number 0")
    if wire_type == VARINT:
        found, position = read_varint(data, position)
        return number, wire_type, found, position
    if wire_type == BYTES:
        size, position = read_varint(data, position)
    elif wire_type in (FIXED32, FIXED64):
        size = 4 if wire_type == FIXED32 else 8
    else:
        raise FormatError(f"field {number} has wire type {wire_type}, which is not used")
    if position + size > len(data):
        raise FormatError(
            f"field {number} has {size} bytes, of which {len(data) - position} are there"
        )
    part = data[position : position + size]
    value = part if wire_type == BYTES else int.from_bytes(part, "little")
    return number, wire_type, value, position + size


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Returns the unsigned number of up to 64 bits at `position`, and the position after it."""
    value = 0
    for count in range(10):
        if position >= len(data):
            raise FormatError("a number goes beyond its end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if value >> 64:
                break
            if byte == 0 and count:
                raise FormatError("a number is written with more bytes than it needs")
            return value, position
    raise FormatError("a number has more than 64 bits")


def signed(value: int) -> int:
    """Reads an unsigned 64-bit number as two's complement, as in int32 and int64 fields."""
    return value - (1 << 64) if value >> 63 else value
