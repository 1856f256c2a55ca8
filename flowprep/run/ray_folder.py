"""The folder of Ray's sockets on this machine: it must be writable and its path must be short.

The path of a Unix socket has at most 107 bytes (Linux' unix(7): sun_path of 108 with its NUL).
Ray's sockets lie deep in its folder:

    /tmp/ray/session_2026-01-31_12-59-59_123456_1234567/sockets/plasma_store.1
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile

from flowprep.errors import ExecutorError
from flowprep.locks import remove_unlocked_folders

__all__ = ["RayFolder", "check_temporary_folder"]

_MAX_SOCKET_BYTES = 107 if sys.platform.startswith("linux") else 103
_BELOW = "/ray/session_2026-01-31_12-59-59_123456_4194304/sockets/plasma_store.10"
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_PREFIX = "flowprep-ray-"
_LOCK = ".lock"


def check_temporary_folder() -> str | None:
    """Returns the folder for Ray's files, or None for /tmp; raises ExecutorError if unusable."""
    for variable in ("RAY_TMPDIR", "TMPDIR"):
        # Ray takes the first variable that is set, even if it is empty.
        if (folder := os.environ.get(variable)) is not None:
            break
    else:
        return None
    if not os.path.isdir(folder):
        raise ExecutorError(
            f"{variable} names the folder {folder!r}, which does not exist; set {variable} to a "
            "folder that exists and can be written to, or unset it"
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExecutorError(
            f"{variable} names the folder {folder!r}, which cannot be written to "
            f"({error.strerror}); set {variable} to a folder that can be written to, or unset it"
        ) from error
    return folder


class RayFolder:
    """A separate folder for Ray, for when socket paths in the usual folder would be too long.

    Only its owner may enter the folder. If a killed process leaves its folder behind, the next
    process removes it.
    """

    def __init__(self) -> None:
        """Raises ExecutorError if there is no writable folder with a short path."""
        folder = check_temporary_folder()
        self.path: str | None = None
        if folder is None or _is_short(folder):
            return
        for short in _SHORT_FOLDERS:
            try:
                self._make(short)
                return
            except OSError:
                continue
        raise ExecutorError(
            f"the folder for temporary files {folder!r} has too long a path for Ray's sockets, and "
            f"{', '.join(_SHORT_FOLDERS)} cannot be written to; set RAY_TMPDIR to a folder with a "
            f"shorter path"
        )

    def _make(self, parent: str) -> None:
        remove_unlocked_folders(parent, _PREFIX, _LOCK)
        new = tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent)
        self._lock = open(f"{new}/{_LOCK}", "w")  # noqa: SIM115
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # A folder gets its final name only after it is locked, so that nobody removes it before.
        self.path = os.path.join(parent, os.path.basename(new).removeprefix("."))
        os.rename(new, self.path)

    def remove(self) -> None:
        """Removes the folder. Ray must be shut down first."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self._lock.close()
            self.path = None


def _is_short(folder: str) -> bool:
    return len(os.fsencode(os.path.abspath(folder) + _BELOW)) <= _MAX_SOCKET_BYTES
