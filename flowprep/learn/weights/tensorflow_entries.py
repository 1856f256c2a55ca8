"""The messages in a TensorFlow checkpoint's index: BundleHeaderProto and BundleEntryProto.

Sources, in tensorflow/tensorflow: tensorflow/core/protobuf/tensor_bundle.proto,
tensorflow/core/framework/{tensor_shape,types}.proto. The wire format:
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from flowprep.learn.weights.tensorflow_table import FormatError, read_varint

__all__ = ["DTYPES", "Entry", "Header", "check_apart", "parse_entry", "parse_header"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MAX_DIMS = 32
"""More than any network has. TensorFlow's limit is 254, numpy's is 64 (32 before numpy 2)."""

DTYPES: dict[int, str] = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "|u1",
    5: "<i2",
    6: "|i1",
    9: "<i8",
    14: "bfloat16",
    17: "<u2",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
"""TensorFlow's DataType -> numpy's. Types without an entry are not numbers that weights use."""


@dataclass(frozen=True, slots=True)
class Header:
    """BundleHeaderProto with its VersionDef."""

    num_shards: int
    endianness: int
    min_consumer: int
    bad_consumers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """BundleEntryProto."""

    dtype: int
    shape: tuple[int, ...]
    has_unknown_rank: bool
    shard: int
    offset: int
    size: int
    masked_crc: int
    is_partitioned: bool

    def check(self, num_shards: int, name: str) -> None:
        """Raises FormatError if the entry contradicts itself or the header."""
        if self.has_unknown_rank or min(self.shape, default=0) < 0:
            raise FormatError(f"tensor {name} must have a known shape, got {self.shape}")
        if not 0 <= self.shard < num_shards:
            raise FormatError(
                f"tensor {name} must be in one of {num_shards} data files, got {self.shard}"
            )
        if self.offset < 0 or self.size < 0:
            raise FormatError(
                f"tensor {name} must have an offset and a size >= 0, got {self.offset} and "
                f"{self.size}"
            )
        if self.dtype in DTYPES:
            kind = DTYPES[self.dtype]
            item_size = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
            expected = math.prod(self.shape) * item_size
            if self.size != expected:
                raise FormatError(
                    f"tensor {name} of shape {self.shape} must have {expected} bytes, got "
                    f"{self.size}"
                )


def check_apart(entries: dict[str, Entry]) -> None:
    """Raises FormatError if two tensors overlap: few bytes must not become many tensors."""
    ranges = sorted((e.shard, e.offset, e.size, name) for name, e in entries.items() if e.size)
    for (shard, offset, size, name), (next_shard, next_offset, _, next_name) in pairwise(ranges):
        if shard == next_shard and next_offset < offset + size:
            raise FormatError(f"tensors {name!r} and {next_name!r} must not overlap")


def parse_header(data: bytes) -> Header:
    num_shards, endianness, version = 0, 0, b""
    for number, value in _fields(data, {1: _VARINT, 2: _VARINT, 3: _BYTES}):
        if number == 1:
            num_shards = _signed(value)
        elif number == 2:
            endianness = _signed(value)
        else:
            version += value
    min_consumer = 0
    bad_consumers: set[int] = set()
    for number, value in _fields(version, {2: _VARINT, 3: None}):
        if number == 2:
            min_consumer = _signed(value)
        elif isinstance(value, int):
            bad_consumers.add(_signed(value))
        else:  # packed, as proto3 writes repeated numbers
            position = 0
            while position < len(value):
                consumer, position = read_varint(value, position)
                bad_consumers.add(_signed(consumer))
    return Header(num_shards, endianness, min_consumer, frozenset(bad_consumers))


def parse_entry(data: bytes) -> Entry:
    dtype, shard, offset, size, masked_crc = 0, 0, 0, 0, 0
    shape, is_partitioned = b"", False
    wire_types = {1: _VARINT, 2: _BYTES, 3: _VARINT, 4: _VARINT, 5: _VARINT, 6: _FIXED32, 7: _BYTES}
    for number, value in _fields(data, wire_types):
        if number == 1:
            dtype = _signed(value)
        elif number == 2:
            shape += value  # repeated messages are merged, which means joining their bytes
        elif number == 3:
            shard = _signed(value)
        elif number == 4:
            offset = _signed(value)
        elif number == 5:
            size = _signed(value)
        elif number == 6:
            masked_crc = value
        else:
            is_partitioned = True
    dims: list[int] = []
    has_unknown_rank = False
    for number, value in _fields(shape, {2: _BYTES, 3: _VARINT}):
        if number == 3:
            has_unknown_rank = value != 0
            continue
        dim = 0
        for _, length in _fields(value, {1: _VARINT}):
            dim = _signed(length)
        dims.append(dim)
        if len(dims) > _MAX_DIMS:
            raise FormatError(f"its shape must have {_MAX_DIMS} dimensions at most")
    return Entry(
        dtype, tuple(dims), has_unknown_rank, shard, offset, size, masked_crc, is_partitioned
    )


def _fields(data: bytes, wanted: Mapping[int, int | None]) -> Iterator[tuple[int, Any]]:
    """Yields number and value of the message's fields in `wanted`, and skips other fields.

    `wanted` maps a field's number to its wire type, or to None if both varint and bytes are
    allowed. Varints and fixed-size numbers are unsigned integers; everything else is bytes.
    """
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise FormatError("a field has the number 0")
        value: int | bytes
        if wire_type == _VARINT:
            value, position = read_varint(data, position)
        else:
            if wire_type == _BYTES:
                size, position = read_varint(data, position)
            elif wire_type in (_FIXED32, _FIXED64):
                size = 4 if wire_type == _FIXED32 else 8
            else:
                raise FormatError(f"field {number} has wire type {wire_type}, which is not used")
            if position + size > len(data):
                raise FormatError(
                    f"field {number} has {size} bytes, of which {len(data) - position} are there"
                )
            value = data[position : position + size]
            position += size
            if wire_type != _BYTES:
                value = int.from_bytes(value, "little")
        if number not in wanted:
            continue
        expected = wanted[number]
        if wire_type != expected and (expected is not None or wire_type not in (_VARINT, _BYTES)):
            raise FormatError(f"field {number} has wire type {wire_type}, expected {expected}")
        yield number, value


def _signed(value: int) -> int:
    """Reads an unsigned 64-bit number as two's complement, as in int32 and int64 fields."""
    return value - (1 << 64) if value >> 63 else value
