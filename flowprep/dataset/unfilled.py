"""A data set in which no video is stored can begin anew, with other options.

A first run that failed, or was stopped at once, leaves a plan, and perhaps records of failures.
They must not bind the next one: there is nothing with which its numbers could mix.
"""

from __future__ import annotations

from flowprep.dataset.layout import (
    FAILURES_FILE,
    MANIFEST_FILE,
    SHARDS_FOLDER,
    read_sidecar,
    shard_name,
    sidecar_name,
)
from flowprep.dataset.parts import list_parts, parts_folder, shards_with_parts
from flowprep.dataset.read import published_shards
from flowprep.dataset.rebuild import published_tars
from flowprep.errors import DatasetError, StorageError
from flowprep.storage import Storage

__all__ = ["clear_unfilled", "is_unfilled", "unfilled_note"]


def is_unfilled(storage: Storage) -> bool:
    """Whether no video is stored, nor a part of one. What cannot be read counts as stored."""
    published = set(published_shards(storage))
    if published_tars(storage) - published:
        return False
    try:
        for shard in published:
            if any(record.status != "failed" for record in read_sidecar(storage, shard).videos):
                return False
    except (DatasetError, StorageError):
        return False
    names = (name for shard in shards_with_parts(storage) for name in list_parts(storage, shard))
    return all(name.endswith(".json") for name in names)


def clear_unfilled(storage: Storage) -> None:
    """Removes the plan and the records of failures; a new `dataset.json` takes the old one's place.

    Call it only where `is_unfilled` says so. The plan goes last, so that what is left of a call
    that was stopped is unfilled too.
    """
    for shard in shards_with_parts(storage):
        for name in list_parts(storage, shard):
            storage.remove(f"{parts_folder(shard)}/{name}")
        storage.remove_empty_folder(parts_folder(shard))
    for shard in published_shards(storage):
        storage.remove(sidecar_name(shard))
        storage.remove(shard_name(shard))
    storage.remove_empty_folder(SHARDS_FOLDER)
    for name in (FAILURES_FILE, MANIFEST_FILE):
        storage.remove(name)


def unfilled_note(storage: Storage, changed: list[str]) -> str:
    """Returns the sentence on a data set that begins anew, with the names of what changed."""
    what = f" ({', '.join(changed)} changed)" if changed else ""
    return f"{storage.location} held no video yet, so it was begun anew with this command{what}"
