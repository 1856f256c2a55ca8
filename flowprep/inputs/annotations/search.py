"""Finds the videos that the annotations of a known data set name.

    Search.find, find_clip:  a listed name -> its video, in any layout of folders
    Search.finish:           notes on missing and on unlisted videos -> Found

A listed name finds its video in class folders or flat, converted to another container, or as a
folder of frames. Listed videos that are not on disk are left out with a note.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence, Set

from flowprep.errors import InputError
from flowprep.inputs.clips import precise_name, short_name
from flowprep.inputs.entries import Entry, Found, Request, comment_notes, first_of
from flowprep.inputs.listed import list_and_root
from flowprep.inputs.missing import (
    drop_contested_guesses,
    missing_examples,
    refuse_missing_classes,
)
from flowprep.inputs.name_index import VideoIndex, difference_of, spelling_notes
from flowprep.inputs.reach import Gate
from flowprep.inputs.text_files import Table, read_table
from flowprep.inputs.tree import Tree, check_out, walk
from flowprep.urls import absolute
from flowprep.words import format_count

__all__ = ["Search", "file_and_videos", "open_table"]

_TIMES = re.compile(r"(?:_[0-9]{6,9}){2}$")


def file_and_videos(path: str, request: Request) -> tuple[str, Tree]:
    """Returns the file of annotations, and the tree of the videos that it describes."""
    annotations, root = list_and_root(path, request)
    top = root or os.path.dirname(absolute(annotations))
    if request.annotations is not None:
        check_out(top, request)
    # OUT may be beside the list. Only listed names become videos, and no shard has a listed name.
    return annotations, walk(top, None, None, Gate.of(top, request))


def open_table(
    path: str, request: Request, columns: Set[str], name: str, header: str
) -> tuple[Table, Search]:
    """Reads the CSV of a known data set, and finds the videos that belong to it.

    `name` is the name of the data set, and `header` is its first line, both for the error. Raises
    InputError for a file without `columns`.
    """
    csv_path, tree = file_and_videos(path, request)
    table = read_table(csv_path)
    if not set(table.columns) >= columns:
        raise InputError(
            f"{csv_path} is not a CSV of {name}: its first line must name the columns {header}, "
            f"got {','.join(table.columns)[:200]!r}; give --format csv for a table with a column "
            "path"
        )
    search = Search(tree, csv_path, request)
    search.notes += comment_notes(table.comments, csv_path)
    return table, search


class Search:
    """Looks up the names of annotations among the videos of a tree."""

    def __init__(
        self, tree: Tree, annotations: str, request: Request, class_folders: Iterable[str] = ()
    ) -> None:
        self._index = VideoIndex(tree, class_folders)
        self._annotations, self._request = annotations, request
        self._used: set[str] = set()
        self.notes: list[str] = []

    def find(self, entry: Entry, name: str, folders: Sequence[str] = ()) -> bool:
        """Gives an entry the video of a name and returns True, or marks the entry as missing."""
        found = self._index.find(name, folders)
        entry.is_missing = found is None
        if found is None:
            return False
        relative, entry.is_folder = found
        entry.source = self._index.path_of(relative)
        self._used.add(relative)
        file_name = relative.rpartition("/")[2]
        entry.difference = difference_of(name, file_name)
        return True

    def find_clip(
        self,
        entry: Entry,
        video: str,
        times: tuple[float, float],
        folders: Sequence[str] = (),
        *,
        short: str = "",
        names: Sequence[str] = (),
        is_shared: bool = False,
    ) -> bool:
        """Gives an entry a file that is trimmed to the clip, or a range of the whole video.

        `short` is the name of the trimmed file, if it is already known. `names` are other possible
        names of the trimmed file. `is_shared` says that other clips of the video have the same
        whole seconds, so a file with the short name could be any of these clips. Returns whether a
        video was found. Raises InputError if the only file found could be several clips.
        """
        short = short or short_name(video, *times)
        if not is_shared and self.find(entry, short, folders):
            return True
        precise = precise_name(video, *times)
        for name in (*names, precise):
            if self.find(entry, name, folders):
                return True
        if self.find(entry, video, folders):
            entry.start_seconds, entry.end_seconds = times
            return True
        if is_shared and (found := self._index.find(short, folders)) is not None:
            raise InputError(
                f"{entry.origin}: {self._index.path_of(found[0])} could be several clips of "
                f"{self._annotations}, which begin and end within the same seconds; rename the "
                f"file to {precise} (milliseconds) if it is this clip"
            )
        return False

    def knows(self, name: str) -> bool:
        """Whether a video of this name is there. Raises InputError if two fit equally well."""
        return self._index.find(name, ()) is not None

    def note_empty(self, noun: str, empty: Sequence[str]) -> None:
        """Says which ranges were left out because they do not end after they begin."""
        if empty:
            self.notes.append(
                f"left out {format_count(len(empty), noun)} that do not end after they begin; "
                f"first: {empty[0]}; correct {self._annotations} if they should be clips"
            )

    def note_order(self, class_names: Sequence[str], remedy: str) -> None:
        """Says that the annotation gives its classes no numbers, and which they got."""
        if class_names:
            shown = [f"{name} is {number}" for number, name in enumerate(class_names)]
            self.notes.append(
                f"{self._annotations} gives the {len(class_names):,} classes no numbers, so they "
                f"are numbered in sorted order: {first_of(shown)}; give {remedy} for another order"
            )

    def _suggest(self, name: str) -> list[str]:
        near = self._index.suggest(name)
        video = _TIMES.sub("", name)
        return near if video == name else near + self._index.suggest(video)

    def finish(self, entries: Sequence[Entry], class_names: Sequence[str] = ()) -> Found:
        """Returns the entries whose videos exist, with notes on the other entries."""
        tree, annotations = self._index.tree, self._annotations
        drop_contested_guesses(entries)
        if not entries:
            raise InputError(
                f"{annotations} names no video; check that it is the list of the videos"
            )
        there = [entry for entry in entries if not entry.is_missing]
        absent = [entry.listed for entry in entries if entry.is_missing]
        result = Found(there, tuple(class_names), tree.others.total(), [*tree.notes, *self.notes])
        if absent:
            examples = missing_examples(absent, self._suggest, self._used)
            note = (
                f"{len(absent):,} of {len(entries):,} listed videos are not under {tree.top}; "
                f"first: {examples}"
            )
            if self._request.strict or not there:
                raise InputError(f"{note}; check the folder of the videos against {annotations}")
            refuse_missing_classes(
                entries,
                class_names,
                tree.top,
                annotations,
                self._request,
                self._suggest,
                self._used,
            )
            result.notes.append(f"{note}; check the folder if they should be there")
        result.notes += spelling_notes(there, tree.top)
        if unlisted := len(tree.videos) - len(self._used):
            result.notes.append(
                f"ignored {format_count(unlisted, 'video')} under {tree.top} that {annotations} "
                "does not name; add lines for them if they should be used"
            )
        return result
