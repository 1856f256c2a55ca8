"""EPIC-Kitchens (100 and 55): segments of long videos, each with a verb and a noun.

narration_id,participant_id,video_id,...,start_timestamp,stop_timestamp,...,verb,verb_class,noun,...
id,key,instances,category       the names of the classes, in EPIC_100_verb_classes.csv beside it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowprep.errors import InputError
from flowprep.inputs.annotations.beside import file_beside
from flowprep.inputs.annotations.search import open_table
from flowprep.inputs.clips import names_of_clips
from flowprep.inputs.csv_lists import parse_seconds
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.keys import escape_key
from flowprep.inputs.label_sets import NamedSet
from flowprep.inputs.listed import integers_in
from flowprep.inputs.text_files import Row, read_table

__all__ = ["EPIC_COLUMNS", "read_epic"]

EPIC_COLUMNS = frozenset(["video_id", "start_timestamp", "stop_timestamp"])

_SETS = ("verb", "noun")
"""The label sets. The numbers of `verb` are in the column verb_class."""
_NUMBER_COLUMNS = ("id", "{}_id")
_NAME_COLUMNS = ("key", "class_key")
"""The columns of the files of classes, in EPIC-Kitchens-100 and -55."""


def read_epic(path: str, request: Request) -> Found:
    """Finds the segments of EPIC-Kitchens' CSV. The label is verb_class; test lists have none.

    The label sets `verb` and `noun` have verb_class and noun_class, the first noun. Files of
    classes beside the list give the names of the classes.

    A key is the id of the narration (`P01_01_0`). EPIC-55 has a uid instead, and the key is then
    the id of the video and the uid.
    """
    header = "video_id,start_timestamp,stop_timestamp (and narration_id, verb_class, noun_class)"
    table, search = open_table(path, request, EPIC_COLUMNS, "EPIC-Kitchens", header)
    sets = {
        name: _label_set(name, table.path, search.notes)
        for name in _SETS
        if f"{name}_class" in table.columns
    }
    clips, entries, empty = list[tuple[str, float, float]](), list[Entry](), list[str]()
    for row in table.rows:
        origin = f"line {row.number} of {table.path}"
        video_id = row.get("video_id")
        start = parse_seconds(row.get("start_timestamp"))
        end = parse_seconds(row.get("stop_timestamp"))
        if not video_id or start is None or end is None:
            raise InputError(
                f"{origin} needs a video_id, and a start_timestamp and a stop_timestamp such as "
                f"00:00:03.37, got {row.text[:200]!r}"
            )
        labels = _labels(row, sets, origin)
        narration = row.get("narration_id")
        if not narration and row.get("uid"):
            narration = f"{video_id}_{row.get('uid')}"
        if not start < end:
            empty.append(f"{narration or video_id} from {start:g} to {end:g} s")
            continue
        entry = Entry("", narration, origin, labels.get("verb", ()), listed=narration or video_id)
        entry.named_labels = labels or None
        entry.may_repeat = bool(narration)
        names = [narration] if narration else []
        search.find_clip(entry, video_id, (start, end), names=names, is_shared=True)
        clips.append((video_id, start, end))
        entries.append(entry)
    for entry, name in zip(entries, names_of_clips(clips, request.stored_ranges), strict=True):
        entry.key = escape_key(entry.key or name)
    search.note_empty("narration", empty)
    if sets:
        search.notes.append(
            f"made the label sets {' and '.join(sets)} from {table.path}; give --labels "
            f"{','.join(sets)} to train on them; the data set's own labels are those of "
            f"{'verb' if 'verb' in sets else 'no set'}"
        )
    found = search.finish(entries, sets["verb"].class_names if "verb" in sets else ())
    found.label_sets = tuple(sets.values())
    return found


def _labels(row: Row, sets: Mapping[str, NamedSet], origin: str) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, one in sets.items():
        labels = integers_in(row.get(f"{name}_class"))
        if labels is None or len(labels) > 1:
            raise InputError(
                f"{origin} needs one integer >= 0 as {name}_class, got "
                f"{row.get(f'{name}_class')!r}; leave the cell empty for a segment without a {name}"
            )
        if labels and one.class_names and labels[0] >= len(one.class_names):
            raise InputError(
                f"{origin}: {name}_class must be from 0 to {len(one.class_names) - 1}, as the "
                f"file of classes beside the list says, got {labels[0]}; correct one of the two"
            )
        found[name] = labels
    return found


def _label_set(name: str, list_path: str, notes: list[str]) -> NamedSet:
    files = [f"{stem}{name}_classes.csv" for stem in ("EPIC_100_", "EPIC_", "")]
    path = file_beside(list_path, files)
    source = f"EPIC-Kitchens, {name}_class"
    if path is None:
        notes.append(
            f"the classes of {name} have numbers without names; put {files[0]} beside "
            f"{list_path} for their names"
        )
        return NamedSet(name, (), source)
    notes.append(f"took the names of the classes of {name} from {path}; move it away for numbers")
    return NamedSet(name, _class_names(path, name), source)


def _class_names(path: str, name: str) -> tuple[str, ...]:
    table = read_table(path)
    number = _first([column.format(name) for column in _NUMBER_COLUMNS], table.columns)
    key = _first(_NAME_COLUMNS, table.columns)
    if number is None or key is None:
        raise InputError(
            f"{path} must have the columns id and key, as EPIC_100_{name}_classes.csv has, got "
            f"{','.join(table.columns)[:200]!r}; correct it, or move it away"
        )
    names = {}
    for row in table.rows:
        if not row.get(number).isascii() or not row.get(number).isdigit():
            raise InputError(
                f"line {row.number} of {path} needs an integer >= 0 as {number}, got "
                f"{row.get(number)!r}; correct it, or move the file away"
            )
        names[int(row.get(number))] = row.get(key)
    given = tuple(names[one] for one in sorted(names))
    if sorted(names) != list(range(len(names))) or len(set(given)) < len(given) or not all(given):
        raise InputError(
            f"{path} must number its classes from 0 to {len(names) - 1} without gaps, each with a "
            "name of its own; correct it, or move it away"
        )
    return given


def _first(wanted: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((column for column in wanted if column in columns), None)
