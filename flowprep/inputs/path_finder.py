"""Finds the paths of a list on disk or on an object store.

    PathFinder.find:  the path itself -> other spellings in its folder
                      -> every folder below the base

A list costs one listing for each folder with listed files, and no access to single files. The base
is searched only if a path does not exist.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from flowprep.errors import InputError, StorageError
from flowprep.inputs.entries import Difference, path_below
from flowprep.inputs.name_index import (
    Names,
    VideoIndex,
    ambiguous,
    difference_of,
    fold,
)
from flowprep.inputs.places import PlaceKind, names_in, storage_of
from flowprep.inputs.tree import (
    VIDEO_EXTENSIONS,
    extension_of,
    is_folder,
    is_frame_image,
    walk,
)
from flowprep.urls import is_url, without_query

__all__ = ["Hit", "PathFinder", "join_path"]

_MOST_FOLDERS = 2_000
"""The most folders below a list's folder to search, if the user did not name the videos' folder."""

_DRIVE = re.compile(r"[A-Za-z]:(?=/)")
_VIDEO_AND_MORE = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(VIDEO_EXTENSIONS)))})[\s,;]", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Hit:
    """An existing file or folder that a listed path means."""

    source: str
    kind: PlaceKind
    difference: Difference | None = None
    """How the path differs from the listed path. A hit is a guess unless only extensions differ."""


class PathFinder:
    """Finds listed paths, which start from `base`."""

    def __init__(self, base: str, *, base_is_named: bool) -> None:
        self.base = base
        self._folders: dict[str, dict[str, PlaceKind]] = {}
        self._names: dict[str, Names[tuple[str, PlaceKind]]] = {}
        self._real_folders: dict[str, str | None] = {}
        self._found: dict[str, Hit | None] = {}
        self.base_is_named = base_is_named
        self._index: VideoIndex | None = None
        self._is_indexed = False

    def kind(self, path: str) -> PlaceKind | None:
        """Returns what exists at exactly this path."""
        if path.startswith(("http://", "https://")):
            # A web server lists nothing. A video that is not there fails when it is extracted.
            is_video = extension_of(without_query(path)) in VIDEO_EXTENSIONS
            return "file" if is_video and " " not in path and "\t" not in path else None
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(parent)
        return (self._listing(parent) if folder is None else folder).get(name)

    def find(self, listed: str, *, deep: bool = True) -> Hit | None:
        """Returns the video that a listed path means if nothing exists at exactly this path.

        `deep` also searches the folders below the base. Raises InputError if two videos fit equally
        well.
        """
        known = self._found.get(listed)
        if known is None and (listed not in self._found or deep):
            known = self._found[listed] = self._find(listed, deep)
        return known

    def video_beside(self, folder: str) -> Hit | None:
        """Returns the video file beside `folder` that a listed name without extension means.

        Returns None if `folder` contains images, because then the name means the folder. Raises
        InputError if two files fit.
        """
        parent, _, name = folder.rpartition("/")
        of_stem = next(self._names_in(parent).levels(name), [])
        files = [other for other, kind in of_stem if kind == "file"]
        if not files or _holds_images(folder):
            return None
        if len(files) > 1:
            raise ambiguous(name, [f"{parent}/{file}" for file in files])
        return Hit(f"{parent}/{files[0]}", "file")

    def suggest(self, path: str) -> list[str]:
        """Returns the existing paths that are most similar to a missing path."""
        parent, _, name = path.rpartition("/")
        near = []
        if (real := self._real_folder(parent)) is not None:
            near = [f"{real}/{other}" for other, _ in self._names_in(real).suggest(name)]
        if (index := self._searched()) is not None:
            near += [index.path_of(relative) for relative in index.suggest(path)]
        return near

    def _find(self, listed: str, deep: bool) -> Hit | None:
        if listed.startswith(("http://", "https://")):
            return None
        readings = [listed]
        if "\\" in listed:
            readings.append(_DRIVE.sub("", listed.replace("\\", "/")))
        for number, reading in enumerate(readings):
            source = join_path(self.base, reading)
            if number and (kind := self.kind(source)) is not None:
                return Hit(source, kind, "backslash")
            if hit := self._near(source):
                return Hit(
                    hit.source, hit.kind, hit.difference or ("backslash" if number else None)
                )
        if deep and (index := self._searched()) is not None:
            below = path_below(source, self.base)
            if found := index.find_path(source if below is None else below):
                return Hit(index.path_of(found[0]), "folder" if found[1] else "file", "folder")
        return None

    def _near(self, path: str) -> Hit | None:
        """Looks for a video whose path is another spelling of this path, folder by folder."""
        parent, _, name = path.rpartition("/")
        real = self._real_folder(parent)
        if real is None:
            return None
        for level in self._names_in(real).levels(name):
            fitting = [
                (other, kind)
                for other, kind in level
                if kind == "file" or _holds_images(f"{real}/{other}")
            ]
            if len(fitting) > 1:
                raise ambiguous(path, [f"{real}/{other}" for other, _ in fitting])
            if fitting:
                other, kind = fitting[0]
                source = f"{real}/{other}"
                difference = difference_of(path, source)
                if difference is None and extension_of(name) in VIDEO_EXTENSIONS:
                    same = extension_of(name) == extension_of(other)
                    difference = None if same else "extension"
                return Hit(source, kind, difference)
        return None

    def _real_folder(self, folder: str) -> str | None:
        """Returns the folder itself, or the only folder whose path is another spelling of it."""
        if folder not in self._real_folders:
            self._real_folders[folder] = self._look_for_folder(folder)
        return self._real_folders[folder]

    def _look_for_folder(self, folder: str) -> str | None:
        if self._listing(folder) or folder in ("", self.base):
            return folder
        if is_url(folder) and path_below(folder, self.base) is None:
            return None  # Of a store, only the folders below the base are listed.
        parent, _, name = folder.rpartition("/")
        real = self._real_folder(parent)
        if real is None:
            return None
        wanted = fold(name)
        near = [n for n, kind in self._listing(real).items() if kind == "folder"]
        if name in near:
            return f"{real}/{name}"
        near = [other for other in near if fold(other) == wanted]
        return f"{real}/{near[0]}" if len(near) == 1 else None

    def _names_in(self, folder: str) -> Names[tuple[str, PlaceKind]]:
        if folder not in self._names:
            self._names[folder] = Names(
                (name, kind == "folder", (name, kind))
                for name, kind in self._listing(folder).items()
                if not name.startswith(".")
                and (kind == "folder" or extension_of(name) in VIDEO_EXTENSIONS)
            )
        return self._names[folder]

    def _searched(self) -> VideoIndex | None:
        """Returns every video below the base, or None if the base cannot be searched."""
        if not self._is_indexed:
            self._is_indexed = True
            num_folders = 0

            def enters(_: str) -> bool:
                nonlocal num_folders
                num_folders += 1
                return self.base_is_named or num_folders <= _MOST_FOLDERS

            if not self.base.startswith(("http://", "https://")):
                # If a folder cannot be read, the missing videos stay missing.
                with contextlib.suppress(InputError, StorageError):
                    tree = walk(self.base or "/", None, enters)
                    self._index = VideoIndex(tree) if tree.videos else None
        return self._index

    def _listing(self, folder: str) -> dict[str, PlaceKind]:
        if folder not in self._folders:
            self._folders[folder] = _list_folder(folder or "/")
        return self._folders[folder]


def join_path(base: str, path: str) -> str:
    """Returns the absolute form of a listed path, without `.`, `..` and slashes at its end."""
    if is_url(path):
        return path
    joined = path if path[0] == "/" else f"{base}/{path}"
    if is_url(joined):
        scheme, _, rest = joined.partition("://")
        return f"{scheme}://{os.path.normpath(rest)}"
    if "//" in joined or "/." in joined or joined[-1] == "/":
        # normpath alone would keep two slashes at the very beginning.
        return "/" + os.path.normpath(joined).lstrip("/")
    return joined


def _holds_images(folder: str) -> bool:
    try:
        return any(map(is_frame_image, names_in(folder)))
    except (OSError, StorageError):
        return False


def _list_folder(folder: str) -> dict[str, PlaceKind]:
    if is_url(folder):
        # No store has a folder named `a.mp4 walk`. Such a path is a line whose label has a slash.
        if _VIDEO_AND_MORE.search(folder):
            return {}
        entries = storage_of(folder).list_entries()
        return {entry.name: "folder" if entry.is_folder else "file" for entry in entries}
    try:
        with os.scandir(folder) as scan:
            return {entry.name: "folder" if is_folder(entry) else "file" for entry in scan}
    except OSError:
        return {}
