"""Named labels: alternative labels, splits and class names of a data set, chosen by name.

    OUT/labels/NAME.jsonl
      {"class_names": ["walk", "run"], "source": "UCF101, split 2 of /data/ucfTrainTestlist"}
      {"key": "walk/a", "labels": [0], "split": "train"}
      ...

A file appears by rename. A reader that opens the data set with its name uses the file instead of
the labels in manifest, sidecars and `KEY.json`. A video that the file does not contain then has no
label and no split. Writing such a file takes no lock of the data set, because it changes nothing
else. If two processes write the same name at the same time, the last one's file stays, whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import fcntl
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from flowprep.dataset.layout import LABELS_FOLDER, Count
from flowprep.dataset.video_list import VideoList
from flowprep.errors import ConfigError, DatasetError
from flowprep.garbage import collector_paused
from flowprep.inputs.keys import are_plain_keys, check_key
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage
from flowprep.storage_errors import translated_errors
from flowprep.urls import redacted
from flowprep.words import format_count

__all__ = [
    "AppliedLabels",
    "LabelSet",
    "LabelsHeader",
    "VideoLabels",
    "check_labels_name",
    "labels_content",
    "labels_file",
    "list_labels",
    "publish_labels",
    "read_labels",
    "relabel_videos",
    "remove_temporary_labels",
    "summarize_labels",
    "verify_labels",
]


_SUFFIX = ".jsonl"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
# Bytes of lines that are decoded at a time. A million lines as objects would take 300 MB.
_CHUNK_BYTES = 4 << 20


class LabelsHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a file of named labels."""

    class_names: tuple[str, ...]
    """The name of each class number. Empty if the classes have no names."""
    source: str
    """Origin of the labels, for people to read."""


class VideoLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a file of named labels: one video."""

    key: str
    labels: tuple[Count, ...] = ()
    """Class numbers, from 0. Empty if the source gives the video no label."""
    split: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """The split, or None if the source uses the video in no split."""


@dataclass(frozen=True)
class LabelSet:
    """The content of a file of named labels, in numbers."""

    name: str
    class_names: tuple[str, ...]
    source: str
    num_videos: int
    splits: Counter[str]
    labels: Counter[int]
    """Videos of each label."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers as JSON values."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    def summary(self) -> str:
        """Returns the numbers as a line of text."""
        count = format_count(self.num_videos, "video")
        splits = "".join(f", {name} {n:,}" for name, n in sorted(self.splits.items()))
        num_classes = len(self.class_names) or len(self.labels)
        classes = f"{num_classes:,} class{'' if num_classes == 1 else 'es'}"
        return f"{self.name}: {count}{splits}, {classes}, from {self.source}"


# ---- names


def check_labels_name(name: str) -> None:
    """Raises ConfigError unless `name` is a valid file name on every system."""
    if _NAME.fullmatch(name) is None or TEMPORARY_MARK in name:
        raise ConfigError(
            "name of labels must be 1 to 100 letters, digits, '-', '_' and '.', must not begin "
            f"with a dot and must not hold {TEMPORARY_MARK!r}, got {name!r}"
        )


def labels_file(name: str) -> str:
    """Returns the path of the labels `name`, relative to the data set."""
    return f"{LABELS_FOLDER}/{name}{_SUFFIX}"


def list_labels(storage: Storage) -> list[str]:
    """Returns the sorted names of a data set's named labels."""
    return sorted(
        file.removesuffix(_SUFFIX)
        for file in storage.list_names(LABELS_FOLDER)
        if _is_labels_file(file)
    )


def _is_labels_file(file: str) -> bool:
    if not file.endswith(_SUFFIX):
        return False
    try:
        check_labels_name(file.removesuffix(_SUFFIX))
    except ConfigError:
        return False
    return True


# ---- reading


def read_labels(storage: Storage, name: str) -> tuple[LabelsHeader, Iterator[list[VideoLabels]]]:
    """Returns the first line of named labels, and the videos, some thousands at a time.

    Every line is checked when it is read. The end of the reading checks that no key occurs twice.
    Raises ConfigError for an invalid name, DatasetError if there are no labels with this name or
    the file is damaged.
    """
    return _parsed(storage, name, _read_file(storage, name))


def _read_file(storage: Storage, name: str) -> bytes:
    check_labels_name(name)
    content = storage.read_if_there(labels_file(name))
    if content is None:
        raise DatasetError(_no_such_labels(storage, name))
    return content


def _no_such_labels(storage: Storage, name: str) -> str:
    names = list_labels(storage)
    close = difflib.get_close_matches(name, names, 1)
    if close:
        hint = f"did you mean {close[0]}?"
    else:
        hint = f"`flowprep label {storage.location} --name {name}` makes them"
    return f"{storage.location} has no labels {name}, it has {', '.join(names) or 'none'}; {hint}"


