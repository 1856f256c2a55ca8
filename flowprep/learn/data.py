"""From shards to batches: every sample follows from the seed and its position, and nothing else.

    load_clip, load_views            a clip of a video, or crops of it, as networks take it
    TrainingClips, training_loader   an endless stream of training samples; a rank's share of it
    TestViews, test_loader           the views of a test, clip by clip; a rank's videos

Loaders read in processes of their own, which a fork server starts: a plain fork of a process that
has threads (of torch, OpenCV or Ray) may copy a lock that nobody will ever open, and a fresh
interpreter for each would import torch again. As with any process that is not forked, a script that
trains needs its `if __name__ == "__main__":`.
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
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from flowprep.config import FlowSpec
from flowprep.dataset import jpeg
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError, DatasetError, FlowprepError
from flowprep.learn.clips import levels
from flowprep.learn.clips.indices import bidirectional_indices, test_indices, training_indices
from flowprep.learn.clips.transforms import (
    Crop,
    crop_flow,
    crop_frames,
    normalize_flow,
    normalize_frames,
    subtract_mean_flow,
    test_crops,
    to_stack,
    to_volume,
    training_crop,
    trajectory_stack,
)
from flowprep.learn.config import ClipSpec, TrainConfig, ViewSpec

if TYPE_CHECKING:
    from flowprep.learn.models.base import Layout

__all__ = [
    "Loader",
    "PlainLoader",
    "TestViews",
    "TrainingClips",
    "check_clip",
    "fill_sample",
    "keep_memory",
    "load_clip",
    "load_views",
    "loader_options",
    "num_fields",
    "sample_shape",
    "select_labelled",
    "select_videos",
    "test_loader",
    "training_loader",
]

# What the second number of a random generator's seed says that it is for.
_ORDER, _SAMPLE = 0, 1


# ---- one clip


def num_fields(video: StoredVideo, clip: ClipSpec) -> int:
    """Returns how many fields (flow) or frames (rgb) of a video there are to choose from."""
    return video.num_flows if clip.stream == "flow" else video.num_frames


def load_clip(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: Sequence[int] | NDArray[np.int64],
    crop: Crop,
    clip: ClipSpec,
    layout: Layout,
) -> NDArray[np.float32]:
    """Returns a clip as a network takes it: float32, normalised by `clip.normalization`.

    `indices` are those of `clips`: (L,) fields or frames. The result is (C, H, W) for layout
    `stack`, (C, L, H, W) for `volume`, with H = W = clip.crop_px; x points right, y down, also of a
    mirrored clip. Raises DatasetError for indices outside of the video and for damaged data,
    ConfigError where the data set lacks what the clip is made of.
    """
    clips = load_views(dataset, video, indices, [crop], clip, layout)
    return clips.reshape(clips.shape[1:])


def load_views(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: Sequence[int] | NDArray[np.int64],
    crops: Sequence[Crop],
    clip: ClipSpec,
    layout: Layout,
) -> NDArray[np.float32]:
    """Returns crops of one clip, (len(crops), C, H, W) or (len(crops), C, L, H, W) float32.

    Each is what `load_clip` returns; all of them together take one decoding.
    """
    views = np.empty((len(crops), *_clip_shape(clip, len(indices), layout)), np.float32)
    _fill_views(dataset, video, np.asarray(indices, np.int64), crops, clip, layout, views)
    return views


def _fill_views(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: NDArray[np.int64],
    crops: Sequence[Crop],
    clip: ClipSpec,
    layout: Layout,
    views: NDArray[np.float32],
) -> None:
    """Writes what `load_views` returns."""
    if clip.stream == "rgb":
        frames = dataset.frames(video.key, indices)
        for view, crop in zip(views, crops, strict=True):
            x = normalize_frames(crop_frames(frames, crop, clip.crop_px), clip.normalization)
            view[:] = _arrange(x, layout)
        return
    spec = dataset.config.flow
    corners = [_corner(crop, clip) for crop in crops]
    box = None
    if len(crops) == 1 and corners[0] is not None and not clip.subtract_mean_flow:
        # Nothing outside of the crop is needed, so that less is decoded.
        box = (*corners[0], clip.crop_px, clip.crop_px)
        corners = [(0, 0)]
    planes = _planes(dataset, video, indices, clip, box)
    means_px = levels.mean_px(planes, spec) if clip.subtract_mean_flow else None
    flow: NDArray[np.float32] | None = None
    for view, crop, corner in zip(views, crops, corners, strict=True):
        if corner is not None:
            levels.fill_crop(
                planes,
                corner,
                spec,
                view,
                layout=layout,
                normalization=clip.normalization,
                flip=crop.flip,
                means_px=means_px,
            )
            continue
        if flow is None:
            flow = _flow(planes, clip, spec)
        x = crop_flow(flow, crop, clip.crop_px, scale_vectors=clip.scale_vectors)
        view[:] = _arrange(normalize_flow(x, clip.normalization, spec), layout)


def _flow(planes: NDArray[np.uint8], clip: ClipSpec, spec: FlowSpec) -> NDArray[np.float32]:
    """Returns a clip's fields in px, (L, 2, H, W) float32, as they are before they are cropped."""
    flow = levels.to_px(planes, spec)
    if clip.stack == "trajectory":
        flow = trajectory_stack(flow)
    return subtract_mean_flow(flow) if clip.subtract_mean_flow else flow


