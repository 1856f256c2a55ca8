"""Text lists: one video a line, with labels, as mmaction2 writes them; how every list is read.

    PATH
    PATH LABEL ...
    FOLDER NUM_FRAMES LABEL ...
    FOLDER 0 NUM_FRAMES LABEL

A list costs one listing for each folder that it names files in, and no look at single files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Literal

from flowprep.errors import InputError, StorageError
from flowprep.urls import absolute, is_url, without_query
from flowprep.video.entries import Entry, Found, Request, counted, does_not_exist, path_below
from flowprep.video.keys import escape_key
from flowprep.video.places import common_folder, kind_of, names_in, read_place, storage_of
from flowprep.video.tree import (
    VIDEO_EXTENSIONS,
    extension_of,
    folder_of_videos,
    is_folder,
    is_frame_image,
    out_among_inputs,
    without_extension,
)

__all__ = ["list_and_root", "read_lines", "read_list", "read_text"]

Kind = Literal["file", "folder"]

_QUOTES = "\"'"
_QUOTED_LINE = re.compile(r"""(["'])(.+)\1((?:\s+[0-9]{1,18})*)""")
_EXTENSIONS_PATTERN = "|".join(re.escape(extension) for extension in sorted(VIDEO_EXTENSIONS))
_NAME_AND_REST = re.compile(rf"(.*?(?:{_EXTENSIONS_PATTERN}))[\s,;]\s*(.+)", re.IGNORECASE)


def read_list(path: str, request: Request) -> Found:
    """Finds the videos that a list names.

    A path ends where it names something that exists, the longest first; else at a video extension
    or at the first of the integers that end the line. It may stand in quotes. A listed video that
    does not exist stays, and fails by name when it is extracted.
    """
    list_path, root = list_and_root(path, request)
    base = (root or os.path.dirname(absolute(list_path))).rstrip("/")
    listings = _Listings()
    names: list[str] = []
    entries: list[Entry] = []
    missing: list[str] = []
    around_out: set[str] = set()
    if request.out is not None and is_url(request.out):
        around_out = _with_parents(request.out)
    elif request.out is not None:
        around_out = _with_parents(request.out) | _with_parents(os.path.realpath(request.out))
    for number, line in read_lines(list_path):
        if line.startswith("#"):
            continue
        origin = f"line {number} of {list_path}"
        source, integers, kind = _parse_line(line, base, listings, origin)
        if kind is None:
            missing.append(source)
        elif request.out is not None and source in around_out:
            raise out_among_inputs(request.out, source, same=source == request.out)
        name = source if kind == "folder" else without_extension(without_query(source))
        names.append(name)
        if kind != "file" and name == source:  # a folder, or a missing path without an extension
            integers = _folder_labels(source, integers, kind is not None, origin)
        entries.append(Entry(source, "", origin, tuple(integers)))
    if not entries:
        raise InputError(f"the list {list_path} names no video: write one path a line")
    found = Found(entries)
    outside = next((e for e in entries if not path_below(e.source, base)), None)
    if outside is not None:
        if root is not None:
            raise InputError(
                f"{outside.origin}: {outside.source} lies outside root {root}; choose a root that "
                f"holds every listed video, or leave it out"
            )
        folders = {os.path.dirname(without_query(entry.source)) for entry in entries}
        common = common_folder(folders)
        if common is None:
            raise InputError(
                f"the list {list_path} names videos of several stores or buckets, so that their "
                f"keys have no common beginning: extract them one by one, into one OUT"
            )
        base = common
        found.notes.append(f"keys are relative to {base}, the common folder of the listed videos")
    for entry, name in zip(entries, names, strict=True):
        entry.key = escape_key(path_below(name, base) or "")
    if missing:
        found.notes.append(
            f"{len(missing):,} of {counted(len(entries), 'listed video')} not found; first: "
            f"{', '.join(missing[:3])}"
        )
    return found


def _parse_line(
    line: str, base: str, listings: _Listings, origin: str
) -> tuple[str, list[int], Kind | None]:
    """Returns path, integers after it, and what the path is; None where it does not exist."""
    if match := _QUOTED_LINE.fullmatch(line):
        source = _join(base, match[2])
        return source, [int(token) for token in match[3].split()], listings.kind(source)
    quoted = line[0] in _QUOTES
    path, integers = line, list[int]()
    while True:
        source = _join(base, path)
        kind = listings.kind(source)
        # A known extension ends a path even where the file is missing: 'gone.avi 3'.
        if kind is not None or (extension_of(path) in VIDEO_EXTENSIONS and not quoted):
            return source, integers, kind
        head, *tail = path.rsplit(None, 1)
        if not tail or not (tail[0].isascii() and tail[0].isdigit() and len(tail[0]) < 19):
            break
        path = head
        integers.insert(0, int(tail[0]))
    # Nothing of that name exists, so it may be a name with something else than labels after it.
    named = None if quoted else _NAME_AND_REST.fullmatch(line)
    if named is None and listings.kind(_join(base, line.split(None, 1)[0])) is not None:
        named = re.fullmatch(r"(\S+)\s+(.+)", line)
    if named is not None or quoted:
        what = f"{named[2]!r} after {named[1]!r}" if named else repr(line)
        raise InputError(
            f"{origin}: a path (in quotes, if it is an odd one) and labels that are integers >= 0 "
            f"must stand with spaces between, got {what}"
        )
    return source, integers, None


def _join(base: str, path: str) -> str:
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


def _folder_labels(folder: str, integers: list[int], exists: bool, origin: str) -> list[int]:
    """Splits the integers after a folder into frame counts, which must fit it, and labels."""
    if len(integers) < 2:
        return integers
    # 'DIR 0 5 127' has an offset: a count of no frames makes no sense.
    has_offset = integers[0] == 0 and len(integers) > 2
    listed, labels = (integers[1], integers[2:]) if has_offset else (integers[0], integers[1:])
    if not exists:
        return labels
    num_frames = sum(map(is_frame_image, names_in(folder)))
    # Lists for flow count the flows, one fewer than the frames.
    if listed in (num_frames, num_frames - 1):
        return labels
    name = os.path.basename(folder)
    raise InputError(
        f"{origin}: '{name} {' '.join(map(str, integers))}' asks for a part of {folder}, which has "
        f"{counted(num_frames, 'frame image')}; folders are extracted whole: write "
        f"'{name} {num_frames} LABEL' or '{name} LABEL', or move the frames into a folder of their "
        f"own"
    )


def _with_parents(path: str) -> set[str]:
    found = {path}
    while (path := os.path.dirname(path)) not in found:
        found.add(path)
    return found


class _Listings:
    """Answers what a path is from listings of the parent folders, each read once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, Kind]] = {}

    def kind(self, path: str) -> Kind | None:
        if path.startswith(("http://", "https://")):
            # A web server lists nothing; what is not there fails by name when it is extracted.
            is_video = extension_of(without_query(path)) in VIDEO_EXTENSIONS
            return "file" if is_video and " " not in path and "\t" not in path else None
        parent, _, name = path.rpartition("/")
        if parent not in self._folders:
            self._folders[parent] = _list_folder(parent or "/")
        return self._folders[parent].get(name)


def _list_folder(folder: str) -> dict[str, Kind]:
    if is_url(folder):
        entries = storage_of(folder).list_entries()
        return {entry.name: "folder" if entry.is_folder else "file" for entry in entries}
    try:
        with os.scandir(folder) as scan:
            return {entry.name: "folder" if is_folder(entry) else "file" for entry in scan}
    except OSError:
        return {}


# ---- every list


def list_and_root(path: str, request: Request) -> tuple[str, str | None]:
    """Returns the list to read and the folder that its paths start from, if one was named."""
    if request.annotations is not None:
        return request.annotations, folder_of_videos(path)
    kind = kind_of(path)
    if kind == "folder":
        raise InputError(
            f"VIDEOS {path} is a folder and no list: name the list as VIDEOS, or as annotations "
            f"with the folder of its videos as VIDEOS"
        )
    if kind is None:
        raise does_not_exist("VIDEOS", path)
    return path, request.root


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines that are not blank."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if text := line.strip(" \t\r"):
            yield number, text


def read_text(path: str) -> str:
    """Returns the text of a list in UTF-8; bytes that are none stay, as `os.fsdecode` has them."""
    try:
        data = read_place(path)
    except OSError as error:
        raise InputError(f"cannot read the list {path}: {error.strerror}") from error
    except StorageError as error:
        if error.reason not in ("missing", "forbidden"):
            raise
        raise InputError(f"cannot read the list {path}: {error}") from error
    if b"\0" in data:
        raise InputError(f"{path} is not text in UTF-8 (it has NUL bytes); save it as UTF-8")
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
