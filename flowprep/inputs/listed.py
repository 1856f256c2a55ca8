"""The code that all lists of paths share, with or without a header.

list_and_root, finder_of: the folder in which the paths of a list start
place_entries:            missing videos, keys
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

from flowprep.errors import InputError
from flowprep.inputs.entries import Entry, Found, Request, does_not_exist, path_below
from flowprep.inputs.keys import escape_key
from flowprep.inputs.missing import drop_contested_guesses, missing_examples, refuse_missing_classes
from flowprep.inputs.name_index import spelling_notes
from flowprep.inputs.path_finder import Hit, PathFinder, join_path
from flowprep.inputs.places import PlaceKind, common_folder, kind_of
from flowprep.inputs.tree import folder_of_videos, out_among_inputs, without_extension
from flowprep.urls import absolute, is_url, without_query
from flowprep.words import format_count

__all__ = [
    "SEPARATORS",
    "finder_of",
    "integers_in",
    "list_and_root",
    "mixed_labels",
    "place_entries",
    "set_source",
]

SEPARATORS = re.compile(r"[\s,;]+")
"""The separators between the words of a line."""


def finder_of(path: str, request: Request) -> tuple[str, PathFinder]:
    """Returns the list to read and the finder of its paths, which start at root or its folder."""
    list_path, root = list_and_root(path, request)
    base = (root or os.path.dirname(absolute(list_path))).rstrip("/")
    return list_path, PathFinder(base, base_is_named=root is not None)


def integers_in(text: str) -> tuple[int, ...] | None:
    """Returns the integers >= 0 in a text, or None if the text contains anything else."""
    if text.isdigit() and text.isascii() and len(text) < 19:
        return (int(text),)
    tokens = SEPARATORS.split(text) if text else []
    if not all(token.isascii() and token.isdigit() and len(token) < 19 for token in tokens):
        return None
    return tuple(map(int, tokens))


def mixed_labels(number: str, name: str) -> InputError:
    """Returns the error for labels that are partly numbers and partly names."""
    return InputError(
        f"labels must be all integers >= 0 or all names of classes: {number}, and {name}; write "
        f"the same kind on every line"
    )


def set_source(entry: Entry, kind: PlaceKind | None, hit: Hit | None, finder: PathFinder) -> None:
    """Stores in an entry what its listed path is, and how the path was found."""
    entry.is_missing = kind is None
    entry.is_folder = kind == "folder"
    if hit is None and entry.is_folder and (hit := finder.video_beside(entry.source)):
        entry.source, entry.is_folder = hit.source, False
    elif hit is not None:
        entry.difference = hit.difference


def place_entries(
    found: Iterable[Entry],
    finder: PathFinder,
    list_path: str,
    request: Request,
    notes: Sequence[str] = (),
    clip_names: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> Found:
    """Gives keys to listed videos, and says which are missing.

    A key comes from the path in the list, so it is the same on a disk that spells names
    differently. Only for a path outside the base, the key comes from the file. `clip_names` returns
    a name for each path without extension, in order.
    """
    entries = list(found)
    for entry in drop_contested_guesses(entries):
        entry.source = join_path(finder.base, entry.listed)
    base, result = finder.base, Found(entries, notes=list(notes))
    names: list[str] = []
    around_out: set[str] = set()
    if request.out is not None:
        around_out = _with_parents(request.out)
        if not is_url(request.out):
            around_out |= _with_parents(os.path.realpath(request.out))
    for entry in entries:
        source = entry.source
        if request.out is not None and not entry.is_missing and source in around_out:
            raise out_among_inputs(request.out, source, same=source == request.out)
        # A path of another system (C:\\videos) is not below the base.
        if entry.is_guess and "\\" not in entry.listed:
            listed = join_path(base, entry.listed)
            source = listed if path_below(listed, base) else source
        is_name = entry.is_folder and not entry.is_guess
        names.append(source if is_name else without_extension(without_query(source)))
    outside = next((e for e in entries if not path_below(e.source, base)), None)
    if outside is not None:
        if finder.base_is_named:
            raise InputError(
                f"{outside.origin}: {outside.source} lies outside root {base}; choose a root that "
                f"holds every listed video, or leave it out"
            )
        folders = {os.path.dirname(without_query(entry.source)) for entry in entries}
        common = common_folder(folders)
        if common is None:
            raise InputError(
                f"the list {list_path} names videos of several stores or buckets, so their keys "
                "have no common folder: extract the videos of each bucket by themselves, into "
                "one OUT"
            )
        base = common
        result.notes.append(
            f"keys are relative to {base}, the common folder of the listed videos; give --root "
            "for another folder"
        )
    names = [path_below(name, base) or "" for name in names]
    if clip_names is not None:
        names = list(clip_names(names))
    for entry, name in zip(entries, names, strict=True):
        entry.key = escape_key(name)
    result.class_names = tuple(sorted({e.class_name for e in entries if e.class_name is not None}))
    result.numbers_names = bool(result.class_names)
    result.notes += spelling_notes(entries, finder.base)
    missing = [entry for entry in entries if entry.is_missing]
    if missing:
        used = {entry.source for entry in entries if not entry.is_missing}
        note = (
            f"{len(missing):,} of {format_count(len(entries), 'listed video')} not found; first: "
            f"{missing_examples([entry.source for entry in missing], finder.suggest, used)}"
        )
        if request.strict:
            raise InputError(
                f"{note}; correct {list_path}, or give the folder of the videos as root"
            )
        if result.class_names:
            refuse_missing_classes(entries, (), base, list_path, request, finder.suggest, used)
        result.notes.append(f"{note}; check the paths, or give their folder as --root")
    return result


def _with_parents(path: str) -> set[str]:
    found = {path}
    while (path := os.path.dirname(path)) not in found:
        found.add(path)
    return found


def list_and_root(path: str, request: Request) -> tuple[str, str | None]:
    """Returns the list to read and the folder that its paths start from, if one was named."""
    if request.annotations is not None:
        return request.annotations, folder_of_videos(path)
    kind = kind_of(path)
    if kind == "folder":
        raise InputError(
            f"VIDEOS {path} is a folder, not a list: name the list as VIDEOS, or as annotations "
            "with the folder of its videos as VIDEOS"
        )
    if kind is None:
        raise does_not_exist("VIDEOS", path)
    return path, request.root
