"""Reads TensorFlow's V2 checkpoints, without TensorFlow.

    PREFIX.index                 a table: name -> type, shape, file, offset, size and checksum
    PREFIX.data-00000-of-00001   the values, one tensor after another, little-endian, row-major

The index is a table (`tensorflow_table`). The value of the empty key is a BundleHeaderProto; every
other value is a BundleEntryProto (`tensorflow_entries`). Everything is checked before use: bounds
and sizes against the files, and checksums of blocks and tensors.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc in tensorflow/tensorflow.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.weights.reading import FormatError, UnsupportedError, cannot_read, show
from flowprep.learn.weights.tensorflow_entries import (
    DTYPES,
    Entry,
    Header,
    check_apart,
    parse_entry,
    parse_header,
)
from flowprep.learn.weights.tensorflow_table import (
    MAX_INDEX_BYTES,
    masked_crc,
    read_table,
)

__all__ = ["TensorBundle"]

_FORMAT_VERSION = 1
"""TensorFlow's kTensorBundleVersion. A newer file states whether older readers can read it."""

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


class TensorBundle:
    """A checkpoint. The index is read at once, and each tensor when it is requested.

    `prefix` is the path without `.index` (`.../model.ckpt`). Raises WeightsError if the index is
    missing, damaged, compressed, big-endian or too new, or if it has partitioned variables.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fspath(prefix)
        self._index = Path(self.prefix + ".index")
        try:
            header, self._entries = self._read_index()
        except FormatError as error:
            raise WeightsError(
                f"{self._index} is damaged: {error}; copy or download it again"
            ) from error
        except UnsupportedError as error:
            raise WeightsError(f"{self._index} is not read: {error}") from error
        self._num_shards = header.num_shards

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors, in the order of the index (byte order)."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape."""
        return self._entry(name).shape

    def read(self, name: str) -> NDArray[Any]:
        """Returns a tensor's checked values. bfloat16 becomes float32, which is exact.

        Raises WeightsError if the type is not a float or an integer (strings, resources), if the
        data file is missing or too short, or if the checksum of the values is wrong.
        """
        entry = self._entry(name)
        if entry.dtype not in DTYPES:
            known = _OTHER_DTYPES.get(entry.dtype, f"number {entry.dtype}")
            raise WeightsError(
                f"{self._index}: tensor {name!r} has TensorFlow's type {known}; only floats of 16, "
                "32 and 64 bits, bfloat16 and integers are weights: leave this tensor out"
            )
        path = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self._num_shards:05d}")
        data = _read_range(path, entry.offset, entry.size, f"tensor {name!r}")
        found = masked_crc(data)
        if found != entry.masked_crc:
            raise WeightsError(
                f"{path} is damaged: the masked CRC-32C of tensor {name!r} (bytes {entry.offset} "
                f"to {entry.offset + entry.size}) must be {entry.masked_crc:#010x}, got "
                f"{found:#010x}; copy or download it again"
            )
        if DTYPES[entry.dtype] == "bfloat16":
            halves = np.frombuffer(data, dtype="<u2").astype(np.uint32)
            floats: NDArray[np.float32] = (halves << np.uint32(16)).view(np.float32)
            return floats.reshape(entry.shape)
        values: NDArray[Any] = np.frombuffer(data, dtype=DTYPES[entry.dtype])
        return values.astype(values.dtype.newbyteorder("=")).reshape(entry.shape)

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise WeightsError(
                f"{self._index} has no tensor {name!r}, but {len(self._entries)} others; read one "
                "of `names`"
            )
        return self._entries[name]

    def _read_index(self) -> tuple[Header, dict[str, Entry]]:
        records = read_table(_read_whole_index(self._index))
        key, value = next(records, (None, b""))
        if key != b"":
            raise FormatError("its first record must be the header, under the empty name")
        header = parse_header(value)
        if header.endianness != 0:
            raise UnsupportedError(
                f"its endianness must be 0 (little), got {header.endianness} (1 is big); save it "
                "again on a little-endian machine"
            )
        if header.min_consumer > _FORMAT_VERSION or _FORMAT_VERSION in header.bad_consumers:
            raise UnsupportedError(
                f"it asks for a reader of format version {header.min_consumer} or later and not of "
                f"{sorted(header.bad_consumers)}, this one is of {_FORMAT_VERSION}; install a "
                "newer flowprep"
            )
        if header.num_shards < 1:
            raise FormatError(f"the number of data files must be > 0, got {header.num_shards}")
        entries: dict[str, Entry] = {}
        for key, value in records:
            try:
                entry = parse_entry(value)
            except FormatError as error:
                raise FormatError(f"tensor {show(key)}: {error}") from error
            if entry.is_partitioned or key.startswith(b"\0"):  # a slice's name begins with 0
                raise UnsupportedError(
                    f"variable {show(key)} is partitioned (stored as slices); save it in "
                    "TensorFlow without a partitioner"
                )
            entry.check(header.num_shards, show(key))
            try:
                entries[key.decode()] = entry
            except UnicodeDecodeError as error:
                raise FormatError(f"the name {show(key)} is not UTF-8") from error
        check_apart(entries)
        return header, entries


def _read_whole_index(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_INDEX_BYTES:
            raise WeightsError(
                f"{path} must be an index of at most {MAX_INDEX_BYTES} bytes, got {size}; name "
                "the .index file of a checkpoint"
            )
        with path.open("rb") as file:
            return file.read(MAX_INDEX_BYTES)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} does not exist; a TensorFlow checkpoint is named by its prefix, the path "
            "before '.index', and needs its '.index' and '.data-...' files side by side"
        ) from error
    except OSError as error:
        raise cannot_read(path, error) from error


def _read_range(path: Path, offset: int, size: int, what: str) -> bytes:
    """Returns bytes of a data file. Never allocates more memory than the file has bytes."""
    try:
        with path.open("rb") as file:
            available = os.fstat(file.fileno()).st_size
            if offset + size > available:
                raise WeightsError(
                    f"{path} is cut: {what} ends at byte {offset + size}, the file at {available}; "
                    "copy or download it again"
                )
            file.seek(offset)
            data = file.read(size)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} does not exist, but the index puts {what} there; copy all files of the "
            "checkpoint into one folder under their own names"
        ) from error
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(data) != size:
        raise WeightsError(
            f"{path} changed while it was read: {what} has {size} bytes, got {len(data)}; read it "
            "again when it is written"
        )
    return data
