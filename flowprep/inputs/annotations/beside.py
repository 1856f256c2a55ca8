"""Finds the file of classes and the like that a data set publishes beside its list."""

from __future__ import annotations

import os
from collections.abc import Sequence

from flowprep.inputs.places import kind_of

__all__ = ["file_beside"]


def file_beside(list_path: str, names: Sequence[str]) -> str | None:
    """Returns the first of `names` that is a file in the folder of the list, or None.

    The list may be a path or a URL.
    """
    folder = os.path.dirname(list_path)
    for name in names:
        path = os.path.join(folder, name)
        if kind_of(path) == "file":
            return path
    return None
