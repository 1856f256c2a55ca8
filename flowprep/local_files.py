"""Local files that appear completely or not at all: written beside their place, then renamed.

Files of a data set are also synced to the disk. If a run is killed, its unfinished files can be
recognized by their names.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "TEMPORARY_MARK",
    "create_file",
    "make_folders",
    "partial_file",
    "published_file",
    "replace_file",
]

TEMPORARY_MARK = ".tmp-"
"""A part of the name of every file that is not yet complete."""


@contextmanager
def published_file(
    path: str, *, confirm: Callable[[], None] | None = None, lasting: bool = True
) -> Iterator[Any]:
    """Yields a file to write. It appears at `path` only if the block ends without an error.

    `confirm` is called after all is written, directly before the file gets its name. An error of
    `confirm` stops that. A file that is not `lasting` may be missing after a power cut, because its
    folder is not synced. It is never there in part.
    """
    folder = os.path.dirname(path)
    made = make_folders(folder, lasting=lasting)
    temporary = f"{path}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if confirm is not None:
            confirm()
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        with suppress(OSError):
            for new in reversed(made):
                os.rmdir(new)
        raise
    if lasting:
        _sync_folder(folder)


class _ChangedError(Exception):
    """The file to replace is not what it was."""


def replace_file(path: str, data: bytes, is_known: Callable[[], bool]) -> bool:
    """Publishes a file if `is_known` says so directly before. Returns whether it was published.

    It is not published either if somebody has removed the temporary file meanwhile.
    """

    def confirm() -> None:
        if not is_known():
            raise _ChangedError

    try:
        with published_file(path, confirm=confirm, lasting=False) as file:
            file.write(data)
    except (_ChangedError, FileNotFoundError):
        return False
    return True


def create_file(path: str, data: bytes) -> None:
    """Publishes a file that must not exist yet. Uses a link, which is atomic on NFS too.

    Raises FileExistsError if the file exists.
    """
    temporary = f"{path}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}"
    make_folders(os.path.dirname(path))
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileNotFoundError as error:
            # Whoever took over has removed what was begun before, and is the first.
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            # This file system has no links.
            with open(path, "xb") as file:
                file.write(data)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(os.path.dirname(path))


def make_folders(folder: str, *, lasting: bool = True) -> list[str]:
    """Creates a folder with its parents, and syncs the entry of each new folder to the disk.

    Returns the new folders, the outermost first.
    """
    if os.path.isdir(folder):
        return []
    above = os.path.dirname(folder)
    # Below a file, the error must name the folder that was asked for.
    made = [] if os.path.exists(above) else make_folders(above, lasting=lasting)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
        return made
    if lasting:
        _sync_folder(above)
    return [*made, folder]


def _sync_folder(folder: str) -> None:
    """Writes the names in a folder to the disk. Otherwise a power cut may undo a new name."""
    with suppress(PermissionError):
        # One may be allowed to write into a folder and not to read it.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some file systems, FUSE's among them, know no such thing.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`. The file there becomes `path` if the block ends without error.

    After an error the file is removed. Its name ends like `path`, because writers choose the format
    by the extension.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
