"""Writes JPEGs into streams, streams into a video's part, and parts into a published shard."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.layout import Sidecar, VideoRecord, shard_name, sidecar_name
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.parts import part_name
from flowprep.errors import DatasetError
from flowprep.storage import Storage

__all__ = [
    "BLOCK_SIZE",
    "COPY_BYTES",
    "JpegStream",
    "WritableStream",
    "publish_shard",
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


class WritableStream(Protocol):
    """A Motion-JPEG stream, wherever its bytes are."""

    @property
    def num_bytes(self) -> int:
        """The length of the stream."""

    def copy_to(self, file: IO[bytes]) -> None:
        """Writes the whole stream to `file`."""


class JpegStream:
    """A Motion-JPEG elementary stream: JPEG files one after the other, and their sizes."""

    def __init__(self, quality: int) -> None:
        self.sizes: list[int] = []
        """Size of each JPEG in bytes."""
        self.num_bytes = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        # Optimized Huffman tables store the same pixels in 25 to 50 % less space for flow.
        self._parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]

    def append(self, image: NDArray[np.uint8]) -> None:
        """Encodes and appends one image: (H, W) uint8 gray, or (H, W, 3) uint8 BGR."""
        done, jpeg = cv2.imencode(".jpg", image, self._parameters)
        if not done:
            raise ValueError(f"cv2.imencode refused an image of shape {image.shape}")
        self.append_jpeg(jpeg.data)

    def append_jpeg(self, jpeg: bytes | memoryview) -> None:
        """Appends a whole JPEG file without changing it."""
        self._file.write(jpeg)
        self.sizes.append(len(jpeg))
        self.num_bytes += len(jpeg)

    def rewound(self) -> IO[bytes]:
        """Returns the stream's file, positioned at its start."""
        self._file.seek(0)
        return self._file

    def copy_to(self, file: IO[bytes]) -> None:
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

    Times and owners in the headers are fixed, so that the bytes depend on the video alone.
    """
    members: dict[str, tuple[int, int]] = {}
    key, description = metadata.key, metadata.to_json()
    members["json"] = (_write_header(file, f"{key}.json", len(description)), len(description))
    file.write(description)
    _pad(file)
    for name, stream in streams.items():
        offset = _write_header(file, f"{key}.{name}.mjpg", stream.num_bytes)
        members[name] = (offset, stream.num_bytes)
        stream.copy_to(file)
        _pad(file)
    return members


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
            if part_size != _padded(last_offset + last_size):
                raise DatasetError(
                    f"{name} has {part_size} bytes, but its record says "
                    f"{_padded(last_offset + last_size)}; remove it and run the same command again"
                )
            moved.append(_moved(record, size))
            size += part_size
        tar.write(END_OF_TAR)
        digest.update(END_OF_TAR)
        size += len(END_OF_TAR)
    sidecar = Sidecar(shard, size, digest.hexdigest(), tuple(moved))
    storage.write_bytes(sidecar_name(shard), sidecar.to_json())
    return sidecar


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


def _padded(size: int) -> int:
    return size + -size % BLOCK_SIZE
