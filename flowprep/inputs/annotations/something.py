"""Something-Something: JSON (V2) of ids with templates, `Spinning [something]`, as classes.

[{"id": "74225", "label": "spinning cube", "template": "Spinning [something]"}, ...]
{"Spinning something": "136", ...}       the numbers of classes, beside it
"""

from __future__ import annotations

from typing import Any

from flowprep.errors import InputError
from flowprep.inputs.annotations.beside import file_beside
from flowprep.inputs.annotations.search import Search, file_and_videos
from flowprep.inputs.entries import Entry, Found, Request
from flowprep.inputs.json_files import read_json
from flowprep.inputs.keys import escape_key

__all__ = ["read_something"]

_NUMBERS_FILES = (
    "something-something-v2-labels.json",
    "labels.json",
    "something-something-v2-labels.json.txt",
)
"""The possible names of the file with the numbers of the classes."""


def read_something(path: str, request: Request) -> Found:
    """Finds the videos of a list. The classes are the templates.

    A file beside the list (`labels.json`, `something-something-v2-labels.json`) gives the names of
    the classes, without brackets, and their numbers. Without such a file, the classes are numbered
    in sorted order. Test lists have only ids.
    """
    json_path, tree = file_and_videos(path, request)
    items = read_json(json_path)
    if isinstance(items, dict) and items and all(_is_number(value) for value in items.values()):
        raise InputError(
            f"{json_path} lists the numbers of the classes, not videos; name the list beside it, "
            "such as something-something-v2-train.json"
        )
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(
            f'{json_path} is no list of Something-Something: it must be [{{"id": "1", "template": '
            f'"Spinning [something]"}}, ...], got {str(items)[:100]}; give --format kinetics for '
            f"Kinetics' JSON, or write a CSV with the columns path,label"
        )
    numbers_path, numbers = _numbers_beside(json_path)
    search = Search(tree, json_path, request)
    entries, used = [], set[str]()
    for count, item in enumerate(items, start=1):
        origin = f"entry {count} of {json_path}"
        video_id, template = item.get("id"), item.get("template") or item.get("label")
        if not isinstance(video_id, (str, int)) or not isinstance(template, (str, type(None))):
            raise InputError(f"{origin} needs an id, and text as template, got {str(item)[:200]}")
        class_name = template
        if numbers and template is not None:
            class_name = template.replace("[", "").replace("]", "")
            if class_name not in numbers:
                raise InputError(
                    f"{origin}: class {class_name!r} is not in {numbers_path}; correct that file, "
                    f"or move it away to number the classes in sorted order"
                )
        if class_name is not None:
            used.add(class_name)
        name = str(video_id)
        entry = Entry("", escape_key(name), origin, class_name=class_name, listed=name)
        search.find(entry, name)
        entries.append(entry)
    class_names = numbers if numbers and used else tuple(sorted(used))
    if numbers_path and used:
        search.notes.append(
            f"took the numbers of the classes from {numbers_path}; move it away to number the "
            f"classes of the list in sorted order"
        )
    else:
        search.note_order(class_names, f"{_NUMBERS_FILES[1]} beside the list")
    return search.finish(entries, class_names)


def _numbers_beside(json_path: str) -> tuple[str, tuple[str, ...]]:
    """Returns the file with the numbers of the classes, and the classes in order.

    Returns an empty name and no classes if there is no such file. Raises InputError for a file of
    another form, and if the numbers have gaps.
    """
    path = file_beside(json_path, _NUMBERS_FILES)
    if path is None:
        return "", ()
    value = read_json(path)
    if not isinstance(value, dict) or not value or not all(map(_is_number, value.values())):
        raise InputError(
            f'{path} must give the numbers of the classes, as in {{"Spinning something": "136", '
            f"...}}, got {str(value)[:100]}; correct it, or move it away to number the classes in "
            "sorted order"
        )
    names = sorted(value, key=lambda name: int(value[name]))
    if [int(value[name]) for name in names] != list(range(len(names))):
        raise InputError(
            f"{path} must number its classes from 0 to {len(names) - 1} without gaps; "
            f"correct it, or move it away to number the classes in sorted order"
        )
    return path, tuple(names)


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit())
