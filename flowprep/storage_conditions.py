"""Writing to an object store on a condition: only where an object is still what it was.

A store has no renaming that another writer could prevent. It has conditions, which it looks at in
the moment in which the object changes: S3 `If-None-Match: *` (there is none yet) and `If-Match`
(it still has this ETag), Google's and Azure's store the first of them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from flowprep.storage_errors import answer_of

__all__ = ["CREATE", "Conditions", "is_refused"]

CREATE: Mapping[str, str] = {"mode": "create"}
"""Options of a write that fails where the object is there already."""

_S3 = frozenset({"s3", "s3a"})
_SENDS_IF_NEW = _S3 | {"gs", "gcs", "memory"}
"""Those whose `put_file` has the mode; `pipe_file` has it everywhere."""


class Conditions:
    """What a store has of conditions; learns from its answers."""

    def __init__(self, scheme: str) -> None:
        self.compares = scheme in _S3
        """Whether a write can be refused because the object is another one than before."""
        self.sends_if_new = scheme in _SENDS_IF_NEW
        """Whether a file can be sent on the condition that there is no such object."""

    def now(self, fs: Any, path: str, *, if_new: bool = True) -> Mapping[str, str]:
        """Returns options of a write that fails if another object comes to `path` from now on.

        None where the store has none, or not the one of new objects and `if_new` says so.
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
        """Calls `do` with `options`; raises an error that `is_refused` where they do not hold."""
        try:
            do(**options)
            return
        except Exception as error:
            if "IfMatch" in options and isinstance(error, FileNotFoundError):
                raise FileExistsError(path) from error  # somebody removed what had the ETag
            # A store that knows no condition, said by its answer.
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
    """Whether a write came to nothing because its condition does not hold."""
    answer = answer_of(error)
    return isinstance(error, FileExistsError) or 412 in answer or "PreconditionFailed" in answer
