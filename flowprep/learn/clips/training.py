"""Training samples, each of which follows from the seed and its position, and nothing else.

    TrainingClips, training_loader   an endless stream of training samples; a rank's share of it
    fill_sample                      one sample of a video

Which process reads a sample, and which of several trains on it, makes no difference to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError
from flowprep.learn.clips.clip import clip_shape, fill_views, num_fields
from flowprep.learn.clips.indices import training_indices
from flowprep.learn.clips.loader import Loader
from flowprep.learn.clips.select import select_labelled
from flowprep.learn.clips.transforms import training_crop
from flowprep.learn.config import ClipSpec, TrainConfig

if TYPE_CHECKING:
    from flowprep.learn.models.base import Layout

__all__ = ["TrainingClips", "fill_sample", "sample_shape", "training_loader"]

# What the second number of a random generator's seed says that it is for.
_ORDER, _SAMPLE = 0, 1


def sample_shape(clip: ClipSpec, layout: Layout) -> tuple[int, ...]:
    """Returns the shape of a training sample, (S, C, H, W) or (S, C, L, H, W)."""
    return (clip.num_segments, *clip_shape(clip, clip.num_frames, layout))


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
        fill_views(dataset, video, segment, [crop], clip, layout, view)


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
