"""Which videos failed. The sidecars say it, and `failures.jsonl` repeats it in one file.

    publish_shard    record of a failed video in the sidecar    what counts
    write_failures   failures.jsonl                             the same of all shards, and sources

So `failures.jsonl` can be lost, damaged or out of date. It is then made anew from the sidecars.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from flowprep.dataset.layout import (
    FAILURES_FILE,
    Failure,
    ManifestEntry,
    Sidecar,
    VideoRecord,
    decode_sidecar,
    read_failures,
    sidecar_name,
)
from flowprep.dataset.read_ahead import read_ahead
from flowprep.errors import DatasetError
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from flowprep.urls import redacted

__all__ = [
    "failed_in",
    "failure_of",
    "is_same_failure",
    "lost_records",
    "published_failures",
    "stored_failures",
]

log = logging.getLogger("flowprep.dataset")


def failure_of(record: VideoRecord, source: str) -> Failure:
    """Returns what `failures.jsonl` says of a video whose record has failed."""
    assert record.reason is not None
    return Failure(
        record.key,
        redacted(source),
        record.reason,
        record.message or "",
        record.attempts,
        record.fault or "video",
    )


def is_same_failure(one: Failure, other: Failure) -> bool:
    """Whether two say the same, wherever the video was looked for."""
    first, second = (
        (failure.reason, failure.fault, _plain(failure.message)) for failure in (one, other)
    )
    return first == second


def _plain(message: str) -> str:
    # As a sidecar stores it.
    return message.encode("utf-8", "backslashreplace").decode()


def stored_failures(storage: Storage) -> dict[str, Failure] | None:
    """Returns what `failures.jsonl` says; None where it is lost or damaged."""
    if not storage.exists(FAILURES_FILE):
        return None
    try:
        return read_failures(storage)
    except DatasetError as error:
        log.warning("%s", error)
        return None


def failed_in(
    sidecar: Sidecar, planned: Mapping[str, Video], stored: Mapping[str, Failure]
) -> Iterator[Failure]:
    """Yields the failures that a sidecar records of the videos that are `planned` in its shard.

    What `stored` says of where a video was looked for is kept; otherwise it is the plan's source.
    """
    for record in sidecar.videos:
        # One that was tried again is in another shard.
        if record.status != "failed" or record.key not in planned:
            continue
        failure = failure_of(record, planned[record.key].source)
        known = stored.get(record.key)
        yield known if known is not None and is_same_failure(known, failure) else failure


def lost_records(
    failures: Mapping[str, Failure], entries: Iterable[ManifestEntry]
) -> dict[int, set[str]]:
    """Returns the keys of videos that failed for a reason that was lost, by shard."""
    lost: dict[int, set[str]] = {}
    for entry in entries:
        failure = failures.get(entry.video.key)
        if failure is not None and failure.reason == "record-lost":
            lost.setdefault(entry.shard, set()).add(entry.video.key)
    return lost


def published_failures(
    storage: Storage,
    entries: Sequence[ManifestEntry],
    published: Collection[int],
    stored: Mapping[str, Failure],
) -> dict[str, Failure]:
    """Returns the failures of published shards, in the manifest's order, as their sidecars say.

    Of a shard whose sidecar is damaged, which `verify` names, it is what `stored` says.
    """
    failures: dict[str, Failure] = {}
    damaged: set[int] = set()
    for shard, sidecar in _sidecars_with_failures(storage, sorted(published)):
        if sidecar is None:
            damaged.add(shard)
            continue
        planned = {entry.video.key: entry.video for entry in entries if entry.shard == shard}
        failures |= {failure.key: failure for failure in failed_in(sidecar, planned, stored)}
    keys = [entry.video.key for entry in entries if entry.shard in damaged]
    failures |= {key: stored[key] for key in keys if key in stored}
    return failures


def _sidecars_with_failures(
    storage: Storage, shards: Iterable[int]
) -> Iterator[tuple[int, Sidecar | None]]:
    """Yields the sidecars that record a failed video; None in place of a damaged one."""

    def read(shard: int) -> tuple[int, Sidecar | None] | None:
        content = storage.read_bytes(sidecar_name(shard))
        # Most have none, and a million records are not parsed for it.
        if b'"failed"' not in content:
            return None
        try:
            return shard, decode_sidecar(storage, shard, content)
        except DatasetError as error:
            log.warning("%s", error)
            return shard, None

    for found in read_ahead(storage, list(shards), read):
        if found is not None:
            yield found
