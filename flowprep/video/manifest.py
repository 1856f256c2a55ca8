"""From what the user names (folders, files, patterns, lists, known data sets) to a list of videos.

    collect_videos -> FORMATS[name] for each input -> entries -> unique keys, labels -> Manifest

A reader turns one input into entries and looks at the disk no more than it must: a tree is listed
once with `os.scandir`, a list costs one listing for each folder that it names files in.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from flowprep.errors import ConfigError, InputError
from flowprep.video.keys import escape_key, unescape_key
from flowprep.video.types import Video

__all__ = [
    "FORMATS",
    "VIDEO_EXTENSIONS",
    "Manifest",
    "ManifestFormat",
    "collect_videos",
    "is_frame_image",
]

ManifestFormat = Literal["auto", "folder", "file", "glob", "list", "ucf101", "hmdb51", "kinetics"]

# fmt: off
VIDEO_EXTENSIONS = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".hevc", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
])
# fmt: on
"""In lower case; compared without regard to case."""

_FRAME_IMAGE = re.compile(
    r".*[0-9]\.(?:jpg|jpeg|png|bmp|webp|tif|tiff|ppm|pgm)", re.IGNORECASE | re.DOTALL
)
# x_00001.jpg (mmaction2), flow_x_00001.jpg (TSN), flow_x_p2_00000.jpg (denseflow).
_FLOW_IMAGE = re.compile(
    r"(?:[xyuv](?:_[pm][0-9]+)?_[0-9]+|(?:flow|back)_?[a-z]?_.*)\.[a-z]+", re.I
)
_QUOTES = "\"'"
_QUOTED_LINE = re.compile(r"""(["'])(.+)\1((?:\s+[0-9]{1,18})*)""")
_EXTENSIONS_PATTERN = "|".join(re.escape(extension) for extension in sorted(VIDEO_EXTENSIONS))
_NAME_AND_REST = re.compile(rf"(.*?(?:{_EXTENSIONS_PATTERN}))[\s,;]\s*(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Manifest:
    """The videos of a run, in the order of the plan: folders by key, lists by line."""

    videos: tuple[Video, ...]
    class_names: tuple[str, ...]
    """The index is the label; empty where labels have no names."""
    num_ignored_files: int
    """Files in the searched folders that are no videos, hidden ones not counted."""
    notes: tuple[str, ...]
    """Sentences for the user on what was left out and why."""


@dataclass(frozen=True)
class _Request:
    annotations: str | None
    split: int | None
    root: str | None
    strict: bool
    out: str | None


@dataclass(slots=True)
class _Entry:
    source: str
    key: str
    origin: str = ""
    """`line 3 of LIST`; empty for what was found on disk."""
    labels: tuple[int, ...] = ()
    class_name: str | None = None
    split: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None


@dataclass
class _Found:
    entries: list[_Entry]
    class_names: tuple[str, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    """How many other files there are of each extension."""
    notes: list[str] = field(default_factory=list)


def collect_videos(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: ManifestFormat = "auto",
    annotations: str | os.PathLike[str] | None = None,
    split: int | None = None,
    root: str | os.PathLike[str] | None = None,
    strict: bool = False,
    out: str | os.PathLike[str] | None = None,
) -> Manifest:
    """Lists the videos that `inputs` names, each with a unique key.

    `inputs` is a folder, a video, a glob pattern, a text list, a Kinetics CSV, or several of these.
    With `annotations` (a list, a CSV, or the folder of UCF101's or HMDB51's lists) it is the folder
    of the videos. `auto` goes by what exists: .txt is a list, .csv is Kinetics, `annotations` with
    classInd.txt is UCF101, with *_test_split*.txt HMDB51. `split` is UCF101's or HMDB51's, 1 to 3
    (None is 1).

    Keys, and the paths in a list, are relative to `root`; without it to the folder, to the fixed
    beginning of the pattern, or to the list's own folder (if a listed video lies outside of that
    one, keys are relative to the common folder of all). Videos of UCF101, HMDB51 and Kinetics that
    are not on disk are left out with a note; `strict` makes them an error. `out` is where the data
    set will be written: it may not lie among the inputs.

    Raises ConfigError for options that do not go together and InputError for inputs that do not
    exist, hold no video, cannot be parsed, or give two videos one key.
    """
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"format must be one of auto, {', '.join(FORMATS)}, got {format!r}")
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    paths = [os.fspath(path) for path in inputs]
    if not paths or not all(paths):
        raise InputError("VIDEOS is empty: name a folder, a video, a glob pattern or a list")
    request = _Request(
        annotations=None if annotations is None else os.fspath(annotations),
        split=split,
        root=None if root is None else os.path.abspath(root),
        strict=strict,
        out=_local_path(out),
    )
    if request.root is not None and not os.path.isdir(request.root):
        raise _does_not_exist("root", request.root)
    if request.annotations is not None and not os.path.exists(request.annotations):
        raise _does_not_exist("annotations", request.annotations)
    names = [_detect(path, request) if format == "auto" else format for path in paths]
    _check_options(names, request)
    found = [FORMATS[name](path, request) for name, path in zip(names, paths, strict=True)]
    return _finish(found, classes_are_folders=names[0] in _PATH_FORMATS)


def is_frame_image(name: str) -> bool:
    """Whether a file name is that of a numbered frame (img_00001.jpg) and not of a flow image."""
    return bool(_FRAME_IMAGE.fullmatch(name)) and not _FLOW_IMAGE.fullmatch(name)


# ---- options


def _detect(path: str, request: _Request) -> str:
    if (given := request.annotations) is not None:
        if os.path.isdir(given):
            files = os.listdir(given)
            if "classInd.txt" in files:
                return "ucf101"
            if any(fnmatchcase(name, "*_test_split*.txt") for name in files):
                return "hmdb51"
        elif (extension := _extension(given)) in _ANNOTATION_FORMATS:
            return _ANNOTATION_FORMATS[extension]
        raise InputError(
            f"annotations {given} must be a .txt list, a Kinetics .csv, or a folder with UCF101's "
            f"classInd.txt or HMDB51's *_test_split1.txt files; or name its format"
        )
    if os.path.isdir(path):
        return "folder"
    if os.path.lexists(path):
        return _ANNOTATION_FORMATS.get(_extension(path), "file")
    if any(character in path for character in "*?["):
        return "glob"
    raise _does_not_exist("VIDEOS", path)


def _check_options(names: Sequence[str], request: _Request) -> None:
    name = names[0]
    if len(set(names)) > 1 and not set(names) <= _PATH_FORMATS:
        raise ConfigError(
            f"VIDEOS mixes the formats {', '.join(sorted(set(names)))}: lists cannot be joined "
            f"with anything else, because their labels would mix; extract them one by one"
        )
    if name in ("ucf101", "hmdb51"):
        if request.annotations is None:
            wanted = "classInd.txt" if name == "ucf101" else "the *_test_split1.txt files"
            raise ConfigError(f"format {name} needs annotations: the folder with {wanted}")
        if not os.path.isdir(request.annotations):
            raise _does_not_exist("annotations", request.annotations)
        if request.split not in (None, 1, 2, 3):
            raise ConfigError(f"split must be 1, 2 or 3, got {request.split!r}")
    elif request.split is not None:
        raise ConfigError(f"split goes with the formats ucf101 and hmdb51 only, not with {name}")
    if request.annotations is not None:
        if name in _PATH_FORMATS:
            raise ConfigError(f"format {name} takes no annotations, got {request.annotations}")
        if len(names) > 1:
            raise ConfigError(f"annotations go with one folder of videos, got {len(names)}")
        if request.root is not None:
            raise ConfigError(
                "with annotations VIDEOS is the folder of the videos: root cannot be given as well"
            )


def _local_path(out: str | os.PathLike[str] | None) -> str | None:
    if out is None:
        return None
    path = os.fspath(out)
    scheme, separator, rest = path.partition("://")
    if separator:
        return os.path.abspath(rest) if scheme in ("file", "local") else None
    return os.path.abspath(path)


def _check_out(top: str, request: _Request, enters: Callable[[str], bool] | None = None) -> None:
    """Raises InputError where OUT and a folder of videos lie in one another, links resolved."""
    if request.out is None:
        return
    real_out, real_top = os.path.realpath(request.out), os.path.realpath(top)
    inside = _relative(real_out, real_top)
    if inside is not None and (enters is None or enters(inside)):
        raise _out_among_inputs(request.out, top, same=not inside)
    if _relative(real_top, real_out):
        raise InputError(
            f"VIDEOS {top} lies inside OUT {request.out}: inputs and data set would mix; choose a "
            f"folder outside"
        )


def _out_among_inputs(out: str, top: str, *, same: bool) -> InputError:
    relation = "is the same folder as" if same else "lies inside"
    return InputError(
        f"OUT {out} {relation} VIDEOS {top}: its own files would be taken for inputs; choose a "
        f"folder outside"
    )


# ---- paths


def _extension(path: str) -> str:
    # os.path.splitext is slower by half, which a list of 650,000 lines feels.
    dot = path.rfind(".")
    return path[dot:].lower() if dot > path.rfind("/") + 1 else ""


def _stem(path: str) -> str:
    # Only what is known as a video's extension goes: 'v1.0' is no video named 'v1'.
    extension = _extension(path)
    return path[: -len(extension)] if extension in VIDEO_EXTENSIONS else path


def _relative(path: str, base: str) -> str | None:
    """The path below `base`: empty if it is `base` itself, None if it lies outside."""
    if path == base:
        return ""
    prefix = base.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def _with_parents(path: str | None) -> set[str]:
    found = set()
    while path and path not in found:
        found.add(path)
        path = os.path.dirname(path)
    return found


def _below_root(path: str, root: str) -> str:
    relative = _relative(path, root)
    if relative is None:
        raise InputError(f"VIDEOS {path} lies outside root {root}: choose a root that holds it")
    return relative


def _does_not_exist(what: str, path: str) -> InputError:
    if "://" in path:
        return InputError(
            f"{what} must be a path of this machine's file system, got {path}; mount or copy it"
        )
    part = os.path.abspath(path)
    while not os.path.isdir(os.path.dirname(part)):
        part = os.path.dirname(part)
    if os.path.exists(part):
        return InputError(f"{what} must be a folder, got the file {part}")
    folder, name = os.path.split(part)
    try:
        siblings = [sibling for sibling in os.listdir(folder) if sibling != name]
    except OSError:
        siblings = []
    close = difflib.get_close_matches(name, siblings, n=1)
    hint = f"; did you mean {os.path.join(folder, close[0])}?" if close else ""
    return InputError(f"{what} does not exist: {path}{hint}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---- folders, files, patterns


@dataclass
class _Tree:
    top: str
    videos: list[tuple[str, bool]]
    """Path below `top`, and whether it is a folder of frame images."""
    others: Counter[str]
    notes: list[str]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _walk(top: str, out: str | None, enters: Callable[[str], bool] | None = None) -> _Tree:
    """Lists every video below `top`, following links; a link back into its own folders is cut.

    `enters` says for a path below `top` whether that folder is wanted. Raises InputError for a
    folder that cannot be read and for one that is `out`, by whatever link it is reached.
    """
    tree = _Tree(top, [], Counter(), [])
    out_id = _identity(out) if out is not None and os.path.isdir(out) else None
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        relative, parents = pending.pop()
        path = os.path.join(top, relative) if relative else top
        try:
            this = _identity(path)
            with os.scandir(path) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            raise InputError(
                f"cannot read the folder {path}: {error.strerror}; make it readable, or name the "
                f"folders beside it one by one"
            ) from error
        if this in parents:
            tree.notes.append(f"did not follow {path}: the link leads back to a folder around it")
            continue
        if this == out_id:
            raise _out_among_inputs(out or "", top, same=not relative)
        videos, frames, others, folders = [], 0, [], []
        for entry in entries:
            name = os.path.join(relative, entry.name)
            extension = _extension(entry.name)
            if _is_folder(entry):
                folders.append(name)
            elif extension in VIDEO_EXTENSIONS and (entry.is_symlink() or entry.is_file()):
                videos.append((name, False))
            else:
                others.append(extension)
                frames += is_frame_image(entry.name)
        if frames and not videos and not folders:
            tree.videos.append((relative, True))
            continue
        tree.videos += videos
        tree.others.update(others)
        chain = (*parents, this)
        pending += [(name, chain) for name in folders if enters is None or enters(name)]
    return tree


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _read_folder(path: str, request: _Request) -> _Found:
    top = _folder_of_videos(path)
    _check_out(top, request)
    tree = _walk(top, request.out)
    if not tree.videos:
        others = ", ".join(f"{n:,} {name or 'without'}" for name, n in tree.others.most_common(4))
        raise InputError(
            f"no videos in {top} or its subfolders{f' (other files: {others})' if others else ''}. "
            f"{_what_is_a_video()}; for other files name them one by one or in a .txt list"
        )
    return _Found(_tree_entries(tree, tree.videos, request), (), tree.others, tree.notes)


def _read_glob(path: str, request: _Request) -> _Found:
    parts = path.split("/")
    fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?[]", part)), len(parts))
    patterns = [part for part in parts[fixed:] if part not in ("", ".")]
    top = _folder_of_videos("/".join(parts[:fixed]) or ("/" if path.startswith("/") else "."))

    def enters(relative: str) -> bool:
        return _may_hold_matches(_parts(relative), patterns)

    _check_out(top, request, enters)
    tree = _walk(top, request.out, enters)
    videos = [video for video in tree.videos if _matches(_parts(video[0]), patterns)]
    if not videos:
        raise InputError(f"no video matches {path} (searched in {top}). {_what_is_a_video()}")
    return _Found(_tree_entries(tree, videos, request), (), Counter(), tree.notes)


def _read_file(path: str, request: _Request) -> _Found:
    if not os.path.lexists(path):
        raise _does_not_exist("VIDEOS", path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(
            f"format file wants a video file, {path} is none; a folder is format folder"
        )
    source = os.path.abspath(path)
    name = _below_root(source, request.root) if request.root else os.path.basename(source)
    return _Found([_Entry(source, escape_key(_stem(name)))])


def _folder_of_videos(path: str) -> str:
    if not os.path.isdir(path):
        raise _does_not_exist("VIDEOS", path)
    return os.path.abspath(path)


def _tree_entries(
    tree: _Tree, videos: Iterable[tuple[str, bool]], request: _Request
) -> list[_Entry]:
    prefix = _below_root(tree.top, request.root) if request.root else ""
    entries = []
    for relative, is_folder in videos:
        name = os.path.join(prefix, relative if is_folder else _stem(relative)).rstrip("/")
        source = os.path.join(tree.top, relative) if relative else tree.top
        entries.append(_Entry(source, escape_key(name or os.path.basename(tree.top))))
    return sorted(entries, key=lambda entry: (entry.key, entry.source))


def _parts(relative: str) -> list[str]:
    return relative.split("/") if relative else []


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return True  # the pattern names a folder around the video
    if patterns[0] == "**":
        return any(_matches(parts[i:], patterns[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _may_hold_matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    for part, pattern in zip(parts, patterns, strict=False):
        if pattern == "**":
            return True
        if not fnmatchcase(part, pattern):
            return False
    return True


def _what_is_a_video() -> str:
    known = " ".join(sorted(VIDEO_EXTENSIONS))
    return f"Videos are files with the extensions {known}, and folders of numbered images"


# ---- text lists


def _read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines that are not blank."""
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if text := line.strip(" \t\r"):
            yield number, text


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"cannot read the list {path}: {error.strerror}") from error
    if b"\0" in data:
        raise InputError(f"{path} is not text in UTF-8 (it has NUL bytes); save it as UTF-8")
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


class _Listings:
    """Answers what a path is from listings of the parent folders, each read once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, bool]] = {}

    def kind(self, path: str) -> Literal["file", "folder"] | None:
        parent, _, name = path.rpartition("/")
        listing = self._folders.get(parent)
        if listing is None:
            try:
                with os.scandir(parent or "/") as scan:
                    listing = {entry.name: _is_folder(entry) for entry in scan}
            except OSError:
                listing = {}
            self._folders[parent] = listing
        is_folder = listing.get(name)
        return None if is_folder is None else "folder" if is_folder else "file"


def _annotations_and_root(path: str, request: _Request) -> tuple[str, str | None]:
    """The list to read and the folder that its paths start from, if one was named."""
    if request.annotations is not None:
        return request.annotations, _folder_of_videos(path)
    if os.path.isdir(path):
        raise InputError(
            f"VIDEOS {path} is a folder and no list: name the list as VIDEOS, or as annotations "
            f"with the folder of its videos as VIDEOS"
        )
    if not os.path.exists(path):
        raise _does_not_exist("VIDEOS", path)
    return path, request.root


def _read_list(path: str, request: _Request) -> _Found:
    """Reads a list of lines as mmaction2 has them.

        PATH
        PATH LABEL ...
        FOLDER NUM_FRAMES LABEL ...
        FOLDER 0 NUM_FRAMES LABEL

    A path ends where it names something that exists, the longest first; else at a video extension
    or at the first of the integers that end the line. It may stand in quotes. A listed video that
    does not exist stays, and fails by name when it is extracted.
    """
    list_path, root = _annotations_and_root(path, request)
    base = (root or os.path.dirname(os.path.abspath(list_path))).rstrip("/")
    listings = _Listings()
    names: list[str] = []
    entries: list[_Entry] = []
    missing: list[str] = []
    around_out = _with_parents(request.out) | _with_parents(
        request.out and os.path.realpath(request.out)
    )
    for number, line in _read_lines(list_path):
        if line.startswith("#"):
            continue
        origin = f"line {number} of {list_path}"
        source, integers, kind = _parse_line(line, base, listings, origin)
        if kind is None:
            missing.append(source)
        elif request.out is not None and source in around_out:
            raise _out_among_inputs(request.out, source, same=source == request.out)
        name = source if kind == "folder" else _stem(source)
        names.append(name)
        if kind == "file" or name != source:
            labels = integers
        else:
            labels = _folder_labels(source, integers, kind is not None, origin)
        entries.append(_Entry(source, "", origin, tuple(labels)))
    if not entries:
        raise InputError(f"the list {list_path} names no video: write one path a line")
    found = _Found(entries)
    outside = next((e for e in entries if not _relative(e.source, base)), None)
    if outside is not None:
        if root is not None:
            raise InputError(
                f"{outside.origin}: {outside.source} lies outside root {root}; choose a root that "
                f"holds every listed video, or leave it out"
            )
        base = os.path.commonpath({os.path.dirname(entry.source) for entry in entries})
        found.notes.append(f"keys are relative to {base}, the common folder of the listed videos")
    for entry, name in zip(entries, names, strict=True):
        entry.key = escape_key(_relative(name, base) or "")
    if missing:
        found.notes.append(
            f"{len(missing):,} of {_count(len(entries), 'listed video')} not found; first: "
            f"{', '.join(missing[:3])}"
        )
    return found


def _parse_line(
    line: str, base: str, listings: _Listings, origin: str
) -> tuple[str, list[int], Literal["file", "folder"] | None]:
    if match := _QUOTED_LINE.fullmatch(line):
        source = _join(base, match[2])
        return source, [int(token) for token in match[3].split()], listings.kind(source)
    path, integers = line, list[int]()
    while True:
        source = _join(base, path)
        kind = listings.kind(source)
        # A known extension ends a path even where the file is missing: 'gone.avi 3'.
        if kind is not None or (_extension(path) in VIDEO_EXTENSIONS and line[0] not in _QUOTES):
            return source, integers, kind
        head, *tail = path.rsplit(None, 1)
        if not tail or not (tail[0].isascii() and tail[0].isdigit() and len(tail[0]) < 19):
            break
        path = head
        integers.insert(0, int(tail[0]))
    # Nothing of that name exists, so it may be a name with something else than labels after it.
    named = None if line[0] in _QUOTES else _NAME_AND_REST.fullmatch(line)
    if named is None and listings.kind(_join(base, line.split(None, 1)[0])) is not None:
        named = re.fullmatch(r"(\S+)\s+(.+)", line)
    if named is not None or line[0] in _QUOTES:
        what = f"{named[2]!r} after {named[1]!r}" if named else repr(line)
        raise InputError(
            f"{origin}: a path (in quotes, if it is an odd one) and labels that are integers >= 0 "
            f"must stand with spaces between, got {what}"
        )
    return source, integers, None


def _join(base: str, path: str) -> str:
    joined = path if path[0] == "/" else f"{base}/{path}"
    if "//" in joined or "/." in joined or joined[-1] == "/":
        # normpath alone would keep two slashes at the very beginning.
        return "/" + os.path.normpath(joined).lstrip("/")
    return joined


def _folder_labels(folder: str, integers: list[int], exists: bool, origin: str) -> list[int]:
    """Splits the integers after a folder into frame counts, which must fit it, and labels."""
    if len(integers) < 2:
        return integers
    # 'DIR 0 5 127' has an offset: a count of no frames makes no sense.
    has_offset = integers[0] == 0 and len(integers) > 2
    listed, labels = (integers[1], integers[2:]) if has_offset else (integers[0], integers[1:])
    if not exists:
        return labels
    num_frames = sum(map(is_frame_image, os.listdir(folder)))
    # Lists for flow count the flows, one fewer than the frames.
    if listed in (num_frames, num_frames - 1):
        return labels
    name = os.path.basename(folder)
    raise InputError(
        f"{origin}: '{name} {' '.join(map(str, integers))}' asks for a part of {folder}, which has "
        f"{_count(num_frames, 'frame image')}; folders are extracted whole: write "
        f"'{name} {num_frames} LABEL' or '{name} LABEL', or move the frames into a folder of their "
        f"own"
    )


# ---- UCF101, HMDB51, Kinetics


class _Index:
    """The videos of a tree by file name, and which of them the annotations name."""

    def __init__(self, tree: _Tree, class_folders: Iterable[str]) -> None:
        self.tree = tree
        self._class_folders = frozenset(class_folders)
        self._by_stem: dict[str, list[str]] = {}
        for relative, is_folder in tree.videos:
            name = relative.rpartition("/")[2]
            self._by_stem.setdefault(name if is_folder else _stem(name), []).append(relative)
        self.used: set[str] = set()
        self.absent: list[str] = []

    def find(self, stem: str, folders: Sequence[str]) -> str | None:
        """Returns the video of that name, in `folders` at best, in another class's folder never."""
        candidates = [
            (sum(folder in folders for folder in relative.split("/")[:-1]), relative)
            for relative in self._by_stem.get(stem, ())
            if (parent := relative.split("/")[-2:-1]) == []
            or parent[0] in folders
            or parent[0] not in self._class_folders
        ]
        if not candidates:
            return None
        best = max(candidates)[0]
        fitting = sorted(relative for score, relative in candidates if score == best)
        if len(fitting) > 1:
            paths = " and ".join(os.path.join(self.tree.top, relative) for relative in fitting[:2])
            raise InputError(
                f"two files could be the listed video {stem}: {paths}; keep one of them"
            )
        self.used.add(fitting[0])
        return os.path.join(self.tree.top, fitting[0])

    def found(
        self, entries: list[_Entry], class_names: Sequence[str], annotations: str, request: _Request
    ) -> _Found:
        """Closes a search: says what was absent and what was left over."""
        result = _Found(entries, tuple(class_names), self.tree.others, self.tree.notes)
        if self.absent:
            note = (
                f"{len(self.absent):,} of {len(entries) + len(self.absent):,} listed videos "
                f"are not under {self.tree.top}; first: {', '.join(self.absent[:3])}"
            )
            if request.strict or not entries:
                raise InputError(f"{note}; check the folder of the videos against {annotations}")
            result.notes.append(note)
        if not entries:
            raise InputError(f"{annotations} names no video")
        if unlisted := len(self.tree.videos) - len(self.used):
            result.notes.append(
                f"ignored {_count(unlisted, 'video')} under {self.tree.top} that {annotations} "
                f"does not name"
            )
        return result


def _read_ucf101(path: str, request: _Request) -> _Found:
    folder, split = request.annotations or "", request.split or 1
    top = _folder_of_videos(path)
    _check_out(top, request)
    index_path = os.path.join(folder, "classInd.txt")
    class_names: list[str] = []
    for number, line in _read_lines(index_path):
        index, _, name = line.partition(" ")
        if index != str(len(class_names) + 1) or not name.strip():
            raise InputError(
                f"line {number} of {index_path} must be '{len(class_names) + 1} CLASS', "
                f"got {line!r}"
            )
        class_names.append(name.strip())
    found = _Index(_walk(top, request.out), class_names)
    entries = []
    for part in ("train", "test"):
        list_path = os.path.join(folder, f"{part}list{split:02d}.txt")
        for number, line in _read_lines(list_path):
            name, *label = line.split()
            class_name, _, file_name = name.rpartition("/")
            origin = f"line {number} of {list_path}"
            if class_name not in class_names:
                raise InputError(f"{origin}: class {class_name!r} is not in {index_path}")
            wanted = str(class_names.index(class_name) + 1)
            if label and label != [wanted]:
                raise InputError(
                    f"{origin}: {class_name} is class {wanted} in {index_path}, "
                    f"got {' '.join(label)}"
                )
            source = found.find(_stem(file_name), (class_name, part))
            if source is None:
                found.absent.append(name)
                continue
            key = escape_key(_stem(name))
            entries.append(_Entry(source, key, origin, class_name=class_name, split=part))
    return found.found(entries, class_names, folder, request)


def _read_hmdb51(path: str, request: _Request) -> _Found:
    folder, split = request.annotations or "", request.split or 1
    top = _folder_of_videos(path)
    _check_out(top, request)
    suffix = f"_test_split{split}.txt"
    lists = [n for n in os.listdir(folder) if n.endswith(suffix) and not n.startswith(".")]
    class_names = sorted(name.removesuffix(suffix) for name in lists)
    if not class_names:
        raise InputError(f"annotations {folder} has no file CLASS{suffix}")
    found = _Index(_walk(top, request.out), class_names)
    entries, num_unused = [], 0
    for class_name in class_names:
        list_path = os.path.join(folder, class_name + suffix)
        for number, line in _read_lines(list_path):
            origin = f"line {number} of {list_path}"
            file_name, *flag = line.rsplit(None, 1)
            if flag not in (["0"], ["1"], ["2"]):
                raise InputError(f"{origin} must be 'NAME.avi 0', 1 or 2, got {line!r}")
            source = found.find(_stem(file_name), (class_name,))
            if flag == ["0"]:
                num_unused += 1
                continue
            if source is None:
                found.absent.append(f"{class_name}/{file_name}")
                continue
            part = "train" if flag == ["1"] else "test"
            key = escape_key(f"{class_name}/{_stem(file_name)}")
            entries.append(_Entry(source, key, origin, class_name=class_name, split=part))
    result = found.found(entries, class_names, folder, request)
    if num_unused:
        result.notes.append(
            f"left out {_count(num_unused, 'video')} that split {split} does not use"
        )
    return result


def _read_kinetics(path: str, request: _Request) -> _Found:
    csv_path, root = _annotations_and_root(path, request)
    top = root or os.path.dirname(os.path.abspath(csv_path))
    if request.annotations is not None:
        _check_out(top, request)
    rows = list(_kinetics_rows(csv_path))
    class_names = sorted({label for _, label, *_ in rows if label})
    folder_names = [*class_names, *(name.replace(" ", "_") for name in class_names)]
    # Beside its list OUT does no harm: only listed names are taken, and shards have none of them.
    found = _Index(_walk(top, None), folder_names)
    entries = []
    for line_number, label, video_id, start, end, split in rows:
        clip = f"{video_id}_{int(start):06d}_{int(end):06d}"
        folders = (label, label.replace(" ", "_"), split, _SPLIT_NAMES.get(split, split))
        trimmed = found.find(clip, folders)
        source = trimmed or found.find(video_id, folders)
        if source is None:
            found.absent.append(clip)
            continue
        entry = _Entry(
            source,
            escape_key(f"{label.replace('/', '_')}/{clip}" if label else clip),
            f"line {line_number} of {csv_path}",
            class_name=label or None,
            split=_SPLIT_NAMES.get(split, split) or None,
        )
        if trimmed is None:
            entry.start_seconds, entry.end_seconds = start, end
        entries.append(entry)
    return found.found(entries, class_names, csv_path, request)


_SPLIT_NAMES = {"validate": "val", "validation": "val"}


def _kinetics_rows(csv_path: str) -> Iterator[tuple[int, str, str, float, float, str]]:
    """Yields line number, label, id, start, end and split; label and split may be empty."""
    reader = csv.reader(io.StringIO(_read_text(csv_path), newline=""))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not {"youtube_id", "time_start", "time_end"} <= set(header):
            raise InputError(
                f"{csv_path} is no Kinetics CSV: its first line must name the columns "
                f"label,youtube_id,time_start,time_end,split (label and split may lack), got "
                f"{','.join(header)[:200]!r}"
            )
        for values in reader:
            if not any(values):
                continue
            row = dict(zip(header, values, strict=False))
            try:
                start, end = float(row["time_start"]), float(row["time_end"])
            except (KeyError, ValueError):
                start = end = math.nan
            video_id = row["youtube_id"].strip() if "youtube_id" in row else ""
            if not video_id or not 0 <= start < end < math.inf:
                raise InputError(
                    f"line {reader.line_num} of {csv_path} needs a youtube_id and times in seconds "
                    f"with 0 <= time_start < time_end, got {','.join(values)!r}"
                )
            label, split = row.get("label", "").strip(), row.get("split", "").strip()
            yield reader.line_num, label, video_id, start, end, split
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {csv_path} is no CSV: {error}") from error


# ---- from entries to the manifest


def _finish(found: Sequence[_Found], *, classes_are_folders: bool) -> Manifest:
    entries = [entry for part in found for entry in part.entries]
    notes = [note for part in found for note in part.notes]
    _check_unique(entries)
    if len(found) == 1:
        class_names = found[0].class_names  # in the order of the annotation
    else:
        class_names = tuple(sorted({name for part in found for name in part.class_names}))
    if classes_are_folders:
        num_deep = sum("/" in entry.key for entry in entries)
        if num_deep == len(entries):
            for entry in entries:
                entry.class_name = unescape_key(entry.key.partition("/")[0])
            class_names = tuple(sorted({entry.class_name or "" for entry in entries}))
        elif num_deep:
            notes.append(
                f"gave no labels: {_count(len(entries) - num_deep, 'video')} of "
                f"{len(entries):,} not in a class folder"
            )
    numbers = {name: number for number, name in enumerate(class_names)}
    ignored: Counter[str] = sum((part.ignored for part in found), Counter())
    if num_ignored := sum(ignored.values()):
        notes.insert(0, f"ignored {_count(num_ignored, 'file')} without a video extension")
    videos = tuple(
        Video(
            key=entry.key,
            source=entry.source,
            labels=entry.labels if entry.class_name is None else (numbers[entry.class_name],),
            split=entry.split,
            start_seconds=entry.start_seconds,
            end_seconds=entry.end_seconds,
        )
        for entry in entries
    )
    return Manifest(videos, class_names, num_ignored, tuple(notes))


def _check_unique(entries: Iterable[_Entry]) -> None:
    by_key: dict[str, _Entry] = {}
    # Kinetics cuts one file into many clips, and gives some clips two classes.
    by_source: dict[tuple[object, ...], _Entry] = {}
    for entry in entries:
        clip = (entry.source, entry.start_seconds, entry.end_seconds, entry.class_name)
        first = by_source.setdefault(clip, entry)
        if first is not entry:
            where = f"{first.origin} and {entry.origin} name" if entry.origin else "VIDEOS names"
            raise InputError(f"{where} the same video twice: {entry.source}; name it once")
        first = by_key.setdefault(entry.key, entry)
        if first is entry:
            continue
        folders = [os.path.dirname(first.source), os.path.dirname(entry.source)]
        if folders[0] == folders[1]:
            remedy = "keep one of them, or rename one"
        else:
            common = os.path.commonpath(folders)
            remedy = f"name their common folder {common} instead, or give it as root"
        raise InputError(
            f"two videos have the key {entry.key!r}: {first.source} and {entry.source}; {remedy}"
        )


FORMATS: dict[str, Callable[[str, _Request], _Found]] = {
    "folder": _read_folder,
    "file": _read_file,
    "glob": _read_glob,
    "list": _read_list,
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "kinetics": _read_kinetics,
}
"""The readers by name; each takes one input and returns what it found there."""

_PATH_FORMATS = frozenset({"folder", "file", "glob"})
_ANNOTATION_FORMATS = {".txt": "list", ".csv": "kinetics"}
