"""The messages in a TensorFlow checkpoint's index: BundleHeaderProto and BundleEntryProto.

Sources, in tensorflow/tensorflow: tensorflow/core/protobuf/tensor_bundle.proto,
tensorflow/core/framework/{tensor_shape,types}.proto.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flowprep.learn.weights.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    fields,
    read_varint,
    signed,
)
from flowprep.learn.weights.reading import FormatError

__all__ = ["DTYPES", "Entry", "Header", "check_apart", "parse_entry", "parse_header"]

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
    for number, value in fields(data, {1: VARINT, 2: VARINT, 3: BYTES}):
        if number == 1:
            num_shards = signed(value)
        elif number == 2:
            endianness = signed(value)
        else:
            version += value
    min_consumer = 0
    bad_consumers: set[int] = set()
    for number, value in fields(version, {2: VARINT, 3: None}):
        if number == 2:
            min_consumer = signed(value)
        elif isinstance(value, int):
            bad_consumers.add(signed(value))
        else:  # packed, as proto3 writes repeated numbers
            position = 0
            while position < len(value):
                consumer, position = read_varint(value, position)
                bad_consumers.add(signed(consumer))
    return Header(num_shards, endianness, min_consumer, frozenset(bad_consumers))


def parse_entry(data: bytes) -> Entry:
    dtype, shard, offset, size, masked_crc = 0, 0, 0, 0, 0
    shape, is_partitioned = b"", False
    wire_types = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}
    for number, value in fields(data, wire_types):
        if number == 1:
            dtype = signed(value)
        elif number == 2:
            shape += value  # repeated messages are merged, which means joining their bytes
        elif number == 3:
            shard = signed(value)
        elif number == 4:
            offset = signed(value)
        elif number == 5:
            size = signed(value)
        elif number == 6:
            masked_crc = value
        else:
            is_partitioned = True
    dims: list[int] = []
    has_unknown_rank = False
    for number, value in fields(shape, {2: BYTES, 3: VARINT}):
        if number == 3:
            has_unknown_rank = value != 0
            continue
        dim = 0
        for _, length in fields(value, {1: VARINT}):
            dim = signed(length)
        dims.append(dim)
        if len(dims) > _MAX_DIMS:
            raise FormatError(f"its shape must have {_MAX_DIMS} dimensions at most")
    return Entry(
        dtype, tuple(dims), has_unknown_rank, shard, offset, size, masked_crc, is_partitioned
    )
