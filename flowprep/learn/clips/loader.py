"""Loader processes, which write clips where the training process reads them.

They are started by a fork server: a plain fork of a process that has threads (of torch, OpenCV or
Ray) may copy a lock that nobody will ever open, and a fresh interpreter for each would import torch
again. As with any process that is not forked, a script that trains needs its
`if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import multiprocessing
import os
import shutil
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from flowprep.dataset import jpeg
from flowprep.errors import ConfigError, FlowprepError, TrainingError
from flowprep.learn.clips import levels

__all__ = ["Loader", "PlainLoader", "keep_memory", "loader_options"]

# What loader processes unpickle first; the fork server imports it once for all of them.
_PRELOADED = ["flowprep.learn.clips.training", "flowprep.learn.clips.testing"]


Reader = Callable[[Any, "Mapping[str, NDArray[np.float32]] | None"], dict[str, Any]]


class PlainLoader(DataLoader[Any]):
    """A DataLoader that has as many processes as it is told, without a word.

    Their number is the user's, or `default_loaders` counted the cores. torch warns of more of them
    than cores, but they also wait for storage, and results do not depend on them.
    """

    def check_worker_number_rationality(self) -> None:
        """Does nothing."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except (RuntimeError, OSError, EOFError) as error:
            if not self._is_end_of_process(error):
                raise
            raise TrainingError(
                "a process that reads clips was ended from outside, maybe because memory ran out, "
                "or shared memory in /dev/shm (docker run --shm-size); run the same command again "
                "with fewer --loaders"
            ) from error


    def _is_end_of_process(self, error: Exception) -> bool:
        """Whether an error says that a process is gone; torch has no class of its own for it."""
        if isinstance(error, RuntimeError):
            return str(error).startswith("DataLoader worker")
        # What it has sent last is fetched from it. What it has raised itself begins otherwise.
        is_gone = isinstance(error, ConnectionError | EOFError | FileNotFoundError)
        return is_gone and self.num_workers > 0 and not str(error).startswith("Caught ")


class Loader(PlainLoader):
    """A DataLoader whose processes write clips where this one reads them.

    DataLoader's own processes put every batch into fresh shared memory, page by page, which takes
    longer than decoding it. Here there are places for a few batches, used again and again: one is
    free as soon as nothing refers to the tensor that was handed out for it. Whoever keeps more
    batches than there are places gets them in memory of their own.

    Errors arrive as they were raised, where torch would bury their message in a traceback.
    """

    def __init__(
        self,
        read: Reader,
        items: Iterable[Any],
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        num_loaders: int,
    ) -> None:
        """Yields read(item, None) for each of `items`; its large tensors, float32, are `name`.

        These are a dict with a tensor of each of the `shapes`. `read` leaves them out where it is
        given arrays to write them to.
        Raises ConfigError where there is not enough shared memory for `num_loaders` processes.
        """
        self._name = name
        self._shapes = dict(shapes)
        size = sum(map(math.prod, self._shapes.values()))
        options = loader_options(num_loaders)
        self._num_places = 0
        if num_loaders:
            # What each process has begun or finished, and two that are in use here.
            ahead = _batches_ahead(size * 4, num_loaders)
            self._num_places = num_loaders * ahead + 2
            options["prefetch_factor"] = ahead
        self._tasks = _Tasks(items)
        super().__init__(
            _Reader(read, self._shapes), sampler=self._tasks, collate_fn=_as_it_is, **options
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        places = self._make_places()
        free = self._tasks.free = deque(range(len(places)))
        self.dataset.places = places  # type: ignore[attr-defined]
        try:
            for place, batch in super().__iter__():
                if isinstance(batch, FlowprepError):
                    raise batch
                if place is not None:
                    batch[self._name] = self._hand_out(places[place], place, free)
                yield batch
        finally:
            self.dataset.places = ()  # type: ignore[attr-defined]

    def _make_places(self) -> torch.Tensor | tuple[()]:
        if not self._num_places:
            return ()
        shape = (self._num_places, sum(map(math.prod, self._shapes.values())))
        # Not `share_memory_`, which copies what is in it, and so touches all of it.
        storage: Any = torch.UntypedStorage._new_shared(math.prod(shape) * 4)  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=torch.float32).set_(storage).view(shape)

    def _hand_out(
        self, tensor: torch.Tensor, place: int, free: deque[int]
    ) -> dict[str, torch.Tensor]:
        if self.pin_memory:
            # The copy is torch's to manage: a device may still be reading it when nobody else is.
            pinned = tensor.pin_memory()
            free.append(place)
            return _parts_of(pinned, self._shapes)
        array = tensor.numpy()
        # It is gone when the last tensor is that shares its memory, any view of this one too.
        weakref.finalize(array, free.append, place).atexit = False
        return _parts_of(torch.from_numpy(array), self._shapes)


