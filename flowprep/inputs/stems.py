"""Keys of files that differ only in their extension: such keys keep the extension.

IMG_1.MOV, IMG_1.mp4   IMG_1%2EMOV, IMG_1%2Emp4
IMG_1.mp4, IMG_1/      IMG_1%2Emp4, IMG_1%2Eframes     (a folder of frames)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from flowprep.inputs.entries import Entry
from flowprep.inputs.keys import escape_key
from flowprep.inputs.places import kind_of
from flowprep.inputs.tree import VIDEO_EXTENSIONS, extension_of, without_extension
from flowprep.urls import without_query
from flowprep.words import format_count

__all__ = ["file_name", "keep_extensions", "key_forms"]

_FRAMES = ".frames"


def file_name(source: str) -> str:
    """Returns the last component of a source."""
    return os.path.basename(without_query(source))


def key_forms(key: str, source: str) -> tuple[str, str] | None:
    """Returns the key of a source without and with its extension. None for any other key."""
    name = file_name(source)
    head, slash, last = key.rpartition("/")
    stem = without_extension(name)
    full = name if extension_of(name) in VIDEO_EXTENSIONS else name + _FRAMES
    forms = (escape_key(stem), escape_key(full)) if stem else ("", "")
    return (head + slash + forms[0], head + slash + forms[1]) if last in forms else None


def keep_extensions(entries: Sequence[Entry]) -> list[str]:
    """Adds extensions to the keys of files in one folder that share a key. Returns notes on it."""
    changed: set[str] = set()
    while groups := list(_collisions(entries)):
        num_before = len(changed)
        for group in groups:
            for entry in group:
                forms = key_forms(entry.key, entry.source)
                if forms is None or entry.source in changed or entry.start_seconds is not None:
                    continue
                is_file = extension_of(file_name(entry.source)) in VIDEO_EXTENSIONS
                if is_file or kind_of(entry.source) == "folder":
                    changed.add(entry.source)
                    entry.key = forms[1]
        if len(changed) == num_before:
            break
    if not changed:
        return []
    keys = sorted(entry.key for entry in entries if entry.source in changed)
    shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
    return [
        f"{format_count(len(keys), 'video')} would have the key of another file with the same "
        "name, so "
        f"their keys keep the extension ({shown}), except keys that the data set holds already; "
        "rename the files for other keys"
    ]


def _collisions(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    """Yields groups of different files in one folder that share a key."""
    first: dict[str, Entry] = {}
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if (other := first.setdefault(entry.key, entry)) is not entry:
            groups.setdefault(entry.key, [other]).append(entry)
    for group in groups.values():
        sources = {without_query(entry.source) for entry in group}
        if len(sources) == len(group) and len(set(map(os.path.dirname, sources))) == 1:
            yield group
