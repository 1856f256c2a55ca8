"""Makes a split of train and test from groups of videos that are never divided.

    divide: videos -> group_names -> train or test for each group

The group of a video is what `--group-by` finds in its path. Without it, the group is the name up to
gNN in names as in UCF101 (`v_Archery_g01_c02`: `v_Archery_g01`), else the folders around the video
without that of its class, else the file. Clips that are cut from one file are of one group.

The rule of the split: a group of which the data set holds a video keeps its split. The other groups
come in the order of the SHA-256 of their names. A group goes to test if this brings the numbers of
test videos of its classes, and half as much of all videos, nearer to the share. Among at most 100
groups, one changes sides, or two do, where that comes nearer still. So the same videos always give
the same split, in whatever order and on whatever machine, and videos that are added to a data set
move no others.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flowprep.errors import ConfigError, InputError
from flowprep.inputs.entries import first_of
from flowprep.inputs.keys import unescape_key
from flowprep.inputs.stems import file_name, key_forms
from flowprep.inputs.video import Video
from flowprep.words import format_count

__all__ = ["SplitShare", "StoredSplits", "divide", "group_names"]

StoredSplits = Callable[[], Mapping[str, str | None]]
"""A function that returns the split of each video in OUT, by key."""

_UCF101 = re.compile(r"(.*[^0-9A-Za-z]g[0-9]+)_c[0-9]+.*", re.DOTALL)
_TIMES = re.compile(r"(?:_[0-9]{6,9}){2}$")
_WEIGHT_OF_ALL = 0.5
"""Weight of the share of all videos, against that of each class. Classes come first, so that each
has test videos where its groups allow it."""
_LEAST_GAIN = 1e-9
_MOST_CHANGED = 100
_ALL = -2


@dataclass(frozen=True)
class SplitShare:
    """The options that ask for a split."""

    share: float
    """Share of the videos that go to test."""
    group_by: str | None = None
    """A regular expression. What its groups, or else the whole of it, match is a video's group."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"test_share must be > 0 and < 1, got {self.share:g}")
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise ConfigError(
                    f"group_by must be a regular expression, got {self.group_by!r}: {error}"
                ) from error

    @classmethod
    def of(cls, share: float | None, group_by: str | None) -> SplitShare | None:
        """Returns the options, or None if they ask for nothing. Raises ConfigError if one lacks."""
        if share is None:
            if group_by is not None:
                raise ConfigError(
                    f"group_by needs --test-share (test_share), got {group_by!r} alone; add it, "
                    "such as 0.2, or leave --group-by out"
                )
            return None
        return cls(share, group_by)


def divide(
    videos: Sequence[Video],
    class_names: Sequence[str],
    asked: SplitShare,
    stored: Mapping[str, str | None] | None = None,
) -> tuple[list[str], list[str]]:
    """Returns `train` or `test` for each video, and notes on the split.

    `stored` has the splits of the videos that the data set holds. Raises InputError if a video or
    the data set has a split already, if all videos are of one group, and for a group that the data
    set holds in both splits. Raises ConfigError for a `group_by` that matches no video.
    """
    if not videos:
        raise InputError("test_share needs videos to divide, got none; leave it out")
    _refuse_given_split(videos, asked)
    names, how, notes = group_names(videos, class_names, asked.group_by)
    groups: dict[str, Counter[int]] = defaultdict(Counter)
    sizes = Counter(names)
    for name, video in zip(names, videos, strict=True):
        groups[name].update(video.labels or (-1,))
    if len(groups) < 2:
        raise InputError(
            f"test_share needs two groups of videos or more, because a group is never divided: "
            f"{format_count(len(videos), 'video')} by {how} are one group, {names[0]!r}; give "
            "--group-by REGEX (group_by=), such as '[^/]+$' for each file by itself"
        )
    kept = _kept(names, videos, stored or {}, asked)
    test = _test_groups(groups, sizes, kept, asked.share)
    splits = ["test" if name in test else "train" for name in names]
    return splits, [*notes, *_said(videos, class_names, splits, groups, how, asked, len(kept))]


def _refuse_given_split(videos: Sequence[Video], asked: SplitShare) -> None:
    given = Counter(video.split for video in videos if video.split is not None)
    if given:
        shown = ", ".join(f"{split} {number:,}" for split, number in sorted(given.items()))
        raise InputError(
            f"test_share makes a split, but {sum(given.values()):,} of "
            f"{format_count(len(videos), 'video')} have one already ({shown}); leave --test-share "
            f"{asked.share:g} out"
        )


