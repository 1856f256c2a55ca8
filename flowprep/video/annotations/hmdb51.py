"""HMDB51: a file CLASS_test_splitN.txt for each class, which marks videos as train or test."""

from __future__ import annotations

import os
import re

from flowprep.errors import InputError
from flowprep.video.annotations.search import Search
from flowprep.video.annotations.ucf101 import no_split_file
from flowprep.video.entries import Entry, Found, Request, comments_note, counted
from flowprep.video.keys import escape_key
from flowprep.video.places import names_in
from flowprep.video.text_files import read_lines
from flowprep.video.tree import list_videos, without_extension

__all__ = ["read_hmdb51"]


def read_hmdb51(path: str, request: Request) -> Found:
    """Finds the videos that the files CLASS_test_splitN.txt mark as train (1) or test (2)."""
    folder, split = request.annotations or "", request.split or 1
    suffix = f"_test_split{split}.txt"
    class_names = _classes(folder, split)
    search = Search(list_videos(path, request), folder, request, class_names)
    entries, num_unused = [], 0
    comments: list[str] = []
    for class_name in class_names:
        list_path = os.path.join(folder, class_name + suffix)
        for number, line in read_lines(list_path):
            origin = f"line {number} of {list_path}"
            file_name, *flag = line.rsplit(None, 1)
            if flag not in (["0"], ["1"], ["2"]):
                if line[0] == "#":  # '#20_Rhythm_clap.avi 1' is a video
                    comments.append(f"{origin}, {line!r}")
                    continue
                raise InputError(f"{origin} must be 'NAME.avi 0', 1 or 2, got {line!r}")
            part = "train" if flag == ["1"] else "test"
            key = escape_key(f"{class_name}/{without_extension(file_name)}")
            listed = f"{class_name}/{file_name}"
            entry = Entry("", key, origin, class_name=class_name, split=part, listed=listed)
            search.find(entry, file_name, (class_name,))
            if flag == ["0"]:
                num_unused += 1
            else:
                entries.append(entry)
    if comments:
        search.notes.append(comments_note(comments, folder))
    result = search.finish(entries, class_names)
    if num_unused:
        result.notes.append(
            f"left out {counted(num_unused, 'video')} that split {split} does not use; name the "
            f"folder without annotations to extract every video"
        )
    return result


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
            f"{counted(len(names), 'file')} of split {number}"
            for number, names in sorted(classes.items())
        ]
        raise no_split_file(folder, name, split, ", ".join(there))
    return sorted(every_class)
