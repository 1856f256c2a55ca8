"""Files of this machine that appear whole or not at all: written beside their place and renamed.

Those of a data set are synced to the disk too, and are known by their name when a run was killed.
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
"""Stands in the name of every file that is still being written."""


@contextmanager
def published_file(
    path: str, *, confirm: Callable[[], None] | None = None, lasting: bool = True
) -> Iterator[Any]:
    """Yields a file to write; it appears at `path` if the block ends well, else not.

    `confirm` is called when all is written, directly before the file gets its name; what it raises
    stops that. A file that is not `lasting` may be gone again after a power cut, though it is never
    there in part: its folder is not synced.
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
    """Publishes a file if what is there satisfies `is_known`, asked directly before.

    Nor is it published where the temporary file was removed meanwhile. Returns whether it was.
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
    """Publishes a file that must not be there yet; a link is atomic on NFS too."""
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
            # A file system without links.
            with open(path, "xb") as file:
                file.write(data)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(os.path.dirname(path))


def make_folders(folder: str, *, lasting: bool = True) -> list[str]:
    """Creates a folder with its parents; each that is new is synced into the one above it.

    Returns those that are new, the outermost first.
    """
    if os.path.isdir(folder):
        return []
    above = os.path.dirname(folder)
    made = make_folders(above, lasting=lasting) if above != folder else []
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
    """Writes a folder's names to the disk: without it a power cut may take a new name back."""
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
    """Yields a path beside `path`; what is written there takes its place if the block ends well.

    Else it goes away. The name ends as that of `path`, by which writers choose a format.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
