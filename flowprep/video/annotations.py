"""The lists of known data sets: UCF101 and HMDB51 with their splits, Kinetics with its clips.

    read_ucf101, read_hmdb51, read_kinetics:  walk the videos, look each listed name up -> Found

A listed name finds its video in whatever layout: in class folders or flat, converted to another
container, or as a folder of frames. Listed videos that are not on disk are left out with a note.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from flowprep.errors import InputError
from flowprep.urls import absolute
from flowprep.video.entries import Entry, Found, Request, check_split, counted
from flowprep.video.keys import escape_key
from flowprep.video.lists import list_and_root, read_lines, read_text
from flowprep.video.places import names_in
from flowprep.video.tree import Tree, check_out, list_videos, walk, without_extension

__all__ = ["read_hmdb51", "read_kinetics", "read_ucf101"]

# ---- UCF101


def read_ucf101(path: str, request: Request) -> Found:
    """Finds the videos that classInd.txt, trainlistNN.txt and testlistNN.txt name."""
    folder, split = request.annotations or "", request.split or 1
    index_path = os.path.join(folder, "classInd.txt")
    class_names = _read_class_index(index_path)
    numbers = {name: str(number) for number, name in enumerate(class_names, start=1)}
    lists = {part: f"{part}list{split:02d}.txt" for part in ("train", "test")}
    there = sorted(n for n in names_in(folder) if re.fullmatch(r"(train|test)list\d+\.txt", n))
    for name in lists.values():
        if name not in there:
            raise _no_split_file(folder, name, split, ", ".join(there))
    index = _VideoIndex(list_videos(path, request), class_names)
    entries = []
    for part, list_name in lists.items():
        list_path = os.path.join(folder, list_name)
        for number, line in read_lines(list_path):
            name, *label = line.split()
            class_name, _, file_name = name.rpartition("/")
            origin = f"line {number} of {list_path}"
            if class_name not in numbers:
                raise InputError(f"{origin}: class {class_name!r} is not in {index_path}")
            if label and label != [numbers[class_name]]:
                raise InputError(
                    f"{origin}: {class_name} is class {numbers[class_name]} in {index_path}, "
                    f"got {' '.join(label)}"
                )
            source = index.find(without_extension(file_name), (class_name, part))
            if source is None:
                index.absent.append(name)
                continue
            key = escape_key(without_extension(name))
            entries.append(Entry(source, key, origin, class_name=class_name, split=part))
    return index.finish(entries, class_names, folder, request)


def _read_class_index(path: str) -> list[str]:
    class_names: list[str] = []
    for number, line in read_lines(path):
        index, _, name = line.partition(" ")
        wanted = str(len(class_names) + 1)
        if index != wanted or not name.strip():
            raise InputError(f"line {number} of {path} must be '{wanted} CLASS', got {line!r}")
        class_names.append(name.strip())
    return class_names


def _no_split_file(folder: str, name: str, split: int, there: str) -> InputError:
    return InputError(
        f"annotations {folder} has no file {name}, which split {split} needs; the split files "
        f"there: {there or 'none'}"
    )


# ---- HMDB51


def read_hmdb51(path: str, request: Request) -> Found:
    """Finds the videos that the files CLASS_test_splitN.txt mark as train (1) or test (2)."""
    folder, split = request.annotations or "", request.split or 1
    suffix = f"_test_split{split}.txt"
    class_names = _hmdb51_classes(folder, split)
    index = _VideoIndex(list_videos(path, request), class_names)
    entries, num_unused = [], 0
    for class_name in class_names:
        list_path = os.path.join(folder, class_name + suffix)
        for number, line in read_lines(list_path):
            origin = f"line {number} of {list_path}"
            file_name, *flag = line.rsplit(None, 1)
            if flag not in (["0"], ["1"], ["2"]):
                raise InputError(f"{origin} must be 'NAME.avi 0', 1 or 2, got {line!r}")
            source = index.find(without_extension(file_name), (class_name,))
            if flag == ["0"]:
                num_unused += 1
                continue
            if source is None:
                index.absent.append(f"{class_name}/{file_name}")
                continue
            part = "train" if flag == ["1"] else "test"
            key = escape_key(f"{class_name}/{without_extension(file_name)}")
            entries.append(Entry(source, key, origin, class_name=class_name, split=part))
    result = index.finish(entries, class_names, folder, request)
    if num_unused:
        result.notes.append(
            f"left out {counted(num_unused, 'video')} that split {split} does not use"
        )
    return result


def _hmdb51_classes(folder: str, split: int) -> list[str]:
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
        raise _no_split_file(folder, name, split, ", ".join(there))
    return sorted(every_class)


# ---- Kinetics

_SPLIT_NAMES = {"validate": "val", "validation": "val"}


def read_kinetics(path: str, request: Request) -> Found:
    """Finds the clips of a CSV: trimmed files by id and times, or ranges of untrimmed ones by id.

    With annotations `path` is the folder of the videos, without them it is the CSV.
    """
    csv_path, root = list_and_root(path, request)
    top = root or os.path.dirname(absolute(csv_path))
    if request.annotations is not None:
        check_out(top, request)
    rows = list(_kinetics_rows(csv_path))
    class_names = sorted({label for _, label, *_ in rows if label})
    folder_names = [*class_names, *(name.replace(" ", "_") for name in class_names)]
    # Beside its list OUT does no harm: only listed names are taken, and shards have none of them.
    index = _VideoIndex(walk(top, None), folder_names)
    entries = []
    for line_number, label, video_id, start, end, csv_split in rows:
        clip = f"{video_id}_{int(start):06d}_{int(end):06d}"
        split = _SPLIT_NAMES.get(csv_split, csv_split)
        folders = (label, label.replace(" ", "_"), csv_split, split)
        trimmed = index.find(clip, folders)
        source = trimmed or index.find(video_id, folders)
        if source is None:
            index.absent.append(clip)
            continue
        entry = Entry(
            source,
            escape_key(f"{label.replace('/', '_')}/{clip}" if label else clip),
            f"line {line_number} of {csv_path}",
            class_name=label or None,
            split=split or None,
        )
        if trimmed is None:
            entry.start_seconds, entry.end_seconds = start, end
        entries.append(entry)
    return index.finish(entries, class_names, csv_path, request)


def _kinetics_rows(csv_path: str) -> Iterator[tuple[int, str, str, float, float, str]]:
    """Yields line number, label, id, start, end and split; label and split may be empty."""
    reader = csv.reader(io.StringIO(read_text(csv_path), newline=""))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not {"youtube_id", "time_start", "time_end"} <= set(header):
            raise InputError(
                f"{csv_path} is no Kinetics CSV: its first line must name the columns "
                f"label,youtube_id,time_start,time_end,split (label and split may lack), got "
                f"{','.join(header)[:200]!r}"
            )
        for values in reader:
            if not any(values):
                continue
            row = dict(zip(header, values, strict=False))
            try:
                start, end = float(row["time_start"]), float(row["time_end"])
            except (KeyError, ValueError):
                start = end = math.nan
            video_id = row["youtube_id"].strip() if "youtube_id" in row else ""
            if not video_id or not 0 <= start < end < math.inf:
                raise InputError(
                    f"line {reader.line_num} of {csv_path} needs a youtube_id and times in seconds "
                    f"with 0 <= time_start < time_end, got {','.join(values)!r}"
                )
            label, split = row.get("label", "").strip(), row.get("split", "").strip()
            check_split(split, f"the split on line {reader.line_num} of {csv_path}")
            yield reader.line_num, label, video_id, start, end, split
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {csv_path} is no CSV: {error}") from error


# ---- listed names and videos


class _VideoIndex:
    """The videos of a tree by file name, and which of them the annotations name."""

    def __init__(self, tree: Tree, class_folders: Iterable[str]) -> None:
        self.tree = tree
        self._class_folders = frozenset(class_folders)
        self._by_stem: dict[str, list[str]] = {}
        for relative, is_frames in tree.videos:
            name = relative.rpartition("/")[2]
            stem = name if is_frames else without_extension(name)
            self._by_stem.setdefault(stem, []).append(relative)
        self._used: set[str] = set()
        self.absent: list[str] = []
        """Listed names that no video has, as the reader adds them."""

    def find(self, stem: str, folders: Sequence[str]) -> str | None:
        """Returns the video of that name, in `folders` at best, in another class's folder never."""
        by_score: dict[int, list[str]] = {}
        for relative in self._by_stem.get(stem, ()):
            *around, _ = relative.split("/")
            if around and around[-1] in self._class_folders and around[-1] not in folders:
                continue
            score = sum(folder in folders for folder in around)
            by_score.setdefault(score, []).append(relative)
        if not by_score:
            return None
        best = sorted(by_score[max(by_score)])
        if len(best) > 1:
            paths = " and ".join(os.path.join(self.tree.top, relative) for relative in best[:2])
            raise InputError(
                f"two files could be the listed video {stem}: {paths}; keep one of them"
            )
        self._used.add(best[0])
        return os.path.join(self.tree.top, best[0])

    def finish(
        self, entries: list[Entry], class_names: Sequence[str], annotations: str, request: Request
    ) -> Found:
        """Closes a search: says what was absent and what was left over."""
        tree = self.tree
        result = Found(entries, tuple(class_names), tree.others.total(), tree.notes)
        if self.absent:
            note = (
                f"{len(self.absent):,} of {len(entries) + len(self.absent):,} listed videos "
                f"are not under {tree.top}; first: {', '.join(self.absent[:3])}"
            )
            if request.strict or not entries:
                raise InputError(f"{note}; check the folder of the videos against {annotations}")
            result.notes.append(note)
        if not entries:
            raise InputError(f"{annotations} names no video")
        if unlisted := len(tree.videos) - len(self._used):
            result.notes.append(
                f"ignored {counted(unlisted, 'video')} under {tree.top} that {annotations} "
                f"does not name"
            )
        return result
