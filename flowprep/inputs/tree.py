"""Finds every video below a folder: video files, and folders of the frames of one video.

    read_folder, read_glob -> list_videos -> check_out, walk -> Tree -> entries

A tree is listed once, one folder at a time, on disk or on an object store. No file is opened.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from flowprep.errors import InputError
from flowprep.inputs.entries import Entry, Found, Request, does_not_exist, path_below
from flowprep.inputs.keys import escape_key
from flowprep.inputs.places import kind_of
from flowprep.storage import Storage
from flowprep.urls import absolute, has_query, is_url, without_query

__all__ = [
    "IMAGE_EXTENSIONS",
    "VIDEO_EXTENSIONS",
    "Tree",
    "check_out",
    "extension_of",
    "folder_of_videos",
    "is_folder",
    "is_frame_image",
    "is_pattern",
    "list_videos",
    "out_among_inputs",
    "parse_frame_name",
    "read_file",
    "read_folder",
    "read_glob",
    "walk",
    "without_extension",
]

# ---- names

# fmt: off
VIDEO_EXTENSIONS = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".hevc", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
])
"""In lower case; compared without regard to case."""

IMAGE_EXTENSIONS = frozenset([
    ".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
])
"""In lower case; compared without regard to case."""
# fmt: on

# macOS adds the first to ZIP files, and Synology disks have the second beside every file. Their
# contents are not videos of the user.
_SYSTEM_FOLDERS = frozenset(["__MACOSX", "@eaDir"])

# 00001.jpg, img_00001.jpg. The stem of pytorch-i3d's flow (VID-000001x.jpg) ends in a letter.
_NUMBERED = re.compile(r"(?!\.)(.*?)([0-9]+)\.[a-z]+", re.IGNORECASE | re.DOTALL)
# x_00001.jpg (mmaction2), flow_x_00001.jpg (TSN), flow_x_p2_00000.jpg (denseflow).
_FLOW_IMAGE = re.compile(
    r"[xyuv](_[pm][0-9]+)?_[0-9]+\.[a-z]+|(flow|back)[a-z]?_.*", re.IGNORECASE | re.DOTALL
)


def extension_of(path: str) -> str:
    """Returns the extension in lower case with its dot, or an empty string."""
    # os.path.splitext takes 1.5 times as long, which matters for a list of 650,000 lines.
    dot = path.rfind(".")
    return path[dot:].lower() if dot > path.rfind("/") + 1 else ""


def without_extension(path: str) -> str:
    """Returns the path without its video extension. 'v1.0' has none, so it does not change."""
    extension = extension_of(path)
    return path[: -len(extension)] if extension in VIDEO_EXTENSIONS else path


def is_frame_image(name: str) -> bool:
    """Whether a file name is that of a numbered frame (img_00001.jpg), not of a flow image."""
    return parse_frame_name(name) is not None


def parse_frame_name(name: str) -> tuple[str, int] | None:
    """Returns series and number of a frame image: (`img_`, 1) for img_00001.jpg.

    Returns None for an image without a number, a hidden file, and a flow image as denseflow, TSN,
    mmaction2, gpu_flow and pytorch-i3d name it.
    """
    match = _NUMBERED.fullmatch(name)
    if match is None or extension_of(name) not in IMAGE_EXTENSIONS or _FLOW_IMAGE.fullmatch(name):
        return None
    return match[1], int(match[2])


def is_pattern(path: str) -> bool:
    """Whether a path contains the special characters of a glob pattern."""
    return not has_query(path) and any(character in path for character in "*?[")


# ---- folders, patterns, files


def read_folder(path: str, request: Request) -> Found:
    """Finds every video below a folder. Raises InputError if there is none."""
    tree = list_videos(path, request)
    if not tree.videos:
        others = ", ".join(f"{n:,} {name or 'without'}" for name, n in tree.others.most_common(4))
        raise InputError(
            f"no videos in {tree.top} or its subfolders"
            f"{f' (other files: {others})' if others else ''}. "
            f"{_what_is_a_video()}; name other files one by one or in a .txt list"
        )
    entries = _entries(tree, tree.videos, request)
    prefix = _below_root(tree.top, request.root) if request.root else ""
    return Found(
        entries,
        num_ignored_files=tree.others.total(),
        notes=tree.notes,
        empty_folders=[os.path.join(prefix, folder) for folder in tree.empty_folders()],
    )


def read_glob(path: str, request: Request) -> Found:
    """Finds the videos that match a pattern, or that are inside a folder that matches.

    `**` matches any number of folders. Raises InputError if nothing matches.
    """
    parts = path.split("/")
    fixed = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    patterns = [part for part in parts[fixed:] if part not in ("", ".")]
    top = "/".join(parts[:fixed]) or ("/" if path.startswith("/") else ".")
    tree = list_videos(top, request, lambda name: _may_hold_matches(_parts(name), patterns))
    videos = [video for video in tree.videos if _matches(_parts(video[0]), patterns)]
    if not videos:
        raise InputError(
            f"no video matches {path} (searched in {tree.top}). {_what_is_a_video()}; check the "
            f"pattern"
        )
    return Found(_entries(tree, videos, request), notes=tree.notes)


def read_file(path: str, request: Request) -> Found:
    """Returns one file as a video. The file may have any extension."""
    if is_url(path):
        is_there, is_file = (kind := kind_of(path)) is not None, kind == "file"
    else:
        is_there = os.path.lexists(path)
        is_file = not os.path.exists(path) or os.path.isfile(path)
    if not is_there:
        raise does_not_exist("VIDEOS", path)
    if not is_file:
        raise InputError(
            f"format file needs a video file, got {path}; take format folder for a folder"
        )
    source = absolute(path)
    plain = without_query(source)
    name = _below_root(plain, request.root) if request.root else os.path.basename(plain)
    return Found([Entry(source, escape_key(without_extension(name)))])


def _entries(tree: Tree, videos: Iterable[tuple[str, bool]], request: Request) -> list[Entry]:
    prefix = _below_root(tree.top, request.root) if request.root else ""
    entries = []
    for relative, is_frames in videos:
        stem = relative if is_frames else without_extension(relative)
        name = os.path.join(prefix, stem).rstrip("/") or os.path.basename(tree.top)
        source = os.path.join(tree.top, relative) if relative else tree.top
        size = tree.sizes.get(relative)
        entries.append(Entry(source, escape_key(name), listed_bytes=size))
    return sorted(entries, key=lambda entry: (entry.key, entry.source))


def _below_root(path: str, root: str) -> str:
    relative = path_below(path, root)
    if relative is None:
        raise InputError(f"VIDEOS {path} lies outside root {root}: choose a root that holds it")
    return relative


def _parts(relative: str) -> list[str]:
    return relative.split("/") if relative else []


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return True  # The pattern matches a folder that contains the video.
    if patterns[0] == "**":
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _may_hold_matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    for part, pattern in zip(parts, patterns, strict=False):
        if pattern == "**":
            return True
        if not fnmatchcase(part, pattern):
            return False
    return True


def _what_is_a_video() -> str:
    known = " ".join(sorted(VIDEO_EXTENSIONS))
    return f"Videos are files with the extensions {known}, and folders of numbered images"


# ---- the walk


@dataclass
class Tree:
    """The videos, the other files and the folders below a folder."""

    top: str
    """Absolute, or a URL."""
    videos: list[tuple[str, bool]]
    """The path below `top` of each video, and whether it is a folder of frame images."""
    others: Counter[str]
    """The number of other files with each extension, without hidden files."""
    notes: list[str]
    folders: list[str] = field(default_factory=list)
    """Every folder below `top` that is not a video."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Of the files on a store, whose listing says them; a disk would be asked file by file."""

    def empty_folders(self) -> list[str]:
        """Returns the folders that contain no video at any depth."""
        holding = {""}
        for relative, _ in self.videos:
            while (relative := relative.rpartition("/")[0]) not in holding:
                holding.add(relative)
        return [folder for folder in self.folders if folder not in holding]


