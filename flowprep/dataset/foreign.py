"""Files in the folders of shards and parts that no run wrote: named in a note, and left alone.

Finder leaves `.DS_Store`, NFS `.nfs0000`, people copies such as `000001.tar.bak`. What a run writes
there has names of its own; all others are nobody's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from flowprep.dataset.layout import PARTS_FOLDER, SHARDS_FOLDER, read_sidecar
from flowprep.errors import DatasetError, StorageError
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage
from flowprep.words import format_count

__all__ = [
    "PartSuffix",
    "SegmentSuffix",
    "ShardFiles",
    "folder_number",
    "foreign_notes",
    "is_part_file",
    "list_shards",
]

_SHARD_FILE = re.compile(r"([0-9]{6,18})\.(tar|json)")
PartSuffix = Literal["tar", "json", "stall", "cut"]
"""Of the files of a video whose shard is not published."""
SegmentSuffix = Literal["mjpg", "segment", "stall"]
"""Of the files of a segment whose video is not joined."""
_PART_FILE = re.compile(
    rf"([0-9]{{8,18}})\.({'|'.join(get_args(PartSuffix))}|"
    rf"[0-9]{{9,18}}-[0-9]{{9,18}}\.({'|'.join(get_args(SegmentSuffix))}))"
)
_MAX_NAMED = 3


@dataclass(frozen=True)
class ShardFiles:
    """What lies in the folder of the shards."""

    published: tuple[int, ...]
    """Shards with a sidecar, in order."""
    tars: frozenset[int]
    foreign: tuple[str, ...]
    """Names of what no run wrote."""


def list_shards(storage: Storage) -> ShardFiles:
    """Returns what lies in the folder of the shards, by one look at it."""
    found: dict[str, set[int]] = {"tar": set(), "json": set()}
    foreign = []
    for name in storage.list_names(SHARDS_FOLDER):
        match = _SHARD_FILE.fullmatch(name)
        if match is not None and f"{int(match[1]):06d}" == match[1]:
            found[match[2]].add(int(match[1]))
        elif TEMPORARY_MARK not in name:
            foreign.append(name)
    tars = frozenset(found["tar"])
    # Only that of a shard whose tar is gone may be anything at all.
    strays = {shard for shard in found["json"] - tars if not _is_sidecar(storage, shard)}
    foreign += [f"{shard:06d}.json" for shard in strays]
    return ShardFiles(tuple(sorted(found["json"] - strays)), tars, tuple(sorted(foreign)))


def _is_sidecar(storage: Storage, shard: int) -> bool:
    try:
        read_sidecar(storage, shard)
    except DatasetError:
        return False
    except StorageError as error:
        # A folder of that name, for one.
        if error.reason != "other":
            raise
        return False
    return True


def folder_number(name: str) -> int | None:
    """Returns the shard whose parts the folder `name` holds; None where no run wrote it."""
    is_number = name.isascii() and name.isdigit() and len(name) <= 18
    return int(name) if is_number and f"{int(name):06d}" == name else None


def is_part_file(name: str) -> bool:
    """Whether a run wrote this file into the folder of a shard's parts."""
    match = _PART_FILE.fullmatch(name)
    is_ours = match is not None and f"{int(match[1]):08d}" == match[1]
    return is_ours or TEMPORARY_MARK in name


def foreign_notes(storage: Storage, shards: Iterable[str] | None = None) -> list[str]:
    """Returns a sentence on the files that no run wrote, if there are any.

    `shards` are the foreign names among the shards, if the caller knows them.
    """
    if shards is None:
        shards = list_shards(storage).foreign
    names = [f"{SHARDS_FOLDER}/{name}" for name in shards]
    for name in storage.list_names(PARTS_FOLDER):
        if folder_number(name) is None:
            names.append(f"{PARTS_FOLDER}/{name}")
            continue
        inside = storage.list_names(f"{PARTS_FOLDER}/{name}")
        names += [f"{PARTS_FOLDER}/{name}/{one}" for one in inside if not is_part_file(one)]
    if not names:
        return []
    shown = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
    what = "was not written by flowprep and is ignored"
    if len(names) > 1:
        what = "were not written by flowprep and are ignored"
    return [f"{format_count(len(names), 'file')} in {storage.location} {what}: {shown}"]
