"""Rebuilding lost sidecars: a shard's tar describes itself."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Collection, Sequence
from typing import IO

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
from flowprep.errors import DatasetError
from flowprep.inputs.keys import check_key
from flowprep.storage import Storage

__all__ = ["rebuild_lost_sidecars", "rebuild_sidecar", "record_from_metadata"]

log = logging.getLogger("flowprep.dataset")


def rebuild_lost_sidecars(
    storage: Storage,
    entries: Sequence[ManifestEntry],
    config: ExtractConfig,
    published: Collection[int],
    failures: dict[str, Failure],
) -> set[int]:
    """Rebuilds the sidecars of shards that were published and lost them; returns these shards.

    A tar without a sidecar and without parts was published once. `published` are the shards that
    have their sidecar. Raises DatasetError as `rebuild_sidecar` does.
    """
    rebuilt = set()
    # A tar that the plan does not know is nobody's.
    tars = list_shards(storage).tars & {entry.shard for entry in entries}
    for shard in sorted(tars.difference(published)):
        if list_parts(storage, shard):
            continue
        log.warning("%s is lost; rebuilding it from the tar", sidecar_name(shard))
        lines = [entry for entry in entries if entry.shard == shard]
        sidecar = rebuild_sidecar(storage, shard, config, lines, failures)
        storage.write_bytes(sidecar_name(shard), sidecar.to_json())
        rebuilt.add(shard)
    return rebuilt


def rebuild_sidecar(
    storage: Storage,
    shard: int,
    config: ExtractConfig,
    entries: Sequence[ManifestEntry],
    failures: dict[str, Failure],
) -> Sidecar:
    """Returns the sidecar of a shard from its tar; seconds spent and attempts are not in there.

    `entries` are the manifest's lines of this shard. Raises DatasetError where the tar is cut or
    holds something else than the manifest says.
    """
    name = shard_name(shard)
    found: dict[str, VideoRecord] = {}
    members: dict[str, dict[str, tuple[int, int]]] = {}
    metadata: dict[str, VideoMetadata] = {}
    digest = hashlib.sha256()
    size = storage.size(name)
    try:
        with (
            storage.open_read(name) as file,
            tarfile.open(fileobj=_BoundedReader(file, size), mode="r:") as tar,
        ):
            for member in tar:
                # A sparse member may claim any size, and reads as so many zeros.
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise _damaged(f"{name}: {member.name!r} is no ordinary file")
                # A size below zero would lead back, and round for ever.
                if not 0 <= member.size <= size - member.offset_data:
                    raise _damaged(f"{name} is cut: {member.name!r} ends after the file")
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                folder = member.name.rpartition("/")[0]
                key = f"{folder}/{key}" if folder else key
                kind = suffix.removesuffix(".mjpg")
                if kind in members.setdefault(key, {}):
                    raise _damaged(f"{name}: {member.name!r} is there twice")
                members[key][kind] = (member.offset_data, member.size)
                if kind == "json":
                    content = tar.extractfile(member)
                    assert content is not None
                    metadata[key] = _read_metadata(name, key, content.read())
        with storage.open_read(name) as file:
            while block := file.read(4 << 20):
                digest.update(block)
    except (tarfile.TarError, ValueError, OSError, OverflowError, RecursionError) as error:
        raise _damaged(f"{name} is not a whole tar: {error}") from error
    for key, positions in members.items():
        check_key(key)
        if key not in metadata or set(positions) != {"json", *stream_names(config.encode)}:
            raise _damaged(f"{name}: {key} has too few members; it has only {', '.join(positions)}")
        try:
            found[key] = record_from_metadata(metadata[key], positions)
        except ValueError as error:
            raise _damaged_metadata(name, key, error) from error
    records = []
    for entry in entries:
        key = entry.video.key
        if key in found:
            records.append(found.pop(key))
        elif key in failures:
            failure = failures[key]
            records.append(
                VideoRecord(
                    key,
                    "failed",
                    labels=entry.video.labels,
                    split=entry.video.split,
                    reason=failure.reason,
                    message=failure.message,
                    attempts=failure.attempts,
                )
            )
        else:
            raise _damaged(f"{name} has no {key}, which the manifest puts there")
    if found:
        raise _damaged(f"{name} holds {', '.join(found)}, which the manifest does not put there")
    return Sidecar(shard, size, digest.hexdigest(), tuple(records))


class _BoundedReader(io.RawIOBase):
    """Reads no more than there is; for `tarfile`, which asks for what a forged header says."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes; takes room for those alone that are there."""
        left = max(0, self._size - self._file.tell())
        return self._file.read(min(size, left) if size >= 0 else size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Returns the place."""
        return self._file.tell()


def record_from_metadata(
    metadata: VideoMetadata | SegmentMetadata,
    members: dict[str, tuple[int, int]],
    seconds: dict[str, float] | None = None,
    attempts: int = 1,
) -> VideoRecord:
    """Returns the sidecar's record of a video from its `KEY.json` and the place of its members.

    Raises ValueError where a field is not what it must be.
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
        # Version 1 has none of these.
        "format_minor": metadata.format_minor or 0,
        "num_damaged": metadata.num_damaged or 0,
        "num_irregular_stamps": metadata.num_irregular_stamps or 0,
        "notes": metadata.notes or {},
    }
    # As a reader of the sidecar will see it: what he would refuse must not be published.
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
