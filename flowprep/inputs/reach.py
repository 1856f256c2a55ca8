"""What folders and lists may reach: `--no-urls` and `--no-follow-links`, for input of others.

By default a list may name URLs and any file, and links in folders are followed. Whatever these
options forbid is left out and named. What the user names on the command line is never forbidden.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from flowprep.inputs.entries import Entry, Request, first_of, path_below
from flowprep.urls import is_url, redacted
from flowprep.words import format_count

__all__ = ["Gate", "keep_reachable"]


@dataclass(frozen=True)
class Gate:
    """What may be reached from a folder that the user named."""

    top: str
    """Absolute, or a URL."""
    urls: bool = True
    """Whether URLs may be reached that do not lie below `top`."""
    links: bool = True
    """Whether anything on disk may be reached that does not really lie below `top`."""

    @classmethod
    def of(cls, top: str, request: Request) -> Gate:
        """Returns the gate that the options of `collect_videos` ask for."""
        return cls(top, request.urls, request.follow_links)

    def forbids_url(self, place: str) -> bool:
        """Whether a place is a URL that may not be reached; nobody has asked its store yet."""
        return not self.urls and is_url(place) and path_below(place, self.top) is None

    def forbids_path(self, path: str) -> bool:
        """Whether a path on disk leads out of `top`, by links in it, by `..` or from the root."""
        if self.links or is_url(path):
            return False
        return path_below(os.path.realpath(path), os.path.realpath(self.top)) is None

    def forbidden_links(self, folder: str) -> set[str]:
        """Returns the names of the links in a folder on disk that lead out of `top`."""
        if self.links:
            return set()
        with os.scandir(folder) as scan:
            names = [entry.name for entry in scan if entry.is_symlink()]
        return {name for name in names if self.forbids_path(os.path.join(folder, name))}

    def note_on_links(self, paths: Sequence[str]) -> list[str]:
        """Returns the note on what leads out of `top`; [] for nothing."""
        if not paths:
            return []
        one = len(paths) == 1
        return [
            f"left out {format_count(len(paths), 'path')} that {'leads' if one else 'lead'} out of "
            f"{self.top}, because of --no-follow-links: {first_of(paths)}; name the folder that "
            "holds all, or copy the files, to use them"
        ]


def keep_reachable(entries: Sequence[Entry], gate: Gate) -> tuple[list[Entry], list[str]]:
    """Returns the listed videos that may be reached, and notes on the others."""
    if gate.urls and gate.links:
        return list(entries), []
    kept: list[Entry] = []
    urls: list[str] = []
    paths: list[str] = []
    for entry in entries:
        if gate.forbids_url(entry.source):
            urls.append(redacted(entry.source))
        elif gate.forbids_path(entry.source) or (
            entry.is_folder and not is_url(entry.source) and gate.forbidden_links(entry.source)
        ):
            paths.append(entry.source)
        else:
            kept.append(entry)
    notes = gate.note_on_links(paths)
    if urls:
        notes.append(
            f"left out {format_count(len(urls), 'URL')} of the list, because of --no-urls: "
            f"{first_of(urls)}; leave the option out to fetch them"
        )
    return kept, notes
