"""Finds out which videos of a plan earlier runs have finished, and which are left to do.

A finished video has a part and a record in `.parts`, and a finished shard has a sidecar. A new run
finds out everything else again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.failures import (
    failure_of,
    lost_records,
    published_failures,
    stored_failures,
)
from flowprep.dataset.layout import (
    FAILURES_FILE,
    Failure,
    ManifestEntry,
    VideoRecord,
    read_sidecar,
    shard_name,
    sidecar_name,
    write_failures,
    write_manifest,
)
from flowprep.dataset.parts import (
    list_parts,
    part_index,
    recorded_parts,
    remove_part_record,
    remove_parts,
    shards_with_parts,
)
from flowprep.dataset.plan import move_to_new_shards
from flowprep.dataset.read import published_shards
from flowprep.dataset.rebuild import rebuild_lost_sidecars
from flowprep.dataset.write import reopen_shards
from flowprep.errors import DatasetError
from flowprep.run.changed import find_changed
from flowprep.run.found_again import FolderNames, failed_by_node, found_again, with_new_sources
from flowprep.run.job import internal_error_site
from flowprep.run.segments import CutVideos
from flowprep.storage import Storage
from flowprep.words import format_count

__all__ = ["Recovered", "recover"]

log = logging.getLogger("flowprep.run")


@dataclass
class Recovered:
    """The state of a data set when a run begins."""

    entries: list[ManifestEntry]
    """The entries of the manifest. Videos that are tried again have moved to new shards."""
    failures: dict[str, Failure]
    """Failures of the videos that are not tried again, by key."""
    num_found_again: int = 0
    """Number of videos that failed as missing, exist now and are therefore tried again."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what was lost and was restored, and on sources that changed."""
    indices: dict[int, list[int]] = field(default_factory=dict)
    """For each shard that is not published, the lines of its videos in the manifest."""
    remaining: dict[int, list[int]] = field(default_factory=dict)
    """The part of `indices` whose videos are not finished; none if a shard can be published."""

    @property
    def num_remaining(self) -> int:
        """Number of videos that are left to do."""
        return sum(map(len, self.remaining.values()))


def recover(
    storage: Storage,
    config: ExtractConfig,
    options: RunOptions,
    entries: list[ManifestEntry],
    cuts: CutVideos,
) -> Recovered:
    """Finds out what earlier runs have done, and repairs what they left behind.

    `cuts` gets the finished segments. A failed video is tried again if `options` say so, or if it
    was missing and exists now.
    """
    stored = stored_failures(storage)
    published = set(published_shards(storage))
    rebuilt = rebuild_lost_sidecars(storage, entries, config, published, stored)
    notes = [f"{sidecar_name(shard)} was lost; made anew from its tar" for shard in sorted(rebuilt)]
    published |= rebuilt
    if stored is None and published:
        notes.append(f"{FAILURES_FILE} was lost or damaged; made anew from the shards' indexes")
    failures = published_failures(storage, entries, published, stored or {})
    retried = set(failures)
    num_found_again = 0
    if not options.retry_failed:
        retried = found_again(failures, entries)
        num_found_again = len(retried)
        retried |= failed_by_node(failures)
    if retried:
        log.info("trying %d failed videos again", len(retried))
        entries = move_to_new_shards(entries, retried, config.encode.videos_per_shard)
        write_manifest(storage, entries)
    changed = find_changed(storage, entries, published, redo=options.redo_changed)
    notes += changed.notes()
    kept = {key: failure for key, failure in failures.items() if key not in retried}
    reopened = lost_records(kept, entries)
    if reopened:
        count = format_count(sum(map(len, reopened.values())), "video")
        notes.append(f"tried {count} again that failed for a reason that was lost")
    if options.redo_changed:
        for shard, keys in changed.by_shard.items():
            reopened.setdefault(shard, set()).update(keys)
    published -= reopen_shards(storage, entries, reopened)
    # The failed videos of these shards are parts again, like their stored videos.
    for entry in entries:
        if entry.shard in reopened:
            kept.pop(entry.video.key, None)
    found = Recovered(entries, with_new_sources(kept, entries), num_found_again, notes)
    _remove_emptied_shards(storage, entries, published)
    for index, entry in enumerate(entries):
        if entry.shard not in published:
            found.indices.setdefault(entry.shard, []).append(index)
    folder_names = FolderNames()
    for shard, indices in found.indices.items():
        finished = _finished_parts(storage, shard, found, folder_names, options, cuts)
        found.remaining[shard] = [index for index in indices if index not in finished]
    for shard in shards_with_parts(storage) - found.indices.keys():
        remove_parts(storage, shard)
    if found.failures != stored:
        write_failures(storage, found.failures.values())
    return found


def _remove_emptied_shards(
    storage: Storage, entries: list[ManifestEntry], published: set[int]
) -> None:
    """Removes shards that hold nothing and whose failed videos have all moved to new ones."""
    for shard in sorted(published - {entry.shard for entry in entries}):
        try:
            videos = read_sidecar(storage, shard).videos
        except DatasetError:  # `verify` names what is wrong
            continue
        if all(video.status == "failed" for video in videos):
            log.info("removing %s: its videos all failed and moved", shard_name(shard))
            # The sidecar is removed last. A tar without a sidecar would look as if it had lost it.
            storage.remove(shard_name(shard))
            storage.remove(sidecar_name(shard))
            published.remove(shard)


def _finished_parts(
    storage: Storage,
    shard: int,
    found: Recovered,
    folder_names: FolderNames,
    options: RunOptions,
    cuts: CutVideos,
) -> set[int]:
    """Returns the manifest's lines of the videos with a part; adds failed videos to `found`."""
    finished = set()
    planned = set(found.indices[shard])
    names = [name for name in list_parts(storage, shard) if part_index(name) in planned]
    for index, record in recorded_parts(storage, shard, names):
        if isinstance(record, DatasetError):
            log.warning("%s; its video is extracted again", record)
            remove_part_record(storage, shard, index)
            continue
        if not _is_part_of(found.entries, shard, index, record) or (
            record.status != "failed" and f"{index:08d}.tar" not in names
        ):
            log.warning("%s: its part is lost; it is extracted again", record.key)
            remove_part_record(storage, shard, index)
            continue
        video = found.entries[index].video
        # An internal error counts only once its shard is published. So if the run was stopped
        # before that, the video is tried again.
        is_internal = internal_error_site(record) is not None
        is_there_now = record.reason == "missing" and folder_names.holds(video.source)
        is_node_fault = record.fault == "node"
        tries_again = options.retry_failed or is_internal or is_there_now or is_node_fault
        if record.status == "failed" and tries_again:
            found.num_found_again += is_there_now
            remove_part_record(storage, shard, index)
            continue
        if record.status == "failed":
            found.failures[record.key] = failure_of(record, video.source)
        finished.add(index)
    cuts.recover(shard, names, finished)
    return finished


def _is_part_of(
    entries: Sequence[ManifestEntry], shard: int, index: int, record: VideoRecord
) -> bool:
    """Whether a part is of the video that the manifest has on its line: it may be a new one."""
    if index >= len(entries):
        return False
    entry = entries[index]
    return (entry.shard, entry.video.key) == (shard, record.key)
