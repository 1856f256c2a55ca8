"""Which fields or frames of a video a caller asks for, checked."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError, DatasetError

__all__ = ["check_indices", "check_range"]


def check_range(key: str, what: str, total: int, start: int, length: int | None) -> tuple[int, int]:
    """Returns start and length of a part of a video's `total` fields or frames, named `what`.

    If `length` is None, the part ends with the video. Raises DatasetError for a part that is empty
    or not within the video, and ConfigError for a number that is not an integer.
    """
    start = _integer("start", start)
    length = total - start if length is None else _integer("length", length)
    if length < 1 or start < 0 or start + length > total:
        raise DatasetError(
            f"{key} has {what} 0 to {total - 1}, got start {start} and length {length}"
        )
    return start, length


def check_indices(
    key: str, what: str, total: int, indices: Sequence[int] | NDArray[np.integer[Any]] | None
) -> tuple[NDArray[np.int64], int, int]:
    """Returns the indices, (n,) int64, and the least and the greatest of them. None means all.

    Raises DatasetError if there are none, or if one is not within the video, and ConfigError for
    what is not a list of integers.
    """
    if indices is None:
        return np.arange(total), 0, total - 1
    wanted = np.asarray(indices)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise ConfigError(
            f"indices must be a list of integers, got a value of type {type(indices).__name__} "
            f"for {key}; [5] is the sixth of its {what}"
        )
    if not wanted.size:
        raise DatasetError(f"{key}: indices must be one or more, got none")
    low, high = int(wanted.min()), int(wanted.max())
    if low < 0 or high >= total:
        raise DatasetError(f"{key} has {what} 0 to {total - 1}, got {low if low < 0 else high}")
    return wanted.astype(np.int64, copy=False), low, high


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(
            f"{name} must be an integer, got a value of type {type(value).__name__}; the first "
            "field or frame is 0"
        ) from None
