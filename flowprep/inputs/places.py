"""Functions on the inputs' files and folders that treat paths and URLs alike."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import Literal

from flowprep.storage import Storage
from flowprep.urls import is_url, parent_url

__all__ = ["common_folder", "kind_of", "names_in", "read_place", "storage_of"]


PlaceKind = Literal["file", "folder"]


@functools.lru_cache(maxsize=16)
def storage_of(folder: str) -> Storage:
    """Returns the storage of a folder on an object store."""
    return Storage(folder)


def kind_of(place: str) -> PlaceKind | None:
    """Returns what a path or a URL names, or None if nothing exists there."""
    if not is_url(place):
        return "folder" if os.path.isdir(place) else "file" if os.path.exists(place) else None
    folder, name = parent_url(place.rstrip("/"))
    if not is_url(f"{folder}/"):  # a bucket
        info = storage_of(place.rstrip("/")).info("")
    else:
        info = storage_of(folder).info(name)
    return None if info is None else "folder" if info.is_folder else "file"


def names_in(folder: str) -> list[str]:
    """Returns the names in a folder. Raises OSError or StorageError if it cannot be read."""
    return storage_of(folder).list_names() if is_url(folder) else os.listdir(folder)


def read_place(place: str) -> bytes:
    """Returns the bytes of a file. Raises OSError or StorageError if it cannot be read."""
    if is_url(place):
        folder, name = parent_url(place)
        return storage_of(folder).read_bytes(name)
    with open(place, "rb") as file:
        return file.read()


def common_folder(folders: Iterable[str]) -> str | None:
    """Returns the deepest folder that contains all `folders`. None for a mix of paths and URLs."""
    folders = list(folders)
    if not any(map(is_url, folders)):
        return os.path.commonpath(folders)
    shared = list[str]()
    for parts in zip(*(folder.split("/") for folder in folders), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    # A common folder has at least the scheme and the bucket.
    return "/".join(shared) if len(shared) > 2 else None
