"""Reads TensorFlow's V2 checkpoints, without TensorFlow.

    PREFIX.index                 a table: name -> type, shape, file, offset, size and checksum
    PREFIX.data-00000-of-00001   the values, one tensor after another, little-endian, row-major

The index is an SSTable as LevelDB's, with TensorFlow's magic number:

    [data block]...  [metaindex block]  [index block]  [footer: 48 bytes]
    block  = entries, restart offsets (uint32 each), their number (uint32), then a trailer:
             type (1 byte: 0 plain, 1 snappy), masked CRC-32C of entries up to and with the type
    entry  = varints shared, unshared, value size; the key's unshared end; the value
    footer = handles (varints offset, size) of the metaindex and index block, padding, magic number

The value of the empty key is a BundleHeaderProto, every other one a BundleEntryProto. All of it is
checked before it is believed: bounds and sizes against the files, checksums of blocks and tensors.

Sources, in tensorflow/tensorflow: tensorflow/core/util/tensor_bundle/tensor_bundle.cc,
tensorflow/core/lib/io/{format,block,table_builder}.cc, tensorflow/core/lib/hash/crc32c.h,
tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/framework/{tensor_shape,types}.proto.
The wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from flowprep.errors import WeightsError

__all__ = ["TensorBundle", "read_checkpoint"]

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_FORMAT_VERSION = 1
"""What TensorFlow calls kTensorBundleVersion; a newer file says if such a reader will not do."""

_MAX_INDEX_BYTES = 1 << 26
"""Of the index file, and of all names in it written out: about a million tensors."""
_MAX_DIMS = 32
"""More than any network has; TensorFlow stops at 254, numpy at 64 (32 before numpy 2)."""

_DTYPES: dict[int, str] = {
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
"""TensorFlow's DataType -> numpy's; those without an entry are not numbers that weights have."""
_OTHER_DTYPES = {
    7: "string",
    8: "complex64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    18: "complex128",
    20: "resource",
    21: "variant",
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _FormatError(Exception):
    """What a parser met that the format does not allow; its caller knows the file."""


class _UnsupportedError(Exception):
    """What the format allows, and this reader does not read; its caller knows the file."""


def read_checkpoint(prefix: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Reads every tensor of a checkpoint; raises WeightsError as `TensorBundle` does."""
    bundle = TensorBundle(prefix)
    return {name: bundle.read(name) for name in bundle.names}


