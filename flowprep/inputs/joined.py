"""Joins several lists to one. Their labels mean the same classes, and no video occurs twice.

split_lists: train=train.txt -> (train, train.txt)
join_lists:  a Found for each list -> one
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from flowprep.errors import ConfigError, InputError
from flowprep.inputs.entries import Entry, Found, Request, check_split, first_of
from flowprep.inputs.label_sets import joined_sets
from flowprep.inputs.listed import mixed_labels
from flowprep.urls import as_path, redacted
from flowprep.words import format_count

__all__ = ["join_lists", "split_lists"]


def split_lists(
    lists: Sequence[str | os.PathLike[str]],
) -> list[tuple[str | None, str]]:
    """Returns split and file of `train=train.txt`. For a plain file, the split is None."""
    result: list[tuple[str | None, str]] = []
    for item in lists:
        given = os.fspath(item)
        split, equals, path = given.partition("=")
        if not equals or "/" in split or os.path.exists(given):
            split, path = "", given
        if not path:
            raise ConfigError(
                f"list must be FILE or SPLIT=FILE, such as train=train.txt, got {given!r}"
            )
        check_split(split, "the split of --list")
        result.append((split or None, as_path(path)))
    return result


def join_lists(parts: Sequence[Found], splits: Sequence[str | None], request: Request) -> Found:
    """Returns the videos of all lists, each once, with the classes of all.

    Raises InputError if one list has numbers and another has names, if a video occurs twice with
    different labels or splits, or if seconds are given for images without a frame rate.
    """
    joined = Found([], num_ignored_files=sum(part.num_ignored_files for part in parts))
    for part, split in zip(parts, splits, strict=True):
        joined.notes += part.notes
        if split is not None:
            _set_split(part.entries, split, joined.notes)
        joined.entries += part.entries
    joined.class_names = _class_names(parts)
    joined.numbers_names = any(part.numbers_names for part in parts)
    joined.label_sets = joined_sets(one for part in parts for one in part.label_sets)
    joined.entries = _without_repeats(joined.entries, joined.notes)
    _check_seconds_of_images(joined.entries, request)
    _note_on_labels(joined)
    return joined


def _set_split(entries: Sequence[Entry], split: str, notes: list[str]) -> None:
    others = [entry for entry in entries if entry.split not in (None, split)]
    if others:
        notes.append(
            f"took the split {split} of --list for {format_count(len(others), 'video')} whose "
            f"list gives another split; check the first: {others[0].origin}, {others[0].split}"
        )
    for entry in entries:
        entry.split = split


def _class_names(parts: Sequence[Found]) -> tuple[str, ...]:
    named = [part for part in parts if part.class_names]
    if not named:
        return ()
    for part in parts:
        number = next((e for e in part.entries if e.labels and not part.class_names), None)
        if number is not None:
            raise mixed_labels(
                f"{number.origin} has the number {number.labels[0]}",
                f"{named[0].entries[0].origin} belongs to a list with names of classes, such as "
                f"{named[0].class_names[0]!r}",
            )
    if all(part.class_names == named[0].class_names for part in named):
        return named[0].class_names  # in the order of the annotation
    if fixed := next((e for part in named for e in part.entries if e.labels), None):
        raise InputError(
            f"{fixed.origin} is in a list that numbers its classes, but another list has other "
            "classes; extract each list into a data set of its own"
        )
    return tuple(sorted({name for part in named for name in part.class_names}))


def _without_repeats(entries: Sequence[Entry], notes: list[str]) -> list[Entry]:
    """Drops repeated lines. Raises InputError if two lines on a video contradict each other."""
    first_of_key: dict[str, Entry] = {}
    kept, repeats = [], list[tuple[Entry, Entry]]()
    for entry in entries:
        first = first_of_key.setdefault(entry.key, entry)
        if first is entry:
            kept.append(entry)
            continue
        if _clip(first) != _clip(entry):
            kept.append(entry)  # two videos with one key: `_check_unique` reports that error
            continue
        for what, one, other in (
            ("labels", _labels(first), _labels(entry)),
            ("splits", first.split, entry.split),
        ):
            if one != other:
                raise InputError(
                    f"{first.origin} and {entry.origin} name the same video with other {what}, "
                    f"{one} and {other}: {entry.source}; {_REMEDIES[what]}"
                )
        repeats.append((first, entry))
    if repeats:
        first, entry = repeats[0]
        verb = "names" if len(repeats) == 1 else "name"
        notes.append(
            f"left out {format_count(len(repeats), 'line')} that {verb} a video again, with the "
            "same "
            f"label; first: {entry.origin} repeats {first.origin}, {redacted(entry.source)}; "
            f"remove one of the two"
        )
    return kept


_REMEDIES = {
    "labels": "keep one of the lines, or write all labels on one line (--format labels)",
    "splits": "keep the video in one of the splits",
}


def _clip(entry: Entry) -> tuple[object, ...]:
    return entry.source, entry.start_seconds, entry.end_seconds


def _labels(entry: Entry) -> str:
    if entry.class_name is not None:
        return entry.class_name
    named = entry.named_labels or {}
    sets = [f"{name} {' '.join(map(str, labels))}" for name, labels in named.items() if labels]
    return ", ".join(sets) or " ".join(map(str, entry.labels)) or "none"


def _check_seconds_of_images(entries: Sequence[Entry], request: Request) -> None:
    if request.image_fps is not None:
        return
    for entry in entries:
        if entry.is_folder and entry.start_seconds is not None:
            end = "the end" if entry.end_seconds is None else f"{entry.end_seconds:g} s"
            raise InputError(
                f"{entry.origin} asks for {entry.start_seconds:g} s to {end} of {entry.source}, a "
                "folder of images, which has no frame rate of its own; give the frame rate of "
                "the images, such as --image-fps 25 (image_fps=25)"
            )


def _note_on_labels(joined: Found) -> None:
    if joined.numbers_names:
        names = joined.class_names
        examples = first_of([f"{name} is {number}" for number, name in enumerate(names)])
        joined.notes.append(
            f"labels are names of classes, and are numbered in sorted order: {examples}; "
            f"write numbers for another order"
        )
    for name in joined.class_names:
        if name.encode("utf-8", "replace").decode() != name:
            raise InputError(
                f"the name of a class must be UTF-8, got {name!a}; save the list as UTF-8"
            )
    bare = [e for e in joined.entries if not e.labels and e.class_name is None]
    if bare and len(bare) < len(joined.entries):
        verb = "has" if len(bare) == 1 else "have"
        joined.notes.append(
            f"{format_count(len(bare), 'listed video')} of {len(joined.entries):,} {verb} no "
            "label; "
            f"first: {bare[0].origin}, {bare[0].listed}; add one if it should be trained on"
        )
    if not joined.class_names:
        lowest = min((min(e.labels) for e in joined.entries if e.labels), default=0)
        if lowest == 1:
            joined.notes.append(
                f"labels start at {lowest}, and are kept as they are, so a network gets a class 0 "
                f"without videos; write labels from 0 on if {lowest} is the first class"
            )