def list_videos(path: str, request: Request, enters: Callable[[str], bool] | None = None) -> Tree:
    """Lists the videos of a folder, after a check that neither it nor OUT contains the other."""
    top = folder_of_videos(path)
    check_out(top, request, enters)
    return walk(top, request.out, enters)


def folder_of_videos(path: str) -> str:
    """Returns the absolute path or the URL of a folder. Raises InputError if it is no folder."""
    if kind_of(path) != "folder":
        raise does_not_exist("VIDEOS", path)
    return absolute(path)


def walk(top: str, out: str | None, enters: Callable[[str], bool] | None = None) -> Tree:
    """Lists every video below `top`. Follows links, except a link to a folder that contains it.

    `enters` takes the path of a folder below `top` and returns whether to search that folder. A
    folder that contains frame images but neither videos nor folders is one video. Raises InputError
    for a folder that cannot be read, and for a folder that is `out`, even through a link.
    """
    tree = Tree(top, [], Counter(), [])
    store = Storage(top) if is_url(top) else None
    has_out = out is not None and not is_url(out) and os.path.isdir(out)
    out_id = _identity(out) if out is not None and has_out else None
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        relative, parents = pending.pop()
        chain = parents
        if store is not None:
            listed = store.list_entries(relative)
            entries = [(entry.name, "folder" if entry.is_folder else "file") for entry in listed]
            tree.sizes |= {
                os.path.join(relative, entry.name): entry.size
                for entry in listed
                if entry.size is not None and extension_of(entry.name) in VIDEO_EXTENSIONS
            }
        else:
            path = os.path.join(top, relative) if relative else top
            this, entries = _scanned(path)
            if this in parents:
                tree.notes.append(
                    f"did not follow {path}: the link leads back to a folder around it; remove "
                    "the link"
                )
                continue
            if this == out_id:
                raise out_among_inputs(out or "", top, same=not relative)
            chain = (*parents, this)
        videos, others, folders, has_frames = [], [], [], False
        for entry_name, kind in entries:
            if entry_name.startswith(".") or entry_name in _SYSTEM_FOLDERS:
                continue
            name = os.path.join(relative, entry_name)
            extension = extension_of(entry_name)
            if kind == "folder":
                folders.append(name)
            elif extension in VIDEO_EXTENSIONS and kind == "file":
                videos.append((name, False))
            else:
                others.append(extension)
                has_frames = has_frames or is_frame_image(entry_name)
        if has_frames and not videos and not folders:
            tree.videos.append((relative, True))
            continue
        if relative:
            tree.folders.append(relative)
        tree.videos += videos
        tree.others.update(others)
        pending += [(name, chain) for name in folders if enters is None or enters(name)]
    return tree


