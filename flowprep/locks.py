"""Locks of local files. The system frees a lock when its process ends in any way."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from flowprep.errors import StorageError
from flowprep.storage_errors import translated_errors

__all__ = ["locked_file"]


@contextmanager
def locked_file(path: str | os.PathLike[str], taken: str, remedy: str) -> Iterator[None]:
    """Holds the lock of a local file. The system frees the lock when this process ends in any way.

    On a file system without locks, the block runs without a lock. Raises StorageError if another
    process holds the lock. The message is `taken`, that process, and `remedy`.
    """
    with translated_errors("write", os.fspath(path)):
        # Without a buffer, which would be written once more when the file is closed.
        file = open(path, "a+b", buffering=0)  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
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