Block = TypeVar("Block", NDArray[np.float32], torch.Tensor)


def _parts_of(block: Block, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Block]:
    """Returns views of a row of numbers, one behind the other, in the shapes of the inputs."""
    parts, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape)
        parts[name] = block[begin:end].reshape(shape)
        begin = end
    return parts


class _Tasks(Sampler[tuple[Any, "int | None"]]):
    """What a loader reads one after the other, each with a place that is free as it is begun."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self.free: deque[int] = deque()

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        free = self.free
        return ((item, free.popleft() if free else None) for item in self._items)

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]


class _Reader(Dataset[Any]):
    """What loader processes run."""

    def __init__(self, read: Reader, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._read = read
        self._shapes = shapes
        self.places: torch.Tensor | tuple[()] = ()

    def __getitem__(
        self, task: tuple[Any, int | None]
    ) -> tuple[int | None, dict[str, Any] | FlowprepError]:
        item, place = task
        try:
            out = None
            if place is not None:
                out = _parts_of(self.places[place].numpy(), self._shapes)
            return place, self._read(item, out)
        except FlowprepError as error:
            return place, error


def _as_it_is(item: Any) -> Any:
    return item


def _batches_ahead(size: int, num_loaders: int) -> int:
    """Returns how many batches of `size` bytes each process may be ahead: 2, or 1 if need be."""
    folder = "/dev/shm"
    if not os.path.isdir(folder):
        return 2
    free = shutil.disk_usage(folder).free
    for ahead in (2, 1):
        needed = (num_loaders * ahead + 2) * size
        if needed <= free:
            return ahead
    raise ConfigError(
        f"{num_loaders} loaders need {needed >> 20} MB of shared memory, but {folder} has "
        f"{free >> 20} MB; take fewer loaders, a smaller batch, or make it larger "
        f"(docker run --shm-size)"
    )


def loader_options(num_loaders: int) -> dict[str, Any]:
    """Returns the options that all loaders have in common."""
    options: dict[str, Any] = {
        # An item is what is handed over: a batch, or the views of a clip.
        "batch_size": None,
        "num_workers": num_loaders,
        "pin_memory": torch.cuda.is_available(),
        # Its own, or each loader would draw a number from the one that dropout draws from.
        "generator": torch.Generator().manual_seed(0),
    }
    if num_loaders:
        # Compiled once, before processes that all need it start.
        jpeg.prepare()
        levels.prepare()
        options["multiprocessing_context"] = _context()
        # The fork server keeps the environment that it was started in; credentials may be newer.
        options["worker_init_fn"] = functools.partial(_start_loader, environment=dict(os.environ))
    return options


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _deaf_to_hangup():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _deaf_to_hangup() -> Iterator[None]:
    """Lets what is started in the block outlive a closed terminal: it ends with this process.

    Else it would be gone before the step at hand is finished and a checkpoint written.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _start_loader(number: int, environment: Mapping[str, str]) -> None:
    """Prepares a loader process: one core for each, and the parent alone decides upon Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_memory()


def keep_memory() -> None:
    """Keeps memory that is freed for the next clip, where the C library is GNU's.

    It would give clips back to the system, and get zeroed pages for the next: of a clip of 10
    fields that is a thousand pages, which take longer than to decode it.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 1 << 30)
        library.mallopt(trim_threshold, (1 << 31) - 1)
