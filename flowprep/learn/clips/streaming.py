"""Training clips from an object store, with few long reads.

`TrainingClips` reads two short ranges for each clip. A disk answers these at once, but an object
store needs tens of milliseconds for each. Here one request reads several neighboring videos while
earlier clips are decoded. A buffer mixes the videos:

    clips = StreamedClips("s3://bucket/kinetics-flow", config)
    for batch in streaming_loader(clips, batch_size=32, num_loaders=4):
        logits = model(batch["clips"]["flow"].flatten(0, 1))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from flowprep.dataset.layout import FLOW_STREAMS, RGB_STREAM, shard_name
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError, DatasetError, FlowprepError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.loader import PlainLoader, loader_options
from flowprep.learn.clips.mixing import check_unmixed
from flowprep.learn.clips.select import select_labelled
from flowprep.learn.clips.training import fill_sample, sample_shapes
from flowprep.learn.clips.video_clips import Clips, SharedEpoch
from flowprep.learn.config import ClipSpec, TrainConfig
from flowprep.storage import Storage

__all__ = ["StreamedClips", "streaming_loader"]

# The second number of a random generator's seed names its purpose; `data` uses 0 and 1.
_SHUFFLE, _MIX, _SAMPLE = 2, 3, 4

# Most loader processes of one rank.
_MAX_LOADERS = 256

_LARGEST_READ = 32 << 20
# A gap between two wanted members is read too, up to this size: an object store sends that much in
# the time of another request.
_LARGEST_GAP = 1 << 20


class StreamedClips(IterableDataset[dict[str, Any]]):
    """Samples as `TrainingClips` gives them, in the order in which they are read.

    Every video of the split with exactly one label comes once per epoch, over all ranks and loader
    processes together. The seed, the epoch and the video alone decide the clip and the crop. The
    order also depends on the number of ranks and processes. Each process gets whole reads, so the
    processes may get slightly different numbers of videos. Instances can be pickled.

    Each pass is the next epoch, also in loader processes that stay; `set_epoch` names another one.
    Passes are counted apart for each number of loader processes.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | FlowDataset,
        config: TrainConfig | None = None,
        inputs: Sequence[ClipInput] | None = None,
        *,
        seed: int | None = None,
        buffer: int = 128,
        first_epoch: int = 0,
        num_epochs: int | None = 1,
        rank: int | None = None,
        world_size: int | None = None,
        transform: Callable[[Clips], Clips] | None = None,
    ) -> None:
        """`out` is a data set, or its location: a folder or an fsspec URL.

        The default of `inputs` is `config.inputs`, and that of `seed` is `config.seed`. Those of
        `rank` and `world_size` are this process's in torch.distributed. Where another library
        shares out the samples, as accelerate does, give rank 0 of 1. `transform` gets the tensors
        of each sample and returns those to use instead. `buffer` is the number of videos per
        process that wait, still compressed, to be drawn at random; 1 keeps the order of the shards.
        If `num_epochs` is None, the samples never end. Raises as `TrainingClips` does, and
        ConfigError for a rank outside of `world_size` and for a buffer smaller than 1.
        """
        if buffer < 1:
            raise ConfigError(f"buffer must be >= 1, got {buffer}")
        if (rank is None) != (world_size is None):
            raise ConfigError(
                f"rank and world_size must be given together, got {rank} and {world_size}; leave "
                "out both, or none"
            )
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ConfigError(f"rank must be from 0 to world_size - 1, got {rank} of {world_size}")
        config = config or TrainConfig()
        check_unmixed(config.augment)
        if config.balance:
            raise ConfigError(
                "balance must be False here, got True: samples come as they are stored; take "
                "TrainingClips to show each class equally often"
            )
        self.dataset = out if isinstance(out, FlowDataset) else open_dataset(out)
        self.config = config
        self.inputs = tuple(config.inputs if inputs is None else inputs)
        self.seed = config.seed if seed is None else seed
        self.buffer = buffer
        self.epochs = (first_epoch, num_epochs)
        self.place = None if rank is None or world_size is None else (rank, world_size)
        self.transform = transform
        # Loader n of m counts its passes at place m * _MAX_LOADERS + n, and this process at 0.
        self._passes = SharedEpoch(_MAX_LOADERS * (_MAX_LOADERS + 1))
        labels, self.num_skipped = select_labelled(self.dataset, config, self.inputs)
        self._positions = np.array(list(labels), np.int64)
        self._labels = np.array(list(labels.values()), np.int64)

    @property
    def num_videos(self) -> int:
        """Length of an epoch, over all ranks and processes."""
        return len(self._positions)

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch of the next pass, counted from 0. Call it before the loader's loop."""
        self._passes.begin(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        if count > _MAX_LOADERS:
            raise ConfigError(f"num_workers must be at most {_MAX_LOADERS}, got {count}")
        named, _, num_passes = self._passes.next_access(
            0 if worker is None else count * _MAX_LOADERS + number
        )
        rank, world_size = self.place or self._passes.place()
        consumer, num_consumers = rank * count + number, world_size * count
        epoch, num_epochs = self.epochs
        epoch = (named if named >= 0 else epoch) + num_passes * (num_epochs or 1)
        last = None if num_epochs is None else epoch + num_epochs
        reads = self._plan()
        # One storage serves the videos one after the other.
        storage = _HeldStorage(self.dataset.location)
        held = self.dataset.read_through(storage)
        while last is None or epoch < last:
            order = np.random.default_rng((self.seed, _SHUFFLE, epoch)).permutation(len(reads))
            if self.buffer == 1:
                order.sort()
            mine = [reads[place] for place in order[consumer::num_consumers].tolist()]
            rng = np.random.default_rng((self.seed, _MIX, epoch, consumer))
            for video in _mixed(self._fetch(mine), self.buffer, rng):
                storage.held = video
                yield self._sample(held, video, epoch)
            epoch += 1

    def _plan(self) -> list[_Read]:
        """Returns the reads of an epoch: groups of neighboring videos, up to a useful length."""
        reads: list[_Read] = []
        for place, position in enumerate(self._positions.tolist()):
            video = self.dataset.videos[position]
            begin, end = _span(video, self.config.clip, self.inputs)
            last = reads[-1] if reads else None
            if (
                last is not None
                and last.shard == video.shard
                and 0 <= begin - last.end <= _LARGEST_GAP
                and end - last.begin <= _LARGEST_READ
            ):
                reads[-1] = _Read(last.shard, last.begin, end, (*last.places, place))
            else:
                reads.append(_Read(video.shard, begin, end, (place,)))
        return reads

    def _fetch(self, reads: list[_Read]) -> Iterator[_HeldVideo]:
        """Yields the videos of some reads. The next read runs while the videos are used."""
        if not reads:
            return
        # A separate storage, which no other thread uses.
        storage = Storage(self.dataset.location)

        def fetch(read: _Read) -> bytes:
            return storage.read_range(shard_name(read.shard), read.begin, read.end - read.begin)

        with ThreadPoolExecutor(1) as pool:
            upcoming: Future[bytes] = pool.submit(fetch, reads[0])
            for number, read in enumerate(reads):
                data = upcoming.result()
                if number + 1 < len(reads):
                    upcoming = pool.submit(fetch, reads[number + 1])
                if len(data) != read.end - read.begin:
                    raise DatasetError(
                        f"{shard_name(read.shard)} is cut off: it has no bytes "
                        f"{read.begin + len(data)} to {read.end - 1}; run `flowprep verify`"
                    )
                for place in read.places:
                    video = self.dataset.videos[int(self._positions[place])]
                    begin, end = _span(video, self.config.clip, self.inputs)
                    # Copied: otherwise one video in the buffer would keep the whole read in memory.
                    yield _HeldVideo(place, begin, data[begin - read.begin : end - read.begin])

    def _sample(self, dataset: FlowDataset, held: _HeldVideo, epoch: int) -> dict[str, Any]:
        position = int(self._positions[held.place])
        rng = np.random.default_rng((self.seed, _SAMPLE, epoch, position))
        shapes = sample_shapes(self.config.clip, self.inputs)
        clips = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        fill_sample(dataset, dataset.videos[position], self.config, self.inputs, rng, clips)
        tensors = {name: torch.from_numpy(array) for name, array in clips.items()}
        return {
            "clips": tensors if self.transform is None else self.transform(tensors),
            "label": int(self._labels[held.place]),
            "task": 0,
            "video": position,
        }


def streaming_loader(
    clips: StreamedClips, *, batch_size: int, num_loaders: int = 0
) -> DataLoader[Any]:
    """Returns batches of `batch_size` samples. `num_loaders` processes read; 0 reads in this one.

    Each is {"clips": {input: (n, S, C, ...) float32}, "label", "task", "video": (n,) int64};
    "video" is a position in the data set's videos. The last batch of each process may be smaller.
    """
    options = loader_options(num_loaders) | {"batch_size": batch_size}
    return _Loader(_Guarded(clips), collate_fn=_collate, **options)


@dataclass(frozen=True)
class _Read:
    """One request: the bytes of a shard from `begin` up to but not including `end`."""

    shard: int
    begin: int
    end: int
    places: tuple[int, ...]
    """The videos in this read, as indices into `_positions`."""


@dataclass(frozen=True)
class _HeldVideo:
    """A video's bytes. They start at `begin` in the shard."""

    place: int
    begin: int
    data: bytes


class _HeldStorage(Storage):
    """Reads from the bytes of one video, as if from its shard."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.is_local = False
        self.held = _HeldVideo(0, 0, b"")

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Returns `length` bytes at `offset` of the shard."""
        begin = offset - self.held.begin
        assert 0 <= begin <= begin + length <= len(self.held.data)
        return self.held.data[begin : begin + length]


def _span(video: StoredVideo, clip: ClipSpec, inputs: Sequence[ClipInput]) -> tuple[int, int]:
    """Returns the begin and the end of the bytes in its shard that clips of a video need."""
    names = ["json"]
    streams = {one.stream for one in inputs}
    if streams - {"flow"}:
        names.append(RGB_STREAM)
    if "flow" in streams:
        names += FLOW_STREAMS["forward"]
        if clip.stack == "bidirectional":
            names += FLOW_STREAMS["backward"]
    members = [video.members[name] for name in names]
    return min(offset for offset, _ in members), max(offset + size for offset, size in members)


def _mixed(
    videos: Iterator[_HeldVideo], size: int, rng: np.random.Generator
) -> Iterator[_HeldVideo]:
    """Yields all videos. Each is drawn from the next `size` videos that are left."""
    waiting: list[_HeldVideo] = []
    for video in videos:
        waiting.append(video)
        if len(waiting) == size:
            place = int(rng.integers(size))
            waiting[place], waiting[-1] = waiting[-1], waiting[place]
            yield waiting.pop()
    if size > 1:
        rng.shuffle(waiting)
    yield from waiting


class _Guarded(IterableDataset[Any]):
    """Returns an error as the last item, because torch would bury its message in a traceback."""

    def __init__(self, clips: StreamedClips) -> None:
        self._clips = clips

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._clips
        except FlowprepError as error:
            yield error


class _Loader(PlainLoader):
    """A DataLoader that raises the errors that its processes return."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, FlowprepError):
                raise batch
            yield batch


def _collate(items: list[Any]) -> Any:
    error = next((item for item in items if isinstance(item, FlowprepError)), None)
    return error if error is not None else default_collate(items)
