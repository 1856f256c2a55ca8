"""The plan: which video belongs to which shard. It only grows, so published shards stay true."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    DATASET_FILE,
    LEASE_FILE,
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
from flowprep.run.stored_keys import with_stored_keys
from flowprep.urls import redacted
from flowprep.video.keys import unescape_key
from flowprep.video.manifest import Manifest
from flowprep.video.types import Video

__all__ = [
    "Plan",
    "assign_shards",
    "extend_plan",
    "make_plan",
    "move_to_new_shards",
    "refuse_foreign_files",
    "write_plan",
]


@dataclass(frozen=True)
class Plan:
    """What a data set will hold when the run is through."""

    header: DatasetHeader
    known: list[ManifestEntry]
    """What the stored manifest says; empty for a new data set."""
    entries: list[ManifestEntry]
    """The known videos, then the new ones."""
    notes: tuple[str, ...] = ()
    """Sentences for the user on keys that are not what the inputs alone would give."""


def make_plan(storage: Storage, manifest: Manifest, config: ExtractConfig) -> Plan:
    """Returns the plan for `manifest` in a new data set, or added to the one that is there.

    Writes nothing. Raises ConfigMismatchError where the stored configuration gives other numbers,
    InputError where a known video has got other labels, DatasetError where the folder holds
    something else.
    """
    implementation = ESTIMATORS[config.flow.algorithm].implementation
    if not storage.exists(DATASET_FILE):
        refuse_foreign_files(storage)
        header = DatasetHeader(
            config, implementation, manifest.class_names, library_versions(config)
        )
        return Plan(header, [], assign_shards(manifest.videos, 0, config.encode.videos_per_shard))
    header = DatasetHeader.read(storage)
    header.check_same(config, implementation, storage.location)
    known = read_manifest(storage) if storage.exists(MANIFEST_FILE) else []
    class_names, labels = _merge_class_names(header.class_names, manifest.class_names)
    videos, notes = with_stored_keys(known, manifest.videos)
    if labels is not None:
        videos = tuple(
            dataclasses.replace(video, labels=tuple(labels[label] for label in video.labels))
            for video in videos
        )
    header = dataclasses.replace(header, class_names=class_names)
    stored_names = dict(enumerate(class_names))
    entries = extend_plan(known, videos, config.encode.videos_per_shard, stored_names)
    return Plan(header, known, entries, tuple(map(redacted, notes)))


def write_plan(storage: Storage, plan: Plan) -> None:
    """Stores a plan: `dataset.json` first, then `manifest.jsonl`, each only if it changes."""
    header = plan.header.to_json()
    if not storage.exists(DATASET_FILE) or storage.read_bytes(DATASET_FILE) != header:
        storage.write_bytes(DATASET_FILE, header)
    if plan.entries != plan.known:
        write_manifest(storage, plan.entries)


def extend_plan(
    known: Sequence[ManifestEntry],
    videos: Sequence[Video],
    videos_per_shard: int,
    class_names: Mapping[int, str] | None = None,
) -> list[ManifestEntry]:
    """Returns the known entries, with sources brought up to date, and new videos in new shards.

    Raises InputError where a known video has got other labels or another range; `class_names` are
    for its words.
    """
    given = {video.key: video for video in videos}
    entries = []
    for entry in known:
        video = given.pop(entry.video.key, entry.video)
        for name in ("labels", "split", "start_seconds", "end_seconds"):
            old, new = getattr(entry.video, name), getattr(video, name)
            if old != new:
                remedy = _class_level_remedy(entry.video, video, class_names or {})
                if not remedy:
                    remedy = "give the video the same as before, or choose another output folder"
                    if name in ("labels", "split"):
                        remedy += "; run `flowprep label` for others in the same data set"
                raise InputError(
                    f"{name} of {video.key} must be {old}, as in the data set, got {new}; {remedy}"
                )
        entries.append(ManifestEntry(video, entry.shard))
    first = max((entry.shard for entry in entries), default=-1) + 1
    return entries + assign_shards(list(given.values()), first, videos_per_shard)


def _class_level_remedy(old: Video, new: Video, names: Mapping[int, str]) -> str | None:
    """Returns how folders are read as they were when a data set began; None: that was not it."""
    if (old.start_seconds, old.end_seconds) != (new.start_seconds, new.end_seconds):
        return None
    folders = [unescape_key(folder) for folder in old.key.split("/")[:-1]]
    was = [names.get(label, str(label)) for label in old.labels]
    is_now = [names.get(label, str(label)) for label in new.labels]
    if len(was) > 1 or len(is_now) > 1 or not set(is_now) <= set(folders):
        return None
    if was:
        level = folders.index(was[0]) + 1 if was[0] in folders else 0
        # The first folder alone comes without a split, and the others with theirs.
        fits = level > 1 or (level == 1 and old.split is None)
    else:
        level = 0 if folders else 1
        fits = old.split == new.split if folders else old.split is None
    if not fits:
        return None

    def said(classes: list[str], split: str | None) -> str:
        label = f"the class {classes[0]!r}" if classes else "no class"
        return f"{label} and {f'the split {split!r}' if split else 'no split'}"

    return (
        f"its folders gave {said(was, old.split)} when the data set began, and now give "
        f"{said(is_now, new.split)}. Give --class-level {level} to go on as before, or choose "
        "another output folder for the new classes"
    )


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


def refuse_foreign_files(storage: Storage) -> None:
    """Raises DatasetError where a folder without a data set holds anything else."""
    ours = {LOCK_FILE, LEASE_FILE, LOGS_FOLDER}
    foreign = [
        name for name in storage.list_names() if name not in ours and TEMPORARY_MARK not in name
    ]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise DatasetError(
            f"{storage.location} is not empty and not a flowprep data set (it holds {shown}); "
            "choose an empty or new folder"
        )