# ---- groups


def group_names(
    videos: Sequence[Video], class_names: Sequence[str], group_by: str | None
) -> tuple[list[str], str, list[str]]:
    """Returns the name of each video's group, how groups were found, and notes."""
    paths = [unescape_key(video.key) for video in videos]
    if group_by is not None:
        return _by_pattern(videos, paths, group_by)
    folders = [
        _folder_without_class(path, [class_names[n] for n in v.labels if n < len(class_names)])
        for path, v in zip(paths, videos, strict=True)
    ]
    of_one_class = _class_folders(folders, videos)
    names, kinds = [], Counter[str]()
    for video, path, folder in zip(videos, paths, folders, strict=True):
        if match := _UCF101.fullmatch(path.rpartition("/")[2]):
            kinds["the gNN of names as in UCF101"] += 1
            names.append(match[1])
        elif folder and folder not in of_one_class:
            kinds["folder"] += 1
            names.append(folder)
        else:
            kinds["file"] += 1
            names.append(_file(video, path))
    return names, " and ".join(kinds), []


def _by_pattern(
    videos: Sequence[Video], paths: Sequence[str], group_by: str
) -> tuple[list[str], str, list[str]]:
    pattern = re.compile(group_by)
    names, others = [], []
    for video, path in zip(videos, paths, strict=True):
        if (match := pattern.search(path)) is None:
            others.append(path)
            names.append(_file(video, path))
        else:
            parts = [part for part in match.groups() if part is not None]
            names.append("/".join(parts) if pattern.groups else match[0])
    if len(others) == len(paths):
        raise ConfigError(
            f"group_by must match the paths of videos, such as {first_of(paths)}, got {group_by!r}"
        )
    if not others:
        return names, f"--group-by {group_by!r}", []
    note = (
        f"--group-by {group_by!r} does not match {format_count(len(others), 'video')}, so the "
        f"file of each is its group; first: {first_of(others)}; correct it if they belong to groups"
    )
    return names, f"--group-by {group_by!r}", [note]


def _folder_without_class(path: str, classes: Sequence[str]) -> str:
    spelled = {*classes, *(name.replace("/", "_") for name in classes)}
    spelled.update(name.replace(" ", "_") for name in classes)
    return "/".join(part for part in path.split("/")[:-1] if part not in spelled)


def _class_folders(folders: Sequence[str], videos: Sequence[Video]) -> set[str]:
    """Returns the folders that hold all videos of a class and no others.

    If labels are numbers, the folder of a class does not have its name. To divide by such folders
    would put all of a class on one side.
    """
    labels: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    places: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for folder, video in zip(folders, videos, strict=True):
        labels[folder].add(video.labels)
        places[video.labels].add(folder)
    return {
        folder
        for folder, several in labels.items()
        if len(several) == 1 and () not in several and len(places[next(iter(several))]) == 1
    }


def _file(video: Video, path: str) -> str:
    """Returns the group of a file. Clips of one file, cut before or now, have the same."""
    if video.start_seconds is not None or video.end_seconds is not None:
        return file_name(video.source)
    return _TIMES.sub("", path)


# ---- the split


def _kept(
    names: Sequence[str],
    videos: Sequence[Video],
    stored: Mapping[str, str | None],
    asked: SplitShare,
) -> dict[str, str]:
    """Returns the split of each group of which the data set holds a video."""
    kept: dict[str, str] = {}
    if not stored:
        return kept
    for key, split in stored.items():
        if split not in ("train", "test"):
            raise InputError(
                f"test_share cannot give the data set a split, because it was extracted "
                f"{'without one' if split is None else f'with the split {split}'}: {key}; run "
                f"`flowprep label OUT --name NAME --test-share {asked.share:g}` for a split under "
                "a name"
            )
    for name, video in zip(names, videos, strict=True):
        forms = key_forms(video.key, video.source) or ()
        split = next((stored[key] for key in (video.key, *forms) if key in stored), None)
        if split is not None and kept.setdefault(name, split) != split:
            raise InputError(
                f"group_by must divide as when the data set began: it holds videos of the group "
                f"{name!r} in train and in test; give the same --group-by as before"
            )
    return kept


