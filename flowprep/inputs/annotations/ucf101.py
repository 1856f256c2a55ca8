"""UCF101: classInd.txt, trainlistNN.txt and testlistNN.txt."""

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
from flowprep.inputs.name_index import fold
from flowprep.inputs.places import names_in
from flowprep.inputs.text_files import read_lines

__all__ = ["read_ucf101", "ucf101_lists"]

_LINE = re.compile(r"(.+?)(?:\s+([0-9]+))?")
"""CLASS/VIDEO.avi NUMBER. Class names may contain spaces, and test lists have no number."""


def read_ucf101(path: str, request: Request) -> Found:
    """Finds the videos that classInd.txt, trainlistNN.txt and testlistNN.txt name."""
    lists = ucf101_lists(request.annotations or "", request.split or 1)
    return find_listed(path, request, lists)


def ucf101_lists(folder: str, split: int) -> SplitLists:
    """Reads the classes and the lines of a split.

    Raises InputError for a split without its files, and for lines and files of another form.
    """
    index_path = os.path.join(folder, "classInd.txt")
    class_names = _read_class_index(index_path)
    numbers = {name: str(number) for number, name in enumerate(class_names, start=1)}
    # Copies of UCF101 spell HandstandPushups in two ways, in lists, in classInd.txt and in folders.
    by_fold = {fold(name): name for name in class_names}
    lists = {part: f"{part}list{split:02d}.txt" for part in ("train", "test")}
    there = sorted(n for n in names_in(folder) if re.fullmatch(r"(train|test)list\d+\.txt", n))
    for name in lists.values():
        if name not in there:
            raise no_split_file(folder, name, split, ", ".join(there))
    lines: list[SplitLine] = []
    spelled: dict[str, str] = {}
    comments: list[str] = []
    for part, list_name in lists.items():
        list_path = os.path.join(folder, list_name)
        for number, line in read_lines(list_path):
            match = _LINE.fullmatch(line.replace("\\", "/"))
            name, label = (match[1], match[2]) if match else (line, None)
            listed_class, _, file_name = name.rpartition("/")
            origin = f"line {number} of {list_path}"
            class_name = listed_class if listed_class in numbers else None
            if class_name is None:
                class_name = by_fold.get(fold(listed_class))
            if class_name is None and line[0] == "#":
                comments.append(f"{origin}, {line!r}")
                continue
            if class_name is None:
                raise InputError(
                    f"{origin}: class {listed_class!r} is not in {index_path}; add it there, or "
                    f"correct the line"
                )
            if label is not None and label != numbers[class_name]:
                raise InputError(
                    f"{origin}: {class_name} is class {numbers[class_name]} in {index_path}, "
                    f"got {label}; correct one of the two"
                )
            if listed_class != class_name:
                spelled.setdefault(listed_class, class_name)
            lines.append(SplitLine(origin, name, file_name, class_name, part, (class_name, part)))
    notes = []
    for listed_class, class_name in spelled.items():
        notes.append(
            f"took the class {listed_class} of the lists to be {class_name} of {index_path}; "
            "correct the spelling if they are two classes"
        )
    notes += comment_notes(comments, folder)
    return SplitLists(folder, split, class_names, lines, notes)


def _read_class_index(path: str) -> list[str]:
    class_names: list[str] = []
    for number, line in read_lines(path):
        index, _, name = line.replace("\t", " ").partition(" ")
        wanted = str(len(class_names) + 1)
        if index != wanted or not name.strip():
            raise InputError(f"line {number} of {path} must be '{wanted} CLASS', got {line!r}")
        class_names.append(name.strip())
    return class_names
