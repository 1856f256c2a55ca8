"""Finds the videos that a list of any kind names.

    Names        file names -> the files that a listed name may mean, best first
    VideoIndex   the videos below a folder, by listed name and class folder

A name is first looked up unchanged, then by its stem with any extension. Only if both find nothing,
a name also matches if it differs in upper and lower case, in its Unicode form (macOS stores names
decomposed), or by a second extension (yt-dlp leaves `ID.mp4.mkv`). This is a guess, so a note says
it.
"""

from __future__ import annotations

import difflib
import functools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from flowprep.errors import InputError
from flowprep.inputs.entries import Difference, Entry, path_below
from flowprep.inputs.tree import Tree, without_extension
from flowprep.words import format_count

__all__ = [
    "Names",
    "VideoIndex",
    "ambiguous",
    "difference_of",
    "fold",
    "spelling_notes",
    "without_extensions",
]

T = TypeVar("T")

_NOTES: dict[Difference, tuple[str, str]] = {
    "case": (
        "under a name with other upper and lower case",
        "under names with other upper and lower case",
    ),
    "unicode": (
        "under a name in another Unicode form or encoding",
        "under names in another Unicode form or encoding",
    ),
    "double": ("under a name with two extensions", "under names with two extensions"),
    "extension": (
        "with another extension than the list names",
        "with other extensions than the list names",
    ),
    "folder": ("in another folder than the list names", "in other folders than the list names"),
    "backslash": ("by reading \\ in the list as /", "by reading \\ in the list as /"),
}
"""The words of a note on one name, and on several names."""

_MOST_COMPARED = 20_000
"""The most names that a suggestion compares. If there are more, only names that begin with the same
two characters are compared."""


_MOST_SUGGESTED = 5
"""More than one, because the most similar name may belong to another listed video."""


def fold(name: str) -> str:
    """Returns a form that is equal for names that differ only in case, Unicode form or encoding."""
    if name.isascii():
        return name.lower()
    try:
        name.encode()
    except UnicodeEncodeError:
        # Bytes that are not UTF-8 are nearly always Latin-1, from an old list or an old disk.
        try:
            name = name.encode("utf-8", "surrogateescape").decode("latin-1")
        except UnicodeEncodeError:
            return name
    # The Unicode Standard, 3.13, D145: canonical caseless matching.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def without_extensions(name: str) -> str:
    """Returns a name without its video extensions, even if there are several in a row."""
    while (shorter := without_extension(name)) != name:
        name = shorter
    return name


def difference_of(listed: str, found: str) -> Difference | None:
    """Returns how a listed path differs from the found path. None if only the extension differs."""
    if (
        "." not in listed
        and found.startswith(listed)
        and found.find(".", len(listed)) == found.rfind(".")
    ):
        return None
    listed, found = without_extension(listed), without_extension(found)
    if listed == found:
        return None
    listed, found = without_extensions(listed), without_extensions(found)
    if listed == found:
        return "double"
    nfc = [unicodedata.normalize("NFC", name) for name in (listed, found)]
    if nfc[0] == nfc[1] or not all(map(_is_text, (listed, found))):
        return "unicode"
    return "case" if fold(listed) == fold(found) else "folder"


def _is_text(name: str) -> bool:
    return name.encode("utf-8", "replace").decode() == name


def ambiguous(listed: str, paths: Sequence[str], origin: str = "") -> InputError:
    """Returns the error for a listed name that fits several files equally well."""
    first, second = sorted(paths)[:2]
    where = f"{origin}: " if origin else ""
    return InputError(
        f"{where}two files could be the listed video {listed}: {first} and {second}; keep one of "
        f"them, or write the path with its folder and extension"
    )


class Names(Generic[T]):
    """Values by file name. Finds them by the exact name, by the stem, or by a similar spelling."""

    def __init__(self, items: Iterable[tuple[str, bool, T]]) -> None:
        """Each item is a name, whether the name is that of a folder, and a value."""
        self._items = list(items)
        self._by_name: dict[str, list[T]] = {}
        self._by_stem: dict[str, list[T]] = {}
        self._by_fold: dict[str, list[T]] | None = None
        for name, is_folder, value in self._items:
            stem = name if is_folder else without_extension(name)
            self._by_stem.setdefault(stem, []).append(value)
            if not is_folder and stem != name:
                self._by_name.setdefault(name, []).append(value)

    def levels(self, name: str) -> Iterator[list[T]]:
        """Yields the values of the exact name, then of its stem, then of similar spellings."""
        has_dot = "." in name
        stem = without_extension(name) if has_dot else name
        if same := self._by_name.get(name):
            yield same
        if same := self._by_stem.get(stem):
            yield same
        if same := self._folded().get(fold(without_extensions(stem) if has_dot else stem)):
            yield same

    def suggest(self, name: str) -> list[T]:
        """Returns the values whose names are most similar to a missing name, best first."""
        by_fold = self._folded()
        wanted = fold(without_extensions(name))
        among: Iterable[str] = by_fold
        if len(by_fold) > _MOST_COMPARED:
            among = [other for other in by_fold if other[:2] == wanted[:2]][:_MOST_COMPARED]
        close = difflib.get_close_matches(wanted, among, n=_MOST_SUGGESTED, cutoff=0.8)
        return [value for other in close for value in by_fold[other]]

    def _folded(self) -> dict[str, list[T]]:
        if self._by_fold is None:
            self._by_fold = {}
            for name, is_folder, value in self._items:
                stem = name if is_folder else without_extensions(name)
                self._by_fold.setdefault(fold(stem), []).append(value)
        return self._by_fold


