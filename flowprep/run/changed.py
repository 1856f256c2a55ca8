"""Published videos whose source changed after they were extracted.

A run notes them. With `--redo-changed` it computes them again: `reopen_shards` turns their shards
into parts, and the shards end in the bytes of an undisturbed extraction of the new sources.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from flowprep.dataset.layout import (
    ManifestEntry,
    Sidecar,
    VideoRecord,
    read_sidecar,
    shard_name,
)
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.read_ahead import read_ahead
from flowprep.dataset.sources import changed_words, source_change
from flowprep.errors import DatasetError
from flowprep.inputs.entries import first_of
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from flowprep.words import format_count

__all__ = ["ChangedVideos", "find_changed"]


@dataclass
class ChangedVideos:
    """Stored videos whose source is another file than the one that was extracted."""

    by_shard: dict[int, set[str]] = field(default_factory=dict)
    """Their keys."""
    unknown: list[str] = field(default_factory=list)
    """Keys of videos whose source has another time, the same size and no checksum."""
    redone: bool = False
    """Whether they are computed again."""

    @property
    def keys(self) -> set[str]:
        """Of all that changed."""
        return set().union(*self.by_shard.values())

    def notes(self) -> list[str]:
        """Returns what a user must know, as sentences."""
        notes = []
        if keys := self.keys:
            remedy = "; computing again" if self.redone else "; `--redo-changed` computes again"
            notes.append(changed_words(keys) + remedy)
        if self.unknown:
            notes.append(
                f"{format_count(len(self.unknown), 'video')} not computed again: the sources have "
                "another time than when they were extracted, but the same size, and no checksum "
                f"({first_of(self.unknown)}); extract to a new OUT if they changed"
            )
        return notes


def find_changed(
    storage: Storage,
    entries: Sequence[ManifestEntry],
    published: Collection[int],
    *,
    redo: bool,
) -> ChangedVideos:
    """Finds published videos whose source changed.

    Without `redo` it compares the sizes that a listing told anyhow, and asks for nothing else. With
    `redo` it looks at each source; where its time differs, and there is a checksum, it reads it.
    Raises StorageError where a store cannot be reached.
    """
    changed = ChangedVideos(redone=redo)
    planned: dict[int, dict[str, Video]] = {}
    for entry in entries:
        if entry.shard in published and (redo or entry.video.listed_bytes is not None):
            planned.setdefault(entry.shard, {})[entry.video.key] = entry.video
    for sidecar in read_ahead(storage, sorted(planned), functools.partial(_read, storage)):
        if sidecar is None:
            continue
        for record in sidecar.videos:
            video = planned[sidecar.shard].get(record.key)
            if video is None or record.status == "failed":
                continue
            if not redo:
                is_changed = record.source_bytes not in (None, video.listed_bytes)
            else:
                metadata = _metadata(storage, sidecar.shard, record)
                change = source_change(metadata, video.source, hash_when="time-differs")
                is_changed = change in ("size", "contents")
                if change == "time":
                    changed.unknown.append(record.key)
            if is_changed:
                changed.by_shard.setdefault(sidecar.shard, set()).add(record.key)
    return changed


def _read(storage: Storage, shard: int) -> Sidecar | None:
    try:
        return read_sidecar(storage, shard)
    except DatasetError:  # whatever it is, `verify` names it
        return None


def _metadata(storage: Storage, shard: int, record: VideoRecord) -> VideoMetadata:
    content = storage.read_range(shard_name(shard), *record.members["json"])
    try:
        return VideoMetadata.from_json(content)
    except ValueError as error:
        raise DatasetError(
            f"{shard_name(shard)}: {record.key}.json is damaged: {error}; run `flowprep verify`"
        ) from error
