"""Finds the classes and splits of videos from their folders, and says so in notes.

    train/Archery/v1    split `train`, class `Archery`      Archery/v1         class `Archery`
    Archery/train/v1    split `train`, class `Archery`      UCF/Archery/v1     class `Archery`
    train/v1            split `train`, no class             subject1/walk/v1   class `walk`

Levels count from 1, the first folder below VIDEOS (or below the root). A note says how the folders
were understood, unless they are only classes at level 1. If folders can be read in two ways, they
give no classes, and the note says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from flowprep.errors import InputError
from flowprep.words import format_count

__all__ = ["FolderClasses", "classes_of_folders", "split_named"]

Parts = tuple[str, ...]

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# mmaction2's folders of Kinetics (videos_train, rawframes_val), SlowFast's (train_256).
_AROUND_A_SPLIT = frozenset(["videos", "frames", "rawframes", "clips", "256", "320"])
_WORDS = re.compile(r"[^\W_]+")
_NUM_SHOWN = 4


@dataclass(frozen=True)
class FolderClasses:
    """Class and split of each folder, and sentences on how the folders were understood."""

    classes: dict[str, str | None]
    splits: dict[str, str | None]
    notes: tuple[str, ...]


def split_named(name: str) -> str | None:
    """Returns the split that a folder's name means, such as `val` for `Validation`, or None."""
    return _SPLITS.get(name.casefold())


def classes_of_folders(
    counts: Counter[str],
    *,
    class_level: int | None = None,
    empty: Iterable[str] = (),
    by_input: bool = False,
) -> FolderClasses:
    """Finds classes and splits in the folders of videos.

    `counts` has the number of videos in each folder, given as a path below VIDEOS. `class_level`
    chooses the level of the classes. Level 1 is the first folder, without splits, as in format
    version 1. Level 0 takes no classes. `empty` are folders without a video. With `by_input`, the
    first component of every path is the name of a folder in VIDEOS, above level 1. Raises
    InputError if there are videos above `class_level`.
    """
    tree = _Tree({folder: _parts(folder) for folder in counts}, counts, int(by_input))
    if class_level == 1:
        found = _first_folders(tree)
    elif class_level is None:
        found = _understood(tree)
    elif class_level == 0:
        found = _understood(tree)
        found = _Found(split_level=found.split_level, splits=found.splits)
    else:
        found = _chosen(tree, class_level)
    notes = found.notes
    # Class folders directly in VIDEOS need no note, because this is the usual layout.
    is_plain = found.split_level is None and found.class_level == 0
    if (said := _what_was_understood(tree, found)) is not None and not is_plain:
        how = "" if class_level is not None else "; where that is wrong, give --class-level N"
        notes = [said + how, *notes]
    if class_level is None:
        notes += _on_splits(tree, found)
        notes += _on_classes(tree, found)
    notes += _on_empty(tree, found, [_parts(folder) for folder in empty])
    return FolderClasses(
        {folder: found.class_of(parts) for folder, parts in tree.folders.items()},
        {folder: found.split_of(parts) for folder, parts in tree.folders.items()},
        tuple(notes),
    )


def _parts(folder: str) -> Parts:
    return tuple(folder.split("/")) if folder else ()


@dataclass
class _Tree:
    folders: dict[str, Parts]
    counts: Counter[str]
    offset: int
    """Components above level 1."""

    def at(self, index: int) -> set[str]:
        """Names of the folders at a depth."""
        return {parts[index] for parts in self.folders.values() if len(parts) > index}

    def number(self, wanted: Callable[[Parts], bool]) -> int:
        """Videos in the folders that are wanted."""
        return sum(self.counts[folder] for folder, parts in self.folders.items() if wanted(parts))

    @property
    def least_depth(self) -> int:
        return min(map(len, self.folders.values()))

    @property
    def depth(self) -> int:
        return max(map(len, self.folders.values()))

    def below(self, index: int) -> dict[str, set[str]]:
        """The names under each name at a depth."""
        found: dict[str, set[str]] = {}
        for parts in self.folders.values():
            if len(parts) > index + 1:
                found.setdefault(parts[index], set()).add(parts[index + 1])
        return found

    def level(self, index: int) -> int:
        """Returns the level by which users name a depth."""
        return index + 1 - self.offset


