"""Finds listed videos that are not on disk, and writes the notes about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence

from flowprep.errors import InputError
from flowprep.inputs.entries import Entry, Request
from flowprep.words import format_count

__all__ = ["drop_contested_guesses", "missing_examples", "refuse_missing_classes"]

Suggest = Callable[[str], Sequence[str]]
"""A function that returns the existing names most similar to a missing name."""

_MOST_EXAMPLES = 3


def drop_contested_guesses(entries: Iterable[Entry]) -> list[Entry]:
    """Marks a guessed video as missing if another line of the list names the guessed file exactly.

    Returns the entries that it marked. For example, the file `a.mp4` is not taken for a missing
    `A.mp4` if the list also names `a.mp4`.
    """
    entries = list(entries)
    guesses = [entry for entry in entries if entry.is_guess]
    if not guesses:
        return []
    named = {entry.source for entry in entries if not entry.is_guess and not entry.is_missing}
    contested = [entry for entry in guesses if entry.source in named]
    for entry in contested:
        entry.is_missing, entry.difference, entry.is_folder = True, None, False
    return contested


def missing_examples(names: Sequence[str], suggest: Suggest, used: Container[str]) -> str:
    """Returns the first missing names, each with the most similar name that no entry uses."""
    examples = []
    for name in names[:_MOST_EXAMPLES]:
        close = next((near for near in suggest(name) if near not in used), None)
        examples.append(f"{name} (did you mean {close}?)" if close else name)
    return ", ".join(examples)


def refuse_missing_classes(
    entries: Sequence[Entry],
    class_names: Sequence[str],
    place: str,
    annotations: str,
    request: Request,
    suggest: Suggest,
    used: Container[str],
) -> None:
    """Raises InputError if every listed video of a class is missing, unless the user allowed it.

    The usual cause is a class folder that has another name or that was never unpacked. A network
    that is trained without the videos of a class never predicts this class.
    """
    if request.allow_missing:
        return
    listed, there = Counter[str](), set[str]()
    first: dict[str, str] = {}
    for entry in entries:
        for name in _classes_of(entry, class_names):
            listed[name] += 1
            first.setdefault(name, entry.listed)
            if not entry.is_missing:
                there.add(name)
    absent = [name for name in listed if name not in there]
    if not absent:
        return
    examples = "; ".join(
        f"{name} ({format_count(listed[name], 'listed video')}, "
        f"first: {missing_examples([first[name]], suggest, used)})"
        for name in absent[:_MOST_EXAMPLES]
    )
    verb = "has" if len(absent) == 1 else "have"
    raise InputError(
        f"{len(absent):,} of {len(listed):,} classes in {annotations} {verb} no video under "
        f"{place}: {examples}; check the folder of the videos against {annotations}, or give "
        f"--allow-missing (allow_missing=True) to go on without them"
    )


def _classes_of(entry: Entry, class_names: Sequence[str]) -> list[str]:
    if entry.class_name is not None:
        return [entry.class_name]
    return [class_names[label] if class_names else str(label) for label in entry.labels]
