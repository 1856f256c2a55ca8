"""Reads the labels and splits in annotations, lists and CSVs without reading the videos.

    read_annotation, read_lists -> Annotation: a name, a label and a split for each video

`relabel.py` finds the video of a data set that a name means. Files of known data sets are read by
the same rules as in `flowprep.inputs.annotations`, which reads them beside a folder of videos.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from flowprep.config import check_choice
from flowprep.errors import ConfigError, InputError
from flowprep.inputs.annotations.hmdb51 import hmdb51_lists
from flowprep.inputs.annotations.kinetics import KINETICS_COLUMNS, kinetics_clips
from flowprep.inputs.annotations.split_lists import SplitLists
from flowprep.inputs.annotations.ucf101 import ucf101_lists
from flowprep.inputs.clips import short_name
from flowprep.inputs.csv_lists import SPLIT_NAMES, parse_seconds
from flowprep.inputs.entries import check_split, comment_notes, does_not_exist
from flowprep.inputs.listed import SEPARATORS
from flowprep.inputs.lists import NAME_AND_REST, QUOTED_LINE, LineForm
from flowprep.inputs.places import kind_of, names_in
from flowprep.inputs.text_files import Row, Table, header_of, read_lines, read_table
from flowprep.urls import absolute, as_path

__all__ = [
    "AnnotatedVideo",
    "Annotation",
    "LabelFormat",
    "read_annotation",
    "read_class_names",
    "read_lists",
]

LabelFormat = Literal["auto", "ucf101", "hmdb51", "kinetics", "csv", LineForm]

Knows = Callable[[str], bool]
"""A function that says whether a data set holds a video with exactly this name."""


@dataclass(slots=True)
class AnnotatedVideo:
    """One line of an annotation."""

    name: str
    """The name in the annotation: a key, a path, a file name or the beginning of a file name."""
    origin: str
    """The place of the line, such as `line 3 of LIST`."""
    labels: tuple[int, ...] = ()
    """Class numbers, if the annotation has numbers."""
    class_name: str | None = None
    """Class name, if the annotation has names."""
    split: str | None = None
    folders: tuple[str, ...] = ()
    """For a known data set whose `name` has no folder: folders that may hold the video."""
    clip: str | None = None
    """For Kinetics: the name of the trimmed file, which takes precedence over `name`."""
    start_seconds: float | None = None
    end_seconds: float | None = None
    is_key: bool = False
    """Whether `name` is a key, and nothing else."""


@dataclass
class Annotation:
    """The content of an annotation."""

    source: str
    """The kind and the place of the annotation, for people to read."""
    videos: list[AnnotatedVideo]
    class_names: tuple[str, ...] | None = None
    """Class names in the order of their numbers, if the annotation has an order."""
    class_folders: frozenset[str] = frozenset()
    """Folders that stand for classes. A video in the folder of another class is another video."""
    has_labels: bool = True
    has_splits: bool = True
    notes: list[str] = field(default_factory=list)


def read_annotation(
    path: str, *, format: LabelFormat = "auto", split: int | None = None, knows: Knows
) -> Annotation:
    """Reads UCF101's or HMDB51's folder, a CSV, or a list.

    `auto` chooses the format from the content of the folder, or from the first line of the file.
    Raises ConfigError for options that do not fit together, InputError if the annotation does not
    exist or cannot be read.
    """
    path = as_path(path)
    kind = kind_of(path)
    if kind is None:
        raise does_not_exist("annotations", path)
    path = absolute(path)
    if format == "auto":
        format = _detect_folder(path) if kind == "folder" else _detect_file(path)
    is_folder = format in _FOLDER_FORMATS
    if is_folder != (kind == "folder"):
        raise ConfigError(
            f"format {format} needs a {'folder' if is_folder else 'file'}, got the {kind} {path}; "
            "leave --format out, or name a file or folder that fits"
        )
    if is_folder:
        if split not in (None, 1, 2, 3):
            raise ConfigError(f"split must be 1, 2 or 3, got {split!r}")
        name, read = _FOLDER_FORMATS[format]
        return _split_lists(name, read(path, split or 1))
    if split is not None:
        raise ConfigError(
            f"split is only for the folders of UCF101 and HMDB51, not for {path} ({format}); "
            "leave it out"
        )
    if format == "kinetics":
        return _kinetics(path)
    if format == "csv":
        return _general_csv(path, knows)
    return read_lists([path], format=format, knows=knows)


def _detect_folder(path: str) -> LabelFormat:
    files = names_in(path)
    if "classInd.txt" in files:
        return "ucf101"
    if any(fnmatchcase(name, "*_test_split*.txt") for name in files):
        return "hmdb51"
    raise InputError(
        f"annotations {path} must be a list, a CSV, or a folder with UCF101's classInd.txt or "
        "HMDB51's *_test_split1.txt files; it is a folder with neither"
    )


def _detect_file(path: str) -> LabelFormat:
    columns = header_of(next((text for _, text in read_lines(path) if text[0] != "#"), ""))[1]
    if set(columns) >= KINETICS_COLUMNS:
        return "kinetics"
    roles = {_COLUMNS.get(column) for column in columns}
    return "csv" if roles & {"key", "path"} and roles & {"label", "split"} else "list"


# ---- UCF101 and HMDB51


_FOLDER_FORMATS: dict[LabelFormat, tuple[str, Callable[[str, int], SplitLists]]] = {
    "ucf101": ("UCF101", ucf101_lists),
    "hmdb51": ("HMDB51", hmdb51_lists),
}


def _split_lists(name: str, lists: SplitLists) -> Annotation:
    # A video without a split belongs to the data set, but this split does not use it.
    videos = [
        AnnotatedVideo(
            line.file_name,
            line.origin,
            class_name=line.class_name,
            split=line.split,
            folders=line.folders,
        )
        for line in lists.lines
    ]
    return Annotation(
        f"{name}, split {lists.number} of {lists.folder}",
        videos,
        tuple(lists.class_names),
        frozenset(lists.class_names),
        notes=lists.notes,
    )


# ---- CSVs


def _kinetics(path: str) -> Annotation:
    clips, notes = kinetics_clips(path)
    class_names = sorted({clip.label for clip in clips if clip.label})
    videos = []
    for clip in clips:
        split = SPLIT_NAMES.get(clip.split, clip.split)
        folders = (clip.label, clip.label.replace(" ", "_"), clip.split, split)
        videos.append(
            AnnotatedVideo(
                clip.video_id,
                clip.origin,
                class_name=clip.label or None,
                split=split or None,
                folders=tuple(dict.fromkeys(filter(None, folders))) or ("",),
                clip=short_name(clip.video_id, clip.start, clip.end),
                start_seconds=clip.start,
                end_seconds=clip.end,
            )
        )
    return Annotation(
        f"Kinetics' {path}",
        videos,
        class_folders=frozenset([*class_names, *(name.replace(" ", "_") for name in class_names)]),
        has_labels=any(video.class_name for video in videos),
        has_splits=any(video.split for video in videos),
        notes=notes,
    )


_COLUMNS = {
    "key": "key",
    **dict.fromkeys(("path", "video", "video_path", "file", "filename"), "path"),
    **dict.fromkeys(("label", "labels", "class", "class_name"), "label"),
    **dict.fromkeys(("split", "subset"), "split"),
    **dict.fromkeys(("start", "start_seconds"), "start"),
    **dict.fromkeys(("end", "end_seconds"), "end"),
    "fps": "fps",
}
"""The meaning of the columns of a general CSV. Columns on sampling do not affect labels."""


def _general_csv(path: str, knows: Knows) -> Annotation:
    table = read_table(path)
    roles = {column: role for column in table.columns if (role := _COLUMNS.get(column))}
    _check_columns(list(roles.values()), table)
    comments = list(table.comments)
    videos = []
    for row in table.rows:
        cells = {role: row.get(column) for column, role in roles.items()}
        name = cells.get("key") or cells.get("path") or ""
        if row.text[0] == "#" and not knows(name):
            comments.append(f"line {row.number}, {row.text!r}")
        else:
            videos.append(_csv_video(name, cells, row, f"line {row.number} of {path}"))
    annotation = Annotation(
        f"CSV {path}",
        videos,
        has_labels="label" in roles.values(),
        has_splits="split" in roles.values(),
        notes=comment_notes(comments, path),
    )
    _numbers_or_names(annotation)
    if unused := [column for column in table.columns if column not in roles]:
        noun = "column" if len(unused) == 1 else "columns"
        annotation.notes.append(
            f"{path}: did not read the {noun} {', '.join(map(repr, unused))}; rename a column that "
            f"should be read: {', '.join(dict.fromkeys(_COLUMNS.values()))}"
        )
    return annotation


def _check_columns(roles: Sequence[str], table: Table) -> None:
    twice = [role for role in roles if roles.count(role) > 1]
    if not {"key", "path"} & set(roles) or not {"label", "split"} & set(roles) or twice:
        problem = f"two columns mean {twice[0]}" if twice else "its header does not have these"
        raise InputError(
            f"{table.path} is not a CSV of labels: its first line must name a column key or path, "
            f"and a column label or split (and may name start and end), each once; {problem}: got "
            f"{','.join(table.columns)[:200]!r}"
        )


def _csv_video(name: str, cells: Mapping[str, str], row: Row, origin: str) -> AnnotatedVideo:
    if not name:
        raise InputError(f"{origin} must name a video (key or path), got {row.text!r}")
    split = cells.get("split", "")
    check_split(split, f"the split on {origin}")
    return AnnotatedVideo(
        name,
        origin,
        class_name=cells.get("label") or None,
        split=SPLIT_NAMES.get(split, split) or None,
        start_seconds=_seconds(cells, "start", origin),
        end_seconds=_seconds(cells, "end", origin),
        is_key=bool(cells.get("key")),
    )


def _seconds(cells: Mapping[str, str], column: str, origin: str) -> float | None:
    if not (text := cells.get(column, "")):
        return None
    seconds = parse_seconds(text)
    if seconds is None or seconds < 0:
        raise InputError(f"{origin}: {column} must be seconds >= 0, got {text!r}")
    return seconds


_NUMBERS = re.compile(r"[0-9]{1,18}(?:[\s;,]+[0-9]{1,18})*")


def _numbers_or_names(annotation: Annotation) -> None:
    """Turns the labels of a file into class numbers if each label is one or several numbers."""
    videos = [video for video in annotation.videos if video.class_name is not None]
    if not all(_NUMBERS.fullmatch(video.class_name or "") for video in videos):
        return
    for video in videos:
        numbers = SEPARATORS.split(video.class_name or "")
        video.labels = tuple(dict.fromkeys(map(int, numbers)))
        video.class_name = None


# ---- text lists


def read_lists(lists: Sequence[str], *, format: LabelFormat = "auto", knows: Knows) -> Annotation:
    """Reads lists with one video and its label per line. Each list is a file or `SPLIT=FILE`.

    The path on a line is the longest beginning of the line that names a video of the data set. If
    there is none, it ends at a video's extension, or before the integers that end the line. Format
    `tsn` has a number of frames before the label, and `labels` has several labels. Raises
    ConfigError for another format, InputError for a list that does not exist, names no video, or
    has several numbers on a line and no format.
    """
    if format != "auto":
        check_choice("format of a list", format, LineForm)
    videos: list[AnnotatedVideo] = []
    places = []
    notes = []
    has_splits = False
    for item in lists:
        split, place = _split_and_place(item)
        has_splits = has_splits or split is not None
        places.append(f"{split}={place}" if split else place)
        before = len(videos)
        comments: list[str] = []
        videos += _list_videos(place, split, format, knows, comments)
        if len(videos) == before:
            raise InputError(f"the list {place} names no video: write one path per line")
        notes += comment_notes(comments, place)
    annotation = Annotation(
        f"list{'s' * (len(lists) > 1)} {', '.join(places)}",
        videos,
        has_labels=any(video.class_name is not None for video in videos),
        has_splits=has_splits,
        notes=notes,
    )
    _numbers_or_names(annotation)
    return annotation


def _split_and_place(item: str) -> tuple[str | None, str]:
    split, sign, place = item.partition("=")
    # The name of a file may contain an equals sign.
    if not sign or not place or "/" in split or kind_of(as_path(item)) == "file":
        split, place = "", item
    place = as_path(place)
    check_split(split, f"the split of {item!a}")
    if kind_of(place) != "file":
        raise does_not_exist("list", place)
    return split or None, absolute(place)


def _list_videos(
    path: str, split: str | None, format: LabelFormat, knows: Knows, comments: list[str]
) -> Iterator[AnnotatedVideo]:
    for number, line in read_lines(path):
        origin = f"line {number} of {path}"
        name, rest = _name_and_rest(line, knows)
        if line.startswith("#") and not knows(name):
            comments.append(f"line {number}, {line!r}")
            continue
        numbers = SEPARATORS.split(rest) if _NUMBERS.fullmatch(rest) else []
        if format == "tsn":
            # 'NAME FRAMES LABEL', or 'NAME 0 FRAMES LABEL'.
            counts = 2 if len(numbers) > 2 and int(numbers[0]) == 0 else 1
            if len(numbers) <= counts:
                raise InputError(
                    f"{origin} must be 'NAME FRAMES LABEL' in format tsn, got {line!r}; for a "
                    "list without frame counts, add --format list"
                )
            rest = " ".join(numbers[counts:])
        elif len(numbers) > 1 and format != "labels":
            raise InputError(
                f"{origin}: one label must follow the video {name!r}, got {' '.join(numbers)!r}; "
                "add --format tsn if the first number counts frames, or --format labels if all "
                "are labels"
            )
        yield AnnotatedVideo(name, origin, class_name=rest or None, split=split)


def _name_and_rest(line: str, knows: Knows) -> tuple[str, str]:
    """Splits a line into the name of a video and the rest."""
    if match := QUOTED_LINE.fullmatch(line):
        return match[2], (match[3] or "").strip()
    if knows(line):
        return line, ""
    separators = list(re.finditer(r"\s*[,;]\s*|\s+", line))
    for found in reversed(separators):
        if found.start() and knows(line[: found.start()]):
            return line[: found.start()], line[found.end() :].strip()
    if match := NAME_AND_REST.fullmatch(line):
        return match[1], match[2].strip()
    if match := re.fullmatch(r"(.+?)((?:[\s,;]+[0-9]{1,18})+)", line):
        return match[1], match[2].strip(" \t,;")
    name, comma, rest = line.partition(",")
    return (name.strip(), rest.strip()) if comma else (line, "")


# ---- class names


def read_class_names(path: str) -> tuple[str, ...]:
    """Returns the class names in a file with one `NAME` or `NUMBER NAME` per line.

    UCF101's classInd.txt has the second form.

    Numbers count from 0 or from 1. Raises InputError for a file that does not exist or is empty.
    """
    path = as_path(path)
    if kind_of(path) != "file":
        raise does_not_exist("class_names", path)
    lines = [line for _, line in read_lines(path)]
    if not lines:
        raise InputError(f"class_names {path} is empty; write one name per line")
    numbered = [re.fullmatch(r"([0-9]{1,9})[\s,;]+(.+)", line) for line in lines]
    matches = [match for match in numbered if match]
    if len(matches) == len(lines):
        numbers = [int(match[1]) for match in matches]
        if numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
            return tuple(match[2].strip() for match in matches)
    return tuple(lines)
