"""The plan assigns each video to a shard. It only grows, so that published shards stay valid."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

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
from flowprep.errors import DatasetError, InputError
from flowprep.inputs.keys import unescape_key
from flowprep.inputs.video import Video
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage

__all__ = [
    "Plan",
    "assign_shards",
    "extend_plan",
    "merge_class_names",
    "move_to_new_shards",
    "refuse_foreign_files",
    "stored_ranges",
    "stored_splits",
    "write_plan",
]


@dataclass(frozen=True)
class Plan:
    """The content that a data set will have at the end of the run."""

    header: DatasetHeader
    known: list[ManifestEntry]
    """The entries of the stored manifest. Empty for a new data set."""
    entries: list[ManifestEntry]
    """The known videos, then the new ones."""
    notes: tuple[str, ...] = ()
    """Sentences for the user on keys that differ from those that the inputs alone would give."""


def write_plan(storage: Storage, plan: Plan) -> None:
    """Stores a plan: `dataset.json` first, then `manifest.jsonl`, each only if it changes."""
    header = plan.header.to_json()
    if not storage.exists(DATASET_FILE) or storage.read_bytes(DATASET_FILE) != header:
        storage.write_bytes(DATASET_FILE, header)
    if plan.entries != plan.known or not storage.exists(MANIFEST_FILE):
        write_manifest(storage, plan.entries)


def extend_plan(
    known: Sequence[ManifestEntry],
    videos: Sequence[Video],
    videos_per_shard: int,
    class_names: Mapping[int, str] | None = None,
) -> list[ManifestEntry]:
    """Returns the known entries, with sources brought up to date, and new videos in new shards.

    Raises InputError if a known video now has other labels or another range. The message uses
    `class_names`.
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
    """Returns the option that reads folders as when the data set began, or None if none does."""
    if (old.start_seconds, old.end_seconds) != (new.start_seconds, new.end_seconds):
        return None
    folders = [unescape_key(folder) for folder in old.key.split("/")[:-1]]
    was = [names.get(label, str(label)) for label in old.labels]
    is_now = [names.get(label, str(label)) for label in new.labels]
    if len(was) > 1 or len(is_now) > 1 or not set(is_now) <= set(folders):
        return None
    if was:
        level = folders.index(was[0]) + 1 if was[0] in folders else 0
        # With the class at level 1, a video has no split. With other levels, it may have one.
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
    """Assigns the videos in order to shards of `videos_per_shard`, starting at `first_shard`."""
    return [
        ManifestEntry(video, first_shard + number // videos_per_shard)
        for number, video in enumerate(videos)
    ]


def move_to_new_shards(
    entries: Sequence[ManifestEntry], keys: set[str], videos_per_shard: int
) -> list[ManifestEntry]:
    """Returns the entries with the videos `keys` moved to new shards. Their lines stay in place.

    So failed videos can be tried again without changing published shards.
    """
    first = max(entry.shard for entry in entries) + 1
    moved = assign_shards(
        [entry.video for entry in entries if entry.video.key in keys], first, videos_per_shard
    )
    shards = {entry.video.key: entry.shard for entry in moved}
    return [ManifestEntry(e.video, shards.get(e.video.key, e.shard)) for e in entries]


def merge_class_names(
    stored: tuple[str, ...], given: tuple[str, ...]
) -> tuple[tuple[str, ...], list[int] | None]:
    """Returns the class names to store, and the stored number of each given class (None: the same).

    New classes come after the stored ones, because published shards hold the stored numbers.
    """
    if not stored or not given or given[: len(stored)] == stored:
        return (given or stored), None
    names = [*stored, *(name for name in given if name not in stored)]
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(names), [numbers[name] for name in given]


def refuse_foreign_files(storage: Storage) -> None:
    """Raises DatasetError if a folder without a data set holds anything else."""
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


def stored_ranges(
    out: str | os.PathLike[str],
) -> Callable[[Collection[str]], Mapping[str, tuple[float, float]]]:
    """Returns a function from keys to the ranges that the data set `out` holds under these keys.

    `collect_videos` calls it if clips of one video would share a name, so that stored clips keep
    their names. A range is its begin and end in seconds, and an open end is infinity. The result is
    empty if `out` is not a data set yet.
    """

    def ranges(keys: Collection[str]) -> dict[str, tuple[float, float]]:
        return {
            video.key: (video.start_seconds or 0.0, video.end_seconds or math.inf)
            for video in _stored_videos(out)
            if video.key in keys
        }

    return ranges


def stored_splits(out: str | os.PathLike[str]) -> Callable[[], Mapping[str, str | None]]:
    """Returns a function that returns the split of each video that the data set `out` holds.

    `collect_videos` calls it for a split by `test_share`, so that videos that are added later move
    no others. The result is empty if `out` is not a data set yet.
    """
    return lambda: {video.key: video.split for video in _stored_videos(out)}


def _stored_videos(out: str | os.PathLike[str]) -> list[Video]:
    # Imported late: what reads tars would slow down the help of every command that extracts.
    from flowprep.dataset.lost_plan import read_lost_plan

    storage = Storage(out)
    is_there = storage.exists(MANIFEST_FILE)
    entries = read_manifest(storage) if is_there else read_lost_plan(storage).entries
    return [entry.video for entry in entries]
