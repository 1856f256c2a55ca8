"""Other labels for a finished data set: annotations, lists and CSVs meet its own videos.

    label_dataset -> read_annotation, read_lists -> DatasetIndex.find -> labels/NAME.jsonl

The videos need not be on disk: what an annotation names is looked up among the keys and the sources
of the manifest. No shard is read, and none is touched.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowprep.config import check_choice
from flowprep.dataset.label_sources import (
    AnnotatedVideo,
    Annotation,
    LabelFormat,
    read_annotation,
    read_class_names,
    read_lists,
)
from flowprep.dataset.labels import (
    VideoLabels,
    check_labels_name,
    labels_content,
    labels_file,
    publish_labels,
    read_labels,
    remove_temporary_labels,
)
from flowprep.dataset.layout import DatasetHeader, read_manifest
from flowprep.errors import ConfigError, InputError
from flowprep.garbage import collector_paused
from flowprep.inputs.keys import unescape_key
from flowprep.inputs.tree import without_extension
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from flowprep.urls import redacted, without_query
from flowprep.words import format_count

__all__ = ["DatasetIndex", "LabelReport", "label_dataset"]

_NUM_SHOWN = 3
# Of ranges that were stored and are read again.
_SAME_SECONDS = 1e-3
# Names that one is compared with to guess what was meant; more of them take seconds.
_MAX_COMPARED = 20_000


@dataclass
class LabelReport:
    """What `label_dataset` did."""

    location: str
    name: str
    outcome: str
    """`written`, `replaced` or `unchanged`."""
    num_videos: int
    """In the manifest."""
    num_labelled: int
    """That the labels name."""
    num_absent: int
    """That the annotation names and the data set does not hold."""
    class_names: tuple[str, ...]
    splits: Counter[str | None]
    labels: Counter[int]
    notes: list[str] = field(default_factory=list)

    @property
    def num_unlabelled(self) -> int:
        """Videos of the data set that the labels do not name."""
        return self.num_videos - self.num_labelled

    @property
    def exit_code(self) -> int:
        """0: labels that cannot be written raise."""
        return 0

    def summary(self) -> str:
        """Returns the report as lines of text."""
        splits = ", ".join(
            f"{name} {n:,}" for name, n in sorted(self.splits.items(), key=str) if name is not None
        )
        if without := self.splits[None]:
            splits += f"{', ' if splits else ''}{without:,} in no split"
        classes = f"{len(self.class_names) or len(self.labels):,}"
        if self.class_names:
            shown = ", ".join(self.class_names[:6])
            classes += f": {shown}{', ...' if len(self.class_names) > 6 else ''}"
        return "\n".join(
            [
                f"{self.outcome}: labels {self.name} of {self.num_labelled:,} of "
                f"{format_count(self.num_videos, 'video')} in {self.location}",
                f"  splits      {splits or 'none'}",
                f"  classes     {classes}",
                f"  file        {labels_file(self.name)}",
            ]
        )


def label_dataset(
    out: str | os.PathLike[str],
    name: str,
    *,
    annotations: str | os.PathLike[str] | None = None,
    lists: Sequence[str] = (),
    format: LabelFormat = "auto",
    split: int | None = None,
    class_names: str | os.PathLike[str] | Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    labels: str | None = None,
    allow_missing: bool = False,
    replace: bool = False,
) -> LabelReport:
    """Gives a data set other labels, splits or class names under `name`; no shard is touched.

    They come from `annotations` (the folder of UCF101's or HMDB51's lists with `split` 1, 2 or 3;
    a Kinetics CSV; a CSV with the columns key or path, and label or split; a list of `PATH LABEL`)
    or from `lists`, each a file or `SPLIT=FILE`. What those do not say stays as it is: labels or
    splits of the manifest, or of the labels named `labels`. `class_names` is a file with a name a
    line, or the names, in the order of their numbers; `rename` maps names to others, and classes
    that get one name become one. Videos that the annotation does not name are unlabelled.

    Another process may be extracting into `out`: a video that it adds later is unlabelled. Raises
    ConfigError for options that do not go together and for a name that other labels have, unless
    `replace`; InputError for annotations that cannot be read, name nothing that the data set holds,
    name one video twice in different words or, unless `allow_missing`, a class without a video in
    it; DatasetError where `out` is no data set.
    """
    check_labels_name(name)
    check_choice("format", format, LabelFormat)
    if annotations is not None and lists:
        raise ConfigError(
            f"annotations and lists cannot be given together, got {os.fspath(annotations)} and "
            f"{format_count(len(lists), 'list')}; leave one of the two out"
        )
    if annotations is None and not lists and class_names is None and not rename:
        raise ConfigError(
            "annotations, lists, class names or names to exchange must be given, got none of them: "
            "there is nothing to label with"
        )
    if split is not None and annotations is None:
        raise ConfigError(
            f"split goes with the folders of UCF101 and HMDB51, got {split} and no annotations"
        )
    storage = Storage(out)
    header = DatasetHeader.read(storage)
    with collector_paused():
        videos = [entry.video for entry in read_manifest(storage)]
        base = _manifest_labels(header, videos) if labels is None else _named(storage, labels)
        names = _given_class_names(class_names)
        if annotations is None and not lists:
            made = dataclasses.replace(base, source=f"classes of {base.source} under other names")
            if names is not None:
                made = _renumbered(made, names)
        else:
            index = DatasetIndex(videos)
            if annotations is not None:
                annotation = read_annotation(
                    os.fspath(annotations), format=format, split=split, knows=index.knows
                )
            else:
                annotation = read_lists(lists, format=format, knows=index.knows)
            made = _matched(
                annotation, index, base, names, header.class_names, storage.location, allow_missing
            )
        if rename:
            made = _renamed(made, rename)
        lines = [made.videos[video.key] for video in videos if video.key in made.videos]
        content = labels_content(made.class_names, made.source, lines)
    remove_temporary_labels(storage)
    outcome = publish_labels(storage, name, content, replace=replace)
    report = LabelReport(
        storage.location,
        name,
        outcome,
        num_videos=len(videos),
        num_labelled=len(lines),
        num_absent=made.num_absent,
        class_names=made.class_names,
        splits=Counter(one.split for one in lines),
        labels=Counter(label for one in lines for label in one.labels),
        notes=made.notes,
    )
    if report.num_unlabelled:
        first = [video.key for video in videos if video.key not in made.videos][:_NUM_SHOWN]
        report.notes.append(
            f"{format_count(report.num_unlabelled, 'video')} of {storage.location} without a "
            "label and "
            f"a split under {name}, because {made.source} does not name them; first: "
            f"{', '.join(first)}; add lines for them if they should have a label"
        )
    report.notes = [redacted(note) for note in report.notes]
    return report


# ---- labels in the making


@dataclass(frozen=True)
class _Labels:
    videos: dict[str, VideoLabels]
    class_names: tuple[str, ...]
    source: str
    num_absent: int = 0
    notes: list[str] = field(default_factory=list)


def _manifest_labels(header: DatasetHeader, videos: Iterable[Video]) -> _Labels:
    found = {v.key: VideoLabels(v.key, v.labels, v.split or None) for v in videos}
    return _Labels(found, tuple(map(str, header.class_names)), "the data set's own labels")


def _named(storage: Storage, name: str) -> _Labels:
    header, parts = read_labels(storage, name)
    videos = {one.key: one for part in parts for one in part}
    return _Labels(videos, header.class_names, f"labels {name} ({header.source})")


def _given_class_names(
    given: str | os.PathLike[str] | Sequence[str] | None,
) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return read_class_names(os.fspath(given))
    if not given:
        raise ConfigError("class_names must be one or more, got none")
    return tuple(given)


def _names_of(labels: _Labels) -> tuple[str, ...]:
    """Returns the names of the classes; the numbers where they have none."""
    if labels.class_names:
        return labels.class_names
    highest = max((n for one in labels.videos.values() for n in one.labels), default=-1)
    return tuple(map(str, range(highest + 1)))


def _renumbered(labels: _Labels, names: Sequence[str]) -> _Labels:
    """Gives the classes other names, by their numbers; equal names make one class of several."""
    known = _names_of(labels)
    if len(names) < len(known) or (labels.class_names and len(names) > len(known)):
        raise ConfigError(
            f"class_names must be {len(known)}, one for each class of {labels.source}, got "
            f"{len(names)}"
        )
    return _merged(labels, names)


def _renamed(labels: _Labels, rename: Mapping[str, str]) -> _Labels:
    known = _names_of(labels)
    for old in rename:
        if old not in known:
            close = difflib.get_close_matches(old, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"they are {_some(known, 10)}"
            raise ConfigError(f"rename must begin with the name of a class, got {old!r}; {hint}")
    return _merged(labels, [rename.get(name, name) for name in known])


def _merged(labels: _Labels, names: Sequence[str]) -> _Labels:
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


def _matched(
    annotation: Annotation,
    index: DatasetIndex,
    base: _Labels,
    names: tuple[str, ...] | None,
    own_names: Sequence[str],
    location: str,
    allow_missing: bool,
) -> _Labels:
    """Returns what an annotation says of the videos that the data set holds."""
    if not annotation.videos:
        raise InputError(
            f"{annotation.source} names no video; add a line for each video, or name another file"
        )
    notes = list(annotation.notes)
    found: dict[int, AnnotatedVideo] = {}
    absent: list[AnnotatedVideo] = []
    guesses: list[tuple[AnnotatedVideo, int]] = []
    num_repeated = 0
    index.class_folders = annotation.class_folders
    matches = [(named, index.find(named)) for named in annotation.videos]
    exact = {position for _, positions in matches for position in positions}
    for named, positions in matches:
        if not positions:
            # `A.mp4` is no `a.mp4` where the annotation names an `a.mp4` of its own.
            positions = [near for near in index.guess(named) if near not in exact]
            guesses += [(named, position) for position in positions]
        if not positions:
            absent.append(named)
        for position in positions:
            first = found.setdefault(position, named)
            if first is named:
                continue
            if _said(first) != _said(named):
                raise InputError(
                    f"{first.origin} and {named.origin} name the same video, "
                    f"{index.videos[position].key}: {_in_words(first)} and {_in_words(named)}; "
                    "keep one of them"
                )
            num_repeated += 1
    if absent:
        hint = index.suggestion(absent[0])
        note = (
            f"{len(absent):,} of {format_count(len(annotation.videos), 'video')} that "
            f"{annotation.source} names are not in {location}; first: "
            f"{_some([one.clip or one.name for one in absent], _NUM_SHOWN)}{hint}"
        )
        if not found:
            raise InputError(
                f"{note}. None is there: name them as keys, or as the paths that were extracted"
            )
        notes.append(f"{note}; check the names, or extract those videos too")
    if num_repeated:
        notes.append(
            f"{annotation.source} names {format_count(num_repeated, 'video')} more than once, "
            "with the "
            "same label and split; remove the repeated lines"
        )
    if guesses:
        given, key = guesses[0][0].name, index.videos[guesses[0][1]].key
        notes.append(
            f"{format_count(len(guesses), 'video')} found by file name, letter case, Unicode "
            f"form or extension alone; first: {given!r} is {key}; correct the name if it is "
            "another video"
        )
    kept = [what for what in ("labels", "splits") if not getattr(annotation, f"has_{what}")]
    if kept:
        notes.append(
            f"{' and '.join(kept)} stay as they were ({base.source}), because {annotation.source} "
            "has none; add them to it if they should change"
        )
    class_names, numbers = _numbered(annotation, names, own_names, base, notes)
    _check_missing_classes(annotation, found.values(), location, allow_missing, notes)
    videos = {}
    for position, named in found.items():
        key = index.videos[position].key
        old = base.videos.get(key)
        labels = named.labels
        if not annotation.has_labels:
            labels = old.labels if old is not None else ()
        elif named.class_name is not None:
            labels = (numbers[named.class_name],)
        part = named.split
        if not annotation.has_splits:
            part = old.split if old is not None else None
        videos[key] = VideoLabels(key, labels, part)
    if without := sum(not one.labels for one in videos.values()):
        notes.append(
            f"{format_count(without, 'video')} of {annotation.source} without a label; add one "
            "if it "
            "should be trained on"
        )
    made = _Labels(videos, class_names, annotation.source, len(absent), notes)
    if not annotation.has_labels and names is not None:
        return _renumbered(made, names)
    return made


def _said(named: AnnotatedVideo) -> tuple[object, ...]:
    return named.labels, named.class_name, named.split


def _in_words(named: AnnotatedVideo) -> str:
    label = named.class_name or " ".join(map(str, named.labels)) or "no label"
    return f"{label}, {named.split or 'no split'}"


def _some(names: Sequence[str], number: int) -> str:
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")


def _numbered(
    annotation: Annotation,
    names: tuple[str, ...] | None,
    own_names: Sequence[str],
    base: _Labels,
    notes: list[str],
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the class names, and the number of each."""
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
                f"{video.origin}: class {name!r} is none of the {len(order)} class names{hint}; "
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