def _corner(crop: Crop, clip: ClipSpec) -> tuple[int, int] | None:
    """Returns the upper left corner of a crop that is not resampled; None for one that is."""
    side = clip.crop_px
    is_slice = (crop.width, crop.height) == (side, side)
    if is_slice and clip.stack != "trajectory" and crop.x == int(crop.x) and crop.y == int(crop.y):
        return int(crop.x), int(crop.y)
    return None


def _planes(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: NDArray[np.int64],
    clip: ClipSpec,
    box: tuple[int, int, int, int] | None,
) -> NDArray[np.uint8]:
    """Returns the fields of a clip as stored, (L, 2, H, W) uint8, or a box of them."""
    if clip.stack != "bidirectional":
        return dataset.planes(video.key, indices, box=box)
    forward, backward = bidirectional_indices(indices[None], video.num_flows)
    halves = (
        dataset.planes(video.key, forward[0], "forward", box=box),
        dataset.planes(video.key, backward[0], "backward", box=box),
    )
    return np.concatenate(halves)


def _clip_shape(clip: ClipSpec, length: int, layout: Layout) -> tuple[int, ...]:
    """Returns the shape of a clip as a network takes it."""
    channels = 2 if clip.stream == "flow" else 3
    shape = (channels * length,) if layout == "stack" else (channels, length)
    return (*shape, clip.crop_px, clip.crop_px)