class TensorBundle:
    """A checkpoint whose index is read at once, and whose tensors are read when asked for.

    `prefix` is the path up to `.index` (`.../model.ckpt`). Raises WeightsError where the index is
    missing, damaged, compressed, big-endian or too new, or has partitioned variables.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fspath(prefix)
        self._index = Path(self.prefix + ".index")
        try:
            header, self._entries = self._read_index()
        except _FormatError as error:
            raise WeightsError(
                f"{self._index} is damaged: {error}; copy or download it anew"
            ) from error
        except _UnsupportedError as error:
            raise WeightsError(f"{self._index} is not read: {error}") from error
        self._num_shards = header.num_shards

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors, in the index' order (that of their bytes)."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape."""
        return self._entry(name).shape

    def read(self, name: str) -> NDArray[Any]:
        """Returns a tensor's values, checked; bfloat16 comes as float32, which holds it exactly.

        Raises WeightsError where its type is not a float or an integer (strings, resources), where
        the data file is missing or ends too early, or where the values' checksum is another.
        """
        entry = self._entry(name)
        if entry.dtype not in _DTYPES:
            known = _OTHER_DTYPES.get(entry.dtype, f"number {entry.dtype}")
            raise WeightsError(
                f"{self._index}: tensor {name!r} has TensorFlow's type {known}; only floats of 16, "
                "32 and 64 bits, bfloat16 and integers are weights: leave this tensor out"
            )
        path = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self._num_shards:05d}")
        data = _read_range(path, entry.offset, entry.size, f"tensor {name!r}")
        found = _masked_crc(data)
        if found != entry.masked_crc:
            raise WeightsError(
                f"{path} is damaged: the masked CRC-32C of tensor {name!r} (bytes {entry.offset} "
                f"to {entry.offset + entry.size}) must be {entry.masked_crc:#010x}, got "
                f"{found:#010x}; copy or download it anew"
            )
        if _DTYPES[entry.dtype] == "bfloat16":
            halves = np.frombuffer(data, dtype="<u2").astype(np.uint32)
            floats: NDArray[np.float32] = (halves << np.uint32(16)).view(np.float32)
            return floats.reshape(entry.shape)
        values: NDArray[Any] = np.frombuffer(data, dtype=_DTYPES[entry.dtype])
        return values.astype(values.dtype.newbyteorder("=")).reshape(entry.shape)

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise WeightsError(
                f"{self._index} has no tensor {name!r}, but {len(self._entries)} others; read one "
                "of `names`"
            )
        return self._entries[name]

    def _read_index(self) -> tuple[_Header, dict[str, _Entry]]:
        records = _read_table(_read_whole_index(self._index))
        key, value = next(records, (None, b""))
        if key != b"":
            raise _FormatError("its first record must be the header, under the empty name")
        header = _parse_header(value)
        if header.endianness != 0:
            raise _UnsupportedError(
                f"its endianness must be 0 (little), got {header.endianness} (1 is big); save it "
                "again on a little-endian machine"
            )
        if header.min_consumer > _FORMAT_VERSION or _FORMAT_VERSION in header.bad_consumers:
            raise _UnsupportedError(
                f"it asks for a reader of format version {header.min_consumer} or later and not of "
                f"{sorted(header.bad_consumers)}, this one is of {_FORMAT_VERSION}; install a "
                "newer flowprep"
            )
        if header.num_shards < 1:
            raise _FormatError(f"the number of data files must be > 0, got {header.num_shards}")
        entries: dict[str, _Entry] = {}
        for key, value in records:
            try:
                entry = _parse_entry(value)
            except _FormatError as error:
                raise _FormatError(f"tensor {_show(key)}: {error}") from error
            if entry.is_partitioned or key.startswith(b"\0"):  # a slice's name begins with 0
                raise _UnsupportedError(
                    f"variable {_show(key)} is partitioned (stored as slices); save it in "
                    "TensorFlow without a partitioner"
                )
            entry.check(header.num_shards, _show(key))
            try:
                entries[key.decode()] = entry
            except UnicodeDecodeError as error:
                raise _FormatError(f"the name {_show(key)} is not UTF-8") from error
        _check_apart(entries)
        return header, entries


# --- Files ----------------------------------------------------------------------------------------


def _read_whole_index(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_INDEX_BYTES:
            raise WeightsError(
                f"{path} must be an index of at most {_MAX_INDEX_BYTES} bytes, got {size}; name "
                "the .index file of a checkpoint"
            )
        with path.open("rb") as file:
            return file.read(_MAX_INDEX_BYTES)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} does not exist; a TensorFlow checkpoint is named by its prefix, the path "
            "before '.index', and needs its '.index' and '.data-...' files side by side"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error


def _read_range(path: Path, offset: int, size: int, what: str) -> bytes:
    """Returns bytes of a data file, and claims no memory for more than the file has."""
    try:
        with path.open("rb") as file:
            available = os.fstat(file.fileno()).st_size
            if offset + size > available:
                raise WeightsError(
                    f"{path} is cut: {what} ends at byte {offset + size}, the file at {available}; "
                    "copy or download it anew"
                )
            file.seek(offset)
            data = file.read(size)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} does not exist, but the index puts {what} there; copy all files of the "
            "checkpoint into one folder under their own names"
        ) from error
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    if len(data) != size:
        raise WeightsError(
            f"{path} changed while it was read: {what} has {size} bytes, got {len(data)}; read it "
            "again when it is written"
        )
    return data


def _masked_crc(data: bytes) -> int:
    """Returns the CRC-32C as it is stored: rotated right by 15 bits, plus a constant.

    So masked because a checksum of data that contain their own checksums has weaknesses.
    """
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- The table ------------------------------------------------------------------------------------


