"""A lost plan: what the shards, the parts and the same command's own listing say of it.

lost_header      dataset.json: the command has it, and a stored video says that it is the one
read_lost_plan   manifest.jsonl: shards and parts name their videos, the listing names the rest
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import UNSET

from flowprep.config import ExtractConfig
from flowprep.dataset.failures import stored_failures
from flowprep.dataset.layout import (
    DATASET_FILE,
    FAILURES_FILE,
    LABELS_FOLDER,
    LEASE_FILE,
    LOCK_FILE,
    LOGS_FOLDER,
    MANIFEST_FILE,
    PARTS_FOLDER,
    SHARDS_FOLDER,
    DatasetHeader,
    Failure,
    ManifestEntry,
    VideoRecord,
    read_manifest,
    read_sidecar,
    shard_name,
)
from flowprep.dataset.metadata import VideoMetadata, read_stored_config
from flowprep.dataset.parts import list_parts, part_name, recorded_parts, shards_with_parts
from flowprep.dataset.rebuild import first_metadata, published_tars, read_shard
from flowprep.errors import DatasetError, StorageError
from flowprep.inputs.video import Video
from flowprep.storage import Storage

__all__ = [
    "LostPlan",
    "lost_header",
    "named_classes",
    "read_lost_plan",
    "read_or_recover_manifest",
]

_OURS = frozenset(
    [
        *(MANIFEST_FILE, FAILURES_FILE, SHARDS_FOLDER, LOGS_FOLDER, PARTS_FOLDER),
        *(LABELS_FOLDER, LOCK_FILE, LEASE_FILE),
    ]
)


# ---- dataset.json


def lost_header(
    storage: Storage, config: ExtractConfig, implementation: str
) -> DatasetHeader | None:
    """Returns the header of a data set that lost its `dataset.json`; None where there is no set.

    It is this run's, which a stored video confirms; it has no class names yet, and the versions
    that the video names. Raises ConfigMismatchError where the video was made otherwise, and
    DatasetError where it does not say how it was made.
    """
    video = next(_first_videos(storage), None)
    if video is None:
        # Nothing is stored with which the numbers of this run could mix.
        is_ours = storage.exists(MANIFEST_FILE) and _OURS.issuperset(storage.list_names())
        return DatasetHeader(config, implementation) if is_ours else None
    if video.config is UNSET or video.implementation is UNSET:
        raise DatasetError(
            f"{storage.location} has lost {DATASET_FILE}, and its shards do not say how they were "
            "made, because an earlier flowprep wrote them; restore the file from a copy, or choose "
            "another output folder"
        )
    made_with = read_stored_config(video.config, config)
    stored = DatasetHeader(made_with, video.implementation, versions=video.versions)
    stored.check_same(config, implementation, storage.location)
    return DatasetHeader(config, implementation, versions=video.versions)


def _first_videos(storage: Storage) -> Iterator[VideoMetadata]:
    """Yields the first video of each shard, and of each folder of parts, that has one."""
    names = [shard_name(shard) for shard in sorted(published_tars(storage))]
    for shard in sorted(shards_with_parts(storage)):
        for index, record in recorded_parts(storage, shard, list_parts(storage, shard)):
            if isinstance(record, VideoRecord) and record.status != "failed":
                names.append(part_name(shard, index, "tar"))
    for name in names:
        if (found := first_metadata(storage, name)) is not None:
            yield found


def named_classes(
    known: Sequence[ManifestEntry], videos: Sequence[Video], class_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the names of a listing's classes in the order of the numbers that are stored.

    They are the same, unless classes were added after the data set was begun.
    """
    given = {video.key: video.labels for video in videos}
    names: dict[int, str] = {}
    for entry in known:
        labels = given.get(entry.video.key, ())
        if len(labels) == len(entry.video.labels) and class_names:
            pairs = zip(entry.video.labels, labels, strict=True)
            names |= {number: class_names[label] for number, label in pairs}
    if all(class_names[number : number + 1] == (name,) for number, name in names.items()):
        return class_names
    rest = [name for name in class_names if name not in names.values()]
    numbers = range(max(max(names) + 1, len(class_names)))
    return tuple(names[n] if n in names else rest.pop(0) if rest else str(n) for n in numbers)


# ---- manifest.jsonl


