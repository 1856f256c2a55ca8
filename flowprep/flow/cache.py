"""Folders of this user for what was found out once: compiled kernels, and trials of GPUs."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "digest_of_sources", "private_folder"]

CACHE_VARIABLE = "FLOWPREP_CACHE_DIR"
"""The environment variable that names the folder of these folders."""


def private_folder(name: str) -> Path | None:
    """Returns the folder `name`, which is made if needed, or None if nothing can be stored.

    It is in the first writable one of: `FLOWPREP_CACHE_DIR`, the user's cache folder, and a folder
    for this user alone among the temporary files. A folder into which someone else could write is
    not used, unless the variable names it.
    """
    if given := os.environ.get(CACHE_VARIABLE):
        folder = Path(given) / name
        return folder if _make_folder(folder) else None
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    temporary = Path(tempfile.gettempdir()) / f"flowprep-{os.geteuid()}"
    for base in (Path(user_cache) / "flowprep", temporary):
        if _make_folder(base / name) and _is_private(base):
            return base / name
    return None


def digest_of_sources(folder: Path, *patterns: str) -> str:
    """Returns a checksum of the files of a folder whose names fit, or of its `*.py`."""
    digest = hashlib.sha256()
    for source in sorted(path for one in patterns or ("*.py",) for path in folder.glob(one)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _make_folder(folder: Path) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not others_write
