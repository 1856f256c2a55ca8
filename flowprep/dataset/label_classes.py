"""The classes of labels that are being made: their names, order and numbers."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowprep.dataset.label_sources import AnnotatedVideo, Annotation, read_class_names
from flowprep.dataset.labels import VideoLabels
from flowprep.errors import ConfigError, InputError
from flowprep.inputs.entries import first_of

__all__ = [
    "DraftLabels",
    "check_missing_classes",
    "given_class_names",
    "numbered",
    "renamed",
    "renumbered",
]


@dataclass(frozen=True)
class DraftLabels:
    """Named labels that are being made."""

    videos: dict[str, VideoLabels]
    class_names: tuple[str, ...]
    source: str
    num_absent: int = 0
    notes: list[str] = field(default_factory=list)


def given_class_names(
    given: str | os.PathLike[str] | Sequence[str] | None,
) -> tuple[str, ...] | None:
    """Returns the class names from a file, or the given ones. Raises ConfigError if empty."""
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return read_class_names(os.fspath(given))
    if not given:
        raise ConfigError("class_names must have at least one name, got none")
    return tuple(given)


def _names_of(labels: DraftLabels) -> tuple[str, ...]:
    """Returns the names of the classes, or their numbers if they have no names."""
    if labels.class_names:
        return labels.class_names
    highest = max((n for one in labels.videos.values() for n in one.labels), default=-1)
    return tuple(map(str, range(highest + 1)))


def renumbered(labels: DraftLabels, names: Sequence[str]) -> DraftLabels:
    """Gives the classes other names, by their numbers. Classes with equal names become one."""
    known = _names_of(labels)
    if len(names) < len(known) or (labels.class_names and len(names) > len(known)):
        raise ConfigError(
            f"class_names must be {len(known)}, one for each class of {labels.source}, got "
            f"{len(names)}"
        )
    return _merged(labels, names)


def renamed(labels: DraftLabels, rename: Mapping[str, str]) -> DraftLabels:
    """Gives classes other names, by their old names. Raises ConfigError for an unknown name."""
    known = _names_of(labels)
    for old in rename:
        if old not in known:
            close = difflib.get_close_matches(old, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"they are {first_of(known, 10)}"
            raise ConfigError(f"rename must begin with the name of a class, got {old!r}; {hint}")
    return _merged(labels, [rename.get(name, name) for name in known])


def _merged(labels: DraftLabels, names: Sequence[str]) -> DraftLabels:
    if not all(names):
        number = list(names).index("")
        raise ConfigError(f"every class needs a name, got '' for class {number}; give it a name")
    places = {name: number for number, name in enumerate(dict.fromkeys(names))}
    numbers = [places[name] for name in names]
    videos = {
        key: VideoLabels(key, tuple(dict.fromkeys(numbers[n] for n in one.labels)), one.split)
        for key, one in labels.videos.items()
    }
    notes = list(labels.notes)
    if len(places) < len(names):
        notes.append(
            f"{len(names)} classes became {len(places)}, because some have the same name; give "
            "each its own name to keep them apart"
        )
    return dataclasses.replace(labels, videos=videos, class_names=tuple(places), notes=notes)


def numbered(
    annotation: Annotation,
    names: tuple[str, ...] | None,
    own_names: Sequence[str],
    base: DraftLabels,
    notes: list[str],
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the class names and the number of each class."""
    if not annotation.has_labels:
        return base.class_names, {}
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"class_names must differ from each other, got {twice!r} twice")
    first = {v.class_name: v for v in reversed(annotation.videos) if v.class_name is not None}
    with_numbers = next((video for video in annotation.videos if video.labels), None)
    if not first:
        return _checked_numbers(annotation, names, notes), {}
    if with_numbers is not None:
        some = next(iter(first.values()))
        raise InputError(
            f"labels must be all names or all numbers: {some.origin} has {some.class_name!r}, "
            f"{with_numbers.origin} has {with_numbers.labels[0]}"
        )
    order = names or annotation.class_names
    if order is None:
        order = tuple(sorted(filter(None, first)))
        own = tuple(map(str, own_names))
        if set(order) <= set(own) and order != own:
            order = own
            notes.append(
                f"the {len(order)} classes keep the numbers that they have in the data set; give "
                "--class-names FILE (class_names=) for another order"
            )
    for name, video in first.items():
        if name not in order:
            close = difflib.get_close_matches(name or "", order, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise InputError(
                f"{video.origin}: class {name!r} is not among the {len(order)} class names{hint}; "
                "correct the line, or add the class to the class names"
            )
    return order, {name: number for number, name in enumerate(order)}


def _checked_numbers(
    annotation: Annotation, names: tuple[str, ...] | None, notes: list[str]
) -> tuple[str, ...]:
    used = {label for video in annotation.videos for label in video.labels}
    if used and 0 not in used:
        notes.append(
            f"no video has label 0, the number of the first class; if {annotation.source} counts "
            "from 1, as UCF101's lists do, write names of classes instead of numbers"
        )
    if names is None:
        if used:
            notes.append(
                f"the labels of {annotation.source} are numbers without names; give --class-names "
                "FILE (class_names=) to name the classes"
            )
        return ()
    for video in annotation.videos:
        if video.labels and max(video.labels) >= len(names):
            raise InputError(
                f"{video.origin}: label must be below {len(names)}, the number of class names, got "
                f"{max(video.labels)}"
            )
    return names


def check_missing_classes(
    annotation: Annotation,
    found: Iterable[AnnotatedVideo],
    location: str,
    allow_missing: bool,
    notes: list[str],
) -> None:
    """Raises InputError for classes of which the data set holds no video."""

    def classes(videos: Iterable[AnnotatedVideo]) -> dict[str, None]:
        named: dict[str, None] = {}
        for video in videos:
            if video.class_name is not None:
                named[video.class_name] = None
            named.update((f"class {label}", None) for label in video.labels)
        return named

    wanted, held = classes(annotation.videos), classes(found)
    if missing := [name for name in wanted if name not in held]:
        said = (
            f"{len(missing)} of {len(wanted)} classes of {annotation.source} have no video in "
            f"{location}: {first_of(missing, 5)}"
        )
        if not allow_missing:
            raise InputError(f"{said}; extract them, or add --allow-missing to label without them")
        notes.append(f"{said}; extract them if they should be trained on")
