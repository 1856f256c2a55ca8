"""What is known of a file without opening it, which every file system calls by other names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = ["FileInfo", "read_file_info"]

# Names of the time of the last writing.
_TIME_NAMES = ("mtime", "lastmodified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of a file or a folder without opening it."""

    name: str
    """The last part of its path."""
    is_folder: bool
    size: int | None
    """In bytes; None where the store does not say."""
    mtime_ns: int | None
    """When it was last written, by the store's clock."""
    etag: str | None
    """The store's own mark of the content."""


def read_file_info(values: dict[str, Any]) -> FileInfo:
    """Reads what file systems call by different names."""
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