def _read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields all keys and values of an SSTable; raises _FormatError where a rule is broken."""
    if len(data) < _FOOTER_BYTES:
        raise _FormatError(f"it must have {_FOOTER_BYTES} bytes at least, got {len(data)}")
    footer = data[-_FOOTER_BYTES:]
    magic = int.from_bytes(footer[-8:], "little")
    if magic != _MAGIC:
        raise _FormatError(f"its last 8 bytes must be the magic number {_MAGIC:#x}, got {magic:#x}")
    metaindex, position = _read_handle(footer, 0)
    index, position = _read_handle(footer, position)
    if position > _FOOTER_BYTES - 8 or any(footer[position:-8]):
        raise _FormatError("its footer must be two block handles and zeros")
    for _ in _read_block(data, *metaindex, "metaindex block"):
        pass  # TensorFlow writes it empty; only its checksum matters
    last: bytes | None = None
    end, num_bytes = 0, 0
    for limit, handle in _read_block(data, *index, "index block"):
        (offset, size), position = _read_handle(handle, 0)
        if position != len(handle):
            raise _FormatError(f"a block handle has {len(handle) - position} bytes too many")
        if offset < end:
            raise _FormatError(f"its blocks must lie in their order, got {offset} after {end}")
        end = offset + size
        for key, value in _read_block(data, offset, size, f"data block at byte {offset}"):
            if last is not None and key <= last:
                raise _FormatError(f"its names must ascend, got {_show(key)} after {_show(last)}")
            num_bytes += len(key)
            if num_bytes > _MAX_INDEX_BYTES:
                raise _FormatError(f"its names must have {_MAX_INDEX_BYTES} bytes together at most")
            last = key
            yield key, value
        if last is not None and last > limit:
            raise _FormatError(f"{_show(last)} is beyond its block's last name, {_show(limit)}")


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = _read_varint(data, position)
    size, position = _read_varint(data, position)
    return (offset, size), position


def _read_block(data: bytes, offset: int, size: int, what: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields a block's keys and values, its checksum, type and restart points checked before."""
    available = len(data) - _FOOTER_BYTES
    if offset + size + _TRAILER_BYTES > available:
        raise _FormatError(
            f"the {what} must end before byte {available}, got {offset + size + _TRAILER_BYTES}"
        )
    stored = int.from_bytes(data[offset + size + 1 : offset + size + _TRAILER_BYTES], "little")
    found = _masked_crc(data[offset : offset + size + 1])
    if found != stored:
        raise _FormatError(f"the {what}'s masked CRC-32C must be {stored:#010x}, got {found:#010x}")
    compression = data[offset + size]
    if compression != 0:
        kind = "snappy" if compression == 1 else f"type {compression}"
        raise _UnsupportedError(
            f"the {what} must be plain, as TensorFlow writes them, got a compressed one ({kind}); "
            "save the checkpoint again in TensorFlow"
        )
    block = data[offset : offset + size]
    num_restarts = int.from_bytes(block[-4:], "little")
    limit = size - 4 * (num_restarts + 1)
    if size < 4 or limit < 0:
        raise _FormatError(f"the {what} has {size} bytes, too few for its restart points")
    restarts = {int(start) for start in np.frombuffer(block, "<u4", num_restarts, limit)}
    key, position = b"", 0
    while position < limit:
        start = position
        shared, position = _read_varint(block, position)
        unshared, position = _read_varint(block, position)
        value_size, position = _read_varint(block, position)
        if shared > len(key) or (shared and start in restarts):
            raise _FormatError(f"a name in the {what} shares {shared} bytes, which are not there")
        if position + unshared + value_size > limit:
            raise _FormatError(
                f"a record at byte {start} of the {what} goes beyond the block's end"
            )
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + value_size]
        position += value_size