def _scanned(path: str) -> tuple[tuple[int, int], list[tuple[str, str]]]:
    """Returns a folder's identity, and the name and kind (`file`, `folder`, `other`) of entries."""
    try:
        with os.scandir(path) as scan:
            return _identity(path), [(entry.name, _kind(entry)) for entry in scan]
    except OSError as error:
        raise InputError(
            f"cannot read the folder {path}: {error.strerror}; make it readable, or name the "
            f"folders beside it one by one"
        ) from error


def _kind(entry: os.DirEntry[str]) -> str:
    if is_folder(entry):
        return "folder"
    return "file" if entry.is_symlink() or entry.is_file() else "other"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to a folder."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


# ---- OUT among VIDEOS


def check_out(top: str, request: Request, enters: Callable[[str], bool] | None = None) -> None:
    """Raises InputError if OUT or a folder of videos contains the other. Resolves links."""
    if request.out is None or is_url(request.out) != is_url(top):
        return
    if is_url(top):
        real_out, real_top = request.out, top
    else:
        real_out, real_top = os.path.realpath(request.out), os.path.realpath(top)
    inside = path_below(real_out, real_top)
    if inside is not None and (enters is None or enters(inside)):
        raise out_among_inputs(request.out, top, same=not inside)
    if path_below(real_top, real_out):
        raise InputError(
            f"VIDEOS {top} lies inside OUT {request.out}: inputs and data set would mix; choose a "
            f"folder outside"
        )


def out_among_inputs(out: str, top: str, *, same: bool) -> InputError:
    """Returns the error for an OUT that is `top` or is inside `top`."""
    relation = "is the same folder as" if same else "lies inside"
    return InputError(
        f"OUT {out} {relation} VIDEOS {top}: its own files would be taken for inputs; choose a "
        f"folder outside"
    )
