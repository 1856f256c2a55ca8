"""HMDB51: a file CLASS_test_splitN.txt for each class, which marks videos as train or test."""

from __future__ import annotations

import os
import re

from flowprep.errors import InputError
from flowprep.inputs.annotations.split_lists import (
    SplitLine,
    SplitLists,
    find_listed,
    no_split_file,
)
from flowprep.inputs.entries import Found, Request, comment_notes
from flowprep.inputs.places import names_in
from flowprep.inputs.text_files import read_lines
from flowprep.words import format_count

__all__ = ["hmdb51_lists", "read_hmdb51"]


def read_hmdb51(path: str, request: Request) -> Found:
    """Finds the videos that the files CLASS_test_splitN.txt mark as train (1) or test (2)."""
    lists = hmdb51_lists(request.annotations or "", request.split or 1)
    return find_listed(path, request, lists)


def hmdb51_lists(folder: str, split: int) -> SplitLists:
    """Reads the classes and the lines of a split.

    Raises InputError for a split without its files, and for lines of another form.
    """
    class_names = _classes(folder, split)
    lines: list[SplitLine] = []
    comments: list[str] = []
    for class_name in class_names:
        list_path = os.path.join(folder, f"{class_name}_test_split{split}.txt")
        for number, line in read_lines(list_path):
            origin = f"line {number} of {list_path}"
            file_name, *flag = line.rsplit(None, 1)
            if flag not in (["0"], ["1"], ["2"]):
                if line[0] == "#":  # Not always a comment: '#20_Rhythm_clap.avi 1' is a video.
                    comments.append(f"{origin}, {line!r}")
                    continue
                raise InputError(f"{origin} must be 'NAME.avi 0', 1 or 2, got {line!r}")
            part = {"0": None, "1": "train", "2": "test"}[flag[0]]
            listed = f"{class_name}/{file_name}"
            lines.append(SplitLine(origin, listed, file_name, class_name, part, (class_name,)))
    return SplitLists(folder, split, class_names, lines, comment_notes(comments, folder))


def _classes(folder: str, split: int) -> list[str]:
    """Returns the classes of a split in order. All splits must have the same classes, because a
    class that only other splits have would shift the labels.
    """
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
