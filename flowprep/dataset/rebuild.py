"""Rebuilding lost sidecars: a shard's tar describes itself."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from msgspec import UNSET

from flowprep.config import ExtractConfig
from flowprep.dataset.foreign import list_shards
from flowprep.dataset.layout import (
    Failure,
    ManifestEntry,
    Sidecar,
    VideoRecord,
    shard_name,
    sidecar_name,
    stream_names,
)
from flowprep.dataset.metadata import SegmentMetadata, VideoMetadata
from flowprep.dataset.parts import list_parts
from flowprep.dataset.write import COPY_BYTES, END_OF_TAR, copy_bytes, padded
from flowprep.errors import DatasetError, StorageError
from flowprep.inputs.keys import check_key
from flowprep.inputs.video import Video
from flowprep.storage import Storage

__all__ = [
    "ShardContent",
    "first_metadata",
    "published_tars",
    "read_shard",
    "rebuild_lost_sidecars",
    "rebuild_sidecar",
    "record_from_metadata",
]

log = logging.getLogger("flowprep.dataset")


def rebuild_lost_sidecars(
    storage: Storage,
    entries: Sequence[ManifestEntry],
    config: ExtractConfig,
    published: Collection[int],
    failures: Mapping[str, Failure] | None,
) -> set[int]:
    """Rebuilds the sidecars of published shards that have lost them. Returns these shards.

    `published` are the shards that have a sidecar, `failures` is what `stored_failures` returns.
    Raises the DatasetError of `rebuild_sidecar`.
    """
    rebuilt = set()
    # A tar that the plan does not know is nobody's.
    tars = published_tars(storage) & {entry.shard for entry in entries}
    for shard in sorted(tars.difference(published)):
        log.warning("%s is lost; rebuilding it from the tar", sidecar_name(shard))
        lines = [entry for entry in entries if entry.shard == shard]
        sidecar = rebuild_sidecar(storage, shard, config, lines, failures)
        storage.write_bytes(sidecar_name(shard), sidecar.to_json())
        rebuilt.add(shard)
    return rebuilt


def published_tars(storage: Storage) -> set[int]:
    """Returns the shards whose tar was published: it has its sidecar, or no parts any more."""
    files = list_shards(storage)
    with_index = files.tars & set(files.published)
    return {shard for shard in files.tars if shard in with_index or not list_parts(storage, shard)}


def rebuild_sidecar(
    storage: Storage,
    shard: int,
    config: ExtractConfig,
    entries: Sequence[ManifestEntry],
    failures: Mapping[str, Failure] | None,
) -> Sidecar:
    """Returns the sidecar of a shard from its tar, without seconds spent and attempts.

    The tar does not contain these. `entries` are the manifest's lines of this shard. If `failures`
    are lost (None), a video that is not in the tar has failed for a reason that nobody knows
    (`record-lost`). Raises DatasetError if the tar is cut off, if its content differs from the
    manifest, or if a stream does not match its checksum.
    """
    name = shard_name(shard)
    content = read_shard(storage, shard)
    found: dict[str, VideoRecord] = {}
    for key, positions in content.members.items():
        if set(positions) != {"json", *stream_names(config.encode)}:
            raise _damaged(f"{name}: {key} has too few members; it has only {', '.join(positions)}")
        try:
            found[key] = record_from_metadata(content.metadata[key], positions)
        except ValueError as error:
            raise _damaged_metadata(name, key, error) from error
    records = []
    for entry in entries:
        key = entry.video.key
        if key in found:
            records.append(found.pop(key))
        elif failures is not None and key in failures:
            records.append(_failed(entry.video, failures[key]))
        elif failures is None and content.is_whole:
            lost = Failure(
                key,
                entry.video.source,
                "record-lost",
                "why it failed stood in failures.jsonl and in the index of its shard, and both "
                "were lost",
            )
            records.append(_failed(entry.video, lost))
        else:
            raise _damaged(f"{name} has no {key}, which the manifest puts there")
    if found:
        raise _damaged(f"{name} holds {', '.join(found)}, which the manifest does not put there")
    return Sidecar(shard, content.size, content.sha256, tuple(records))


def _failed(video: Video, failure: Failure) -> VideoRecord:
    return VideoRecord(
        video.key,
        "failed",
        labels=video.labels,
        split=video.split,
        reason=failure.reason,
        message=failure.message,
        attempts=failure.attempts,
        fault=failure.fault,
    )


@dataclass(frozen=True)
class ShardContent:
    """What a shard's tar says of itself."""

    members: dict[str, dict[str, tuple[int, int]]]
    """By key: offset and size of each member's data, as in VideoRecord."""
    metadata: dict[str, VideoMetadata]
    """By key, in the order of the tar."""
    size: int
    sha256: str
    is_whole: bool
    """Whether it ends as `publish_shard` ends a tar."""


