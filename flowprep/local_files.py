"""Local files that appear completely or not at all: written beside their place, then renamed.

Files of a data set are also synced to the disk. If a run is killed, its unfinished files can be
recognized by their names.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["TEMPORARY_MARK", "create_file", "partial_file", "published_file"]

TEMPORARY_MARK = ".tmp-"
"""A part of the name of every file that is not yet complete."""


@contextmanager
def published_file(path: str) -> Iterator[Any]:
    """Yields a file to write. It appears at `path` only if the block ends without an error."""
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


def create_file(path: str, data: bytes) -> None:
    """Publishes a file that must not exist yet. Uses a link, which is atomic on NFS too.

    Raises FileExistsError if the file exists.
    """
    temporary = f"{path}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with published_file(temporary) as file:
            file.write(data)
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            # This file system has no links.
            with open(path, "xb") as file:
                file.write(data)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


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