@dataclass
class _Found:
    class_level: int | None = None
    """A depth; None: no classes."""
    split_level: int | None = None
    splits: dict[str, str] = field(default_factory=dict)
    """The split of each name at that depth."""
    unlabeled: frozenset[str] = frozenset()
    """Splits without class folders."""
    notes: list[str] = field(default_factory=list)

    def class_of(self, parts: Parts) -> str | None:
        level = self.class_level
        if level is None or self.split_of(parts) in self.unlabeled:
            return None
        return parts[level]

    def split_of(self, parts: Parts) -> str | None:
        return None if self.split_level is None else self.splits[parts[self.split_level]]


# ---- the reading of a tree


def _first_folders(tree: _Tree) -> _Found:
    """Reads a tree like data sets of format version 1."""
    num_above = tree.number(lambda parts: len(parts) <= tree.offset)
    if not num_above:
        return _Found(class_level=tree.offset)
    if num_above == tree.counts.total():
        return _Found()
    return _Found(notes=[_not_in_a_folder(tree, num_above)])


def _chosen(tree: _Tree, class_level: int) -> _Found:
    index = class_level - 1 + tree.offset
    above = [folder for folder, parts in tree.folders.items() if len(parts) <= index]
    if above:
        number = sum(tree.counts[folder] for folder in above)
        first = min(above).split("/", tree.offset)[-1] if tree.offset else min(above)
        raise InputError(
            f"class_level {class_level} asks for {class_level} folders around every video, but "
            f"{format_count(number, 'video')} of {tree.counts.total():,} have fewer (first: in "
            f"{first or 'VIDEOS itself'!r}); choose a smaller class_level, or 0 for no classes"
        )
    for level in range(index):
        if splits := _splits_in(tree.at(level)):
            return _Found(index, level, splits)
    return _Found(index)


def _understood(tree: _Tree) -> _Found:
    if tree.depth <= tree.offset and not tree.offset:
        return _Found()
    start = _end_of_chain(tree)
    if start == tree.least_depth:
        if start == tree.depth:  # all videos are in one folder
            return _Found(class_level=0)
        num_above = tree.number(lambda parts: len(parts) == start)
        return _Found(notes=[_not_in_a_folder(tree, num_above)])
    names = tree.at(start)
    if splits := _splits_in(names):
        return _below_splits(tree, start, splits)
    if (doubt := _doubtful_splits(tree, start)) is not None:
        return _Found(notes=[doubt])
    below = tree.at(start + 1)
    if tree.least_depth > start + 1 and (splits := _exact_splits(below)):
        found = _Found(start, start + 1, splits)
        if tree.depth == start + 2:
            return found
        found.class_level = None
        found.notes = [
            f"gave no labels: there are folders above {_shown(below)} ({_shown(names)}) and below, "
            f"and both may be the classes; give --class-level {tree.level(start)} or "
            f"{tree.level(start + 2)}"
        ]
        return found
    return _classes_from(tree, start, _Found())


def _below_splits(tree: _Tree, split_level: int, splits: dict[str, str]) -> _Found:
    """Finds the classes in the folders of the splits. A whole split may have no class folders."""
    found = _Found(split_level=split_level, splits=splits)
    depths: dict[str, set[bool]] = {}
    for parts in tree.folders.values():
        is_deeper = len(parts) > split_level + 1
        depths.setdefault(splits[parts[split_level]], set()).add(is_deeper)
    if set().union(*depths.values()) == {False}:
        return found
    mixed = sorted(split for split, deeper in depths.items() if len(deeper) > 1)
    if mixed:
        number = tree.number(lambda parts: len(parts) == split_level + 1)
        found.notes = [
            f"gave no labels: {format_count(number, 'video')} of {tree.counts.total():,} lie in "
            "the "
            f"folder of the split {_shown(mixed)} itself, beside its class folders; move each "
            f"into a class folder"
        ]
        return found
    flat = sorted(split for split, deeper in depths.items() if deeper == {False})
    labeled = {
        folder: p for folder, p in tree.folders.items() if splits[p[split_level]] not in flat
    }
    found.unlabeled = frozenset(flat)
    if flat:
        found.notes = [
            f"{_shown(flat)} has no class folders: its videos have no labels; make class folders "
            f"in it, or give their labels by a list"
        ]
    within = _Tree(labeled, tree.counts, tree.offset)
    start = split_level + 1
    # In train/videos/CLASS or train/train/CLASS, a folder that every split has means nothing.
    while within.least_depth > start + 1 and (
        len(within.at(start)) == 1 or all(map(split_named, within.at(start)))
    ):
        start += 1
    return _classes_from(within, start, found)


