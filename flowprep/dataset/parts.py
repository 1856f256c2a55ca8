"""Parts: finished videos of shards that are not published yet, and leftovers of killed runs.

A part is a file `.parts/SHARD/INDEX.tar`, which holds one video in the form of the shard, and its
record `INDEX.json`. The record is written last and says that the part is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Literal

from flowprep.dataset.foreign import folder_number, is_part_file
from flowprep.dataset.labels import remove_temporary_labels
from flowprep.dataset.layout import PARTS_FOLDER, SHARDS_FOLDER, VideoRecord
from flowprep.errors import DatasetError
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage

__all__ = [
    "list_parts",
    "part_index",
    "part_name",
    "parts_folder",
    "read_part_record",
    "recorded_parts",
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
            yield index, read_part_record(storage, shard, index)
        except DatasetError as error:
            yield index, error


def remove_part_record(storage: Storage, shard: int, index: int) -> None:
    """Removes the record of a part, so that its video counts as not finished."""
    storage.remove(part_name(shard, index, "json"))


def remove_parts(storage: Storage, shard: int | None = None) -> None:
    """Removes the parts of a shard, or of every shard; what no run wrote stays where it is."""
    if shard is not None:
        _remove_part_files(storage, shard)
        return
    names = storage.list_names(PARTS_FOLDER)
    shards = shards_with_parts(storage) if names else set()
    are_empty = [_remove_part_files(storage, one) for one in sorted(shards)]
    if all(are_empty) and len(shards) == len(names):
        storage.remove(PARTS_FOLDER)


def _remove_part_files(storage: Storage, shard: int) -> bool:
    """Returns whether nothing else was in the folder, which is gone then."""
    folder = parts_folder(shard)
    names = storage.list_names(folder)
    ours = list(filter(is_part_file, names))
    if len(ours) == len(names):
        storage.remove(folder)
        return True
    for name in ours:
        storage.remove(f"{folder}/{name}")
    return False


def remove_temporary_files(storage: Storage) -> None:
    """Removes files that a killed run left half-written."""
    for folder in ("", SHARDS_FOLDER):
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
    name = part_name(shard, index, "json")
    try:
        return VideoRecord.from_json(storage.read_bytes(name))
    except ValueError as error:
        raise DatasetError(
            f"{storage.location}: {name} is damaged ({error}); run the same extract again"
        ) from error


def write_part_record(storage: Storage, shard: int, index: int, record: VideoRecord) -> None:
    """Publishes a part's record, which says that the part is whole."""
    storage.write_bytes(part_name(shard, index, "json"), json.dumps(record.to_dict()).encode())


def part_name(shard: int, index: int, suffix: Literal["tar", "json", "stall", "cut"]) -> str:
    """Returns the name of a file of a video in `.parts`. `index` is its line in the manifest."""
    return f"{PARTS_FOLDER}/{shard:06d}/{index:08d}.{suffix}"
