"""The types and texts that `collect_videos` and the readers of its formats share.

A reader is a function (path, Request) -> Found, with an Entry for each video.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from flowprep.errors import InputError
from flowprep.inputs.clips import StoredRanges
from flowprep.inputs.label_sets import NamedSet
from flowprep.urls import is_url
from flowprep.words import format_count

__all__ = [
    "CharadesMode",
    "Difference",
    "Entry",
    "Found",
    "Request",
    "check_split",
    "comment_notes",
    "does_not_exist",
    "first_of",
    "path_below",
]


CharadesMode = Literal["clips", "video"]
Difference = Literal["case", "unicode", "double", "extension", "folder", "backslash"]


@dataclass(frozen=True)
class Request:
    """The options of `collect_videos` that readers use."""

    annotations: str | None
    split: int | None
    root: str | None
    """Absolute, or a URL."""
    strict: bool
    out: str | None
    """Absolute, or a URL; None if there is none."""
    class_level: int | None = None
    """The level of the folder that is a video's class. None: `classes_of_folders` finds it."""
    allow_missing: bool = False
    """Whether a class without any video on disk is allowed."""
    image_fps: float | None = None
    """Frame rate of the folders of images."""
    charades: CharadesMode = "clips"
    stored_ranges: StoredRanges | None = None
    """The ranges of the data set at `out`, for the names of clips. None without a data set."""
    urls: bool = True
    """Whether lists may name URLs."""
    follow_links: bool = True
    """Whether folders and lists may lead out of the folder that the user named."""


@dataclass(slots=True)
class Entry:
    """One video that a reader found. Its label gets a number when all entries are known."""

    source: str
    key: str
    origin: str = ""
    """The place in a list, such as `line 3 of LIST`. Empty for videos found on disk."""
    labels: tuple[int, ...] = ()
    class_name: str | None = None
    split: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    listed: str = ""
    """The name in the list or annotation."""
    difference: Difference | None = None
    """How the name of the found video differs from the listed name."""
    is_missing: bool = False
    is_folder: bool = False
    """Whether a list names a folder of images."""
    listed_bytes: int | None = None
    """Size of the file, where a listing said it anyhow."""
    named_labels: Mapping[str, tuple[int, ...]] | None = None
    """Labels in each of `Found.label_sets`. None if the annotation has no such sets."""
    may_repeat: bool = False
    """Whether other entries may be the same clip: actions and narrations of the same seconds."""

    @property
    def is_guess(self) -> bool:
        """Whether this becomes another video if a file with the listed name appears later."""
        return self.difference not in (None, "extension", "backslash")


@dataclass
class Found:
    """The result of reading one input."""

    entries: list[Entry]
    class_names: tuple[str, ...] = ()
    """Class names in the order of the annotation. Empty if the classes have no names."""
    num_ignored_files: int = 0
    notes: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)
    """Folders without a video, as the paths with which keys of their videos would begin."""
    numbers_names: bool = False
    """Whether a list of paths gives class names, which get their numbers from flowprep."""
    label_sets: tuple[NamedSet, ...] = ()
    """Label sets beside the videos' own labels."""


def path_below(path: str, base: str) -> str | None:
    """Returns the path relative to `base`: empty for `base` itself, None if outside `base`."""
    if path == base:
        return ""
    prefix = base.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def check_split(split: str, what: str) -> None:
    """Raises InputError for a split's name that is not UTF-8, because sidecars are UTF-8."""
    if split.encode("utf-8", "replace").decode() != split:
        raise InputError(f"{what} must be UTF-8, got {split!a}")


def does_not_exist(what: str, path: str) -> InputError:
    """Returns the error for a path that does not exist, with the most similar existing name."""
    if is_url(path):
        return InputError(f"{what} does not exist: {path}; check the address")
    part = os.path.abspath(path)
    while not os.path.isdir(os.path.dirname(part)):
        part = os.path.dirname(part)
    if os.path.exists(part):
        return InputError(f"{what} must be a folder, got the file {part}")
    folder, name = os.path.split(part)
    try:
        siblings = [sibling for sibling in os.listdir(folder) if sibling != name]
    except OSError:
        siblings = []
    close = difflib.get_close_matches(name, siblings, n=1)
    hint = f"did you mean {os.path.join(folder, close[0])}?" if close else "check the path"
    return InputError(f"{what} does not exist: {path}; {hint}")


def comment_notes(comments: Sequence[str], path: str) -> list[str]:
    """Returns the note on lines (`line 3, '# mine'`) that begin with # and name no video, if any.

    Every reader of lines says in this note that it treated them as comments.
    """
    if not comments:
        return []
    what = "begins with # for a comment" if len(comments) == 1 else "begin with # for comments"
    return [
        f"took {format_count(len(comments), 'line')} of {path} that {what}, because no such file "
        f"exists; first: {comments[0]}; check the name of the file if it is a video"
    ]


def first_of(examples: Sequence[str], most: int = 3) -> str:
    """Returns the first few of many names, for the end of a note."""
    return ", ".join(examples[:most]) + (", ..." if len(examples) > most else "")
