"""The code that UCF101 and HMDB51 share: lists of videos by class, in one of three splits."""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import Search
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.keys import escape_key
from flowprep.inputs.tree import list_videos, without_extension
from flowprep.words import format_count

__all__ = ["SplitLine", "SplitLists", "find_listed", "no_split_file"]


@dataclass(frozen=True, slots=True)
class SplitLine:
    """A video that the lists of one split name."""

    origin: str
    """`line 3 of LIST`."""
    listed: str
    """The path as in the list, or as the list would have it."""
    file_name: str
    class_name: str
    split: str | None
    """None for a video that the split does not use."""
    folders: tuple[str, ...]
    """Names of the folders that may contain the video."""


@dataclass(frozen=True)
class SplitLists:
    """The lists of one split."""

    folder: str
    number: int
    """The number of the split."""
    class_names: list[str]
    """The classes in the order of their numbers."""
    lines: list[SplitLine]
    notes: list[str]


def find_listed(path: str, request: Request, lists: SplitLists) -> Found:
    """Finds the videos below the folder `path` that the lists of a split name."""
    search = Search(list_videos(path, request), lists.folder, request, lists.class_names)
    search.notes += lists.notes
    entries, num_unused = [], 0
    for line in lists.lines:
        entry = Entry(
            "",
            escape_key(f"{line.class_name}/{without_extension(line.file_name)}"),
            line.origin,
            class_name=line.class_name,
            split=line.split,
            listed=line.listed,
        )
        search.find(entry, line.file_name, line.folders)
        if line.split is None:
            num_unused += 1
        else:
            entries.append(entry)
    result = search.finish(entries, lists.class_names)
    if num_unused:
        result.notes.append(
            f"left out {format_count(num_unused, 'video')} that split {lists.number} does not use; "
            "name the folder without annotations to extract every video"
        )
    return result


def no_split_file(folder: str, name: str, split: int, there: str) -> InputError:
    """Returns the error for a split that a folder of annotations does not have."""
    return InputError(
        f"annotations {folder} has no file {name}, which split {split} needs; the split files "
        f"there: {there or 'none'}"
    )