def _parsed(
    storage: Storage, name: str, content: bytes
) -> tuple[LabelsHeader, Iterator[list[VideoLabels]]]:
    end = content.find(b"\n")
    end = len(content) if end < 0 else end
    try:
        # This line is decoded differently, because the name of a class need not be UTF-8.
        header = msgspec.convert(json.loads(content[:end]), LabelsHeader)
        if len(set(header.class_names)) < len(header.class_names):
            raise ValueError("a class name stands there twice")
    except (ValueError, RecursionError) as error:
        raise _damaged(storage, name, 1, error) from error
    return header, _videos(storage, name, content, end + 1, len(header.class_names))


def _videos(
    storage: Storage, name: str, content: bytes, begin: int, num_classes: int
) -> Iterator[list[VideoLabels]]:
    decoder = msgspec.json.Decoder(VideoLabels)
    number, hashes = 1, []
    while begin < len(content):
        end = content.rfind(b"\n", begin, begin + _CHUNK_BYTES) + 1
        if not end:  # a long line, or the last one without a line feed
            end = content.find(b"\n", begin) + 1 or len(content)
        part = content[begin:end]
        begin = end
        try:
            with collector_paused():
                videos = decoder.decode_lines(part)
            if len(videos) != part.count(b"\n") + (not part.endswith(b"\n")):
                raise ValueError("a line is blank")
            _check_videos(videos, num_classes)
        except (ValueError, DatasetError, RecursionError) as error:
            raise _first_damage(storage, name, part, number, num_classes, error) from error
        number += len(videos)
        hashes.append(np.fromiter((hash(one.key) for one in videos), np.int64, len(videos)))
        yield videos
    known = np.concatenate(hashes) if hashes else np.zeros(0, np.int64)
    if np.unique(known).size < known.size:
        _check_unique(storage, name, content)


def _check_videos(videos: Sequence[VideoLabels], num_classes: int) -> None:
    keys = [one.key for one in videos]
    if not are_plain_keys(keys):
        for key in keys:
            check_key(key)
    highest = max(itertools.chain.from_iterable(one.labels for one in videos), default=-1)
    if num_classes and highest >= num_classes:
        raise ValueError(f"label {highest} is not among the {num_classes} classes")


def _first_damage(
    storage: Storage, name: str, part: bytes, before: int, num_classes: int, error: Exception
) -> DatasetError:
    """Returns the error for the first damaged line of `part`, which follows line `before`."""
    lines = part.removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=before + 1):
        try:
            _check_videos([msgspec.json.decode(line, type=VideoLabels)], num_classes)
        except (ValueError, DatasetError, RecursionError) as own:
            return _damaged(storage, name, number, own)
    return _damaged(storage, name, before + 1, error)


def _check_unique(storage: Storage, name: str, content: bytes) -> None:
    lines: dict[str, int] = {}
    for number, line in enumerate(content.splitlines()[1:], start=2):
        key = msgspec.json.decode(line, type=VideoLabels).key
        if key in lines:
            twice = ValueError(f"{key} stands on line {lines[key]} too")
            raise _damaged(storage, name, number, twice)
        lines[key] = number


def _damaged(storage: Storage, name: str, number: int, error: Exception) -> DatasetError:
    return DatasetError(
        f"{storage.location}: {labels_file(name)} line {number} is damaged ({error}); run the same "
        f"`flowprep label` with --replace, or remove the file"
    )


def summarize_labels(storage: Storage, name: str) -> LabelSet:
    """Returns the content of named labels in numbers. Raises the errors of `read_labels`."""
    header, parts = read_labels(storage, name)
    splits: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    num_videos = 0
    for videos in parts:
        num_videos += len(videos)
        splits.update(one.split for one in videos if one.split is not None)
        labels.update(itertools.chain.from_iterable(one.labels for one in videos))
    return LabelSet(name, header.class_names, header.source, num_videos, splits, labels)


@dataclass(frozen=True)
class AppliedLabels:
    """Named labels, applied to the videos of a data set."""

    name: str
    class_names: tuple[str, ...]
    sha256: str
    """Checksum of the file."""
    videos: VideoList
    num_unlabelled: int
    """Number of videos of the data set that the file does not contain."""


