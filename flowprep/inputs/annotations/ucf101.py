"""UCF101: classInd.txt, trainlistNN.txt and testlistNN.txt."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from flowprep.errors import InputError
from flowprep.inputs.annotations.search import Search
from flowprep.inputs.entries import Entry, Found, Request, comments_note
from flowprep.inputs.keys import escape_key
from flowprep.inputs.name_index import fold
from flowprep.inputs.places import names_in
from flowprep.inputs.text_files import read_lines
from flowprep.inputs.tree import list_videos, without_extension

__all__ = ["UCF101Line", "no_split_file", "read_ucf101", "ucf101_lines"]

_LINE = re.compile(r"(.+?)(?:\s+([0-9]+))?")
"""CLASS/VIDEO.avi NUMBER; names of classes may hold spaces, and lists of tests lack the number."""


@dataclass(frozen=True, slots=True)
class UCF101Line:
    """A line of trainlistNN.txt or testlistNN.txt."""

    origin: str
    """`line 3 of LIST`."""
    listed: str
    """The path as the list has it."""
    file_name: str
    class_name: str
    """As classInd.txt spells it."""
    split: str


def read_ucf101(path: str, request: Request) -> Found:
    """Finds the videos that classInd.txt, trainlistNN.txt and testlistNN.txt name."""
    folder = request.annotations or ""
    class_names, lines, notes = ucf101_lines(folder, request.split or 1)
    search = Search(list_videos(path, request), folder, request, class_names)
    search.notes += notes
    entries = []
    for line in lines:
        entry = Entry(
            "",
            escape_key(f"{line.class_name}/{without_extension(line.file_name)}"),
            line.origin,
            class_name=line.class_name,
            split=line.split,
            listed=line.listed,
        )
        search.find(entry, line.file_name, (line.class_name, line.split))
        entries.append(entry)
    return search.finish(entries, class_names)


def ucf101_lines(folder: str, split: int) -> tuple[list[str], list[UCF101Line], list[str]]:
    """Returns the classes, the lines of a split, and notes on both.

    Raises InputError for a split without its files, and for lines and files of another form.
    """
    index_path = os.path.join(folder, "classInd.txt")
    class_names = _read_class_index(index_path)
    numbers = {name: str(number) for number, name in enumerate(class_names, start=1)}
    # Copies of UCF101 spell HandstandPushups in two ways, in lists, class index and folders.
    by_fold = {fold(name): name for name in class_names}
    lists = {part: f"{part}list{split:02d}.txt" for part in ("train", "test")}
    there = sorted(n for n in names_in(folder) if re.fullmatch(r"(train|test)list\d+\.txt", n))
    for name in lists.values():
        if name not in there:
            raise no_split_file(folder, name, split, ", ".join(there))
    lines: list[UCF101Line] = []
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
            lines.append(UCF101Line(origin, name, file_name, class_name, part))
    notes = []
    for listed_class, class_name in spelled.items():
        notes.append(
            f"took the class {listed_class} of the lists for {class_name} of {index_path}; "
            f"correct the spelling if they are two classes"
        )
    if comments:
        notes.append(comments_note(comments, folder))
    return class_names, lines, notes


def _read_class_index(path: str) -> list[str]:
    class_names: list[str] = []
    for number, line in read_lines(path):
        index, _, name = line.replace("\t", " ").partition(" ")
        wanted = str(len(class_names) + 1)
        if index != wanted or not name.strip():
            raise InputError(f"line {number} of {path} must be '{wanted} CLASS', got {line!r}")
        class_names.append(name.strip())
    return class_names


def no_split_file(folder: str, name: str, split: int, there: str) -> InputError:
    """Returns the error for a split that a folder of annotations lacks."""
    return InputError(
        f"annotations {folder} has no file {name}, which split {split} needs; the split files "
        f"there: {there or 'none'}"
    )
