"""Writes JPEGs into streams, streams into a video's part, and parts into a published shard."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import IO, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.layout import (
    ManifestEntry,
    Sidecar,
    VideoRecord,
    read_sidecar,
    shard_name,
    sidecar_name,
)
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.parts import part_name, remove_parts, write_part_record
from flowprep.errors import DatasetError
from flowprep.storage import Storage

__all__ = [
    "BLOCK_SIZE",
    "COPY_BYTES",
    "END_OF_TAR",
    "ByteSink",
    "JpegStream",
    "WritableStream",
    "copy_bytes",
    "padded",
    "publish_shard",
    "reopen_shard",
    "reopen_shards",
    "write_sample",
]

BLOCK_SIZE = 512
"""Block size of a tar. A header has one or more blocks, and data is padded to whole blocks."""
END_OF_TAR = b"\0" * (2 * BLOCK_SIZE)

# Each stream of a video stays in memory up to this size. Longer streams go to a temporary file, so
# that a worker's memory does not grow with the length of its video.
_SPOOL_BYTES = 8 << 20
COPY_BYTES = 4 << 20
"""Streams are copied in pieces of this size."""


# As long as the SHA-256 whose place it keeps.
_NO_SHA256 = "0" * 64


class ByteSink(Protocol):
    """What takes bytes, such as a file."""

    def write(self, data: bytes, /) -> object:
        """Takes the next bytes."""


class WritableStream(Protocol):
    """A Motion-JPEG stream, wherever its bytes are."""

    @property
    def num_bytes(self) -> int:
        """The length of the stream."""

    def copy_to(self, file: ByteSink) -> None:
        """Writes the whole stream to `file`."""


class JpegStream:
    """A Motion-JPEG elementary stream: JPEG files one after the other, and their sizes."""

    def __init__(self, quality: int) -> None:
        self.sizes: list[int] = []
        """Size of each JPEG in bytes."""
        self.num_bytes = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        self._quality = quality

    def append(self, image: NDArray[np.uint8]) -> None:
        """Encodes and appends one image: (H, W) uint8 gray, or (H, W, 3) uint8 RGB.

        Huffman tables are made for each image: they store the same pixels in 6 to 40 % less space.
        """
        # numba is imported here, because it takes half a second and readers do not need it.
        from flowprep.dataset.jpeg.encode import encode

        self.append_jpeg(encode(image, self._quality).data)

    def append_jpeg(self, jpeg: bytes | memoryview) -> None:
        """Appends a whole JPEG file without changing it."""
        self._file.write(jpeg)
        self.sizes.append(len(jpeg))
        self.num_bytes += len(jpeg)

    def rewound(self) -> IO[bytes]:
        """Returns the stream's file, positioned at its start."""
        self._file.seek(0)
        return self._file

    def copy_to(self, file: ByteSink) -> None:
        """Writes the whole stream to `file`."""
        shutil.copyfileobj(self.rewound(), file, COPY_BYTES)

    def read(self) -> bytes:
        """Returns the whole stream."""
        return self.rewound().read()

    def close(self) -> None:
        """Frees the stream's memory or temporary file."""
        self._file.close()


def write_sample(
    file: IO[bytes], metadata: VideoMetadata, streams: Mapping[str, WritableStream]
) -> dict[str, tuple[int, int]]:
    """Writes one video's tar members and returns name -> (offset of the data, size).

    Times and owners in the headers are fixed, so that the bytes depend on the video alone. `file`
    must be able to seek, because `KEY.json` comes first and contains the checksums of the streams.
    """
    members: dict[str, tuple[int, int]] = {}
    key = metadata.key
    description = metadata.with_checksums(dict.fromkeys(streams, _NO_SHA256)).to_json()
    members["json"] = (_write_header(file, f"{key}.json", len(description)), len(description))
    file.write(description)
    _pad(file)
    checksums = {}
    for name, stream in streams.items():
        offset = _write_header(file, f"{key}.{name}.mjpg", stream.num_bytes)
        members[name] = (offset, stream.num_bytes)
        hashed = _HashedSink(file)
        stream.copy_to(hashed)
        checksums[name] = hashed.digest.hexdigest()
        _pad(file)
    end = file.tell()
    file.seek(members["json"][0])
    file.write(metadata.with_checksums(checksums).to_json())
    file.seek(end)
    return members


