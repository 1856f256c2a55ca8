"""Locks of local files. The system frees a lock when its process ends in any way.

A lock file may lie in a folder where other users write, such as the folder for temporary files. So
only an ordinary file is opened, and at once. A pipe in its place would block the process, and a
link would make it empty another file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from flowprep.errors import StorageError
from flowprep.storage_errors import translated_errors

__all__ = ["locked_file", "open_lock_file", "remove_unlocked_folders"]


def open_lock_file(path: str | os.PathLike[str], *, create: bool = True) -> FileIO:
    """Opens a file to lock it, without waiting. With `create` it is created and may be written.

    Raises OSError if it is a link, a pipe or anything else that is no ordinary file.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        # Of a link, of a socket and a pipe's kin, and of a folder.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    # Without a buffer, which would be written once more when the file is closed.
    return FileIO(descriptor, "r+" if create else "r")


def _no_file(path: str | os.PathLike[str]) -> OSError:
    return OSError(
        errno.EINVAL, "it is no ordinary file, as a lock must be; remove it", os.fspath(path)
    )


@contextmanager
def locked_file(path: str | os.PathLike[str], taken: str, remedy: str) -> Iterator[None]:
    """Holds the lock of a local file. The system frees the lock when this process ends in any way.

    On a file system without locks, the block runs without a lock. Raises StorageError if another
    process holds the lock. The message is `taken`, that process, and `remedy`.
    """
    with translated_errors("write", os.fspath(path)):
        file = open_lock_file(path)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"{taken} ({file.read().decode().strip()}); {remedy}") from error
        except OSError as error:
            # Lustre and some NFS, without the mount option for locks, give one of these errors.
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
                raise StorageError(
                    f"cannot lock {path}: {error.strerror}; use a folder on another file system"
                ) from error
        with translated_errors("write", os.fspath(path)):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def remove_unlocked_folders(parent: str, prefix: str, lock: str) -> None:
    """Removes the folders that killed processes of this user left: nobody holds their `lock` file.

    Other users may write to `parent`. Their folders are left alone.
    """
    for folder in Path(parent).glob(f"{prefix}*"):
        # Another process may be removing it at the same time.
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with open_lock_file(folder / lock, create=False) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
