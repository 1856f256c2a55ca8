"""A stored key never changes, whatever files come or go beside its video."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence

from flowprep.dataset.layout import ManifestEntry
from flowprep.errors import InputError, StorageError
from flowprep.inputs.places import names_in
from flowprep.inputs.stems import file_name, key_forms
from flowprep.inputs.video import Video
from flowprep.urls import without_query
from flowprep.words import format_count

__all__ = ["with_stored_keys"]


def with_stored_keys(
    known: Sequence[ManifestEntry], videos: Sequence[Video]
) -> tuple[Sequence[Video], list[str]]:
    """Returns the videos with the keys that the data set has for them, and notes on new keys.

    A stored key belongs to the file name of its source. For example, IMG_1.mp4 is stored as IMG_1
    and stays IMG_1 when IMG_1.MOV is added, which becomes IMG_1%2EMOV. Each of them keeps its key
    when the other is removed. A file takes the stored key if it replaces the stored file, that is,
    if the folder no longer holds the stored file. This happens in a converted collection. Raises
    InputError if two videos would get the same key.
    """
    stored = {entry.video.key: file_name(entry.video.source) for entry in known}
    changed: dict[int, str] = {}
    beside: list[str] = []
    listings: dict[str, frozenset[str]] = {}
    for index, video in enumerate(videos):
        name = file_name(video.source)
        if not stored or stored.get(video.key) == name or video.start_seconds is not None:
            continue
        forms = key_forms(video.key, video.source)
        if forms is None:
            continue
        plain, full = forms
        other = plain if video.key == full else full
        if stored.get(other) == name:
            changed[index] = other
        elif video.key == plain and plain in stored:
            folder = os.path.dirname(without_query(video.source))
            if folder not in listings:
                listings[folder] = _names(folder)
            if stored[plain] in listings[folder]:
                changed[index] = full
                if full not in stored:
                    beside.append(full)
    if not changed:
        return videos, []
    result = [
        dataclasses.replace(video, key=changed[index]) if index in changed else video
        for index, video in enumerate(videos)
    ]
    counts = Counter(video.key for video in result)
    for index, key in changed.items():
        if counts[key] > 1:
            sources = [video.source for video in result if video.key == key]
            raise InputError(
                f"two videos have the key {key!r}, which the data set holds for one of them: "
                f"{sources[0]} and {sources[1]}; rename {videos[index].source} or the other"
            )
    notes = []
    if beside:
        shown = ", ".join(beside[:4]) + (", ..." if len(beside) > 4 else "")
        notes.append(
            f"{format_count(len(beside), 'new video')} beside a stored one of the same name: the "
            "new "
            f"keys keep the extension ({shown}); remove the stored file if the new one takes its "
            f"place"
        )
    return result, notes


def _names(folder: str) -> frozenset[str]:
    if folder.startswith(("http://", "https://")):
        return frozenset()  # A web server lists nothing.
    try:
        return frozenset(names_in(folder))
    except (OSError, StorageError):
        return frozenset()
