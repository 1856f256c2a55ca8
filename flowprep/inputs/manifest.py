"""Turns the user's inputs (folders, files, patterns, lists, known data sets) into a list of videos.

    collect_videos -> FORMATS[name] for each input -> entries -> unique keys, labels -> Manifest
                      tree.py, lists.py, csv_lists.py, annotations/ -> join_lists
                      folder_classes.py

A reader turns one input into entries, and accesses the disk as little as possible.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from flowprep.errors import ConfigError, InputError
from flowprep.inputs.annotations.activitynet import read_activitynet
from flowprep.inputs.annotations.ava import read_ava
from flowprep.inputs.annotations.charades import read_charades
from flowprep.inputs.annotations.epic import read_epic
from flowprep.inputs.annotations.hmdb51 import read_hmdb51
from flowprep.inputs.annotations.kinetics import read_kinetics
from flowprep.inputs.annotations.something import read_something
from flowprep.inputs.annotations.ucf101 import read_ucf101
from flowprep.inputs.clips import StoredRanges
from flowprep.inputs.csv_lists import read_csv_list
from flowprep.inputs.entries import CharadesMode, Entry, Found, Request, does_not_exist
from flowprep.inputs.folder_classes import classes_of_folders, split_named
from flowprep.inputs.joined import join_lists, split_lists
from flowprep.inputs.keys import unescape_key
from flowprep.inputs.label_sets import NamedSet, joined_sets
from flowprep.inputs.lists import LineForm, read_list
from flowprep.inputs.places import common_folder, kind_of, names_in
from flowprep.inputs.recognize import LIST_EXTENSIONS, format_of_list
from flowprep.inputs.split_share import SplitShare, StoredSplits, divide
from flowprep.inputs.stems import keep_extensions
from flowprep.inputs.tree import extension_of, is_pattern, read_file, read_folder, read_glob
from flowprep.inputs.video import Video
from flowprep.storage import check_url
from flowprep.urls import absolute, as_path, is_url, redacted, without_query
from flowprep.words import format_count

__all__ = ["FORMATS", "Manifest", "ManifestFormat", "collect_videos"]

ManifestFormat = Literal[
    "auto",
    "folder",
    "file",
    "glob",
    LineForm,
    "csv",
    "ucf101",
    "hmdb51",
    "kinetics",
    "charades",
    "epic",
    "ava",
    "something",
    "activitynet",
]

FORMATS: dict[str, Callable[[str, Request], Found]] = {
    "folder": read_folder,
    "file": read_file,
    "glob": read_glob,
    "list": read_list,
    "labels": functools.partial(read_list, form="labels"),
    "tsn": functools.partial(read_list, form="tsn"),
    "csv": read_csv_list,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "kinetics": read_kinetics,
    "charades": read_charades,
    "epic": read_epic,
    "ava": read_ava,
    "something": read_something,
    "activitynet": read_activitynet,
}
"""The readers by name. Each takes one input and returns the videos that it found."""

_PATH_FORMATS = frozenset({"folder", "file", "glob"})


@dataclass(frozen=True)
class Manifest:
    """The videos of a run in the order of the plan: folders by key, lists by line."""

    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    """The index of a name is its label. Empty if the labels have no names."""
    num_ignored_files: int
    """Number of files in the searched folders that are not videos, without hidden files."""
    notes: tuple[str, ...]
    """Sentences that tell the user what was left out and why."""
    label_sets: tuple[NamedSet, ...] = ()
    """Label sets beside the videos' own labels, such as verb and noun. `Video.named_labels` has the
    labels. A run writes them as named labels."""


def collect_videos(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: ManifestFormat = "auto",
    annotations: str | os.PathLike[str] | None = None,
    split: int | None = None,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    out: str | os.PathLike[str] | None = None,
    class_level: int | None = None,
    lists: Sequence[str | os.PathLike[str]] = (),
    allow_missing: bool = False,
    image_fps: float | None = None,
    charades: CharadesMode = "clips",
    stored_ranges: StoredRanges | None = None,
    urls: bool = True,
    follow_links: bool = True,
    test_share: float | None = None,
    group_by: str | None = None,
    stored_splits: StoredSplits | None = None,
) -> Manifest:
    """Lists the videos that `inputs` names, each with a unique key.

    `inputs` is a folder, a video, a glob pattern, a list, or several of these. Each is a path or a
    URL of an object store (`s3://bucket/videos`), and a list may name URLs too. If `annotations` (a
    list, or the folder with the lists of UCF101 or HMDB51) or `lists` is given, `inputs` is the
    folder of the videos. `lists` are several lists, each `FILE` or `SPLIT=FILE`.

    The format `auto` looks at what exists and at the first lines of a list: a known header, the
    columns of AVA, or else paths and labels. `annotations` with classInd.txt are those of UCF101,
    with *_test_split*.txt those of HMDB51. `split` is the split of UCF101 or HMDB51, 1 to 3 (None
    means 1). `charades` makes a clip of each action, or one video with all its labels.

    Keys, and the paths in a list, are relative to `root`. Without `root`, they are relative to the
    folder, to the fixed beginning of the pattern, or to the folder of the list. If a listed video
    is outside the folder of the list, keys are relative to the common folder of all videos.

    Known data sets leave out listed videos that are not on disk, with a note. In a list of paths
    such videos stay, and are reported as failed when they are extracted. With `strict` they are an
    error. A class without any video on disk is an error unless `allow_missing` is set.
    `urls=False` leaves out listed URLs, and `follow_links=False` all outside of the named folder.

    `out` is the place of the new data set. Neither `out` nor an input may contain the other.
    `stored_ranges` comes from `flowprep.dataset.plan.stored_ranges(out)`. With it, the clips that
    `out` already contains keep their names. A range in seconds of a folder of images needs the
    frame rate of the folder, `image_fps`.

    `test_share` makes a split where there is none: this share of the videos goes to `test`, the
    rest to `train`, by groups that are never divided (see `split_share.py`). `group_by` is a
    regular expression that finds a video's group in its path. `stored_splits` comes from
    `flowprep.dataset.plan.stored_splits(out)`. With it, the videos in `out` stay where they are.

    Folders give classes and splits (see `folder_classes.py`). `class_level` chooses the level of
    the class folders: 1 is the first folder of each key, as in format version 1, and 0 gives no
    classes.

    Raises ConfigError for options that cannot be combined. Raises InputError for inputs that do not
    exist, contain no video, cannot be parsed, or give two videos the same key.
    """
    asked = SplitShare.of(test_share, group_by)
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    paths = [as_path(os.fspath(path)) for path in inputs]
    if not paths or not all(paths):
        raise InputError("VIDEOS is empty: name a folder, a video, a glob pattern or a list")
    if lists and annotations is not None:
        raise ConfigError(
            f"annotations {os.fspath(annotations)} and lists cannot be given together; give all "
            "of them as lists"
        )
    request = Request(
        annotations=None if annotations is None else as_path(os.fspath(annotations)),
        split=split,
        root=_absolute(root),
        strict=strict,
        out=_absolute(out),
        class_level=class_level,
        allow_missing=allow_missing,
        image_fps=image_fps,
        charades=charades,
        stored_ranges=stored_ranges,
        urls=urls,
        follow_links=follow_links,
    )
    _check_request(request, format, paths)
    manifest = _finish(_read(paths, lists, format, request))
    return manifest if asked is None else _with_split(manifest, asked, stored_splits)


def _read(
    paths: Sequence[str],
    lists: Sequence[str | os.PathLike[str]],
    format: ManifestFormat,
    request: Request,
) -> list[Found]:
    if lists:
        return [_read_lists(paths, split_lists(lists), format, request)]
    names = [_detect(path, request) if format == "auto" else format for path in paths]
    _check_options(names, request)
    found = [FORMATS[name](path, request) for name, path in zip(names, paths, strict=True)]
    if names[0] in _PATH_FORMATS:
        _read_folders(found, [absolute(path) for path in paths], request)
        return found
    return [join_lists(found, [None] * len(found), request)]


# ---- options


def _check_request(request: Request, format: str, paths: Sequence[str]) -> None:
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"format must be one of auto, {', '.join(FORMATS)}, got {format!r}")
    if request.image_fps is not None and not 0 < request.image_fps < math.inf:
        raise ConfigError(f"image_fps must be > 0, got {request.image_fps}")
    if request.charades not in get_args(CharadesMode):
        raise ConfigError(
            f"charades must be one of {', '.join(get_args(CharadesMode))}, got {request.charades!r}"
        )
    for place in (*paths, request.annotations, request.root, request.out):
        check_url(place or "")
    if request.root is not None and kind_of(request.root) != "folder":
        raise does_not_exist("root", request.root)
    if request.annotations is not None and kind_of(request.annotations) is None:
        raise does_not_exist("annotations", request.annotations)


def _detect(path: str, request: Request) -> str:
    if (given := request.annotations) is not None:
        if kind_of(given) == "folder":
            files = names_in(given)
            if "classInd.txt" in files:
                return "ucf101"
            if any(fnmatchcase(name, "*_test_split*.txt") for name in files):
                return "hmdb51"
        elif extension_of(given) in LIST_EXTENSIONS:
            return format_of_list(given)
        raise InputError(
            f"annotations {given} must be a list ({' '.join(sorted(LIST_EXTENSIONS))}) or a folder "
            f"with UCF101's classInd.txt or HMDB51's *_test_split1.txt files; or name its format"
        )
    if is_url(path) and is_pattern(path):
        return "glob"
    kind = kind_of(path)
    if kind == "folder":
        return "folder"
    if kind == "file" or os.path.lexists(path):
        return format_of_list(path) if extension_of(path) in LIST_EXTENSIONS else "file"
    if is_pattern(path):
        return "glob"
    raise does_not_exist("VIDEOS", path)


def _check_options(names: Sequence[str], request: Request) -> None:
    name = names[0]
    if len(set(names)) > 1 and not set(names) <= _PATH_FORMATS:
        raise ConfigError(
            f"VIDEOS mixes the formats {', '.join(sorted(set(names)))}: a list cannot be joined "
            "with other VIDEOS, because the labels would mix; give it with --list (lists=) and "
            "the folder of its videos as VIDEOS, or extract the inputs one by one"
        )
    if name in ("ucf101", "hmdb51"):
        if request.annotations is None:
            wanted = "classInd.txt" if name == "ucf101" else "the *_test_split1.txt files"
            raise ConfigError(f"format {name} needs annotations: the folder with {wanted}")
        if kind_of(request.annotations) != "folder":
            raise does_not_exist("annotations", request.annotations)
        if request.split not in (None, 1, 2, 3):
            raise ConfigError(f"split must be 1, 2 or 3, got {request.split!r}")
    elif request.split is not None:
        raise ConfigError(
            f"split is only for the formats ucf101 and hmdb51, not for {name}; leave it out"
        )
    if request.class_level is not None:
        if name not in _PATH_FORMATS:
            raise ConfigError(
                f"class_level is for classes from folders, but the format {name} names its own "
                "classes; leave class_level out, or give only the folder of the videos"
            )
        if request.class_level < 0:
            raise ConfigError(f"class_level must be >= 0, got {request.class_level}")
    if request.annotations is not None:
        if name in _PATH_FORMATS:
            raise ConfigError(f"format {name} takes no annotations, got {request.annotations}")
        if len(names) > 1:
            raise ConfigError(f"annotations need one folder of videos, got {len(names)}")
        if request.root is not None:
            raise ConfigError(
                f"with annotations or lists VIDEOS is the folder of the videos: root "
                f"{request.root} cannot be given as well; leave it out"
            )


def _read_lists(
    paths: Sequence[str],
    lists: Sequence[tuple[str | None, str]],
    format: ManifestFormat,
    request: Request,
) -> Found:
    """Reads the lists that belong to one folder of videos."""
    if len(paths) > 1:
        raise ConfigError(f"lists need one folder of videos, got {len(paths)}")
    if format in (*_PATH_FORMATS, "ucf101", "hmdb51"):
        raise ConfigError(
            f"lists are files, but the format {format} does not read files; leave --format out"
        )
    found = []
    for _, path in lists:
        check_url(path)
        if (kind := kind_of(path)) != "file":
            if kind == "folder":
                raise InputError(f"list must be a file, got the folder {path}; name a list in it")
            raise does_not_exist("list", path)
        one = dataclasses.replace(request, annotations=path)
        name = format_of_list(path) if format == "auto" else format
        _check_options([name], one)
        found.append(FORMATS[name](paths[0], one))
    return join_lists(found, [split for split, _ in lists], request)


def _absolute(place: str | os.PathLike[str] | None) -> str | None:
    return None if place is None else absolute(as_path(os.fspath(place)))


# ---- from entries to the manifest


def _read_folders(found: Sequence[Found], inputs: Sequence[str], request: Request) -> None:
    """Gives the videos of each input the classes and splits of their folders."""
    names = [os.path.basename(path) for path in inputs]
    # In `extract data/train data/val OUT`, keys begin below the two folders. Even so, the names of
    # the folders are the splits.
    by_input = request.root is None and len(inputs) > 1 and all(split_named(name) for name in names)
    folder_of: list[list[str]] = []
    counts = Counter[str]()
    empty: list[str] = []
    for name, part in zip(names, found, strict=True):
        above = f"{name}/" if by_input else ""
        folders = [f"{above}{_folder_of(entry.key)}".rstrip("/") for entry in part.entries]
        folder_of.append(folders)
        counts.update(folders)
        empty += [above + folder for folder in part.empty_folders]
    said = classes_of_folders(
        counts, class_level=request.class_level, empty=empty, by_input=by_input
    )
    for folders, part in zip(folder_of, found, strict=True):
        for folder, entry in zip(folders, part.entries, strict=True):
            entry.class_name, entry.split = said.classes[folder], said.splits[folder]
        part.class_names = tuple(sorted({e.class_name for e in part.entries if e.class_name}))
    found[0].notes[:0] = said.notes
    if not request.root and not by_input and request.class_level is None:
        found[0].notes += _on_inputs(found, inputs)


def _folder_of(key: str) -> str:
    folder = key.rpartition("/")[0]
    return unescape_key(folder) if folder else ""


def _on_inputs(found: Sequence[Found], inputs: Sequence[str]) -> list[str]:
    """Says which class or split is lost because keys begin below the folder with its name."""
    if len(inputs) == 1:
        if split := split_named(os.path.basename(inputs[0])):
            return [
                f"the folder's own name {os.path.basename(inputs[0])!r} gives no split; to have "
                f"the split {split}, name the folder around it, or give that as --root"
            ]
        return []
    if len(found) > 1 and not any("/" in entry.key for part in found for entry in part.entries):
        folders = {path for path in inputs if kind_of(path) == "folder"}
        around = common_folder({os.path.dirname(path) for path in folders}) if folders else None
        if len(folders) > 1 and around is not None:
            return [
                f"gave no labels: VIDEOS names {len(folders):,} folders, and keys begin below "
                f"each; if they are the classes, name {around} instead, or give it as --root"
            ]
    return []


def _finish(found: Sequence[Found]) -> Manifest:
    entries = [entry for part in found for entry in part.entries]
    notes = [note for part in found for note in part.notes]
    notes += keep_extensions(entries)
    _check_unique(entries)
    if len(found) == 1:
        class_names = found[0].class_names  # in the order of the annotation
    else:
        class_names = tuple(sorted({name for part in found for name in part.class_names}))
    numbers = {name: number for number, name in enumerate(class_names)}
    if num_ignored := sum(part.num_ignored_files for part in found):
        notes.insert(
            0,
            f"ignored {format_count(num_ignored, 'file')} without a video extension; name them "
            "one by "
            "one or in a .txt list if they are videos",
        )
    videos = tuple(
        Video(
            key=entry.key,
            source=entry.source,
            labels=entry.labels if entry.class_name is None else (numbers[entry.class_name],),
            split=entry.split,
            start_seconds=entry.start_seconds,
            end_seconds=entry.end_seconds,
            listed_bytes=entry.listed_bytes,
            named_labels=entry.named_labels,
        )
        for entry in entries
    )
    sets = joined_sets(one for part in found for one in part.label_sets)
    return Manifest(videos, class_names, num_ignored, tuple(map(redacted, notes)), sets)


def _with_split(
    manifest: Manifest, asked: SplitShare, stored_splits: StoredSplits | None
) -> Manifest:
    stored = None if stored_splits is None else stored_splits()
    splits, notes = divide(manifest.videos, manifest.class_names, asked, stored)
    return dataclasses.replace(
        manifest,
        videos=tuple(
            dataclasses.replace(video, split=split)
            for video, split in zip(manifest.videos, splits, strict=True)
        ),
        notes=(*manifest.notes, *notes),
    )


def _check_unique(entries: Iterable[Entry]) -> None:
    by_key: dict[str, Entry] = {}
    # Kinetics cuts many clips from one file, and lists some clips in two classes.
    by_source: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        clip = (entry.source, entry.start_seconds, entry.end_seconds, entry.class_name)
        first = entry if entry.may_repeat else by_source.setdefault(clip, entry)
        if first is not entry:
            where = f"{first.origin} and {entry.origin} name" if entry.origin else "VIDEOS names"
            raise InputError(f"{where} the same video twice: {entry.source}; name it once")
        first = by_key.setdefault(entry.key, entry)
        if first is entry:
            continue
        folders = [os.path.dirname(without_query(e.source)) for e in (first, entry)]
        if folders[0] == folders[1]:
            remedy = "keep one of them, or rename one"
        else:
            common = common_folder(folders)
            remedy = f"name their common folder {common} instead, or give it as root"
            if common is None:
                remedy = "rename one of them"
        raise InputError(
            f"two videos have the key {entry.key!r}: {first.source} and {entry.source}; {remedy}"
        )