def read_shard(storage: Storage, shard: int) -> ShardContent:
    """Reads all of a shard's tar, and holds each stream against its checksum, if it has one.

    Raises DatasetError where it is no whole tar of videos, or a stream is not what was written.
    """
    name = shard_name(shard)
    members: dict[str, dict[str, tuple[int, int]]] = {}
    metadata: dict[str, VideoMetadata] = {}
    size = storage.size(name)
    end = 0
    try:
        with (
            storage.open_read(name) as file,
            tarfile.open(fileobj=_BoundedReader(file, size), mode="r:") as tar,
        ):
            for member in tar:
                # A sparse member may claim any size, and would be read as that many zeros.
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise _damaged(f"{name}: {member.name!r} is no ordinary file")
                # A size below zero would lead back in the tar, into an endless loop.
                if not 0 <= member.size <= size - member.offset_data:
                    raise _damaged(f"{name} is cut: {member.name!r} ends after the file")
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                folder = member.name.rpartition("/")[0]
                key = f"{folder}/{key}" if folder else key
                kind = suffix.removesuffix(".mjpg")
                if kind in members.setdefault(key, {}):
                    raise _damaged(f"{name}: {member.name!r} is there twice")
                members[key][kind] = (member.offset_data, member.size)
                end = padded(member.offset_data + member.size)
                if kind == "json":
                    content = tar.extractfile(member)
                    assert content is not None
                    metadata[key] = _read_metadata(name, key, content.read())
        for key, positions in members.items():
            check_key(key)
            if key not in metadata:
                only = ", ".join(positions)
                raise _damaged(f"{name}: {key} has too few members; it has only {only}")
        sha256 = _checked_sha256(storage, name, members, metadata)
    except (tarfile.TarError, ValueError, OSError, OverflowError, RecursionError) as error:
        raise _damaged(f"{name} is not a whole tar: {error}") from error
    return ShardContent(members, metadata, size, sha256, size == end + len(END_OF_TAR))


def _checked_sha256(
    storage: Storage,
    name: str,
    members: Mapping[str, Mapping[str, tuple[int, int]]],
    metadata: Mapping[str, VideoMetadata],
) -> str:
    """Returns the SHA-256 of a tar; raises DatasetError where a stream has not its own."""
    places = sorted(
        (offset, length, key, kind)
        for key, positions in members.items()
        for kind, (offset, length) in positions.items()
    )
    digest = hashlib.sha256()
    with storage.open_read(name) as file:
        position = 0
        for offset, length, key, kind in places:
            copy_bytes(file, offset - position, digest.update)
            own = hashlib.sha256()
            copy_bytes(file, length, digest.update, own.update)
            position = offset + length
            wanted = metadata[key].stream_sha256
            if wanted is not UNSET and kind in wanted and own.hexdigest() != wanted[kind]:
                raise _damaged(
                    f"{name}: {key}.{kind} has another SHA-256 than its metadata says; the video "
                    "is damaged"
                )
        while block := file.read(COPY_BYTES):
            digest.update(block)
    return digest.hexdigest()


def first_metadata(storage: Storage, name: str) -> VideoMetadata | None:
    """Returns what a tar says of its first video; None where it holds none that can be read."""
    try:
        size = storage.size(name)
        with (
            storage.open_read(name) as file,
            tarfile.open(fileobj=_BoundedReader(file, size), mode="r:") as tar,
        ):
            member = tar.next()
            if member is None or not member.isreg() or not member.name.endswith(".json"):
                return None
            content = tar.extractfile(member)
            return None if content is None else VideoMetadata.from_json(content.read())
    except (tarfile.TarError, ValueError, OSError, OverflowError, RecursionError, StorageError):
        return None


class _BoundedReader(io.RawIOBase):
    """Reads at most the bytes that exist, because a forged header makes `tarfile` ask for more."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes. Allocates memory only for existing bytes."""
        left = max(0, self._size - self._file.tell())
        return self._file.read(min(size, left) if size >= 0 else size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the position."""
        return self._file.tell()


def record_from_metadata(
    metadata: VideoMetadata | SegmentMetadata,
    members: dict[str, tuple[int, int]],
    seconds: dict[str, float] | None = None,
    attempts: int = 1,
) -> VideoRecord:
    """Returns the sidecar's record of a video from its `KEY.json` and the place of its members.

    Raises ValueError if a field is invalid.
    """
    values = {
        "key": metadata.key,
        "status": metadata.status,
        "labels": metadata.labels,
        "split": metadata.split,
        "num_frames": metadata.num_frames,
        "num_flows": metadata.num_flows,
        "width": metadata.width,
        "height": metadata.height,
        "fps": metadata.fps,
        "num_values": sum(one.num_values for one in metadata.flow.values()),
        "num_clipped": sum(one.num_clipped for one in metadata.flow.values()),
        "members": members,
        "seconds": seconds or {},
        "attempts": attempts,
        # Version 1 has none of these fields.
        "format_minor": metadata.format_minor or 0,
        "num_damaged": metadata.num_damaged or 0,
        "num_irregular_stamps": metadata.num_irregular_stamps or 0,
        "notes": metadata.notes or {},
        "source_bytes": metadata.source_bytes,
    }
    # The record is read like by a reader. A record that readers refuse must not be published.
    return VideoRecord.from_json(json.dumps(values).encode())


def _read_metadata(shard: str, key: str, content: bytes) -> VideoMetadata:
    try:
        metadata = VideoMetadata.from_json(content)
        if metadata.key != key:
            raise ValueError(f"it is of {metadata.key}")
    except ValueError as error:
        raise _damaged_metadata(shard, key, error) from error
    return metadata


def _damaged_metadata(shard: str, key: str, error: ValueError) -> DatasetError:
    return _damaged(f"{shard}: {key}.json is damaged: {type(error).__name__}: {error}")


def _damaged(what: str) -> DatasetError:
    return DatasetError(
        f"{what}; restore the shard from a copy, or remove its .tar and .json and run the same "
        f"extract again"
    )
