"""Writes to an object store on a condition: the object must still be what it was.

A store has no renaming that another writer could prevent. It has conditions, and checks them in the
moment in which it changes the object. S3 has `If-None-Match: *` (there is no object yet) and
`If-Match` (the object still has this ETag). Google's and Azure's stores have the first one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from flowprep.storage_errors import answer_of

__all__ = ["CREATE", "Conditions", "is_refused"]

CREATE: Mapping[str, str] = {"mode": "create"}
"""Options of a write that fails if the object exists already."""

_S3 = frozenset({"s3", "s3a"})
_SENDS_IF_NEW = _S3 | {"gs", "gcs", "memory"}
"""Stores whose `put_file` has the mode. `pipe_file` has it in every store."""


class Conditions:
    """The conditions that a store has. It learns from the answers of the store."""

    def __init__(self, scheme: str) -> None:
        self.compares = scheme in _S3
        """Whether the store can refuse a write because the object has changed."""
        self.sends_if_new = scheme in _SENDS_IF_NEW
        """Whether a file can be sent on the condition that the object does not exist."""

    def now(self, fs: Any, path: str, *, if_new: bool = True) -> Mapping[str, str]:
        """Returns options of a write that fails if the object at `path` changes from now on.

        They are empty if the store has no such condition. Without `if_new`, the condition for new
        objects is not used.
        """
        if not (self.compares or if_new):
            return {}
        try:
            info = fs.info(path)
        except FileNotFoundError:
            return CREATE if if_new else {}
        etag = info.get("ETag") if self.compares else None
        return {"IfMatch": etag} if etag else {}

    def write(
        self, fs: Any, path: str, options: Mapping[str, str], do: Callable[..., object]
    ) -> None:
        """Calls `do` with `options`. Raises an error that `is_refused` if they do not hold."""
        try:
            do(**options)
            return
        except Exception as error:
            if "IfMatch" in options and isinstance(error, FileNotFoundError):
                raise FileExistsError(path) from error  # the object with the ETag was removed
            # The answer says that this store does not support a conditional write.
            number = error.errno if isinstance(error, OSError) else None
            if not options or number not in (errno.ENOSYS, errno.ENOTSUP):
                raise
        if options == CREATE:
            if fs.exists(path):
                raise FileExistsError(path)
        else:
            self.compares = False
        do()


def is_refused(error: BaseException) -> bool:
    """Whether a write failed because its condition does not hold."""
    answer = answer_of(error)
    return isinstance(error, FileExistsError) or 412 in answer or "PreconditionFailed" in answer
