"""Files of a data set, on this machine or an object store, by way of fsspec.

A name below is relative to the data set's folder and uses `/`. Publishing is atomic: on a local or
shared file system a file is written beside its place, synced and renamed; an object store has one
PUT. Every OSError leaves here as a StorageError that says what could not be done, and why.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from flowprep.errors import StorageError

__all__ = ["TEMPORARY_MARK", "Storage", "locked_file", "translated_errors"]

TEMPORARY_MARK = ".tmp-"
"""Stands in the name of every file that is still being written."""


@contextmanager
def translated_errors(action: str, name: str) -> Iterator[None]:
    """Turns an OSError in the block into a StorageError that says what failed, and why."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free space and run the same command again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = "no permission; choose a folder that you may write to"
        else:
            why = error.strerror or str(error)
        raise StorageError(f"cannot {action} {error.filename or name}: {why}") from error


@contextmanager
def locked_file(path: str | os.PathLike[str], taken: str, remedy: str) -> Iterator[None]:
    """Holds the lock of a local file, which the system frees when this process ends in any way.

    Raises StorageError where another process has it: `taken`, which process that is, `remedy`.
    """
    with translated_errors("write", os.fspath(path)):
        file = open(path, "a+")  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StorageError(f"{taken} ({file.read().strip()}); {remedy}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


class Storage:
    """One folder, read and written by relative names. Pickles to any worker."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """`location` is a path or an fsspec URL such as `s3://bucket/folder`."""
        self.location = os.fspath(location)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.location)
        except (ImportError, ValueError) as error:
            raise StorageError(f"cannot open {self.location}: {error}") from error
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root: str = root.rstrip("/")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Storage, (self.location,))

    @property
    def local_root(self) -> Path:
        """The folder itself; only for local storage."""
        assert self.is_local
        return Path(self._root)

    def path(self, name: str) -> str:
        """The full path that the file system knows `name` by."""
        return f"{self._root}/{name}" if name else self._root

    def read_bytes(self, name: str) -> bytes:
        """Returns a whole file."""
        with translated_errors("read", name):
            if self.is_local:
                return Path(self.path(name)).read_bytes()
            return bytes(self._fs.cat_file(self.path(name)))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes from `offset`, in one request."""
        with translated_errors("read", name):
            if self.is_local:
                with open(self.path(name), "rb", buffering=0) as file:
                    return os.pread(file.fileno(), length, offset)
            return bytes(self._fs.cat_file(self.path(name), start=offset, end=offset + length))

    def open_read(self, name: str) -> Any:
        """Opens a file to stream it, binary."""
        with translated_errors("read", name):
            return self._fs.open(self.path(name), "rb")

    def write_bytes(self, name: str, data: bytes) -> None:
        """Publishes `data` under `name` atomically."""
        if self.is_local:
            with self.atomic_file(name) as file:
                file.write(data)
            return
        with translated_errors("write", name):
            self._fs.pipe_file(self.path(name), data)

    @contextmanager
    def atomic_file(self, name: str) -> Iterator[Any]:
        """Yields a file to write; it appears as `name` if the block ends well, else not at all."""
        with translated_errors("write", name):
            if not self.is_local:
                with self._fs.transaction, self._fs.open(self.path(name), "wb") as file:
                    yield file
                return
            path = self.path(name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}"
            try:
                with open(temporary, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                if os.path.exists(temporary):
                    os.unlink(temporary)
                raise

    def exists(self, name: str) -> bool:
        """Whether a file or folder has this name."""
        with translated_errors("read", name):
            return bool(self._fs.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Returns a file's size in bytes."""
        with translated_errors("read", name):
            return int(self._fs.size(self.path(name)))

    def list_names(self, folder: str = "") -> list[str]:
        """Returns the sorted names directly in `folder`; empty when there is no such folder."""
        with translated_errors("list", folder or "."):
            # Object stores' listings are cached, and other machines write here too.
            self._fs.invalidate_cache(self.path(folder))
            try:
                entries = self._fs.ls(self.path(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, name: str) -> None:
        """Removes a file or a whole folder; nothing happens when it is not there."""
        with translated_errors("remove", name):
            if self.is_local:
                path = self.path(name)
                if os.path.isdir(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif os.path.lexists(path):
                    os.unlink(path)
            elif self._fs.exists(self.path(name)):
                self._fs.rm(self.path(name), recursive=True)

    def make_folder(self, name: str = "") -> None:
        """Creates a folder with its parents; an object store has none and does nothing."""
        with translated_errors("create", name or self.location):
            if self.is_local:
                os.makedirs(self.path(name), exist_ok=True)
