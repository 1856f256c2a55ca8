"""The table in a TensorFlow checkpoint's index: LevelDB's SSTable with another magic number.

    [data block]...  [metaindex block]  [index block]  [footer: 48 bytes]
    block  = entries, restart offsets (uint32 each), their number (uint32), then a trailer:
             type (1 byte: 0 plain, 1 snappy), masked CRC-32C of the entries and the type
    entry  = varints shared, unshared, value size; the key's unshared end; the value
    footer = handles (varints offset, size) of the metaindex and index block, padding, magic number

Sources, in tensorflow/tensorflow: tensorflow/core/lib/io/{format,block,table_builder}.cc,
tensorflow/core/lib/hash/crc32c.h.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c
import numpy as np

from flowprep.learn.weights.protobuf import read_varint
from flowprep.learn.weights.reading import FormatError, UnsupportedError, show

__all__ = [
    "MAX_INDEX_BYTES",
    "masked_crc",
    "read_table",
]

_MAGIC = 0xDB4775248B80FB57

_FOOTER_BYTES = 48

_TRAILER_BYTES = 5

MAX_INDEX_BYTES = 1 << 26
"""Limit of the index file, and of all names in it together: about a million tensors."""


def masked_crc(data: bytes) -> int:
    """Returns the CRC-32C in its stored form: rotated right by 15 bits, plus a constant.

    It is masked because the CRC of data that contains CRCs has weaknesses.
    """
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields all keys and values of an SSTable; raises FormatError if a rule is broken."""
    if len(data) < _FOOTER_BYTES:
        raise FormatError(f"it must have {_FOOTER_BYTES} bytes at least, got {len(data)}")
    footer = data[-_FOOTER_BYTES:]
    magic = int.from_bytes(footer[-8:], "little")
    if magic != _MAGIC:
        raise FormatError(f"its last 8 bytes must be the magic number {_MAGIC:#x}, got {magic:#x}")
    metaindex, position = _read_handle(footer, 0)
    index, position = _read_handle(footer, position)
    if position > _FOOTER_BYTES - 8 or any(footer[position:-8]):
        raise FormatError("its footer must be two block handles and zeros")
    for _ in _read_block(data, *metaindex, "metaindex block"):
        pass  # TensorFlow writes an empty metaindex; only its checksum matters
    last: bytes | None = None
    end, num_bytes = 0, 0
    for limit, handle in _read_block(data, *index, "index block"):
        (offset, size), position = _read_handle(handle, 0)
        if position != len(handle):
            raise FormatError(f"a block handle has {len(handle) - position} bytes too many")
        if offset < end:
            raise FormatError(f"its blocks must lie in their order, got {offset} after {end}")
        end = offset + size
        for key, value in _read_block(data, offset, size, f"data block at byte {offset}"):
            if last is not None and key <= last:
                raise FormatError(f"its names must ascend, got {show(key)} after {show(last)}")
            num_bytes += len(key)
            if num_bytes > MAX_INDEX_BYTES:
                raise FormatError(f"its names must have {MAX_INDEX_BYTES} bytes together at most")
            last = key
            yield key, value
        if last is not None and last > limit:
            raise FormatError(f"{show(last)} is beyond its block's last name, {show(limit)}")


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _read_block(data: bytes, offset: int, size: int, what: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields a block's keys and values, after checking its checksum, type and restart points."""
    available = len(data) - _FOOTER_BYTES
    if offset + size + _TRAILER_BYTES > available:
        raise FormatError(
            f"the {what} must end before byte {available}, got {offset + size + _TRAILER_BYTES}"
        )
    stored = int.from_bytes(data[offset + size + 1 : offset + size + _TRAILER_BYTES], "little")
    found = masked_crc(data[offset : offset + size + 1])
    if found != stored:
        raise FormatError(f"the {what}'s masked CRC-32C must be {stored:#010x}, got {found:#010x}")
    compression = data[offset + size]
    if compression != 0:
        kind = "snappy" if compression == 1 else f"type {compression}"
        raise UnsupportedError(
            f"the {what} must be plain, as TensorFlow writes them, got a compressed one ({kind}); "
            "save the checkpoint again in TensorFlow"
        )
    block = data[offset : offset + size]
    num_restarts = int.from_bytes(block[-4:], "little")
    limit = size - 4 * (num_restarts + 1)
    if size < 4 or limit < 0:
        raise FormatError(f"the {what} has {size} bytes, too few for its restart points")
    restarts = {int(start) for start in np.frombuffer(block, "<u4", num_restarts, limit)}
    key, position = b"", 0
    while position < limit:
        start = position
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        value_size, position = read_varint(block, position)
        if shared > len(key) or (shared and start in restarts):
            raise FormatError(f"a name in the {what} shares {shared} bytes, which are not there")
        if position + unshared + value_size > limit:
            raise FormatError(f"a record at byte {start} of the {what} goes beyond the block's end")
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + value_size]
        position += value_size
