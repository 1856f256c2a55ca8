"""Files of this machine that appear whole or not at all: written beside their place and renamed.

Those of a data set are synced to the disk too, and are known by their name when a run was killed.
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
"""Stands in the name of every file that is still being written."""


@contextmanager
def published_file(path: str) -> Iterator[Any]:
    """Yields a file to write; it appears at `path` if the block ends well, else not."""
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
    """Publishes a file that must not be there yet; a link is atomic on NFS too."""
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
            # A file system without links.
            with open(path, "xb") as file:
                file.write(data)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


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