def _classes_from(tree: _Tree, level: int, found: _Found) -> _Found:
    """Takes the classes from the first depth of all folders, or from the next if it has numbers.

    If the names under one folder also occur under others, they are the classes of each subject, or
    the subjects of each class. Numbered names are subjects.
    """
    found.class_level = level
    names, below = tree.at(level), tree.at(level + 1)
    groups = Counter(name for some in tree.below(level).values() for name in some)
    recurring = sum(number > 1 for number in groups.values())
    recurs = len(groups) > 1 and 2 * recurring >= len(groups)
    has_level_below = tree.least_depth > level + 1
    are_numbered, below_are_numbered = _are_numbered(names), _are_numbered(below)
    if are_numbered and not below_are_numbered and recurs and has_level_below:
        found.class_level = level + 1
    elif (recurs and are_numbered == below_are_numbered) or (
        are_numbered and has_level_below and len(below) > 1 and not below_are_numbered
    ):
        found.class_level = None
        found.notes.append(
            f"gave no labels: the folders at level {tree.level(level)} ({_shown(names)}) and at "
            f"level {tree.level(level + 1)} ({_shown(below)}) may both be the classes; give "
            f"--class-level {tree.level(level)} or {tree.level(level + 1)}"
        )
    return found


def _end_of_chain(tree: _Tree) -> int:
    """Returns the first depth at which folders differ or have names of splits."""
    level = 0
    while tree.least_depth > level:
        names = tree.at(level)
        if len(names) > 1 or _splits_in(names):
            break
        level += 1
    return level


# ---- names


def _exact_splits(names: Collection[str]) -> dict[str, str] | None:
    splits = {name: split for name in names if (split := split_named(name)) is not None}
    return splits if splits and len(splits) == len(names) else None


def _splits_in(names: Collection[str]) -> dict[str, str] | None:
    """Returns the split of each name if all names are splits, such as `train` or `videos_train`.

    A name of several words is a split only together with another split. `train_clips` alone may
    mean anything.
    """
    if splits := _exact_splits(names):
        return splits
    splits = {}
    for name in names:
        words = [word.casefold() for word in _WORDS.findall(name)]
        found = [_SPLITS[word] for word in words if word in _SPLITS]
        rest = [word for word in words if word not in _SPLITS]
        if len(found) != 1 or len(rest) > 1 or not _AROUND_A_SPLIT.issuperset(rest):
            return None
        splits[name] = found[0]
    return splits if len(set(splits.values())) > 1 else None


def _doubtful_splits(tree: _Tree, level: int) -> str | None:
    """Returns why it is unclear whether names at a depth are splits or classes, or None."""
    names = tree.at(level)
    exact = sorted(name for name in names if split_named(name))
    others = sorted(names - set(exact))
    # `train` may be a class of vehicles beside bus and car.
    if len(exact) == 1 and len(others) > 1 and tree.depth == level + 1:
        return None
    alike = [name for name in names if any(w.casefold() in _SPLITS for w in _WORDS.findall(name))]
    if len(alike) == len(names) and len(names) > 1:
        what = f"the folders {_shown(alike)} may be splits or classes"
    elif exact:
        what = (
            f"{_shown(exact)} {'is a split' if len(exact) == 1 else 'are splits'}, and beside "
            + (f"{'it' if len(exact) == 1 else 'them'} there is {_shown(others)}")
        )
    else:
        return None
    number = tree.level(level)
    return (
        f"gave no labels and no splits: {what}; name the folders of splits train, val and test "
        f"and move others out, or give --class-level {number} if these folders are the classes"
    )


def _are_numbered(names: Collection[str]) -> bool:
    """Whether names differ only in numbers, such as subject01 and subject02, or 1, 2 and 10."""
    return len({re.sub(r"[0-9]+", "0", name.casefold()) for name in names}) == 1 and all(
        re.search(r"[0-9]", name) for name in names
    )


