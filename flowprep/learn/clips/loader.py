"""Loader processes that write clips directly into memory of the training process.

A fork server starts them. A plain fork of a process with threads (of torch, OpenCV or Ray) may copy
a lock that is never released, and a fresh interpreter for each process would import torch again. As
with every start method except fork, a training script needs `if __name__ == "__main__":`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import math
import multiprocessing
import os
import shutil
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
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
from flowprep.run.interrupts import ENDING_SIGNALS

__all__ = ["Loader", "PlainLoader", "keep_memory", "loader_options"]

_NOT_FOR_LOADERS = (*ENDING_SIGNALS, signal.SIGHUP)

# The first imports of a loader process. The fork server imports them once for all processes.
_PRELOADED = ["flowprep.learn.clips.training", "flowprep.learn.clips.testing"]


_iterators: weakref.WeakSet[Any] = weakref.WeakSet()
"""Those of torch that may have processes."""

Reader = Callable[[Any, "Mapping[str, NDArray[np.float32]] | None"], dict[str, Any]]


class PlainLoader(DataLoader[Any]):
    """A DataLoader that starts the requested number of processes without a warning.

    The user chose the number, or `default_loaders` counted the cores. torch warns if there are more
    processes than cores, but the processes also wait for storage, and results do not depend on it.
    """

    def _get_iterator(self) -> Any:
        iterator = super()._get_iterator()
        _iterators.add(iterator)
        return iterator

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
    """A DataLoader whose processes write clips into memory that this process reads.

    DataLoader's own processes put every batch into fresh shared memory, page by page, which takes
    longer than decoding the batch. Here there is space for a few batches, which is reused. A place
    is free again once nothing refers to the tensor that was handed out for it. A caller that keeps
    more batches than there are places gets the other batches in separate memory.

    Errors arrive as they were raised. torch alone would bury their message in a traceback.
    """

    def __init__(
        self,
        read: Reader,
        items: Iterable[Any],
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        num_loaders: int,
    ) -> None:
        """Yields read(item, None) for each of `items`. Its large float32 tensors are under `name`.

        The entry `name` is a dict with one tensor for each of the `shapes`. If `read` is given
        arrays, it writes the tensors there and leaves them out of its result.
        Raises ConfigError if there is not enough shared memory for `num_loaders` processes.
        """
        self._name = name
        self._shapes = dict(shapes)
        size = sum(map(math.prod, self._shapes.values()))
        options = loader_options(num_loaders)
        self._num_places = 0
        if num_loaders:
            # The batches that each process has begun or finished, and two in use here.
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
        # Not `share_memory_`: it copies the content and so touches all of the memory.
        storage: Any = torch.UntypedStorage._new_shared(math.prod(shape) * 4)  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=torch.float32).set_(storage).view(shape)

    def _hand_out(
        self, tensor: torch.Tensor, place: int, free: deque[int]
    ) -> dict[str, torch.Tensor]:
        if self.pin_memory:
            # torch manages the copy: a device may still read it after all references are gone.
            pinned = tensor.pin_memory()
            free.append(place)
            return _parts_of(pinned, self._shapes)
        array = tensor.numpy()
        # The place is free once the last tensor that shares this memory is gone, views included.
        weakref.finalize(array, free.append, place).atexit = False
        return _parts_of(torch.from_numpy(array), self._shapes)


Block = TypeVar("Block", NDArray[np.float32], torch.Tensor)


def _parts_of(block: Block, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Block]:
    """Returns views of a row of numbers, one after the other, in the shapes of the inputs."""
    parts, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape)
        parts[name] = block[begin:end].reshape(shape)
        begin = end
    return parts


class _Tasks(Sampler[tuple[Any, "int | None"]]):
    """The items that a loader reads in order. Each gets a place that is free when it begins."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self.free: deque[int] = deque()

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        free = self.free
        return ((item, free.popleft() if free else None) for item in self._items)

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]


class _Reader(Dataset[Any]):
    """The data set that loader processes run."""

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
    """Returns how many batches of `size` bytes each process may be ahead: 2, or 1 if needed."""
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
    """Returns the options that all loaders share."""
    options: dict[str, Any] = {
        # Each item is already a whole batch, or the views of a clip.
        "batch_size": None,
        "num_workers": num_loaders,
        "pin_memory": torch.cuda.is_available(),
        # A separate generator: otherwise each loader would draw from the generator of dropout.
        "generator": torch.Generator().manual_seed(0),
    }
    if num_loaders:
        # Compiled once, before the processes that need it start.
        jpeg.prepare()
        levels.prepare()
        options["multiprocessing_context"] = _context()
        # The fork server keeps the environment of its start. Credentials may be newer.
        options["worker_init_fn"] = functools.partial(_start_loader, environment=dict(os.environ))
    return options


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    # To end a job, Slurm and torchrun signal all its processes. The training needs its loaders to
    # finish the current step. The fork server inherits this mask; it and the loaders end when this
    # process ends. A signal to this process is delayed until the mask is restored.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_LOADERS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _end_loaders() -> None:
    """Ends the loader processes that nobody has ended yet, as an error did that still holds them.

    Python would send them SIGTERM at its end, which they ignore, and wait for them forever.
    """
    for iterator in _iterators:
        for process in getattr(iterator, "_workers", ()):
            process.kill()


# Runs before multiprocessing's own function, which was registered earlier.
atexit.register(_end_loaders)


def _start_loader(number: int, environment: Mapping[str, str]) -> None:
    """Prepares a loader process: it uses one core, and only its parent decides when it ends."""
    for ending in _NOT_FOR_LOADERS:
        signal.signal(ending, signal.SIG_IGN)
    os.environ.update(environment)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_memory()


def keep_memory() -> None:
    """Makes GNU's C library keep freed memory for the next clip.

    By default it returns the memory to the system and gets zeroed pages for the next clip. For a
    clip of 10 fields these are a thousand pages, which take longer than decoding the clip.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 1 << 30)
        library.mallopt(trim_threshold, (1 << 31) - 1)
