"""Finds videos that failed as missing and exist now, for example on a disk mounted again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from flowprep.dataset.layout import Failure, ManifestEntry
from flowprep.errors import StorageError
from flowprep.inputs.places import names_in
from flowprep.urls import is_url, parent_url, redacted

__all__ = ["FolderNames", "failed_by_node", "found_again", "with_new_sources"]


class FolderNames:
    """The names in folders, on disk or on an object store. Each folder is listed only once."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def holds(self, source: str) -> bool:
        """Whether a source can be read now, judged by the listing of its folder."""
        if source.startswith(("http://", "https://")):
            return False  # A web server lists nothing.
        folder, name = parent_url(source) if is_url(source) else os.path.split(source)
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(names_in(folder))
            except (OSError, StorageError):
                self._names[folder] = frozenset()
        return name in self._names[folder] and (is_url(source) or os.access(source, os.R_OK))


def found_again(failures: Mapping[str, Failure], entries: Iterable[ManifestEntry]) -> set[str]:
    """Returns the keys of videos that failed as missing and are worth another try.

    Such a video's source exists now, or its URL has changed.
    """
    names = FolderNames()
    found = set()
    for entry in entries:
        failure, source = failures.get(entry.video.key), entry.video.source
        if failure is None or failure.reason != "missing":
            continue
        if is_url(source):
            # A file that is listed but may not be read would be tried again in every run.
            is_new = failure.source != redacted(source) or (
                "may not be read" not in failure.message and names.holds(source)
            )
        else:
            is_new = names.holds(source)
        if is_new:
            found.add(entry.video.key)
    return found


def failed_by_node(failures: Mapping[str, Failure]) -> set[str]:
    """Returns the keys of videos whose failure was no fault of theirs."""
    return {key for key, failure in failures.items() if failure.fault == "node"}


def with_new_sources(
    failures: Mapping[str, Failure], entries: Iterable[ManifestEntry]
) -> dict[str, Failure]:
    """Returns the failures; a missing video's failure gets the source that is tried now."""
    result = dict(failures)
    for entry in entries:
        failure = failures.get(entry.video.key)
        if failure is not None and failure.reason == "missing":
            source = redacted(entry.video.source)
            result[failure.key] = msgspec.structs.replace(failure, source=source)
    return result