def _shown(names: Iterable[str]) -> str:
    names = sorted(names)
    if len(names) > _NUM_SHOWN:
        return ", ".join(names[: _NUM_SHOWN - 1]) + f", ... ({len(names):,})"
    return ", ".join(names)


# ---- notes


def _not_in_a_folder(tree: _Tree, number: int) -> str:
    return (
        f"gave no labels: {format_count(number, 'video')} of {tree.counts.total():,} not in a "
        "class "
        f"folder; move {'it' if number == 1 else 'them'} into one, or give labels by a list"
    )


def _what_was_understood(tree: _Tree, found: _Found) -> str | None:
    parts = []
    if found.split_level is not None:
        numbers: Counter[str] = Counter()
        for folder, folders in tree.folders.items():
            numbers[found.split_of(folders) or ""] += tree.counts[folder]
        told = ", ".join(f"{split} {number:,}" for split, number in sorted(numbers.items()))
        level = tree.level(found.split_level)
        where = f"the folders at level {level}" if level else "the names of VIDEOS"
        parts.append(f"{format_count(len(numbers), 'split')} ({told} videos) from {where}")
    if found.class_level is not None:
        names = {name for p in tree.folders.values() if (name := found.class_of(p)) is not None}
        noun = "class" if len(names) == 1 else "classes"
        parts.append(
            f"{len(names):,} {noun} ({_shown(names)}) from the folders at level "
            f"{tree.level(found.class_level)}"
        )
    elif parts:
        parts.append("no classes")
    return "understood " + ", ".join(parts) if parts else None


def _on_classes(tree: _Tree, found: _Found) -> list[str]:
    if (level := found.class_level) is None:
        return []
    notes = []
    names = {name for parts in tree.folders.values() if (name := found.class_of(parts)) is not None}
    if len(names) == 1:
        notes.append(
            f"every label is {_shown(names)!r}, so all videos have the same class; name the "
            "folder around the class folders, or give --class-level 0 for no labels"
        )
    lowest = max(level, -1 if found.split_level is None else found.split_level)
    deeper = tree.number(lambda parts: len(parts) > lowest + 1)
    if deeper:
        below = {parts[lowest + 1] for parts in tree.folders.values() if len(parts) > lowest + 1}
        notes.append(
            f"{format_count(deeper, 'video')} in folders below the class folders "
            f"({_shown(below)}): these folders give no label; if they are the classes, give "
            f"--class-level {tree.level(lowest + 1)}"
        )
    alike = [name for name in names if split_named(name)]
    if found.split_level is None and len(names) > 1 and alike:
        notes.append(
            f"{_shown(alike)} is taken for a class, because the folders beside it are not splits; "
            "if it is a split, rename the others to train, val or test"
        )
    return notes


def _on_splits(tree: _Tree, found: _Found) -> list[str]:
    """Says which splits do not have all classes of the other splits."""
    if found.split_level is None or found.class_level is None:
        return []
    classes: dict[str, set[str]] = {}
    for parts in tree.folders.values():
        split, name = found.split_of(parts), found.class_of(parts)
        if split is not None and name is not None:
            classes.setdefault(split, set()).add(name)
    every = set().union(*classes.values())
    notes = []
    for split, names in sorted(classes.items()):
        if absent := every - names:
            notes.append(
                f"the split {split} has no video of {len(absent):,} of {len(every):,} classes "
                f"({_shown(absent)}); add the videos, or check how the folders are spelled"
            )
    return notes


def _on_empty(tree: _Tree, found: _Found, empty: Sequence[Parts]) -> list[str]:
    """Names folders without a video that should be a class or a split."""
    notes = []
    for level, noun in ((found.split_level, "split"), (found.class_level, "class")):
        if level is None:
            continue
        around = {parts[:level] for parts in tree.folders.values()}
        # A new split may have a class folder for each class, all of them empty.
        names = {
            "/".join(parts[tree.offset :])
            for parts in empty
            if len(parts) == level + 1 and parts[:level] in around
        }
        if names:
            are = "folder has" if len(names) == 1 else "folders have"
            notes.append(
                f"{len(names):,} {noun} {are} no video ({_shown(names)}): no {noun} was made of "
                f"{'it' if len(names) == 1 else 'them'}; add videos, or remove the folder"
            )
    return notes