def _arrange(x: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    return to_stack(x) if layout == "stack" else to_volume(x)


# ---- which videos


def select_videos(dataset: FlowDataset, split: str) -> NDArray[np.int64]:
    """Returns the positions in `dataset.videos` of a split; `all` takes every video.

    Raises DatasetError where there is none.
    """
    videos = dataset.videos
    chosen = [n for n, video in enumerate(videos) if split in ("all", video.split)]
    if not chosen:
        known = Counter(video.split for video in videos)
        held = ", ".join(f"{count} of {name or 'no split'}" for name, count in known.items())
        raise DatasetError(
            f"{dataset!r} holds no video of split {split!r}, it holds {held or 'none at all'}; "
            f"choose another split, or `all`"
        )
    return np.array(chosen, np.int64)


def select_labelled(dataset: FlowDataset, config: TrainConfig) -> tuple[dict[int, int], int]:
    """Returns the videos to train on, position in `dataset.videos` -> label, and how many of the
    split are skipped, which have no label, or several.

    Raises DatasetError where there is none, ConfigError where the data set lacks the streams that
    clips are made of, or where frames are too small for the crops.
    """
    check_clip(dataset, config.clip)
    positions = select_videos(dataset, config.train_split)
    labels: dict[int, int] = {}
    sizes: set[tuple[int, int]] = set()
    for position in positions.tolist():
        video = dataset.videos[position]
        if video.label is not None:
            labels[position] = video.label
            sizes.add((video.width, video.height))
    if not labels:
        raise DatasetError(
            f"{dataset!r}: none of the {len(positions)} videos of split {config.train_split!r} has "
            f"exactly one label; extract with annotations, label the data set by `flowprep label`, "
            f"or choose another split"
        )
    for width, height in sorted(sizes):
        training_crop(width, height, config.clip, config.augment, np.random.default_rng(0))
    return labels, len(positions) - len(labels)


def check_clip(dataset: FlowDataset, clip: ClipSpec) -> None:
    """Raises ConfigError where a data set lacks the streams that clips are made of."""
    encode = dataset.config.encode
    if clip.stream == "rgb":
        if not encode.keep_rgb:
            raise ConfigError(
                f"{dataset!r} holds no RGB frames; use --stream flow, or extract with --keep-rgb"
            )
        return
    wanted = {"forward", "backward"} if clip.stack == "bidirectional" else {"forward"}
    if missing := sorted(wanted - set(encode.directions)):
        raise ConfigError(
            f"{dataset!r} holds no {missing[0]} flow, which stack {clip.stack} needs; "
            f"it has {', '.join(encode.directions)}"
        )


# ---- training


def sample_shape(clip: ClipSpec, layout: Layout) -> tuple[int, ...]:
    """Returns the shape of a training sample, (S, C, H, W) or (S, C, L, H, W)."""
    return (clip.num_segments, *_clip_shape(clip, clip.num_frames, layout))


def fill_sample(
    dataset: FlowDataset,
    video: StoredVideo,
    config: TrainConfig,
    layout: Layout,
    rng: np.random.Generator,
    out: NDArray[np.float32],
) -> None:
    """Draws a training sample of a video and writes it to `out`, an array of `sample_shape`."""
    clip = config.clip
    indices = training_indices(num_fields(video, clip), clip, rng)
    crop = training_crop(video.width, video.height, clip, config.augment, rng)
    for segment, view in zip(indices, out[:, None], strict=True):
        _fill_views(dataset, video, segment, [crop], clip, layout, view)


class TrainingClips(Dataset[dict[str, Any]]):
    """Training samples by their position in an endless stream.

    Epoch e is positions e * num_videos up to (e + 1) * num_videos: every video once, in an order of
    its own. A sample follows from the configuration's seed and its position alone. Pickles; holds
    three numbers a video.
    """

    def __init__(
        self, datasets: Sequence[FlowDataset], config: TrainConfig, layout: Layout
    ) -> None:
        """Takes the videos of `config.train_split` that have exactly one label.

        Raises DatasetError where a data set has no such video, ConfigError where a data set lacks
        the streams or where its frames are too small for the crops.
        """
        self.datasets = tuple(datasets)
        self.config = config
        self.layout = layout
        rows: list[tuple[int, int, int]] = []
        self.num_skipped = 0
        """Videos of the split without a label, or with several."""
        for task, dataset in enumerate(self.datasets):
            labels, num_skipped = select_labelled(dataset, config)
            rows += [(task, position, label) for position, label in labels.items()]
            self.num_skipped += num_skipped
        # As an array, not as objects: what loaders look at, they would otherwise copy one by one.
        self._rows = np.array(rows, np.int64)
        self._orders: dict[int, NDArray[np.int64]] = {}

    @property
    def num_videos(self) -> int:
        """Length of an epoch."""
        return len(self._rows)

    def __len__(self) -> int:
        return self.num_videos

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_orders": {}}

    def find(self, position: int) -> tuple[int, StoredVideo]:
        """Returns the data set's number and the video at a position of the stream."""
        task, place, _ = self._row(position)
        return task, self.datasets[task].videos[place]

    def count_tasks(self, first: int, count: int) -> list[int]:
        """Returns how many of `count` positions from `first` on are videos of each data set."""
        if len(self.datasets) == 1:
            return [count]
        owners = [self._row(position)[0] for position in range(first, first + count)]
        return [owners.count(task) for task in range(len(self.datasets))]

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Returns {"clip": (S, C, ...) float32, "label": int, "task": number of the data set}."""
        sample = self.batch([position])
        return {
            "clip": sample["clip"][0],
            "label": int(sample["label"][0]),
            "task": int(sample["task"][0]),
        }

    def batch(
        self, positions: Sequence[int], out: NDArray[np.float32] | None = None
    ) -> dict[str, torch.Tensor]:
        """Returns the samples of n positions together: clips (n, S, C, ...), labels, tasks (n,).

        With `out`, clips are written there and not returned.
        """
        shape = sample_shape(self.config.clip, self.layout)
        clips = np.empty((len(positions), *shape), np.float32) if out is None else out
        rows = np.array([self._row(position) for position in positions])
        for position, (task, place, _), target in zip(positions, rows, clips, strict=True):
            dataset = self.datasets[task]
            rng = np.random.default_rng((self.config.seed, _SAMPLE, position))
            fill_sample(dataset, dataset.videos[int(place)], self.config, self.layout, rng, target)
        batch = {"clip": torch.from_numpy(clips)} if out is None else {}
        batch["label"] = torch.from_numpy(rows[:, 2].copy())
        batch["task"] = torch.from_numpy(rows[:, 0].copy())
        return batch

    def _row(self, position: int) -> tuple[int, int, int]:
        epoch, place = divmod(position, self.num_videos)
        order = self._orders.get(epoch)
        if order is None:
            if len(self._orders) > 1:
                self._orders.clear()
            rng = np.random.default_rng((self.config.seed, _ORDER, epoch))
            order = self._orders[epoch] = rng.permutation(self.num_videos)
        task, video, label = self._rows[order[place]].tolist()
        return task, video, label


def training_loader(
    clips: TrainingClips,
    *,
    batch_size: int,
    first_step: int,
    num_steps: int,
    rank: int = 0,
    world_size: int = 1,
    num_loaders: int = 0,
) -> DataLoader[Any]:
    """Returns a rank's batches of the steps from `first_step` up to and without `num_steps`.

    Step s of all ranks together is positions s * batch_size up to (s + 1) * batch_size of `clips`,
    and rank r has the r-th of `world_size` equal parts of them: {"clip": (n, S, C, ...) float32,
    "label": (n,) int64, "task": (n,) int64}. `num_loaders` processes read them; 0 reads in this
    one. Raises ConfigError where the batch cannot be parted.
    """
    if batch_size % world_size:
        raise ConfigError(
            f"batch_size must be a multiple of the number of processes, got {batch_size} and "
            f"{world_size}"
        )
    share = batch_size // world_size
    starts = range(
        first_step * batch_size + rank * share, num_steps * batch_size + rank * share, batch_size
    )
    shape = (share, *sample_shape(clips.config.clip, clips.layout))
    return Loader(clips.batch, _Parts(starts, share), "clip", shape, num_loaders)


class _Parts(Sampler[list[int]]):
    """The positions of each batch: `length` in a row from each start."""

    def __init__(self, starts: range, length: int) -> None:
        self._starts = starts
        self._length = length

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + self._length)) for start in self._starts)

    def __len__(self) -> int:
        return len(self._starts)


# ---- testing


class TestViews(Dataset[dict[str, Any]]):
    """The views of a test: item i is clip i % num_clips of video i // num_clips, in all crops."""

    __test__ = False  # not a class of tests, whatever its name

    def __init__(
        self,
        dataset: FlowDataset,
        clip: ClipSpec,
        layout: Layout,
        views: ViewSpec,
        *,
        split: str = "test",
        videos: Sequence[str] | None = None,
    ) -> None:
        """Takes the videos of `split`, or those with the keys `videos`.

        Raises DatasetError where there is none, ConfigError where the data set lacks the streams
        or where its frames are too small for the crops.
        """
        check_clip(dataset, clip)
        self.dataset = dataset
        self.clip = clip
        self.layout = layout
        self.views = views
        if videos is None:
            self._positions = select_videos(dataset, split)
        else:
            self._positions = np.array([dataset.videos.position(key) for key in videos], np.int64)
        chosen = [dataset.videos[position] for position in self._positions.tolist()]
        self.labels = np.array([-1 if v.label is None else v.label for v in chosen], np.int64)
        """(num_videos,) int64; -1 where a video has no label, or several."""
        for width, height in sorted({(video.width, video.height) for video in chosen}):
            test_crops(width, height, clip, views.num_crops)

    @property
    def num_videos(self) -> int:
        """How many videos are tested."""
        return len(self._positions)

    @property
    def num_clips(self) -> int:
        """Items of each video."""
        return self.views.num_clips

    @property
    def keys(self) -> list[str]:
        """The keys of the videos, in the order of `labels`."""
        return [self.dataset.videos[position].key for position in self._positions.tolist()]

    def __len__(self) -> int:
        return self.num_videos * self.num_clips

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Returns {"views": (num_crops, C, ...) float32, "video": its number, "label": or -1}."""
        return self.read(item)

    def read(self, item: int, out: NDArray[np.float32] | None = None) -> dict[str, Any]:
        """Returns an item; with `out`, an array of `shape`, views are written there instead."""
        if not 0 <= item < len(self):
            raise IndexError(f"item must be from 0 to {len(self) - 1}, got {item}")
        number, place = divmod(item, self.num_clips)
        video = self.dataset.videos[int(self._positions[number])]
        clip = self.clip
        indices = test_indices(num_fields(video, clip), clip, self.num_clips)[place]
        crops = test_crops(video.width, video.height, clip, self.views.num_crops)
        views = np.empty(self.shape, np.float32) if out is None else out
        _fill_views(self.dataset, video, indices, crops, clip, self.layout, views)
        found: dict[str, Any] = {} if out is not None else {"views": torch.from_numpy(views)}
        return found | {"video": number, "label": int(self.labels[number])}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item's views, (num_crops, C, H, W) or (num_crops, C, L, H, W)."""
        clip = self.clip
        return (self.views.num_crops, *_clip_shape(clip, clip.num_frames, self.layout))


def test_loader(
    views: TestViews,
    *,
    num_loaders: int = 0,  # noqa: PT028
    rank: int = 0,  # noqa: PT028
    world_size: int = 1,  # noqa: PT028
) -> DataLoader[Any]:
    """Returns the items of whole videos, numbers rank, rank + world_size, ...; one item a batch."""
    items = [
        item
        for number in range(rank, views.num_videos, world_size)
        for item in range(number * views.num_clips, (number + 1) * views.num_clips)
    ]
    return Loader(views.read, items, "views", views.shape, num_loaders)


test_loader.__test__ = False  # type: ignore[attr-defined]


# ---- loader processes


class PlainLoader(DataLoader[Any]):
    """A DataLoader that has as many processes as it is told, without a word.

    Their number is the user's, or `default_loaders` counted the cores. torch warns of more of them
    than cores, but they also wait for storage, and results do not depend on them.
    """

    def check_worker_number_rationality(self) -> None:
        """Does nothing."""


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
        read: Callable[[Any, NDArray[np.float32] | None], dict[str, Any]],
        items: Iterable[Any],
        name: str,
        shape: tuple[int, ...],
        num_loaders: int,
    ) -> None:
        """Yields read(item, None) for each of `items`; its largest tensor is `name`, of `shape`.

        Raises ConfigError where there is not enough shared memory for `num_loaders` processes.
        """
        self._name = name
        self._shape = shape
        options = loader_options(num_loaders)
        self._num_places = 0
        if num_loaders:
            # What each process has begun or finished, and two that are in use here.
            ahead = _batches_ahead(math.prod(shape) * 4, num_loaders)
            self._num_places = num_loaders * ahead + 2
            options["prefetch_factor"] = ahead
        self._tasks = _Tasks(items)
        super().__init__(_Reader(read), sampler=self._tasks, collate_fn=_as_it_is, **options)

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
        shape = (self._num_places, *self._shape)
        # Not `share_memory_`, which copies what is in it, and so touches all of it.
        storage: Any = torch.UntypedStorage._new_shared(math.prod(shape) * 4)  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=torch.float32).set_(storage).view(shape)

    def _hand_out(self, tensor: torch.Tensor, place: int, free: deque[int]) -> torch.Tensor:
        if self.pin_memory:
            # The copy is torch's to manage: a device may still be reading it when nobody else is.
            pinned = tensor.pin_memory()
            free.append(place)
            return pinned
        array = tensor.numpy()
        # It is gone when the last tensor is that shares its memory, any view of this one too.
        weakref.finalize(array, free.append, place).atexit = False
        return torch.from_numpy(array)


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

    def __init__(self, read: Callable[[Any, NDArray[np.float32] | None], dict[str, Any]]) -> None:
        self._read = read
        self.places: torch.Tensor | tuple[()] = ()

    def __getitem__(
        self, task: tuple[Any, int | None]
    ) -> tuple[int | None, dict[str, Any] | FlowprepError]:
        item, place = task
        try:
            out = None if place is None else self.places[place].numpy()
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
    context.set_forkserver_preload([__name__])
    return context


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
