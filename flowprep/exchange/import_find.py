"""Finds the videos of a tree, in whatever format their flow is.

jpg          images that the layout names
zip          VIDEO/flow_x.zip and flow_y.zip (dense_flow), or VIDEO.zip with images of the layout
flo          VIDEO/*1.flo and so on
npy npz hdf5 VIDEO.npy, VIDEO.npz, VIDEO.h5; kinetics-i3d has VIDEO_flow.npy beside VIDEO_rgb.npy
webdataset   the samples of *.tar with images of the layout
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from flowprep.errors import DatasetError, InputError
from flowprep.exchange.layouts import FileKind, FormatName, TreeLayout

__all__ = ["ARRAY_FORMATS", "ZIP_FILES", "FoundVideos", "Place", "find_videos"]

ZIP_FILES = ("flow_x.zip", "flow_y.zip", "img.zip")
"""The archives that dense_flow and `flowprep export --format zip` write for a video: x, y, RGB."""

ARRAY_FORMATS: frozenset[FormatName] = frozenset({"flo", "npy", "npz", "hdf5"})
"""The formats that hold flow as arrays, not as JPEGs."""

_SUFFIXES: dict[str, FormatName] = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".tar": "webdataset",
    ".flo": "flo",
    ".zip": "zip",
}
# The JSON of a sample is short; a forged one is not read.
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where a video is."""

    path: str
    """The absolute path of its file or folder."""
    members: tuple[int, int] | None = None
    """The begin of its members in the tar, and the end."""
    described: dict[str, Any] | None = None
    """`KEY.json` of a sample of WebDataset."""


@dataclass
class FoundVideos:
    """The videos of a tree."""

    format: FormatName
    places: dict[str, Place]
    """Path below the tree, without an ending -> place. For webdataset, key -> place."""
    notes: list[str] = field(default_factory=list)


def find_videos(top: str, layout: TreeLayout, wanted: FormatName | None) -> FoundVideos:
    """Returns the videos of one format, in order. None takes the first format that is there.

    Raises InputError if a folder cannot be read or if the tree has no flow.
    """
    found: dict[FormatName, dict[str, str]] = {name: {} for name in get_args(FormatName)}
    for name, path, place in _entries(top, layout):
        found[name].setdefault(path, place)
    there = {name: places for name, places in found.items() if places}
    if wanted is not None:
        there = {name: places for name, places in there.items() if name == wanted}
    for chosen, places in there.items():
        if chosen == "webdataset":
            samples = {key: place for tar in sorted(places) for key, place in _samples(top, tar)}
            if not samples:
                continue
            videos = dict(sorted(samples.items()))
        else:
            videos = {path: Place(place) for path, place in sorted(places.items())}
            _leave_out_rgb(videos)
        others = [f"{len(more)} {name}" for name, more in there.items() if name != chosen]
        notes = []
        if others:
            notes.append(
                f"{top} holds {', '.join(others)} beside {len(videos)} {chosen}, which were taken; "
                "give --format to import the others, to another OUT"
            )
        return FoundVideos(chosen, videos, notes)
    example = layout.flow_file("VIDEO", "x", 0, FileKind("x"))
    said = "flow images" if wanted in (None, "jpg") else f"flow in the format {wanted}"
    where = f" such as {example}" if wanted in (None, "jpg") else ""
    raise InputError(
        f"{top} holds no {said}{where}; check the folder, or give its --layout"
        + ("" if wanted is None else " and --format")
    )


def _entries(top: str, layout: TreeLayout) -> Iterator[tuple[FormatName, str, str]]:
    """Yields the format, the path of the video and the place of each file that may hold flow."""
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        relative, parents = pending.pop()
        folder = os.path.join(top, relative) if relative else top
        try:
            status = os.stat(folder)
            this = status.st_dev, status.st_ino
            if this in parents:  # a link to a folder that contains the link
                continue
            seen = False
            with os.scandir(folder) as scan:
                for entry in scan:
                    if entry.name.startswith("."):
                        continue
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if entry.is_dir():
                        pending.append((path, (*parents, this)))
                        continue
                    stem, suffix = os.path.splitext(path)
                    if name := _SUFFIXES.get(suffix.lower()):
                        if name == "flo" or entry.name in ZIP_FILES:
                            yield name, relative, folder
                        else:
                            yield name, stem, os.path.join(top, path)
                    elif not seen and (parsed := layout.parse(path)) is not None:
                        yield "jpg", parsed[0], _folder_of(top, layout, parsed[0])
                        seen = True
        except OSError as error:
            raise InputError(
                f"cannot read the folder {folder}: {error.strerror}; make it readable"
            ) from error


def _folder_of(top: str, layout: TreeLayout, path: str) -> str:
    folders = [os.path.join(top, folder) if folder else top for folder in layout.folders(path)]
    return next((folder for folder in folders if os.path.isdir(folder)), folders[0])


def _leave_out_rgb(videos: dict[str, Place]) -> None:
    """Gives VIDEO_flow.npy the path VIDEO, if VIDEO_rgb.npy is beside it, which holds no flow."""
    for path in [path for path in videos if path.endswith("_flow")]:
        stem = path.removesuffix("_flow")
        if videos.pop(f"{stem}_rgb", None) is not None and stem not in videos:
            videos[stem] = videos.pop(path)


def _samples(top: str, stem: str) -> Iterator[tuple[str, Place]]:
    """Yields the key and the place of each sample of a tar."""
    path = os.path.join(top, f"{stem}.tar")
    key, begin, described = "", 0, None
    end = 0
    try:
        with tarfile.open(path, mode="r:") as tar:
            while (info := tar.next()) is not None:
                # The memory does not grow with the number of images.
                tar.members = []  # type: ignore[attr-defined]
                folder, _, base = info.name.rpartition("/")
                first, _, rest = base.partition(".")
                name = f"{folder}/{first}" if folder else first
                if name != key:
                    if key:
                        yield key, Place(path, (begin, info.offset), described)
                    key, begin, described = name, info.offset, None
                if rest == "json" and info.isfile() and info.size <= _MAX_JSON_BYTES:
                    content = tar.extractfile(info)
                    values = json.loads(content.read()) if content is not None else None
                    described = values if isinstance(values, dict) else None
                end = info.offset_data + info.size
    except (tarfile.TarError, ValueError, OSError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; copy it again") from error
    if key:
        yield key, Place(path, (begin, end), described)
