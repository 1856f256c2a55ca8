"""Paths of videos in a tree: names as the user gave them, where they lead nowhere else.

Keys and class names become path components that are one name inside the target folder, even if a
data set has hostile names. Format version 2 keeps a name (`#20_...`, `-abc`, `a b`) as far as the
layout and the file system allow. Version 1, of flowprep 0.1.0, escaped whatever means something
to a shell; an export that it began keeps those paths.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowprep.exchange.layouts import EXPORT_FILE, VIDEOS_FILE, TreeLayout
from flowprep.inputs.keys import unescape_key

if TYPE_CHECKING:
    from flowprep.dataset.video_list import StoredVideo

__all__ = ["PathStyle", "safe_component", "video_paths"]

# A file name can have 255 bytes. A layout adds a number and an extension to the component.
_MAX_COMPONENT_BYTES = 200
# Separators, control characters and marks that turn text around, and whatever looks like an escape.
_HIDDEN = r"\x00-\x1f\x7f-\xa0\ud800-\udfff\u2028-\u202f\u2066-\u2069\ufeff/\\"
_UNSAFE = re.compile(rf"[{_HIDDEN}]|[^\S ]|%(?=[0-9A-F]{{2}})")
_UNSAFE_OR_BLANK = re.compile(rf"[{_HIDDEN}]|\s|%(?=[0-9A-F]{{2}})")
_UNSAFE_BEFORE = re.compile(
    r"[\x00-\x20\x7f-\xa0\ud800-\udfff\u2028-\u202f\ufeff%/\\:*?\"'<>|`$#;&]|\s"
)
_OWN_NAMES = frozenset({EXPORT_FILE, VIDEOS_FILE})
_OWN_NAMES_BEFORE = frozenset({"lists", *_OWN_NAMES})


@dataclass(frozen=True, slots=True)
class PathStyle:
    """How names become path components."""

    keeps_blanks: bool = True
    version: int = 2
    """The format version of the export."""

    @property
    def unsafe(self) -> re.Pattern[str]:
        """The characters that become %XX."""
        if self.version == 1:
            return _UNSAFE_BEFORE
        return _UNSAFE if self.keeps_blanks else _UNSAFE_OR_BLANK

    @property
    def unsafe_begin(self) -> str:
        """The characters that become %XX at the begin of a name: files behind a dot are hidden."""
        return ".-~" if self.version == 1 else ". "

    @property
    def own_names(self) -> frozenset[str]:
        """The names in the top folder that no video may take."""
        return _OWN_NAMES_BEFORE if self.version == 1 else _OWN_NAMES


def safe_component(name: str, style: PathStyle = PathStyle()) -> str:
    """Returns a name as a safe path component: unsafe characters become %XX, long names are cut.

    The result is never empty, `.` or `..`. It has no slash or control character, begins and ends
    with no dot or blank, and takes at most 200 bytes. Two names never give the same result, unless
    the results have to be cut to 200 bytes. A cut result ends in 64 bits of its BLAKE2 hash.
    """
    escaped = style.unsafe.sub(lambda match: _percent(match[0]), name)
    if not escaped:
        return "%"
    if escaped[0] in style.unsafe_begin:
        escaped = _percent(escaped[0]) + escaped[1:]
    if escaped.endswith((".", " ")):  # some file systems drop these at the end
        escaped = escaped[:-1] + _percent(escaped[-1])
    return _cut(escaped)


def video_paths(
    videos: Sequence[StoredVideo],
    class_names: Sequence[str],
    layout: TreeLayout,
    *,
    flat: bool = False,
    version: int = 2,
) -> list[str]:
    """Returns the path of each video in a tree.

    `videos` are all videos of the data set, so a path does not depend on which videos are exported.
    The path is the key, preceded by the class name if no folder in the key has this name. In a flat
    layout, and with `flat`, the path is only the last part of the key. If two videos would get the
    same path, the paths of all videos are whole keys.
    """
    # The lists of those who read a layout flat are split at blanks.
    style = PathStyle(layout.keeps_blanks and not (flat and layout.flat_lists), version)
    choices: list[Callable[[StoredVideo], str]]
    if flat or layout.is_flat:
        choices = [
            lambda video: layout.flat_path(_last_part(video, style)),
            lambda video: _joined_key(video, style),
        ]
    else:
        choices = [lambda video: _key_path(video, style)]
        if class_names and layout.has_class_folders:
            choices.insert(0, lambda video: _class_path(video, class_names, style))
    for name in choices:
        paths = [name(video) for video in videos]
        counts = Counter(path.casefold() for path in paths)
        if len(counts) == len(paths):
            break
    return paths


def _percent(text: str) -> str:
    # A surrogate that represents no byte can only come from a forged class name.
    is_byte = "\udc80" <= text <= "\udcff"
    data = text.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)


def _cut(component: str) -> str:
    data = component.encode()
    if len(data) <= _MAX_COMPONENT_BYTES:
        return component
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: _MAX_COMPONENT_BYTES - 17].decode(errors='ignore')}~{digest}"


def _own(component: str, style: PathStyle) -> str:
    """Returns the component, escaped if it is a name that the export needs for itself."""
    if component.casefold() in style.own_names:
        return _percent(component[0]) + component[1:]
    return component


def _parts(key: str, style: PathStyle) -> list[str]:
    parts = [safe_component(part, style) for part in unescape_key(key).split("/")]
    return [_own(parts[0], style), *parts[1:]]


def _key_path(video: StoredVideo, style: PathStyle) -> str:
    return "/".join(_parts(video.key, style))


def _last_part(video: StoredVideo, style: PathStyle) -> str:
    return _parts(video.key.rpartition("/")[2], style)[0]


def _joined_key(video: StoredVideo, style: PathStyle) -> str:
    return _cut("%2F".join(_parts(video.key, style)))


def _class_path(video: StoredVideo, class_names: Sequence[str], style: PathStyle) -> str:
    path = _key_path(video, style)
    label = video.label
    if label is None or not 0 <= label < len(class_names):
        return path
    folder = _own(safe_component(str(class_names[label]), style), style)
    return path if folder in path.split("/")[:-1] else f"{folder}/{path}"
