"""Reads and writes the files of a data set with fsspec, on this machine or an object store.

Names are relative to the data set's folder and use `/`. Publishing is atomic. On a local or shared
file system, a file is written under another name in the same folder, synced and renamed. For an
object store, a file is written to this machine's temporary folder and then sent, because a stream
cannot be sent again.

A request is repeated if its error may pass (the store throttles, a connection breaks, a range comes
back short). Every error leaves this module as a StorageError that says what could not be done, and
why.

A storage may have a guard, which it calls directly before it publishes or removes a file. A second
writer may follow between this call and the change. On a file system, the second writer removes the
temporary file that would get the name. On an object store, the change has a condition (see
`storage_conditions`).
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flowprep.errors import ConfigError, StorageError
from flowprep.extras import missing_extra
from flowprep.file_info import FileInfo, read_file_info
from flowprep.local_files import create_file, make_folders, published_file, replace_file
from flowprep.range_reader import range_reader
from flowprep.storage_conditions import CREATE, Conditions, is_refused
from flowprep.storage_errors import explain, may_pass, translated_errors
from flowprep.urls import has_query, holds_credentials, redacted

__all__ = ["Storage", "check_url"]

log = logging.getLogger("flowprep.storage")

T = TypeVar("T")

RETRY_ATTEMPTS = 8
"""Number of times that a request is made before its error counts."""
RETRY_FIRST_WAIT_SECONDS = 0.5
"""Wait before the second attempt. Each later wait is twice as long as the one before it."""
RETRY_LONGEST_WAIT_SECONDS = 20.0
"""Longest wait. Each wait is shortened at random by up to a half, so that a hundred workers that
were throttled together do not come back together. All waits take about 50 s: a store that throttles
needs some seconds, and a store that moves to another machine needs some tens of seconds."""
RETRY_TOTAL_SECONDS = 300.0
"""No attempt begins later than this after the first one. Attempts that time out take long."""

# Within each of these attempts, botocore tries each S3 request this many times, one or two seconds
# apart. So if one part of a large file fails, the others are not sent again. s3fs retries nothing.
_S3_REQUEST_ATTEMPTS = 3
# A file goes to S3 in parts of this size, and only a few are sent at a time. This limits the memory
# for sending; s3fs itself would take 500 MB. 10,000 parts make 160 GB; longer files get longer
# parts.
_PART_BYTES = 16 << 20
_PARTS_AT_ONCE = 4
_MOST_PARTS = 10_000

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def check_url(location: str) -> None:
    """Raises ConfigError for a URL that holds credentials. The message does not repeat them."""
    if holds_credentials(location):
        raise ConfigError(
            f"a URL must not hold credentials, got {location}; put them where the store looks for "
            "them (the environment or ~/.aws for S3) and leave them out of the URL"
        )


def _size_of(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # gone again, or a link to nothing
        return None


class Storage:
    """One folder that is read and written by relative names. Can be pickled; is thread-safe."""

    def __init__(
        self, location: str | os.PathLike[str], guard: Callable[[], None] | None = None
    ) -> None:
        """`location` is a path or an fsspec URL such as `s3://bucket/folder`.

        `guard` raises where nothing may be written any more; it pickles as this does. Raises
        ConfigError for a URL that holds credentials or a query.
        """
        self.location = os.fspath(location)
        self._guard = guard
        check_url(self.location)
        if has_query(self.location):
            raise ConfigError(f"a folder's URL must have no query, got {redacted(self.location)}")
        self._scheme = self.location.partition("://")[0] if "://" in self.location else ""
        self._conditions = Conditions(self._scheme)
        self._connect()

    def _connect(self) -> None:
        # fsspec is imported late, because it takes longer than everything that a help text needs.
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        options: dict[str, Any] = {}
        if self._scheme not in ("", "file", "local"):
            # Other machines write here too.
            options["use_listings_cache"] = False
        if self._scheme in ("s3", "s3a"):
            retries = {"mode": "standard", "total_max_attempts": _S3_REQUEST_ATTEMPTS}
            # The user's own configuration of fsspec takes precedence.
            given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
            options["config_kwargs"] = {"retries": retries} | dict(given)
            # With more, s3fs would ask for a file's size before each read.
            options["max_concurrency"] = 1
        try:
            self._files, root = fsspec.core.url_to_fs(self.location, **options)
        except ImportError as error:
            extra = _EXTRAS.get(self._scheme)
            if extra is not None:
                words = missing_extra(f"{self._scheme}://", error.name or f"{extra}fs", extra)
                raise StorageError(words) from error
            raise StorageError(
                f"{self._scheme}:// needs a package that is not installed: {error}; install it"
            ) from error
        except Exception as error:
            # Each of fsspec's file systems refuses in its own way what it cannot be made of.
            why = str(error) or type(error).__name__
            raise StorageError(f"cannot open {self.location}: {why}; check the address") from error
        if self._scheme in ("s3", "s3a"):
            self._files.retries = 1
        self.is_local = isinstance(self._files, LocalFileSystem)
        self._process = os.getpid()
        self._root: str = root.rstrip("/")

    @property
    def _fs(self) -> Any:
        # Connections do not survive a fork.
        if self._process != os.getpid() and not self.is_local:
            self._connect()
        return self._files

    def __reduce__(self) -> tuple[Any, ...]:
        return (Storage, (self.location, self._guard))

    @property
    def local_root(self) -> Path:
        """The folder itself. Only for local storage."""
        assert self.is_local
        return Path(self._root)

    def path(self, name: str) -> str:
        """Returns the full path of `name` in the file system."""
        return f"{self._root}/{name}" if name else self._root

    def full_name(self, name: str) -> str:
        """Returns the path or URL of `name` for users to read, without secrets."""
        if self.is_local:
            return self.path(name)
        return redacted(f"{self.location.rstrip('/')}/{name}" if name else self.location)

    # ---- reading

    def read_bytes(self, name: str) -> bytes:
        """Returns a whole file."""

        def read() -> bytes:
            if self.is_local:
                return Path(self.path(name)).read_bytes()
            return bytes(self._fs.cat_file(self.path(name)))

        return self._attempt("read", name, read)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes from `offset` with one request; fewer only if the file ends."""

        def read() -> bytes:
            path = self.path(name)
            if self.is_local:
                with open(path, "rb", buffering=0) as file:
                    return os.pread(file.fileno(), length, offset)
            data = bytes(self._fs.cat_file(path, start=offset, end=offset + length))
            if len(data) < length:
                missing = min(self._fs.info(path)["size"], offset + length) - offset - len(data)
                if missing > 0:
                    raise OSError(errno.EIO, f"the store sent {missing} bytes too few")
            return data

        return self._attempt("read", name, read) if length > 0 else b""

    def open_read(self, name: str) -> Any:
        """Opens a binary file for streaming. A read that comes back short is an error."""
        if self.is_local:
            return self._attempt("read", name, lambda: open(self.path(name), "rb"))
        return range_reader(partial(self.read_range, name), self.size(name))

    def exists(self, name: str) -> bool:
        """Whether a file or folder has this name."""
        if self.is_local:
            return self._attempt("read", name, lambda: os.path.exists(self.path(name)))
        return self._known("read", name, lambda: self._fs.info(self.path(name))) is not None

    def info(self, name: str) -> FileInfo | None:
        """Returns the metadata of a file or folder, or None if it does not exist."""
        values = self._known("read", name, lambda: self._fs.info(self.path(name)))
        return None if values is None else read_file_info(values)

    def size(self, name: str) -> int:
        """Returns a file's size in bytes."""
        return self._attempt("read", name, lambda: int(self._fs.size(self.path(name))))

    def list_names(self, folder: str = "") -> list[str]:
        """Returns the sorted names directly in `folder`, or none if it does not exist."""
        if self.is_local:
            path = self.path(folder)
            return sorted(self._known("list", folder or ".", lambda: os.listdir(path)) or [])
        return sorted(entry.name for entry in self.list_entries(folder))

    def list_entries(self, folder: str = "") -> list[FileInfo]:
        """Returns the files and folders directly in `folder`, or none if it does not exist."""
        path = self.path(folder)
        if self.is_local:
            with_paths = ((name, f"{path}/{name}") for name in self.list_names(folder))
            return [
                FileInfo(name, os.path.isdir(file), _size_of(file), None, None)
                for name, file in with_paths
            ]

        def listed() -> list[dict[str, Any]]:
            self._fs.invalidate_cache(path)
            return list(self._fs.ls(path, detail=True))

        entries = self._known("list", folder or ".", listed) or []
        # Some tools create an empty object with the name of the folder.
        own = path.strip("/")
        return [read_file_info(entry) for entry in entries if entry["name"].strip("/") != own]

    # ---- writing

    def confirm(self) -> None:
        """Asks the guard, if there is one; raises what it does where nothing may be written."""
        if self._guard is not None:
            self._guard()

    def write_bytes(self, name: str, data: bytes, *, lasting: bool = True) -> None:
        """Publishes `data` under `name` atomically; see `published_file` for `lasting`."""

        def write() -> None:
            if self.is_local:
                with self._published(name, lasting) as file:
                    file.write(data)
            else:
                path = self.path(name)
                self._publish(path, partial(self._fs.pipe_file, path, data))

        self._attempt("write", name, write)

    def create(self, name: str, data: bytes) -> bool:
        """Publishes `data` if there is no file `name` yet. Returns whether it did.

        If two callers try at the same time on a file system, S3 or Google's store, exactly one of
        them wins. On a store without this feature, both may succeed, and the data of the last one
        stays.
        """

        def create() -> bool:
            path = self.path(name)
            try:
                if self.is_local:
                    create_file(path, data)
                else:
                    do = partial(self._fs.pipe_file, path, data)
                    self._conditions.write(self._fs, path, CREATE, do)
            except Exception as error:
                if is_refused(error):
                    return False
                raise
            return True

        # If the first answer was lost, the second attempt finds the file of the first attempt.
        return self._attempt("write", name, create) or self.read_if_there(name) == data

    def replace(self, name: str, data: bytes, known: bytes) -> bool:
        """Publishes `data` if the file `name` still holds `known`. Returns whether it did.

        If two writers try at the same time, one wins on S3. On file systems and other stores, both
        may succeed, and the data of the last one stays. On a file system, a writer fails whose
        temporary file was removed.
        """

        def is_known() -> bool:
            return self.read_if_there(name) == known

        def replace() -> bool:
            path = self.path(name)
            if self.is_local:
                return replace_file(path, data, is_known)
            options = self._conditions.now(self._fs, path)
            if not is_known():
                return False
            try:
                do = partial(self._fs.pipe_file, path, data)
                self._conditions.write(self._fs, path, options, do)
            except Exception as error:
                if is_refused(error):
                    return False
                raise
            return True

        return self._attempt("write", name, replace) or self.read_if_there(name) == data

    @property
    def compares(self) -> bool:
        """Whether of two that `replace` a file at once one alone wins."""
        return self._conditions.compares

    @contextmanager
    def _published(self, name: str, lasting: bool) -> Iterator[Any]:
        try:
            with published_file(self.path(name), confirm=self._guard, lasting=lasting) as file:
                yield file
        except FileNotFoundError:
            # Whoever took over has removed the temporary file, which is how it is kept out.
            self.confirm()
            raise

    def _publish(self, path: str, do: Callable[..., object], *, if_new: bool = True) -> None:
        """Writes an object by `do`, which takes the options of a condition; `if_new`: that one."""
        if self._guard is None:
            do()
            return
        # Most are new, and no store is asked twice for those.
        for is_new in (if_new, False):
            options = CREATE if is_new else self._conditions.now(self._fs, path, if_new=if_new)
            self.confirm()
            try:
                self._conditions.write(self._fs, path, options, do)
                return
            except Exception as error:
                if not is_refused(error):
                    raise
        raise OSError(errno.EBUSY, "another writer changed it in the same moment")

    def read_if_there(self, name: str) -> bytes | None:
        """Returns a whole file, or None if there is none."""
        try:
            return self.read_bytes(name)
        except StorageError as error:
            if error.reason == "missing":
                return None
            raise

    @contextmanager
    def atomic_file(self, name: str, *, lasting: bool = True) -> Iterator[Any]:
        """Yields a file to write. It appears as `name` only if the block ends without an error.

        See `published_file` for `lasting`.
        """
        if self.is_local:
            with translated_errors("write", name), self._published(name, lasting) as file:
                yield file
            return
        # The file has no name, so that it disappears however this process ends.
        with translated_errors("write", f"temporary files in {tempfile.gettempdir()}"):
            temporary = tempfile.TemporaryFile()  # noqa: SIM115
        with temporary:
            with translated_errors("write", f"temporary files in {tempfile.gettempdir()}"):
                yield temporary
                temporary.flush()
            self._send(f"/proc/self/fd/{temporary.fileno()}", name)

    def _send(self, local_path: str, name: str) -> None:
        options: dict[str, Any] = {}
        if self._scheme in ("s3", "s3a"):
            size = os.path.getsize(local_path)
            options["chunksize"] = max(_PART_BYTES, -(-size // _MOST_PARTS))
            options["max_concurrency"] = _PARTS_AT_ONCE
        # If a part fails for good, s3fs aborts the upload, and nothing of it becomes visible.
        path = self.path(name)
        do = partial(self._fs.put_file, local_path, path, **options)
        if_new = self._conditions.sends_if_new
        self._attempt("write", name, lambda: self._publish(path, do, if_new=if_new))

    def remove(self, name: str) -> None:
        """Removes a file or a whole folder. Does nothing if it does not exist."""
        path = self.path(name)

        def remove() -> None:
            self.confirm()
            if self.is_local:
                if os.path.isdir(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif os.path.lexists(path):
                    os.unlink(path)
                return
            self._fs.invalidate_cache(path)
            self._fs.rm(path, recursive=True)
            # S3's answer names those of up to a thousand objects that it did not remove. s3fs does
            # not report them.
            try:
                self._fs.info(path)
            except FileNotFoundError:
                return
            raise OSError(errno.EBUSY, "the store did not remove all of it")

        self._known("remove", name, remove)

    def remove_empty_folder(self, name: str) -> None:
        """Removes a folder if nothing is in it; on an object store there is none then."""
        if self.is_local:
            self.confirm()
            with suppress(OSError):
                os.rmdir(self.path(name))
        elif self._scheme == "memory":
            # It has folders all the same.
            with suppress(OSError):
                self._fs.rmdir(self.path(name))

    def make_folder(self, name: str = "") -> None:
        """Creates a folder and its parents. Object stores have no folders and do nothing."""
        if self.is_local:
            with translated_errors("create", name or self.location):
                make_folders(self.path(name))

    # ---- attempts

    def _known(self, action: str, name: str, do: Callable[[], T]) -> T | None:
        """Returns the result of `do`, or None if `do` says that there is no such file."""

        def attempt() -> T | None:
            try:
                return do()
            except FileNotFoundError as error:
                if may_pass(error):
                    raise
                return None

        return self._attempt(action, name, attempt)

    def _attempt(self, action: str, name: str, do: Callable[[], T]) -> T:
        began = time.monotonic()
        wait = RETRY_FIRST_WAIT_SECONDS
        attempt = 1
        while True:
            try:
                return do()
            except Exception as error:
                # On local storage, only an OSError can occur. A store may raise anything.
                if isinstance(error, StorageError) or (
                    self.is_local and not isinstance(error, OSError)
                ):
                    raise
                pause = random.SystemRandom().uniform(wait / 2, wait)
                spent = time.monotonic() - began
                is_passing = may_pass(error)
                if (
                    not is_passing
                    or attempt == RETRY_ATTEMPTS
                    or spent + pause > RETRY_TOTAL_SECONDS
                ):
                    raise self._error(action, name, error, attempt, spent) from error
                level = logging.INFO if attempt < 3 else logging.WARNING
                log.log(
                    level,
                    "cannot %s %s: %s (attempt %d of %d); again in %.1f s",
                    *(
                        action,
                        self.full_name(name),
                        explain(error)[1],
                        attempt,
                        RETRY_ATTEMPTS,
                        pause,
                    ),
                )
            time.sleep(pause)
            wait = min(2 * wait, RETRY_LONGEST_WAIT_SECONDS)
            attempt += 1

    def _error(
        self, action: str, name: str, error: Exception, attempts: int, spent: float
    ) -> StorageError:
        reason, why = explain(error)
        where = self.full_name(name)
        if self.is_local:
            where = getattr(error, "filename", None) or name
        if attempts > 1 or may_pass(error):
            reason = "unavailable"
            why += (
                f" (given up after {attempts} attempts in {spent:.0f} s); "
                "see that the storage is up, and run the same command again"
            )
        return StorageError(f"cannot {action} {where}: {why}", reason)
