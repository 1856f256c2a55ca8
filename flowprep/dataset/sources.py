"""Whether the sources of stored videos are still the files that were extracted."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import UNSET

from flowprep.dataset.metadata import VideoMetadata
from flowprep.errors import StorageError, VideoError
from flowprep.file_info import FileInfo
from flowprep.inputs.entries import first_of
from flowprep.inputs.places import storage_of
from flowprep.inputs.video import Video
from flowprep.urls import is_url, parent_url
from flowprep.video.contents import source_sha256
from flowprep.video.fetch import fetched
from flowprep.words import format_count

__all__ = ["SourceChange", "SourceCheck", "changed_words", "source_change"]

SourceChange = Literal["same", "missing", "size", "contents", "time", "no-checksum"]
"""`time`: another time of the last change, and the same size; `no-checksum`: as far as is known the
same, but there is no checksum to tell."""

HashWhen = Literal["never", "time-differs", "always"]
"""When the whole source is read to compare its contents."""


def source_change(metadata: VideoMetadata, source: str, *, hash_when: HashWhen) -> SourceChange:
    """Returns what became of a video's source, which may lie elsewhere now.

    Raises StorageError where a store cannot be reached.
    """
    info = _look_up(source)
    if info is None:
        return "missing"
    if None not in (info.size, metadata.source_bytes) and info.size != metadata.source_bytes:
        return "size"
    is_same_time = info.mtime_ns == metadata.source_mtime_ns
    if hash_when == "never" or (hash_when == "time-differs" and is_same_time):
        return "same" if is_same_time else "time"
    # The store's own mark of the contents.
    if info.etag is not None and info.etag == metadata.source_etag:
        return "same"
    if metadata.source_sha256 is UNSET:
        return "no-checksum" if is_same_time else "time"
    try:
        with fetched(Video(metadata.key, source)) as here:
            found = source_sha256(here.video)
    except VideoError:
        return "missing"
    return "same" if found == metadata.source_sha256 else "contents"


def _look_up(source: str) -> FileInfo | None:
    """Returns size and time of a source; None where it is not there any more."""
    try:
        if is_url(source):
            folder, name = parent_url(source)
            return storage_of(folder).info(name)
        status = os.stat(source)
    except StorageError as error:
        if error.reason not in ("missing", "forbidden"):
            raise
        return None
    except OSError:
        return None
    is_folder = os.path.isdir(source)
    size = None if is_folder else status.st_size
    return FileInfo(os.path.basename(source), is_folder, size, status.st_mtime_ns, None)


def changed_words(keys: Collection[str]) -> str:
    """Returns how many videos changed, and the first of their names."""
    count = format_count(len(keys), "video")
    return f"{count} changed after {'it was' if len(keys) == 1 else 'they were'} extracted " + (
        f"({first_of(sorted(keys))})"
    )


@dataclass
class SourceCheck:
    """Looks at the sources of a data set's videos, one by one, and says what it found."""

    hashes: bool
    """Whether contents are compared too."""
    found: dict[SourceChange, list[str]] = field(default_factory=dict)
    """Keys by what became of their source."""

    def add(self, metadata: VideoMetadata, *, video: Video | None) -> None:
        """Looks at the source of one video, where the plan's `video` has it now."""
        source = metadata.source if video is None else video.source
        change = source_change(metadata, source, hash_when="always" if self.hashes else "never")
        self.found.setdefault(change, []).append(metadata.key)

    def problems(self) -> list[str]:
        """Returns a sentence on the videos whose source changed."""
        keys = [*self.found.get("size", ()), *self.found.get("contents", ())]
        if not keys:
            return []
        return [
            f"{changed_words(keys)}: their sources have another size or other contents; run the "
            "same extract with --redo-changed, which computes them again"
        ]

    def notes(self) -> list[str]:
        """Returns a sentence on each other thing that was found."""
        return [
            words.format(count=format_count(len(keys), "video"), first=first_of(sorted(keys)))
            for change, words in _NOTES
            if (keys := self._keys(change))
        ]

    def _keys(self, change: SourceChange) -> Sequence[str]:
        return self.found.get(change, ())


_NOTES: tuple[tuple[SourceChange, str], ...] = (
    ("missing", "the sources of {count} are not there any more (first: {first})"),
    (
        "time",
        "the sources of {count} have another time than when they were extracted, and the same size "
        "({first}); `flowprep verify --sources --hash` compares the contents of those with a "
        "checksum",
    ),
    (
        "no-checksum",
        "{count} could not be compared by contents ({first}): folders of images, ranges of a file, "
        "and videos of an earlier flowprep have no checksum of their source; sizes and times agree",
    ),
)
