"""What earlier runs have done with the videos of a plan, and what is left to do.

A finished video is a part with a record in `.parts`, a finished shard has a sidecar; whatever else
a run knew, this one finds out again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.layout import (
    FAILURES_FILE,
    Failure,
    ManifestEntry,
    VideoRecord,
    read_failures,
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
from flowprep.errors import DatasetError
from flowprep.inputs.video import Video
from flowprep.run.found_again import FolderNames, found_again, with_new_sources
from flowprep.run.job import internal_error_site
from flowprep.run.segments import CutVideos
from flowprep.storage import Storage
from flowprep.urls import redacted

__all__ = ["Recovered", "failure_of", "recover"]

log = logging.getLogger("flowprep.run")


@dataclass
class Recovered:
    """How far a data set is when a run begins."""

    entries: list[ManifestEntry]
    """The manifest; videos that are tried again have moved to new shards."""
    failures: dict[str, Failure]
    """Of videos that are not tried again, by key."""
    num_found_again: int = 0
    """Videos that failed as missing, are there now, and are tried again for that."""
    indices: dict[int, list[int]] = field(default_factory=dict)
    """The manifest's lines of each shard that is not published."""
    remaining: dict[int, list[int]] = field(default_factory=dict)
    """Those of them whose videos are not finished; none where the shard is to be published."""

    @property
    def num_remaining(self) -> int:
        """Videos that are left to do."""
        return sum(map(len, self.remaining.values()))


def recover(
    storage: Storage,
    config: ExtractConfig,
    options: RunOptions,
    entries: list[ManifestEntry],
    cuts: CutVideos,
) -> Recovered:
    """Finds out what earlier runs have done, and mends what they left behind.

    `cuts` gets the segments that are finished. Failed videos are tried again where `options` say
    so, and where they were missing and are there now.
    """
    stored_failures = read_failures(storage)
    published = set(published_shards(storage))
    published |= rebuild_lost_sidecars(storage, entries, config, published, stored_failures)
    failures = {
        entry.video.key: stored_failures[entry.video.key]
        for entry in entries
        if entry.shard in published and entry.video.key in stored_failures
    }
    retried = set(failures)
    num_found_again = 0
    if not options.retry_failed:
        retried = found_again(failures, entries)
        num_found_again = len(retried)
    if retried:
        log.info("trying %d failed videos again", len(retried))
        entries = move_to_new_shards(entries, retried, config.encode.videos_per_shard)
        write_manifest(storage, entries)
    kept = {key: failure for key, failure in failures.items() if key not in retried}
    found = Recovered(entries, with_new_sources(kept, entries), num_found_again)
    _remove_emptied_shards(storage, entries, published)
    for index, entry in enumerate(entries):
        if entry.shard not in published:
            found.indices.setdefault(entry.shard, []).append(index)
    folder_names = FolderNames()
    for shard, indices in found.indices.items():
        finished = _finished_parts(storage, shard, found, folder_names, options, cuts)
        found.remaining[shard] = [index for index in indices if index not in finished]
    for shard in shards_with_parts(storage) & published:
        remove_parts(storage, shard)
    if found.failures != stored_failures or not storage.exists(FAILURES_FILE):
        write_failures(storage, found.failures.values())
    return found


def _remove_emptied_shards(
    storage: Storage, entries: list[ManifestEntry], published: set[int]
) -> None:
    """Removes shards that hold nothing and whose failed videos have all moved to new ones."""
    for shard in sorted(published - {entry.shard for entry in entries}):
        try:
            videos = read_sidecar(storage, shard).videos
        except DatasetError:  # whatever it is, `verify` names it
            continue
        if all(video.status == "failed" for video in videos):
            log.info("removing %s: its videos all failed and moved", shard_name(shard))
            # The sidecar goes last: without it the tar would count as one that lost its own.
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
    """Returns the manifest's lines of the videos that have a part; failed ones join `found`."""
    finished = set()
    planned = set(found.indices[shard])
    names = [name for name in list_parts(storage, shard) if part_index(name) in planned]
    for index, record in recorded_parts(storage, shard, names):
        if isinstance(record, DatasetError):
            log.warning("%s; its video is extracted again", record)
            remove_part_record(storage, shard, index)
            continue
        video = found.entries[index].video
        # An internal error counts once its shard is public, so not in a run that was stopped.
        is_internal = internal_error_site(record) is not None
        is_there_now = record.reason == "missing" and folder_names.holds(video.source)
        tries_again = options.retry_failed or is_internal or is_there_now
        if record.status == "failed" and tries_again:
            found.num_found_again += is_there_now
            remove_part_record(storage, shard, index)
            continue
        if record.status == "failed":
            found.failures[record.key] = failure_of(video, record)
        finished.add(index)
    cuts.recover(shard, names, finished)
    return finished


def failure_of(video: Video, record: VideoRecord) -> Failure:
    """Returns what `failures.jsonl` says of a video whose record has failed."""
    assert record.reason is not None
    source = redacted(video.source)
    return Failure(record.key, source, record.reason, record.message or "", record.attempts)