def _check_missing_classes(
    annotation: Annotation,
    found: Iterable[AnnotatedVideo],
    location: str,
    allow_missing: bool,
    notes: list[str],
) -> None:
    """Raises InputError for classes all of whose videos the data set lacks."""

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
            f"{location}: {_some(missing, 5)}"
        )
        if not allow_missing:
            raise InputError(f"{said}; extract them, or add --allow-missing to label without them")
        notes.append(f"{said}; extract them if they should be trained on")


# ---- names and videos


class DatasetIndex:
    """The videos of a data set by the names that an annotation may have for them."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self.videos = videos
        self.class_folders: frozenset[str] = frozenset()
        self._keys = {video.key: position for position, video in enumerate(videos)}
        # Nearly all keys have no escapes.
        self._paths = [v.key if "%" not in v.key else unescape_key(v.key) for v in videos]
        self._sources = [without_query(video.source) for video in videos]
        self._by_path = {path: position for position, path in enumerate(self._paths)}
        self._by_name: dict[str, list[int]] = {}
        for position, path in enumerate(self._paths):
            for name in self._names(path, self._sources[position]):
                self._by_name.setdefault(name, []).append(position)
        self._by_loose_name: dict[str, list[int]] | None = None

    @staticmethod
    def _names(path: str, source: str) -> dict[str, None]:
        own, file = path.rpartition("/")[2], source.rpartition("/")[2]
        return dict.fromkeys((own, without_extension(own), file, without_extension(file)))

    def knows(self, name: str) -> bool:
        """Whether the data set holds a video of exactly that name."""
        return bool(self.find(AnnotatedVideo(name, "")))

    def find(self, named: AnnotatedVideo) -> list[int]:
        """Returns the positions of the videos that a line means; none where there is none.

        More than one where it names a file of which the data set holds several ranges. Raises
        InputError where it may mean either of two.
        """
        if named.is_key:
            return [self._keys[named.name]] if named.name in self._keys else []
        name = named.name
        if named.folders:
            # Where nearly all videos of a known data set have their keys.
            usual = f"{named.folders[0]}/{named.clip or without_extension(name)}"
            if usual in self._by_path:
                return [self._by_path[usual]]
            if named.clip is not None and (found := self._choose(named, named.clip, is_clip=True)):
                return found
        elif named.start_seconds is None and named.end_seconds is None:
            for known in (self._keys, self._by_path):
                if name in known:
                    return [known[name]]
            if (stem := without_extension(name)) in self._by_path:
                return [self._by_path[stem]]
        return self._choose(named, name)

    def _choose(self, named: AnnotatedVideo, name: str, *, is_clip: bool = False) -> list[int]:
        *folders, last = name.split("/")
        for stem in dict.fromkeys((last, without_extension(last))):
            candidates = self._by_name.get(stem, [])
            if found := self._best(named, candidates, folders, is_clip=is_clip):
                return found
        return []

    def guess(self, named: AnnotatedVideo) -> list[int]:
        """Returns the positions of the videos that a line, which names none, may still mean.

        Names count that differ in letter case, Unicode form, extensions, or by having a folder.
        """
        if named.is_key:
            return []
        if self._by_loose_name is None:
            self._by_loose_name = {}
            for stem, positions in self._by_name.items():
                self._by_loose_name.setdefault(_loosened(stem), []).extend(positions)
        for name in filter(None, (named.clip, named.name)):
            *folders, last = name.split("/")
            candidates = dict.fromkeys(self._by_loose_name.get(_loosened(last), []))
            is_clip = name == named.clip
            if found := self._best(named, list(candidates), folders, is_clip=is_clip, loose=True):
                return found
        return []

    def _best(
        self,
        named: AnnotatedVideo,
        candidates: Sequence[int],
        folders: Sequence[str],
        *,
        is_clip: bool,
        loose: bool = False,
    ) -> list[int]:
        by_score: dict[int, list[int]] = {}
        for position in candidates:
            score = self._score(named, position, folders, loose)
            if score is not None:
                by_score.setdefault(score, []).append(position)
        if not by_score:
            return []
        best = by_score[max(by_score)]
        if not is_clip:
            best = self._in_range(named, best)
        if len(best) > 1:
            sources = {self._sources[position] for position in best}
            # Several ranges of one file, or one clip that has two classes.
            if len(sources) > 1:
                keys = " and ".join(self.videos[position].key for position in best[:2])
                raise InputError(
                    f"{named.origin}: two videos of the data set could be {named.name!r}: {keys}; "
                    "name it by more of its path, or by its key"
                )
        return best

    def _in_range(self, named: AnnotatedVideo, positions: list[int]) -> list[int]:
        wanted = (named.start_seconds, named.end_seconds)
        if wanted == (None, None):
            return positions
        same, whole = [], []
        for position in positions:
            video = self.videos[position]
            held = (video.start_seconds, video.end_seconds)
            if held == (None, None):
                whole.append(position)
            elif all(
                (a is None) == (b is None) and abs((a or 0.0) - (b or 0.0)) < _SAME_SECONDS
                for a, b in zip(wanted, held, strict=True)
            ):
                same.append(position)
        return same or whole

    def _score(
        self, named: AnnotatedVideo, position: int, folders: Sequence[str], loose: bool
    ) -> int | None:
        """Returns how well the folders around a video fit those of a line; None: it is another."""
        fit = _loosened if loose else str
        best = None
        for path in (self._paths[position], self._sources[position]):
            around = list(map(fit, path.split("/")[:-1]))
            if named.folders:
                wanted = set(map(fit, named.folders))
                classes = set(map(fit, self.class_folders)) if loose else self.class_folders
                if around and around[-1] in classes and around[-1] not in wanted:
                    return None
                score = sum(folder in wanted for folder in around)
            else:
                given = [fit(folder) for folder in folders if folder not in ("", ".")]
                score = _common_end(given, around)
                # A part of a path that differs tells two videos of one name apart.
                if score < min(len(given), len(around)) or (given and not score and not loose):
                    continue
            best = score if best is None else max(best, score)
        return best

    def suggestion(self, named: AnnotatedVideo) -> str:
        """Returns words on which video may have been meant; empty where none is like it."""
        name = without_extension((named.clip or named.name).rpartition("/")[2])
        stems = list(self._by_name)
        if len(stems) > _MAX_COMPARED:
            stems = [stem for stem in stems if stem[:3] == name[:3] or stem[-6:] == name[-6:]]
        close = difflib.get_close_matches(name, stems[:_MAX_COMPARED], 1, 0.8)
        if not close:
            return ""
        return f" (did you mean {self.videos[self._by_name[close[0]][0]].key}?)"


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    number = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        number += 1
    return number


@functools.lru_cache(maxsize=1 << 16)
def _loosened(name: str) -> str:
    """Returns a name without its case, Unicode form and extensions (`Clip.MP4.mkv` is `clip`)."""
    while (shorter := without_extension(name)) != name and shorter:
        name = shorter
    return unicodedata.normalize("NFC", name).casefold()