def spelling_notes(entries: Iterable[Entry], top: str) -> list[str]:
    """Returns a sentence for each kind of difference in names, with count and first example."""
    found: dict[Difference, list[Entry]] = {}
    for entry in entries:
        if entry.difference is not None:
            found.setdefault(entry.difference, []).append(entry)
    notes = []
    for difference, (one, several) in _NOTES.items():
        if same := found.get(difference):
            source = path_below(same[0].source, top) or same[0].source
            notes.append(
                f"found {format_count(len(same), 'listed video')} "
                f"{one if len(same) == 1 else several}; "
                f"first: {same[0].listed} is {source}; rename it if it is another video"
            )
    return notes


@functools.lru_cache(maxsize=4096)
def _folded(folders: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(fold, folders))


def _last_folder(relative: str) -> str:
    return fold(relative.rpartition("/")[0].rpartition("/")[2])


class VideoIndex:
    """The videos of a tree by file name."""

    def __init__(self, tree: Tree, class_folders: Iterable[str] = ()) -> None:
        self.tree = tree
        self._class_folders = frozenset(map(fold, class_folders))
        self._names = Names(
            (relative.rpartition("/")[2], is_frames, (relative, is_frames))
            for relative, is_frames in tree.videos
        )

    def find(self, name: str, folders: Sequence[str]) -> tuple[str, bool] | None:
        """Returns the path of a video below the top, and whether it is a folder of images.

        Prefers a video inside `folders`, and never returns one in the folder of another class.
        Raises InputError if two videos fit equally well.
        """
        wanted = _folded(tuple(folders))
        for level in self._names.levels(name):
            if len(level) == 1 and not self._is_of_another(level[0], wanted):
                return level[0]
            by_score: dict[int, list[tuple[str, bool]]] = {}
            for video in level:
                if self._is_of_another(video, wanted):
                    continue
                around = [fold(folder) for folder in video[0].split("/")[:-1]]
                score = sum(folder in wanted for folder in around)
                by_score.setdefault(score, []).append(video)
            if by_score:
                return self._one(name, by_score[max(by_score)])
        return None

    def _is_of_another(self, video: tuple[str, bool], wanted: frozenset[str]) -> bool:
        folder = _last_folder(video[0])
        return folder in self._class_folders and folder not in wanted

    def find_path(self, path: str) -> tuple[str, bool] | None:
        """Returns the video whose path ends with `path`, or whose path is the end of `path`.

        So a name without a folder matches a video in any folder. A path with folders also matches a
        video in a flat folder or below another top. Raises InputError if two videos fit equally
        well.
        """
        parent, _, name = path.rpartition("/")
        for level in self._names.levels(name):
            folders = [fold(part) for part in parent.split("/") if part not in ("", ".", "..")]
            fitting = []
            for video in level:
                around = list(map(fold, video[0].split("/")[:-1]))
                shorter = min(len(around), len(folders))
                if around[len(around) - shorter :] == folders[len(folders) - shorter :]:
                    fitting.append((shorter, video))
            if fitting:
                most = max(shared for shared, _ in fitting)
                return self._one(path, [video for shared, video in fitting if shared == most])
        return None

    def suggest(self, name: str) -> list[str]:
        """Returns the paths below the top that are most similar to a missing name."""
        return [relative for relative, _ in self._names.suggest(name.rpartition("/")[2])]

    def path_of(self, relative: str) -> str:
        """Returns the absolute path, or the URL, of a path below the top."""
        return os.path.join(self.tree.top, relative) if relative else self.tree.top

    def _one(self, listed: str, videos: Sequence[tuple[str, bool]]) -> tuple[str, bool]:
        if len(videos) > 1:
            raise ambiguous(listed, [self.path_of(relative) for relative, _ in videos])
        return videos[0]
