"""The plan: which video belongs to which shard. It only grows, so published shards stay true."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    DATASET_FILE,
    LOCK_FILE,
    LOGS_FOLDER,
    MANIFEST_FILE,
    DatasetHeader,
    ManifestEntry,
    read_manifest,
    write_manifest,
)
from flowprep.dataset.storage import TEMPORARY_MARK, Storage
from flowprep.errors import DatasetError, InputError
from flowprep.flow import ESTIMATORS
from flowprep.run.extract import library_versions
from flowprep.video.manifest import Manifest
from flowprep.video.types import Video

__all__ = ["assign_shards", "begin_or_extend", "extend_plan", "move_to_new_shards"]


def begin_or_extend(
    storage: Storage, manifest: Manifest, config: ExtractConfig
) -> tuple[DatasetHeader, list[ManifestEntry]]:
    """Begins a data set with `dataset.json` and `manifest.jsonl`, or adds new videos to an old one.

    Raises ConfigMismatchError where the stored configuration gives other numbers, InputError where
    a known video has got other labels, DatasetError where the folder holds something else.
    """
    implementation = ESTIMATORS[config.flow.algorithm].implementation
    if storage.exists(DATASET_FILE):
        header = DatasetHeader.read(storage)
        header.check_same(config, implementation, storage.location)
        known = read_manifest(storage) if storage.exists(MANIFEST_FILE) else []
    else:
        _refuse_foreign_files(storage)
        header = DatasetHeader(
            config, implementation, manifest.class_names, library_versions(config)
        )
        storage.write_bytes(DATASET_FILE, header.to_json())
        known = []
    class_names, labels = _merge_class_names(header.class_names, manifest.class_names)
    if class_names != header.class_names:
        header = dataclasses.replace(header, class_names=class_names)
        storage.write_bytes(DATASET_FILE, header.to_json())
    if labels is not None:
        manifest = dataclasses.replace(
            manifest,
            videos=tuple(
                dataclasses.replace(video, labels=tuple(labels[label] for label in video.labels))
                for video in manifest.videos
            ),
        )
    entries = extend_plan(known, manifest, config.encode.videos_per_shard)
    if entries != known:
        write_manifest(storage, entries)
    return header, entries


def extend_plan(
    known: Sequence[ManifestEntry], manifest: Manifest, videos_per_shard: int
) -> list[ManifestEntry]:
    """Returns the known entries, with sources brought up to date, and new videos in new shards.

    Raises InputError where a known video has got other labels or another range.
    """
    given = {video.key: video for video in manifest.videos}
    entries = []
    for entry in known:
        video = given.pop(entry.video.key, entry.video)
        for name in ("labels", "split", "start_seconds", "end_seconds"):
            old, new = getattr(entry.video, name), getattr(video, name)
            if old != new:
                raise InputError(
                    f"{name} of {video.key} is {old} in the data set and {new} in this run; "
                    "give it the same, or choose another output folder"
                )
        entries.append(ManifestEntry(video, entry.shard))
    first = max((entry.shard for entry in entries), default=-1) + 1
    return entries + assign_shards(list(given.values()), first, videos_per_shard)


def assign_shards(
    videos: Sequence[Video], first_shard: int, videos_per_shard: int
) -> list[ManifestEntry]:
    """Returns the videos in their order, `videos_per_shard` to a shard, from `first_shard` on."""
    return [
        ManifestEntry(video, first_shard + number // videos_per_shard)
        for number, video in enumerate(videos)
    ]


def move_to_new_shards(
    entries: Sequence[ManifestEntry], keys: set[str], videos_per_shard: int
) -> list[ManifestEntry]:
    """Returns the entries with those of `keys` moved to new shards; their lines keep their place.

    This is how failed videos are tried again without a change to shards that are published.
    """
    first = max(entry.shard for entry in entries) + 1
    moved = assign_shards(
        [entry.video for entry in entries if entry.video.key in keys], first, videos_per_shard
    )
    shards = {entry.video.key: entry.shard for entry in moved}
    return [ManifestEntry(e.video, shards.get(e.video.key, e.shard)) for e in entries]


def _merge_class_names(
    stored: tuple[str, ...], given: tuple[str, ...]
) -> tuple[tuple[str, ...], list[int] | None]:
    """Returns the class names to store, and the stored number of each given class (None: the same).

    New classes come after the stored ones, whose numbers published shards already hold.
    """
    if not stored or not given or given[: len(stored)] == stored:
        return (given or stored), None
    names = [*stored, *(name for name in given if name not in stored)]
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(names), [numbers[name] for name in given]


def _refuse_foreign_files(storage: Storage) -> None:
    ours = {LOCK_FILE, LOGS_FOLDER}
    foreign = [
        name for name in storage.list_names() if name not in ours and TEMPORARY_MARK not in name
    ]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise DatasetError(
            f"{storage.location} is not empty and not a flowprep data set (it holds {shown}); "
            "choose an empty or new folder"
        )