@dataclass(frozen=True)
class LostPlan:
    """What shards and parts say of a plan whose `manifest.jsonl` is lost."""

    entries: list[ManifestEntry]
    """The videos that a record names, in the plan's order as far as it is known."""
    failed: frozenset[str]
    """Those of them of which nobody knows their range, and perhaps not their source."""
    indexed: frozenset[int]
    """Shards with a sidecar, which names all of their videos."""
    unindexed: frozenset[int]
    """Shards with a tar alone: it does not name those that failed."""
    failures: Mapping[str, Failure] | None
    """What `failures.jsonl` says; None where it is lost too."""

    def known(self, videos: Sequence[Video], videos_per_shard: int) -> list[ManifestEntry]:
        """Returns the lost manifest, as far as the `videos` of the same command complete it.

        It is the plan that a first run makes of them, where no shard contradicts it; otherwise it
        is what shards and parts say, and all other videos are new.
        """
        if not self.entries:
            return []
        given = {video.key: video for video in videos}
        entries = []
        for entry in self.entries:
            video = entry.video
            if video.key in self.failed and video.key in given:
                now = given[video.key]
                video = replace(video, start_seconds=now.start_seconds, end_seconds=now.end_seconds)
            entries.append(ManifestEntry(video, entry.shard))
        return self._as_first_run(entries, videos, videos_per_shard) or entries

    def _as_first_run(
        self, entries: Sequence[ManifestEntry], videos: Sequence[Video], videos_per_shard: int
    ) -> list[ManifestEntry] | None:
        known = {entry.video.key: entry for entry in entries}
        last = (len(videos) - 1) // videos_per_shard
        plan = []
        for number, video in enumerate(videos):
            shard = number // videos_per_shard
            entry = known.pop(video.key, None)
            if entry is None:
                if not self._may_hold(shard, video.key):
                    return None
                entry = ManifestEntry(video, shard)
            elif entry.shard != shard and entry.shard <= last:
                return None  # Beyond the last one are those that were tried again.
            plan.append(entry)
        return None if known else plan

    def _may_hold(self, shard: int, key: str) -> bool:
        """Whether a video that no record names can be of a shard."""
        if shard in self.unindexed:
            return self.failures is None or key in self.failures
        return shard not in self.indexed


def read_or_recover_manifest(
    storage: Storage, videos: Sequence[Video], videos_per_shard: int, notes: list[str]
) -> list[ManifestEntry]:
    """Returns the manifest, or what is known of a lost one: `notes` then say so."""
    if storage.exists(MANIFEST_FILE):
        return read_manifest(storage)
    known = read_lost_plan(storage).known(videos, videos_per_shard)
    if known:
        notes.append(f"{MANIFEST_FILE} was lost; made anew from the shards and from the inputs")
    return known


def read_lost_plan(storage: Storage) -> LostPlan:
    """Reads what shards and parts say of their videos; looks at each `KEY.json`."""
    failures = stored_failures(storage)
    videos: dict[str, ManifestEntry] = {}
    failed: set[str] = set()
    indexed, unindexed = set(), set()

    def add(
        record: VideoRecord | VideoMetadata, shard: int, described: VideoMetadata | None
    ) -> None:
        key = record.key
        if described is None:
            source = failures[key].source if failures and key in failures else key
            video = Video(key, source, tuple(record.labels), record.split)
            failed.add(key)
        else:
            failed.discard(key)
            video = Video(
                key,
                described.source,
                tuple(described.labels),
                described.split,
                described.start_seconds,
                described.end_seconds,
            )
        # A video that was tried again keeps its line, and is in the later shard.
        videos[key] = ManifestEntry(video, shard)

    published = published_tars(storage)
    for shard in sorted(published):
        try:
            records = read_sidecar(storage, shard).videos
        except (DatasetError, StorageError):
            records = None
        if records is None:
            unindexed.add(shard)
            for metadata in read_shard(storage, shard).metadata.values():
                add(metadata, shard, metadata)
            continue
        indexed.add(shard)
        for record in records:
            add(record, shard, _described(storage, shard_name(shard), record))
    for shard in sorted(shards_with_parts(storage) - published):
        parts = recorded_parts(storage, shard, list_parts(storage, shard))
        for index, part in sorted(parts, key=lambda item: item[0]):
            if isinstance(part, VideoRecord):
                add(part, shard, _described(storage, part_name(shard, index, "tar"), part))
    return LostPlan(
        list(videos.values()), frozenset(failed), frozenset(indexed), frozenset(unindexed), failures
    )


def _described(storage: Storage, name: str, record: VideoRecord) -> VideoMetadata | None:
    """Returns what a tar says of a video; None of one that failed, or whose part is lost."""
    if record.status == "failed":
        return None
    try:
        return VideoMetadata.from_json(storage.read_range(name, *record.members["json"]))
    except (StorageError, ValueError, KeyError):
        return None
