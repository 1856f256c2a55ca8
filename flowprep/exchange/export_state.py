"""Where an export keeps its lists and what it knows about itself: beside DEST, never inside.

    DEST/           class folders alone, so that readers of class folders find nothing else
    DEST-lists/     frame lists, flowprep.json, flowprep-videos.jsonl, and for webdataset the keys
                    of each tar

`--lists DIR` is another place. Several exports may share it, so there DEST's name comes first in
the names of the own files: `DIR/rawframes_train.flowprep.json`. flowprep 0.1.0 kept all inside
DEST; its exports are recognized, moved out and completed.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from flowprep.errors import ConfigError
from flowprep.exchange.layouts import EXPORT_FILE, VIDEOS_FILE
from flowprep.urls import as_path, is_url, redacted

__all__ = [
    "EXPORT_VERSION",
    "LISTS_ENDING",
    "ExportState",
    "find_export",
    "holds_earlier_export",
    "move_earlier_export",
    "state_of",
    "write_atomic",
]

EXPORT_VERSION = 2
"""The format version of new exports. flowprep 0.1.0 wrote version 1."""
LISTS_ENDING = "-lists"
"""Ends the name of the folder beside DEST."""

_LISTS_BEFORE = re.compile(r"classInd\.txt|charades\.json|(flow|rgb)(_[A-Za-z0-9_-]+)?\.txt")
_TAR_KEYS = re.compile(r"[A-Za-z0-9_-]+-[0-9]{6}\.json")


@dataclass(frozen=True)
class ExportState:
    """The place of the lists and of the own files of an export."""

    folder: Path
    prefix: str = ""
    """Comes before the names of the own files."""

    def file(self, name: str) -> Path:
        """Returns the path of one of the own files."""
        return self.folder / f"{self.prefix}{name}"

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.folder / f".{self.prefix}lock"


def state_of(dest: Path, lists: str | None) -> ExportState:
    """Returns the place for the lists of an export to the absolute path `dest`.

    Raises ConfigError if `lists` is needed or cannot be the place.
    """
    beside = dest.parent / f"{dest.name}{LISTS_ENDING}"
    if lists is None:
        if dest.parent == dest:
            raise ConfigError(
                f"lists must be given, because no folder can lie beside {dest}; name a folder for "
                "the frame lists"
            )
        return ExportState(beside)
    place = as_path(lists)
    if is_url(place):
        raise ConfigError(f"lists must be a folder on this machine, got {redacted(place)}")
    folder = Path(os.path.abspath(place))
    if folder == beside:
        return ExportState(beside)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"lists must be a folder, but {folder} is a file; choose another folder")
    if dest.parent != dest and folder.is_relative_to(dest):
        raise ConfigError(
            f"lists must lie outside DEST, where a folder counts as a class, got {folder}"
        )
    return ExportState(folder, f"{dest.name}." if dest.name else "")


def find_export(tree: str, lists: str | None = None) -> ExportState | None:
    """Returns where the own files of an exported tree are, or None for any other tree.

    They are looked for in `lists`, beside the tree, in its parent (an export with `--lists ..`) and
    inside it (flowprep 0.1.0).
    """
    dest = Path(tree)
    places = [ExportState(dest.parent / f"{dest.name}{LISTS_ENDING}")]
    folders = [dest.parent] if lists is None else [Path(lists), dest.parent]
    places = [ExportState(folder, f"{dest.name}.") for folder in folders if dest.name] + places
    if lists is not None:
        places.insert(0, ExportState(Path(lists)))
    places.append(ExportState(dest))
    return next((place for place in places if place.file(EXPORT_FILE).is_file()), None)


def holds_earlier_export(dest: Path) -> bool:
    """Whether flowprep 0.1.0 began an export in `dest`."""
    return (dest / EXPORT_FILE).is_file()


def move_earlier_export(dest: Path, state: ExportState) -> None:
    """Moves what flowprep 0.1.0 kept inside `dest` out of it. The lists have to be written again.

    It can be stopped at any time and called again: `flowprep.json` is the last that leaves.
    """
    lists = dest / "lists"
    if lists.is_dir():
        for path in lists.iterdir():
            if _LISTS_BEFORE.fullmatch(path.name):
                path.unlink()
        if not any(lists.iterdir()):
            lists.rmdir()
    shutil.rmtree(dest / ".done", ignore_errors=True)
    for path in dest.glob("*.json"):
        if _TAR_KEYS.fullmatch(path.name) and path.with_suffix(".tar").is_file():
            write_atomic(state.file(path.name), path.read_bytes())
            path.unlink()
    for path in (dest / ".lock", dest / VIDEOS_FILE, dest / EXPORT_FILE):
        path.unlink(missing_ok=True)


def write_atomic(target: Path, data: bytes) -> None:
    """Writes a file, completely or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