# --- Protocol buffers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Header:
    """BundleHeaderProto, and its VersionDef."""

    num_shards: int
    endianness: int
    min_consumer: int
    bad_consumers: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Entry:
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
        """Raises _FormatError where the entry contradicts itself or the header."""
        if self.has_unknown_rank or min(self.shape, default=0) < 0:
            raise _FormatError(f"tensor {name} must have a known shape, got {self.shape}")
        if not 0 <= self.shard < num_shards:
            raise _FormatError(
                f"tensor {name} must be in one of {num_shards} data files, got {self.shard}"
            )
        if self.offset < 0 or self.size < 0:
            raise _FormatError(
                f"tensor {name} must have an offset and a size >= 0, got {self.offset} and "
                f"{self.size}"
            )
        if self.dtype in _DTYPES:
            kind = _DTYPES[self.dtype]
            item_size = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
            expected = math.prod(self.shape) * item_size
            if self.size != expected:
                raise _FormatError(
                    f"tensor {name} of shape {self.shape} must have {expected} bytes, got "
                    f"{self.size}"
                )


def _check_apart(entries: dict[str, _Entry]) -> None:
    """Raises _FormatError where two tensors overlap: few bytes must not become many tensors."""
    ranges = sorted((e.shard, e.offset, e.size, name) for name, e in entries.items() if e.size)
    for (shard, offset, size, name), (next_shard, next_offset, _, next_name) in pairwise(ranges):
        if shard == next_shard and next_offset < offset + size:
            raise _FormatError(f"tensors {name!r} and {next_name!r} must not overlap")


def _parse_header(data: bytes) -> _Header:
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
                consumer, position = _read_varint(value, position)
                bad_consumers.add(_signed(consumer))
    return _Header(num_shards, endianness, min_consumer, frozenset(bad_consumers))


def _parse_entry(data: bytes) -> _Entry:
    dtype, shard, offset, size, masked_crc = 0, 0, 0, 0, 0
    shape, is_partitioned = b"", False
    wire_types = {1: _VARINT, 2: _BYTES, 3: _VARINT, 4: _VARINT, 5: _VARINT, 6: _FIXED32, 7: _BYTES}
    for number, value in _fields(data, wire_types):
        if number == 1:
            dtype = _signed(value)
        elif number == 2:
            shape += value  # a message that comes twice is merged, which for its bytes is a sum
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
            raise _FormatError(f"its shape must have {_MAX_DIMS} dimensions at most")
    return _Entry(
        dtype, tuple(dims), has_unknown_rank, shard, offset, size, masked_crc, is_partitioned
    )


def _fields(data: bytes, wanted: Mapping[int, int | None]) -> Iterator[tuple[int, Any]]:
    """Yields number and value of a message's fields that are `wanted`, and skips the others.

    `wanted` maps a field's number to its wire type, or to None where it may be either a varint or
    bytes. Varints and fixed numbers come as unsigned integers, the rest as bytes.
    """
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise _FormatError("a field has the number 0")
        value: int | bytes
        if wire_type == _VARINT:
            value, position = _read_varint(data, position)
        else:
            if wire_type == _BYTES:
                size, position = _read_varint(data, position)
            elif wire_type in (_FIXED32, _FIXED64):
                size = 4 if wire_type == _FIXED32 else 8
            else:
                raise _FormatError(f"field {number} has wire type {wire_type}, which is not used")
            if position + size > len(data):
                raise _FormatError(
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
            raise _FormatError(f"field {number} has wire type {wire_type}, expected {expected}")
        yield number, value


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the unsigned number of up to 64 bits at `position`, and the position behind it."""
    value = 0
    for count in range(10):
        if position >= len(data):
            raise _FormatError("a number goes beyond its end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if value >> 64:
                break
            if byte == 0 and count:
                raise _FormatError("a number is written with more bytes than it needs")
            return value, position
    raise _FormatError("a number has more than 64 bits")


def _signed(value: int) -> int:
    """Reads an unsigned number of 64 bits as two's complement, as int32 and int64 fields are."""
    return value - (1 << 64) if value >> 63 else value


def _show(name: bytes) -> str:
    shown = repr(name.decode(errors="backslashreplace"))
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
