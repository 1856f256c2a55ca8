"""Gives a finished data set other labels from annotations, lists and CSVs.

    label_dataset -> read_annotation, read_lists -> DatasetIndex.find -> labels/NAME.jsonl

The videos need not be on disk. The names in an annotation are looked up among the keys and the
sources in the manifest. No shard is read or changed.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowprep.config import check_choice
from flowprep.dataset.dataset_index import DatasetIndex
from flowprep.dataset.foreign import foreign_notes
from flowprep.dataset.label_classes import (
    DraftLabels,
    check_missing_classes,
    given_class_names,
    numbered,
    renamed,
    renumbered,
)
from flowprep.dataset.label_sources import (
    AnnotatedVideo,
    Annotation,
    LabelFormat,
    read_annotation,
    read_lists,
)
from flowprep.dataset.labels import (
    VideoLabels,
    check_labels_name,
    labels_content,
    labels_file,
    list_labels,
    publish_labels,
    read_labels,
    remove_temporary_labels,
)
from flowprep.dataset.layout import DatasetHeader, read_manifest
from flowprep.errors import ConfigError, InputError
from flowprep.garbage import collector_paused
from flowprep.inputs.entries import first_of
from flowprep.inputs.split_share import SplitShare, divide
from flowprep.inputs.video import Video
from flowprep.printable import join_lines
from flowprep.storage import Storage
from flowprep.urls import redacted
from flowprep.words import format_count

__all__ = ["LabelReport", "label_dataset"]

_NUM_SHOWN = 3


@dataclass
class LabelReport:
    """The report of `label_dataset`."""

    location: str
    name: str
    outcome: str
    """`written`, `replaced` or `unchanged`."""
    num_videos: int
    """Number of videos in the manifest."""
    num_labelled: int
    """Number of videos that the labels contain."""
    num_absent: int
    """Number of videos that the annotation names but the data set does not hold."""
    class_names: tuple[str, ...]
    splits: Counter[str | None]
    labels: Counter[int]
    notes: list[str] = field(default_factory=list)

    @property
    def num_unlabelled(self) -> int:
        """Number of videos of the data set that the labels do not contain."""
        return self.num_videos - self.num_labelled

    @property
    def exit_code(self) -> int:
        """Always 0, because labels that cannot be written raise an error."""
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
        return join_lines(
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
    test_share: float | None = None,
    group_by: str | None = None,
) -> LabelReport:
    """Gives a data set other labels, splits or class names under `name`. No shard is changed.

    The labels come from `annotations` (the folder of UCF101's or HMDB51's lists with `split` 1, 2
    or 3; a Kinetics CSV; a CSV with the columns key or path, and label or split; a list of
    `PATH LABEL`) or from `lists`, each a file or `SPLIT=FILE`. If they give only labels or only
    splits, the other comes from the manifest, or from the labels named `labels`. `class_names` is a
    file with one name per line, or the names, in the order of their numbers. `rename` maps names to
    other names, and classes with the same new name become one class. Videos that the annotation
    does not name are unlabeled.

    `test_share` makes a split where there is none, by groups that `group_by` finds, as
    `flowprep.inputs.manifest.collect_videos` does. With `replace`, a split that was made with the
    same two options under this name is kept, and only videos that have come since are added.

    Another process may be extracting into `out` at the same time. A video that it adds later is
    unlabeled. Raises ConfigError for options that do not fit together, and for a name that other
    labels have, unless `replace` is true; InputError for annotations that cannot be read, that name
    no video of the data set, that say different things about one video or that have a class without
    any video of the data set, unless `allow_missing` is true; DatasetError if `out` is not a data
    set.
    """
    check_labels_name(name)
    check_choice("format", format, LabelFormat)
    asked = SplitShare.of(test_share, group_by)
    changes = class_names is not None or bool(rename) or asked is not None
    _check_given(annotations, lists, split, has_changes=changes)
    storage = Storage(out)
    header = DatasetHeader.read(storage)
    with collector_paused():
        videos = [entry.video for entry in read_manifest(storage)]
        base = _manifest_labels(header, videos) if labels is None else _named(storage, labels)
        names = given_class_names(class_names)
        if annotations is None and not lists:
            made = base
            if names is not None or rename:
                renaming = f"classes of {base.source} under other names"
                made = dataclasses.replace(base, source=renaming)
            if names is not None:
                made = renumbered(made, names)
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
            made = renamed(made, rename)
        if asked is not None:
            made = _divided(made, videos, asked, storage, name)
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
        notes=[*foreign_notes(storage), *made.notes],
    )
    if report.num_unlabelled:
        first = [video.key for video in videos if video.key not in made.videos][:_NUM_SHOWN]
        report.notes.append(
            f"{made.source} gives no label and no split to "
            f"{format_count(report.num_unlabelled, 'video')} of {storage.location} under {name}; "
            f"first: {', '.join(first)}; add lines for them if they should have a label"
        )
    report.notes = [redacted(note) for note in report.notes]
    return report


def _check_given(
    annotations: str | os.PathLike[str] | None,
    lists: Sequence[str],
    split: int | None,
    *,
    has_changes: bool,
) -> None:
    """Raises ConfigError for options that do not fit together."""
    if annotations is not None and lists:
        raise ConfigError(
            f"annotations and lists cannot be given together, got {os.fspath(annotations)} and "
            f"{format_count(len(lists), 'list')}; leave one of the two out"
        )
    if annotations is None and not lists and not has_changes:
        raise ConfigError(
            "annotations, lists, class_names, rename or test_share must be given, got none of them"
        )
    if split is not None and annotations is None:
        raise ConfigError(
            f"split is only for the folders of UCF101 and HMDB51, got {split} and no annotations; "
            "leave it out"
        )


# ---- labels in the making


def _manifest_labels(header: DatasetHeader, videos: Iterable[Video]) -> DraftLabels:
    found = {v.key: VideoLabels(v.key, v.labels, v.split or None) for v in videos}
    return DraftLabels(found, tuple(map(str, header.class_names)), "the data set's own labels")


def _named(storage: Storage, name: str) -> DraftLabels:
    header, parts = read_labels(storage, name)
    videos = {one.key: one for part in parts for one in part}
    return DraftLabels(videos, header.class_names, f"labels {name} ({header.source})")


def _divided(
    made: DraftLabels, videos: Sequence[Video], asked: SplitShare, storage: Storage, name: str
) -> DraftLabels:
    """Gives labels a split by groups. Raises InputError if they have one already."""
    how = "" if asked.group_by is None else f" by {asked.group_by}"
    source = f"{made.source}, test share {asked.share:g}{how}"
    stored: dict[str, str | None] = {}
    if name in list_labels(storage):
        header, parts = read_labels(storage, name)
        if header.source == redacted(source):
            stored = {one.key: one.split for part in parts for one in part}
    held = [
        dataclasses.replace(
            video, labels=made.videos[video.key].labels, split=made.videos[video.key].split
        )
        for video in videos
        if video.key in made.videos
    ]
    splits, notes = divide(held, made.class_names, asked, stored)
    lines = {
        video.key: VideoLabels(video.key, video.labels, split)
        for video, split in zip(held, splits, strict=True)
    }
    return dataclasses.replace(made, videos=lines, source=source, notes=[*made.notes, *notes])


def _matched(
    annotation: Annotation,
    index: DatasetIndex,
    base: DraftLabels,
    names: tuple[str, ...] | None,
    own_names: Sequence[str],
    location: str,
    allow_missing: bool,
) -> DraftLabels:
    """Returns the labels and splits of an annotation for the videos that the data set holds."""
    notes = list(annotation.notes)
    found, num_absent = _found_videos(annotation, index, location, notes)
    kept = [what for what in ("labels", "splits") if not getattr(annotation, f"has_{what}")]
    if kept:
        notes.append(
            f"{' and '.join(kept)} stay as they were ({base.source}), because {annotation.source} "
            "has none; add them to it if they should change"
        )
    class_names, numbers = numbered(annotation, names, own_names, base, notes)
    check_missing_classes(annotation, found.values(), location, allow_missing, notes)
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
    made = DraftLabels(videos, class_names, annotation.source, num_absent, notes)
    if not annotation.has_labels and names is not None:
        return renumbered(made, names)
    return made


def _found_videos(
    annotation: Annotation, index: DatasetIndex, location: str, notes: list[str]
) -> tuple[dict[int, AnnotatedVideo], int]:
    """Returns the line for each video of the data set, and the number of lines without a video.

    Raises InputError if no line has a video, or if two lines say different things about one video.
    """
    if not annotation.videos:
        raise InputError(
            f"{annotation.source} names no video; add a line for each video, or name another file"
        )
    found: dict[int, AnnotatedVideo] = {}
    absent: list[AnnotatedVideo] = []
    guesses: list[tuple[AnnotatedVideo, int]] = []
    num_repeated = 0
    index.class_folders = annotation.class_folders
    matches = [(named, index.find(named)) for named in annotation.videos]
    exact = {position for _, positions in matches for position in positions}
    for named, positions in matches:
        if not positions:
            # `A.mp4` does not mean `a.mp4` if the annotation also names `a.mp4`.
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
            f"{first_of([one.clip or one.name for one in absent], _NUM_SHOWN)}{hint}"
        )
        if not found:
            raise InputError(
                f"{note}. None of them is there: name them by key, or by the path that was "
                "extracted"
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
            f"found {format_count(len(guesses), 'video')} only by file name, letter case, "
            f"Unicode form or extension; first: {given!r} is {key}; correct the name if it is "
            "another video"
        )
    return found, len(absent)


def _said(named: AnnotatedVideo) -> tuple[object, ...]:
    return named.labels, named.class_name, named.split


def _in_words(named: AnnotatedVideo) -> str:
    label = named.class_name or " ".join(map(str, named.labels)) or "no label"
    return f"{label}, {named.split or 'no split'}"
