"""Parts: finished videos of shards that are not published yet, and leftovers of killed runs.

A part is a file `.parts/SHARD/INDEX.tar`, which holds one video in the form of the shard, and its
record `INDEX.json`. The record is written last and says that the part is whole. An empty record
says that it is not. Records are emptied instead of removed, because a driver that was taken over
could remove the new record of its successor, but cannot overwrite it (`lease`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from flowprep.dataset.foreign import PartSuffix, folder_number, is_part_file
from flowprep.dataset.labels import remove_temporary_labels
from flowprep.dataset.layout import (
    LOGS_FOLDER,
    PARTS_FOLDER,
    SHARDS_FOLDER,
    VideoRecord,
    sidecar_name,
)
from flowprep.errors import DatasetError
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage

__all__ = [
    "find_part_record",
    "holds_published_alone",
    "list_parts",
    "num_finished_parts",
    "part_index",
    "part_name",
    "parts_folder",
    "read_part_record",
    "recorded_parts",
    "remove_all_parts",
    "remove_part_record",
    "remove_parts",
    "remove_temporary_files",
    "shards_with_parts",
    "write_part_record",
]


def shards_with_parts(storage: Storage) -> set[int]:
    """Returns the shards that have a folder of parts."""
    numbers = map(folder_number, storage.list_names(PARTS_FOLDER))
    return {number for number in numbers if number is not None}


def holds_published_alone(storage: Storage) -> bool:
    """Whether there are only parts of published shards, which have no meaning any more.

    A driver that was taken over may leave some on an object store. The next run removes them. Files
    that no run wrote do not count.
    """
    names = storage.list_names(PARTS_FOLDER)
    return bool(names) and all(_has_no_meaning(storage, folder_number(name)) for name in names)


def _has_no_meaning(storage: Storage, shard: int | None) -> bool:
    if shard is None or storage.exists(sidecar_name(shard)):
        return True
    inside = storage.list_names(parts_folder(shard))
    return bool(inside) and not any(map(is_part_file, inside))


def list_parts(storage: Storage, shard: int) -> list[str]:
    """Returns the names of what runs wrote into a shard's folder of parts, in no order."""
    return [name for name in storage.list_names(parts_folder(shard)) if is_part_file(name)]


def part_index(name: str) -> int:
    """Returns the manifest's line that a file of `list_parts` belongs to."""
    return int(name.partition(".")[0])


def recorded_parts(
    storage: Storage, shard: int, names: Iterable[str]
) -> Iterator[tuple[int, VideoRecord | DatasetError]]:
    """Yields the manifest line and the record of each part of a shard, or why it cannot be read.

    `names` are the names from `list_parts`. A record is damaged if a machine's disk lost the last
    writes. Its video is then not finished.
    """
    for name in names:
        if name.partition(".")[2] != "json":
            continue
        index = part_index(name)
        try:
            record = find_part_record(storage, shard, index)
        except DatasetError as error:
            yield index, error
        else:
            if record is not None:
                yield index, record


def num_finished_parts(storage: Storage, shard: int) -> int:
    """Counts the finished videos of a shard that is not published yet, without reading records."""
    entries = storage.list_entries(parts_folder(shard))
    records = (entry for entry in entries if is_part_file(entry.name))
    return sum(entry.name.endswith(".json") and entry.size != 0 for entry in records)


def remove_part_record(storage: Storage, shard: int, index: int) -> None:
    """Empties the record of a part, so that its video counts as not finished."""
    storage.write_bytes(part_name(shard, index, "json"), b"", lasting=False)


def remove_parts(storage: Storage, shard: int) -> None:
    """Removes the parts of a published shard. Files that no run wrote stay."""
    folder = parts_folder(shard)
    names = storage.list_names(folder)
    ours = list(filter(is_part_file, names))
    if len(ours) == len(names):
        storage.remove(folder)
        return
    for name in ours:
        storage.remove(f"{folder}/{name}")


def remove_all_parts(storage: Storage, published: Collection[int]) -> None:
    """Removes all that is left of parts, except the parts of shards that are not `published`.

    A run that took over may have planned shards that this run does not know.
    """
    for shard in sorted(shards_with_parts(storage).intersection(published)):
        remove_parts(storage, shard)
    storage.remove_empty_folder(PARTS_FOLDER)


def remove_temporary_files(storage: Storage) -> None:
    """Removes files that a killed or suspended run left half-written.

    A suspended run then cannot give them a name any more. Object stores have no such files.
    """
    if not storage.is_local:
        return
    parts = [entry for entry in storage.list_entries(PARTS_FOLDER) if entry.is_folder]
    folders = [f"{PARTS_FOLDER}/{entry.name}" for entry in parts]
    for folder in ("", SHARDS_FOLDER, LOGS_FOLDER, *folders):
        for name in storage.list_names(folder):
            if TEMPORARY_MARK in name:
                storage.remove(f"{folder}/{name}" if folder else name)
    # Somebody may be labeling the data set right now.
    remove_temporary_labels(storage)


def parts_folder(shard: int) -> str:
    """Returns the folder of a shard's parts."""
    return f"{PARTS_FOLDER}/{shard:06d}"


def read_part_record(storage: Storage, shard: int, index: int) -> VideoRecord:
    """Reads the record of a finished video of a shard that is not published yet.

    Raises DatasetError if the record is damaged. The video is then not finished.
    """
    return _record(storage, shard, index, storage.read_bytes(part_name(shard, index, "json")))


def find_part_record(storage: Storage, shard: int, index: int) -> VideoRecord | None:
    """Reads a record like `read_part_record`. Returns None if the video is not finished."""
    content = storage.read_if_there(part_name(shard, index, "json"))
    return _record(storage, shard, index, content) if content else None


def _record(storage: Storage, shard: int, index: int, content: bytes) -> VideoRecord:
    name = part_name(shard, index, "json")
    try:
        return VideoRecord.from_json(content)
    except ValueError as error:
        raise DatasetError(
            f"{storage.location}: {name} is damaged ({error}); run the same extract again"
        ) from error


def write_part_record(storage: Storage, shard: int, index: int, record: VideoRecord) -> None:
    """Publishes a part's record, which says that the part is whole."""
    content = json.dumps(record.to_dict()).encode()
    storage.write_bytes(part_name(shard, index, "json"), content, lasting=False)


def part_name(shard: int, index: int, suffix: PartSuffix) -> str:
    """Returns the name of a file of a video in `.parts`. `index` is its line in the manifest."""
    return f"{PARTS_FOLDER}/{shard:06d}/{index:08d}.{suffix}"