class _HashedSink:
    """Hashes what passes through it into a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: bytes, /) -> None:
        self.digest.update(data)
        self._file.write(data)


def publish_shard(
    storage: Storage, shard: int, indices: Sequence[int], records: Sequence[VideoRecord]
) -> Sidecar:
    """Joins the parts of a shard into its tar, then writes the sidecar that makes it public.

    `records` are the parts' records for the manifest lines `indices`, including failed videos.
    Their offsets are changed from the part to the shard. Raises DatasetError if a part does not
    match its record, StorageError if storage fails. In both cases nothing is published.
    """
    digest = hashlib.sha256()
    size = 0
    moved: list[VideoRecord] = []
    with storage.atomic_file(shard_name(shard)) as tar:
        for index, record in zip(indices, records, strict=True):
            if record.status == "failed":
                moved.append(record)
                continue
            name = part_name(shard, index, "tar")
            part_size = 0
            with storage.open_read(name) as part:
                while block := part.read(COPY_BYTES):
                    tar.write(block)
                    digest.update(block)
                    part_size += len(block)
            last_offset, last_size = list(record.members.values())[-1]
            if part_size != padded(last_offset + last_size):
                raise DatasetError(
                    f"{name} has {part_size} bytes, but its record says "
                    f"{padded(last_offset + last_size)}; remove it and run the same command again"
                )
            moved.append(_moved(record, size))
            size += part_size
        tar.write(END_OF_TAR)
        digest.update(END_OF_TAR)
        size += len(END_OF_TAR)
    sidecar = Sidecar(shard, size, digest.hexdigest(), tuple(moved))
    storage.write_bytes(sidecar_name(shard), sidecar.to_json())
    return sidecar


def reopen_shards(
    storage: Storage, entries: Sequence[ManifestEntry], dropped: Mapping[int, Collection[str]]
) -> set[int]:
    """Turns published shards into parts again, without some of their videos. Returns the shards.

    `dropped` has the keys of these videos by shard. The videos are then extracted like new ones,
    and the shards get their numbers and places back. Raises the DatasetErrors of `reopen_shard` and
    of `read_sidecar`.
    """
    for shard, keys in sorted(dropped.items()):
        lines = {
            entry.video.key: index for index, entry in enumerate(entries) if entry.shard == shard
        }
        reopen_shard(storage, read_sidecar(storage, shard), lines, keys)
    return set(dropped)


def reopen_shard(
    storage: Storage, sidecar: Sidecar, lines: Mapping[str, int], dropped: Collection[str]
) -> None:
    """Turns a published shard into the parts that it was made of, without the videos `dropped`.

    `lines` are the manifest's lines of the videos of the shard. If this is interrupted, the shard
    is still published, or its parts are complete. Raises DatasetError if the tar is damaged.
    """
    shard, name = sidecar.shard, shard_name(sidecar.shard)
    # A run that ended in the middle of this may have left some of another choice.
    remove_parts(storage, shard)
    parts: list[VideoRecord] = []
    digest = hashlib.sha256()
    with storage.open_read(name) as tar:
        begin = 0
        for record in sidecar.videos:
            # Others are in another shard now, or are to be computed again.
            is_kept = record.key in lines and record.key not in dropped
            if record.status == "failed":
                if is_kept:
                    parts.append(record)
                continue
            last_offset, last_size = list(record.members.values())[-1]
            length = padded(last_offset + last_size) - begin
            if is_kept:
                with storage.atomic_file(part_name(shard, lines[record.key], "tar")) as part:
                    copy_bytes(tar, length, digest.update, part.write)
                parts.append(_moved(record, -begin))
            else:
                copy_bytes(tar, length, digest.update)
            begin += length
        while block := tar.read(COPY_BYTES):
            digest.update(block)
    if digest.hexdigest() != sidecar.sha256:
        remove_parts(storage, shard)
        raise DatasetError(
            f"{name} has another SHA-256 than its sidecar says; it is damaged: restore it from a "
            "copy, or remove its .tar and .json and run the same extract again"
        )
    for record in parts:
        write_part_record(storage, shard, lines[record.key], record)
    # The tar goes last: an index without its tar would be damage.
    storage.remove(sidecar_name(shard))
    storage.remove(name)


def copy_bytes(file: IO[bytes], length: int, *takers: Callable[[bytes], object]) -> None:
    """Gives the next `length` bytes of a file, or what there is of them, to each of `takers`."""
    while length > 0 and (block := file.read(min(length, COPY_BYTES))):
        for take in takers:
            take(block)
        length -= len(block)


def _moved(record: VideoRecord, distance: int) -> VideoRecord:
    members = {name: (offset + distance, size) for name, (offset, size) in record.members.items()}
    return msgspec.structs.replace(record, members=members)


def _write_header(file: IO[bytes], name: str, size: int) -> int:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    file.write(info.tobuf(tarfile.GNU_FORMAT))
    return file.tell()


def _pad(file: IO[bytes]) -> None:
    file.write(b"\0" * (-file.tell() % BLOCK_SIZE))


def padded(size: int) -> int:
    """Returns a size in bytes with what fills the last block of a tar."""
    return size + -size % BLOCK_SIZE
