"""Reading something of each shard, several at a time from a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flowprep.storage import Storage

__all__ = ["read_ahead"]

T = TypeVar("T")

# Number of sidecars that are requested from an object store at the same time.
_NUM_REQUESTS = 16


def read_ahead(storage: Storage, shards: Sequence[int], read: Callable[[int], T]) -> Iterator[T]:
    """Yields the result of `read` for each shard, in order. A store gets several requests at once.

    Only a few results exist at once. All sidecars together would take much more memory.
    """
    if storage.is_local:
        yield from map(read, shards)
        return
    # One request takes tens of milliseconds, so thousands of them one after the other would take
    # minutes.
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        for begin in range(0, len(shards), 4 * _NUM_REQUESTS):
            part = shards[begin : begin + 4 * _NUM_REQUESTS]
            yield from pool.map(read, part)
