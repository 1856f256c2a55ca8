"""Metadata of files that needs no opening. Every file system has other names for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["FileInfo", "read_file_info"]

# Names for the time of the last write.
_TIME_NAMES = ("mtime", "lastmodified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Metadata of a file or a folder, known without opening it."""

    name: str
    """The last component of the path."""
    is_folder: bool
    size: int | None
    """Size in bytes. None if the store does not give it."""
    mtime_ns: int | None
    """Time of the last write in nanoseconds, by the store's clock."""
    etag: str | None
    """The store's own identifier of the content."""


def read_file_info(values: dict[str, Any]) -> FileInfo:
    """Makes a FileInfo from the values of any file system."""
    known = {str(name).lower(): value for name, value in values.items()}
    size = known.get("size")
    return FileInfo(
        name=str(known["name"]).rstrip("/").rsplit("/", 1)[-1],
        is_folder=known.get("type") == "directory",
        size=None if size is None else int(size),
        mtime_ns=_nanoseconds(next((known[n] for n in _TIME_NAMES if known.get(n)), None)),
        etag=str(known["etag"]).strip('"') if known.get("etag") else None,
    )


def _nanoseconds(time: Any) -> int | None:
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(re.sub(r"Z$", "+00:00", time))
        except ValueError:
            return None
    if isinstance(time, datetime):
        time = time.timestamp()
    return round(time * 1e9) if isinstance(time, (int, float)) else None
