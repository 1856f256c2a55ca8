"""Text lists: one video per line, with labels, as SlowFast, TSN, TSM and mmaction2 write them.

PATH                            PATH,LABEL      the same with tabs, commas or semicolons
PATH LABEL ...                  PATH CLASS NAME
FOLDER NUM_FRAMES LABEL ...     FOLDER 0 NUM_FRAMES LABEL

read_list -> _cut (finds the end of a line's path) -> _label (reads the rest of the line)
          -> listed.py (missing videos, keys)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from flowprep.errors import InputError
from flowprep.inputs.entries import Entry, Found, Request, comment_notes
from flowprep.inputs.listed import (
    SEPARATORS,
    finder_of,
    integers_in,
    mixed_labels,
    place_entries,
    set_source,
)
from flowprep.inputs.path_finder import Hit, PathFinder, join_path
from flowprep.inputs.places import PlaceKind, names_in
from flowprep.inputs.text_files import read_lines
from flowprep.inputs.tree import (
    VIDEO_EXTENSIONS,
    extension_of,
    is_frame_image,
)
from flowprep.words import format_count

__all__ = [
    "LIST_COLUMNS",
    "NAME_AND_REST",
    "QUOTED_LINE",
    "read_list",
]

LineForm = Literal["list", "labels", "tsn"]
"""The meaning of integers after a path. `list` decides by the content of the list."""

LIST_COLUMNS = frozenset([
    "path", "file", "filename", "file_name", "filepath", "video", "video_path", "name",
    "label", "labels", "class", "class_name", "category", "action", "frames", "num_frames",
])  # fmt: skip
"""Words that make a line a header."""

_QUOTES = "\"'"
QUOTED_LINE = re.compile(r"""(["'])(.+?)\1(?:[\s,;]+(.*))?""", re.DOTALL)
_ENDS = " \t,;"
_MOST_CUTS = 24
"""Number of places in a line at which its path may end. Class names have fewer words."""

_EXTENSIONS_PATTERN = "|".join(re.escape(extension) for extension in sorted(VIDEO_EXTENSIONS))
NAME_AND_REST = re.compile(rf"(.*?(?:{_EXTENSIONS_PATTERN}))[\s,;]+(.+)", re.IGNORECASE)
_HAS_VIDEO = re.compile(rf"(?:{_EXTENSIONS_PATTERN})(?![^\s,;])", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?", re.IGNORECASE)


@dataclass(slots=True)
class _Line:
    """A line that is cut at the end of its path."""

    number: int
    text: str
    listed: str
    rest: str
    source: str
    kind: PlaceKind | None
    hit: Hit | None


def read_list(path: str, request: Request, form: LineForm = "list") -> Found:
    """Finds the videos that a list names.

    The path is the longest beginning of a line that names something that exists. If there is none,
    the path ends at a video extension, or before the integers that end the line. A path may be in
    quotes. A listed video that does not exist stays in the list, and is reported as failed when it
    is extracted.
    """
    list_path, finder = finder_of(path, request)
    lines: list[_Line] = []
    comments: list[str] = []
    for number, text in read_lines(list_path):
        line = _cut(number, text, finder, list_path)
        if line.kind is None and text[0] == "#":
            comments.append(f"line {number}, {text!r}")
        else:
            lines.append(line)
    notes = comment_notes(comments, list_path)
    if not lines:
        raise InputError(f"the list {list_path} names no video: write one path per line")
    first = lines[0]
    if len(lines) > 1 and _is_header(lines):
        notes.append(
            f"took line {lines[0].number} of {list_path} for a header: {lines[0].text!r}; check "
            f"the path if it names a video"
        )
        del lines[0]
    if all(line.kind is None and not _HAS_VIDEO.search(line.text) for line in lines):
        raise _no_list(first, list_path)
    labels = [_label(line, form, list_path) for line in lines]
    _check_labels(lines, labels, list_path)
    entries = _entries(lines, labels, finder, list_path)
    return place_entries(entries, finder, list_path, request, notes)


# ---- where a path ends


def _cut(number: int, text: str, finder: PathFinder, list_path: str) -> _Line:
    line = text.rstrip(_ENDS) or text
    base = finder.base
    if match := QUOTED_LINE.fullmatch(line):
        listed = match[2].replace('""', '"') if match[1] == '"' else match[2]
        quoted = _found(number, text, listed, match[3] or "", finder)
        if quoted.kind is None and not match[3] and listed[0] not in _QUOTES:
            # A spreadsheet with one column also puts the label into the quotes.
            inside = _cut(number, listed, finder, list_path)
            return quoted if inside.kind is None else inside
        return quoted
    is_quoted = line[0] in _QUOTES
    path = line
    while True:  # integers at the end, one after the other
        source = join_path(base, path)
        if (kind := finder.kind(source)) is not None:
            return _Line(number, text, path, line[len(path) :].strip(_ENDS), source, kind, None)
        if extension_of(path) in VIDEO_EXTENSIONS and not is_quoted:
            break
        head, *tail = path.rsplit(None, 1)
        if not tail or not (tail[0].isascii() and tail[0].isdigit() and len(tail[0]) < 19):
            break
        path = head
    before_integers = path
    if extension_of(path) in VIDEO_EXTENSIONS and not is_quoted:
        return _looked_for(number, text, path, line[len(path) :], finder)
    ends = [match.start() for match in SEPARATORS.finditer(line) if match.start()][-_MOST_CUTS:]
    for end in reversed(ends):
        source = join_path(base, line[:end])
        if (kind := finder.kind(source)) is not None:
            return _Line(number, text, line[:end], line[end:].strip(_ENDS), source, kind, None)
    if is_quoted:
        raise InputError(
            f"line {number} of {list_path}: a path that begins with a quote must end with the same "
            f"quote, and a space must stand before the label, got {text!r}"
        )
    # Nothing has exactly this name. Either another spelling exists, or the video is missing.
    named = NAME_AND_REST.fullmatch(line)
    if named is not None:
        return _looked_for(number, text, named[1], named[2], finder)
    cuts = [before_integers, *(line[:end] for end in reversed(ends))]
    # All folders are searched only for likely paths, and not for the words of every comment.
    is_comment = re.match(r"#\s|#[^\s,;]*$", line) is not None
    if is_comment:
        del cuts[1:]
    for searches_deep in (False,) if is_comment else (False, True):
        for path in dict.fromkeys(cuts):
            if hit := finder.find(path, deep=searches_deep):
                rest = line[len(path) :].strip(_ENDS)
                return _Line(number, text, path, rest, hit.source, hit.kind, hit)
    # Tabs, commas and semicolons end a path. A space may belong to it, except before integers.
    path = re.split(r"[\t,;]", before_integers, maxsplit=1)[0].strip() or before_integers
    source = join_path(base, path)
    return _Line(number, text, path, line[len(path) :].strip(_ENDS), source, None, None)


def _found(number: int, text: str, listed: str, rest: str, finder: PathFinder) -> _Line:
    source = join_path(finder.base, listed)
    if (kind := finder.kind(source)) is not None:
        return _Line(number, text, listed, rest.strip(_ENDS), source, kind, None)
    return _looked_for(number, text, listed, rest, finder)


def _looked_for(number: int, text: str, listed: str, rest: str, finder: PathFinder) -> _Line:
    """Returns the line for a path that does not exist."""
    rest = rest.strip(_ENDS)
    # '#old/a.mp4' is a comment on old/a.mp4. It must not match a.mp4 in a flat folder.
    if hit := finder.find(listed, deep=listed[0] != "#" or "/" not in listed):
        return _Line(number, text, listed, rest, hit.source, hit.kind, hit)
    return _Line(number, text, listed, rest, join_path(finder.base, listed), None, None)


# ---- the rest of a line, after the path

_Label = tuple[tuple[int, ...], "str | None"]
"""Integers, or the name of a class."""


def _label(line: _Line, form: LineForm, list_path: str) -> _Label:
    rest = line.rest
    if not rest:
        return (), None
    integers = integers_in(rest)
    if integers is not None:
        return _numbers(line, integers, form, list_path), None
    if rest[0] in _QUOTES and len(rest) > 2 and rest[-1] == rest[0]:
        name = rest[1:-1].replace('""', '"')
        number = integers_in(name)  # some programs quote every cell, even integers
        return (number, None) if number else ((), name)
    origin = f"line {line.number} of {list_path}"
    first, _, name = rest.partition(" ")
    frames = integers_in(first)
    if frames and (form == "tsn" or (form == "list" and _fits(line, frames[0]))):
        _check_count(line, frames[0], name, origin)
        return (), name.strip()
    tokens = SEPARATORS.split(rest)
    if all(map(_NUMBER.fullmatch, tokens)):
        raise InputError(
            f"{origin}: labels must be integers >= 0 or names of classes, got {rest!r} after "
            f"{line.listed!r}; leave the label out for a video without a label"
        )
    if line.kind is None and not _HAS_VIDEO.search(line.text):
        raise _no_list(line, list_path)
    if frames or integers_in(tokens[-1]) or any(mark in rest for mark in ",;\t"):
        raise InputError(
            f"{origin}: one label must stand after the path, a number or the name of a class, got "
            f"{rest!r} after {line.listed!r}; put a name that has digits or commas at its end in "
            f"double quotes, give --format tsn if the first number counts frames, or write a "
            f"header that names the columns, such as path,label,split"
        )
    return (), rest


def _numbers(
    line: _Line, integers: tuple[int, ...], form: LineForm, list_path: str
) -> tuple[int, ...]:
    if form == "labels" or (form == "list" and len(integers) < 2):
        return integers
    origin = f"line {line.number} of {list_path}"
    # A missing path without an extension means a folder.
    is_folder = line.kind == "folder" or (
        line.kind is None and extension_of(line.listed) not in VIDEO_EXTENSIONS
    )
    if len(integers) < 2:
        raise InputError(
            f"{origin}: format tsn needs PATH NUM_FRAMES LABEL, got {line.text!r}; give --format "
            "labels if the number is a label"
        )
    if not is_folder and form == "list":
        numbers = " ".join(map(str, integers))
        raise InputError(
            f"{origin}: it is not clear whether {numbers!r} after the video {line.listed!r} are a "
            f"frame count and a label, or {len(integers)} labels; give --format tsn for PATH "
            "NUM_FRAMES LABEL, or --format labels for several labels"
        )
    # In 'DIR 0 5 127', 0 is an offset, because a number of 0 frames makes no sense.
    has_offset = integers[0] == 0 and len(integers) > 2
    listed, labels = (integers[1], integers[2:]) if has_offset else (integers[0], integers[1:])
    if line.kind == "folder":
        _check_count(line, listed, " ".join(map(str, labels)), origin, " ".join(map(str, integers)))
    return labels


def _fits(line: _Line, listed: int) -> bool:
    if line.kind != "folder":
        return False
    # Lists for flow give the number of flows, which is one fewer than the frames.
    num_frames = sum(map(is_frame_image, names_in(line.source)))
    return listed in (num_frames, num_frames - 1)


def _check_count(line: _Line, listed: int, label: str, origin: str, given: str = "") -> None:
    """Raises InputError if only a part of a folder of images is to be used."""
    if line.kind != "folder" or _fits(line, listed):
        return
    folder, name = line.source, os.path.basename(line.source)
    num_frames = sum(map(is_frame_image, names_in(folder)))
    raise InputError(
        f"{origin}: '{name} {given or f'{listed} {label}'}' asks for a part of {folder}, which has "
        f"{format_count(num_frames, 'frame image')}; folders are extracted whole: write "
        f"'{name} {num_frames} LABEL' or '{name} LABEL', or move the frames into a folder of their "
        f"own"
    )


# ---- the list as a whole


def _is_header(lines: Sequence[_Line]) -> bool:
    first = lines[0]
    if first.kind is not None or _HAS_VIDEO.search(first.text):
        return False
    words = SEPARATORS.split(first.text.lower().strip("\"'"))
    if LIST_COLUMNS.issuperset(words):
        return True
    # A header is a line of words above columns of numbers.
    has_numbers = len(words) < 2 or any(map(_NUMBER.fullmatch, words))
    return not has_numbers and all(integers_in(line.rest) for line in lines[1:])


def _check_labels(lines: Sequence[_Line], labels: Sequence[_Label], list_path: str) -> None:
    numbered = named = None
    for line, (numbers, name) in zip(lines, labels, strict=True):
        numbered = numbered or (line if numbers else None)
        named = named or (line if name is not None else None)
        if numbered and named:
            raise mixed_labels(
                f"line {numbered.number} of {list_path} has the number {numbered.rest!r}",
                f"line {named.number} has the name {named.rest!r} after {named.listed!r}",
            )


def _no_list(line: _Line, list_path: str) -> InputError:
    return InputError(
        f"{list_path} does not look like a list that flowprep reads: expected lines 'PATH LABEL', "
        "a header such as path,label,split, or the annotation of a known data set; found "
        f"{line.text[:200]!r} on line {line.number}, which names no video that exists. Give "
        "--root if the paths start from another folder, or --format: list for 'PATH LABEL' "
        "(labels: several labels, tsn: PATH NUM_FRAMES LABEL), csv for a table with a header, "
        "kinetics, charades, epic, ava or something for those data sets"
    )


def _entries(
    lines: Sequence[_Line], labels: Sequence[_Label], finder: PathFinder, list_path: str
) -> Iterator[Entry]:
    for line, (numbers, class_name) in zip(lines, labels, strict=True):
        entry = Entry(
            line.source,
            "",
            f"line {line.number} of {list_path}",
            numbers,
            class_name,
            listed=line.listed,
        )
        set_source(entry, line.kind, line.hit, finder)
        yield entry