def relabel_videos(storage: Storage, name: str, videos: VideoList) -> AppliedLabels:
    """Returns the videos with the labels and splits of `name`; raises errors of `read_labels`."""
    content = _read_file(storage, name)
    header, parts = _parsed(storage, name, content)
    positions = [np.zeros(0, np.int64)]
    counts = [np.zeros(0, np.int64)]
    labels = [np.zeros(0, np.int64)]
    splits = [np.zeros(0, np.int64)]
    split_numbers: dict[str | None, int] = {None: 0}
    for part in parts:
        places = videos.find_positions([one.key for one in part])
        held = [one for one, is_held in zip(part, places >= 0, strict=True) if is_held]
        positions.append(places[places >= 0])
        counts.append(np.fromiter((len(one.labels) for one in held), np.int64, len(held)))
        flat = itertools.chain.from_iterable(one.labels for one in held)
        labels.append(np.fromiter(flat, np.int64))
        numbers = (split_numbers.setdefault(one.split, len(split_numbers)) for one in held)
        splits.append(np.fromiter(numbers, np.int64, len(held)))
    relabeled = videos.relabeled(
        np.concatenate(positions),
        np.concatenate(counts),
        np.concatenate(labels),
        np.concatenate(splits),
        tuple(split_numbers),
    )
    return AppliedLabels(
        name,
        header.class_names,
        hashlib.sha256(content).hexdigest(),
        relabeled,
        len(videos) - sum(map(len, positions)),
    )


# ---- writing


def labels_content(class_names: Sequence[str], source: str, videos: Iterable[VideoLabels]) -> bytes:
    """Returns the content of a file of named labels."""
    header = {"class_names": list(class_names), "source": redacted(source)}
    first = json.dumps(header, separators=(",", ":")).encode() + b"\n"
    return first + msgspec.json.Encoder().encode_lines(videos)


def publish_labels(storage: Storage, name: str, content: bytes, *, replace: bool) -> str:
    """Writes a file of named labels. Returns `written`, `replaced` or `unchanged`.

    Raises ConfigError if other labels have this name and `replace` is false.
    """
    with _writing(storage):
        known = storage.read_if_there(labels_file(name))
        # If two processes create the same name at once, one of them finds the other's file.
        if known is None and not storage.create(labels_file(name), content):
            known = storage.read_bytes(labels_file(name))
        if known is None:
            return "written"
        if known == content:
            return "unchanged"
        if not replace:
            raise ConfigError(
                f"name must be new: {storage.location} has other labels under "
                f"{name!r}{_origin(storage, name)}; choose another name, or add --replace"
            )
        storage.write_bytes(labels_file(name), content)
        return "replaced"


def _origin(storage: Storage, name: str) -> str:
    try:
        header, _ = read_labels(storage, name)
    except DatasetError:
        return " (the file is damaged)"
    return f", from {header.source}"


@contextmanager
def _writing(storage: Storage) -> Iterator[None]:
    """Keeps other processes from removing the file that is being written as a leftover."""
    if not storage.is_local:
        yield
        return
    storage.make_folder(LABELS_FOLDER)
    with _folder(storage) as descriptor:
        # On a file system without locks, nobody removes the files of others either (see below).
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def remove_temporary_labels(storage: Storage) -> None:
    """Removes files that a killed process left half-written, if nobody is writing now."""
    # On an object store, a file exists whole or not at all.
    if not storage.is_local or not (stray := _temporary_files(storage)):
        return
    with _folder(storage) as descriptor, suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for file in stray:
            storage.remove(f"{LABELS_FOLDER}/{file}")


@contextmanager
def _folder(storage: Storage) -> Iterator[int]:
    with translated_errors("read", LABELS_FOLDER):
        descriptor = os.open(storage.path(LABELS_FOLDER), os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _temporary_files(storage: Storage) -> list[str]:
    names = storage.list_names(LABELS_FOLDER)
    return [name for name in names if TEMPORARY_MARK in name]


# ---- proof


def verify_labels(storage: Storage, keys: Collection[str]) -> tuple[list[str], list[str]]:
    """Checks all named labels of a data set with the videos `keys`. Returns problems and notes."""
    problems, notes = [], []
    for file in storage.list_names(LABELS_FOLDER):
        path = f"{LABELS_FOLDER}/{file}"
        if TEMPORARY_MARK in file:
            notes.append(
                f"{path} is being written, or is left from a `flowprep label` that was ended; the "
                "next `flowprep label` or `flowprep extract` removes it"
            )
            continue
        if not _is_labels_file(file):
            problems.append(f"{path} does not belong to the data set; remove it")
            continue
        try:
            unknown = [
                one.key
                for part in read_labels(storage, file.removesuffix(_SUFFIX))[1]
                for one in part
                if one.key not in keys
            ]
        except DatasetError as error:
            problems.append(str(error))
            continue
        if unknown:
            notes.append(
                f"{path} names {format_count(len(unknown), 'video')} that the manifest does not "
                f"hold, so readers ignore them; first: {unknown[0]}; write the labels again with "
                "`flowprep label --replace`"
            )
    return problems, notes
