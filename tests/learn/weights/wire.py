"""A writer of protobuf's wire format, for tests alone."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Seven bits a byte, the least first; all but the last byte have the eighth bit set."""
    value %= 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number_field(number: int, value: int) -> bytes:
    """A varint field; proto3 writes no zeros."""
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value
