"""HMDB51: a file CLASS_test_splitN.txt for each class, which marks videos as train or test."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import Search
from flowprep.inputs.annotations.ucf101 import no_split_file
from flowprep.inputs.entries import Entry, Found, Request, comments_note
from flowprep.inputs.keys import escape_key
from flowprep.inputs.places import names_in
from flowprep.inputs.text_files import read_lines
from flowprep.inputs.tree import list_videos, without_extension
from flowprep.words import format_count

__all__ = ["HMDB51Line", "hmdb51_lines", "read_hmdb51"]


@dataclass(frozen=True, slots=True)
class HMDB51Line:
    """A line of CLASS_test_splitN.txt."""

    origin: str
    """`line 3 of LIST`."""
    file_name: str
    class_name: str
    split: str | None
    """None for a video that the split does not use."""


def read_hmdb51(path: str, request: Request) -> Found:
    """Finds the videos that the files CLASS_test_splitN.txt mark as train (1) or test (2)."""
    folder, split = request.annotations or "", request.split or 1
    class_names, lines, notes = hmdb51_lines(folder, split)
    search = Search(list_videos(path, request), folder, request, class_names)
    search.notes += notes
    entries, num_unused = [], 0
    for line in lines:
        listed = f"{line.class_name}/{line.file_name}"
        key = escape_key(without_extension(listed))
        entry = Entry(
            "", key, line.origin, class_name=line.class_name, split=line.split, listed=listed
        )
        search.find(entry, line.file_name, (line.class_name,))
        if line.split is None:
            num_unused += 1
        else:
            entries.append(entry)
    result = search.finish(entries, class_names)
    if num_unused:
        result.notes.append(
            f"left out {format_count(num_unused, 'video')} that split {split} does not use; name "
            "the "
            f"folder without annotations to extract every video"
        )
    return result


def hmdb51_lines(folder: str, split: int) -> tuple[list[str], list[HMDB51Line], list[str]]:
    """Returns the classes, the lines of a split, and notes on them.

    Raises InputError for a split without its files, and for lines of another form.
    """
    class_names = _classes(folder, split)
    lines: list[HMDB51Line] = []
    comments: list[str] = []
    for class_name in class_names:
        list_path = os.path.join(folder, f"{class_name}_test_split{split}.txt")
        for number, line in read_lines(list_path):
            origin = f"line {number} of {list_path}"
            file_name, *flag = line.rsplit(None, 1)
            if flag not in (["0"], ["1"], ["2"]):
                if line[0] == "#":  # '#20_Rhythm_clap.avi 1' is a video
                    comments.append(f"{origin}, {line!r}")
                    continue
                raise InputError(f"{origin} must be 'NAME.avi 0', 1 or 2, got {line!r}")
            part = {"0": None, "1": "train", "2": "test"}[flag[0]]
            lines.append(HMDB51Line(origin, file_name, class_name, part))
    return class_names, lines, [comments_note(comments, folder)] if comments else []


def _classes(folder: str, split: int) -> list[str]:
    """Returns the classes in order; a class that only other splits have would shift the labels."""
    classes: dict[int, set[str]] = {}
    for name in names_in(folder):
        if match := re.fullmatch(r"(?!\.)(.+)_test_split([0-9]+)\.txt", name, re.DOTALL):
            classes.setdefault(int(match[2]), set()).add(match[1])
    every_class = set[str]().union(*classes.values())
    absent = every_class - classes.get(split, set())
    if absent or not every_class:
        name = f"{min(absent, default='CLASS')}_test_split{split}.txt"
        there = [
            f"{format_count(len(names), 'file')} of split {number}"
            for number, names in sorted(classes.items())
        ]
        raise no_split_file(folder, name, split, ", ".join(there))
    return sorted(every_class)
