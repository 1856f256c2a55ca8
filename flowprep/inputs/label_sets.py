"""Named label sets that an annotation gives beside a video's own labels, such as verb and noun.

Entry.named_labels, Found.label_sets -> Video.named_labels, Manifest.label_sets
-> OUT/labels/NAME.jsonl (`flowprep.dataset.label_sets`)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowprep.errors import InputError

__all__ = ["NamedSet", "joined_sets"]


@dataclass(frozen=True)
class NamedSet:
    """A label set of an annotation. The videos hold their labels in it."""

    name: str
    """The name that `--labels` takes."""
    class_names: tuple[str, ...]
    """The name of each class number. Empty if the annotation gives only numbers."""
    source: str
    """The column or field that the labels come from, for people to read."""


def joined_sets(sets: Iterable[NamedSet]) -> tuple[NamedSet, ...]:
    """Returns each label set once, with the class names of those lists that give some.

    Raises InputError if two lists give one set different class names.
    """
    joined: dict[str, NamedSet] = {}
    for one in sets:
        first = joined.setdefault(one.name, one)
        if not first.class_names:
            joined[one.name] = one
        elif one.class_names not in ((), first.class_names):
            differing = next(
                (
                    pair
                    for pair in zip(first.class_names, one.class_names, strict=False)
                    if pair[0] != pair[1]
                ),
                (str(len(first.class_names)), str(len(one.class_names))),
            )
            raise InputError(
                f"the lists have different classes for the labels {one.name}, such as "
                f"{differing[0]!r} and {differing[1]!r}; put the same file of classes beside each"
            )
    return tuple(joined.values())