def _test_groups(
    groups: Mapping[str, Counter[int]],
    sizes: Mapping[str, int],
    kept: Mapping[str, str],
    share: float,
) -> set[str]:
    sides = _Sides(groups, sizes, share)
    for name, split in kept.items():
        if split == "test":
            sides.move({name: 1})
    free = sorted((name for name in groups if name not in kept), key=_hash)
    for name in free:
        if sides.gain({name: 1}) > _LEAST_GAIN:
            sides.move({name: 1})
    while len(free) <= _MOST_CHANGED and (moves := _better(sides, free)) is not None:
        sides.move(moves)
    # With few large groups, one side may have got none.
    smallest = min(free, key=lambda name: (sizes[name], _hash(name)), default=None)
    if smallest is not None and not sides.test:
        sides.move({smallest: 1})
    elif smallest is not None and len(sides.test) == len(groups):
        sides.move({smallest: -1})
    return sides.test


class _Sides:
    """The groups in test, and how far the counts of their videos are from the share."""

    def __init__(
        self, groups: Mapping[str, Counter[int]], sizes: Mapping[str, int], share: float
    ) -> None:
        self.test: set[str] = set()
        # All videos count as one more class, with the number -2. Unlabelled videos have -1.
        self._groups = {
            name: [*sorted(counts.items()), (_ALL, sizes[name])] for name, counts in groups.items()
        }
        totals = Counter[int]()
        for counts in self._groups.values():
            totals.update(dict(counts))
        self._aims = {label: share * number for label, number in totals.items()}
        self._there = Counter[int]()

    def _change(self, moves: Mapping[str, int]) -> Counter[int]:
        change = Counter[int]()
        for name, sign in moves.items():
            for label, number in self._groups[name]:
                change[label] += sign * number
        return change

    def gain(self, moves: Mapping[str, int]) -> float:
        """Returns how much nearer to the share moves come: 1 is into test, -1 is out of it."""
        gain = 0.0
        # Sorted, because the order of the sum would decide between equal sums.
        for label, number in sorted(self._change(moves).items()):
            off = self._there[label] - self._aims[label]
            weight = _WEIGHT_OF_ALL if label == _ALL else 1.0
            gain += weight * (abs(off) - abs(off + number))
        return gain

    def move(self, moves: Mapping[str, int]) -> None:
        self._there.update(self._change(moves))
        for name, sign in moves.items():
            (self.test.add if sign > 0 else self.test.remove)(name)


def _better(sides: _Sides, free: Sequence[str]) -> dict[str, int] | None:
    """Returns the first change of one group, or of two, that comes nearer to the share."""
    leaving = [{name: -1} for name in free if name in sides.test]
    coming = [{name: 1} for name in free if name not in sides.test]
    both = ({**leaves, **comes} for leaves in leaving for comes in coming)
    for moves in itertools.chain(leaving, coming, both):
        if sides.gain(moves) > _LEAST_GAIN:
            return moves
    return None


def _hash(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()


def _said(
    videos: Sequence[Video],
    class_names: Sequence[str],
    splits: Sequence[str],
    groups: Mapping[str, Counter[int]],
    how: str,
    asked: SplitShare,
    num_kept: int,
) -> list[str]:
    number = splits.count("test")
    percent = 100 * number / len(splits)
    notes = [
        f"made a split for --test-share {asked.share:g}: train {len(splits) - number:,} and test "
        f"{number:,} of {format_count(len(splits), 'video')} ({percent:.1f} % test), from "
        f"{format_count(len(groups), 'group')} by {how}, none of which is divided; "
        + (f"{num_kept:,} of them stay as the data set has them; " if num_kept else "")
        + "give --group-by REGEX for other groups"
    ]
    tested = {
        label
        for v, split in zip(videos, splits, strict=True)
        if split == "test"
        for label in v.labels
    }
    trained = {
        label
        for v, split in zip(videos, splits, strict=True)
        if split == "train"
        for label in v.labels
    }
    for part, there in (("test", tested), ("train", trained)):
        without = sorted((tested | trained) - there)
        if without:
            shown = [class_names[n] if n < len(class_names) else str(n) for n in without]
            notes.append(
                f"{format_count(len(without), 'label')} without a video in {part}: "
                f"{first_of(shown)}; they have too few groups for --test-share {asked.share:g}; "
                "add videos of them, or give --group-by REGEX for smaller groups"
            )
    return notes
