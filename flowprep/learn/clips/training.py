"""Training samples. The seed and the position of a sample decide its content, nothing else does.

    TrainingClips, training_loader   an endless stream of training samples; a rank's share of it
    fill_sample                      one sample of a video

A sample does not depend on the process that reads it or on the rank that trains on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput, sees_flow
from flowprep.learn.clips.clip import fill_inputs
from flowprep.learn.clips.indices import frames_after, training_indices
from flowprep.learn.clips.loader import Loader
from flowprep.learn.clips.mixing import draw_erasing, draw_mix, erase_box, mix_clips, partner_of
from flowprep.learn.clips.order import BalancedOrder, EpochOrder, VideoOrder
from flowprep.learn.clips.rand_augment import draw_frame_change
from flowprep.learn.clips.targets import ClipTargets, choose_losses
from flowprep.learn.clips.transforms import training_crop
from flowprep.learn.config import ClipSpec, TrainConfig
from flowprep.learn.training_specs import AugmentSpec, LossName

__all__ = ["TrainingClips", "fill_sample", "sample_shapes", "training_loader"]

# The second number of a random generator's seed names its purpose. `clips.order` has 0, 3 and 4,
# `clips.video_clips` 5, and dropout 2.
_SAMPLE, _MIX = 1, 6


def sample_shapes(clip: ClipSpec, inputs: Sequence[ClipInput]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of a training sample, (S, C, H, W) or (S, C, L, H, W), by input."""
    return {one.name: (clip.num_segments, *one.shape(clip.crop_px)) for one in inputs}


def fill_sample(
    dataset: FlowDataset,
    video: StoredVideo,
    config: TrainConfig,
    inputs: Sequence[ClipInput],
    rng: np.random.Generator,
    out: Mapping[str, NDArray[np.float32]],
) -> None:
    """Draws a training sample of a video and writes it to `out`, arrays of `sample_shapes`.

    All inputs show the same moments in the same crop, and all are mirrored or none. Frames are
    changed and a box is erased as `config.augment` says. A sample of two videos is not made here.
    """
    clip, augment = config.clip, config.augment
    if augment.random_strides:
        inputs = draw_stride(video, augment, inputs, rng)
    indices = training_indices(video.num_frames, video.num_flows, inputs, clip, rng)
    crop = training_crop(video.width, video.height, clip, augment, rng)
    change = draw_frame_change(augment, beside_flow=sees_flow(clip.stream), rng=rng)
    for segment in range(clip.num_segments):
        chosen = [clips[segment] for clips in indices]
        views = [out[one.name][segment, None] for one in inputs]
        fill_inputs(dataset, video, inputs, chosen, [crop], clip, views, change)
    if augment.random_erasing:
        box = draw_erasing(augment, clip.crop_px, rng)
        if box is not None:
            erase_box(out, box, inputs, clip.crop_px)


def draw_stride(
    video: StoredVideo,
    augment: AugmentSpec,
    inputs: Sequence[ClipInput],
    rng: np.random.Generator,
) -> tuple[ClipInput, ...]:
    """Returns inputs with a stride drawn from `augment.random_strides` for the first of them.

    The other inputs keep their ratio to it. The stride is lowered until the clip fits into the
    video (feichtenhofer/twostreamfusion, cnn_ucf101_get_im_flow_batch.m), or is 1.
    """
    lasts = frames_after(video.num_frames - video.num_flows)
    low, high = augment.random_strides
    for stride in range(int(rng.integers(low, high + 1)), 0, -1):
        ratio = stride / inputs[0].frame_stride
        drawn = tuple(
            dataclasses.replace(one, frame_stride=max(1, round(one.frame_stride * ratio)))
            for one in inputs
        )
        if all(one.span <= video.num_frames - lasts[one.stream] for one in drawn):
            break
    return drawn


class TrainingClips(Dataset[dict[str, Any]]):
    """Training samples by their position in an endless stream.

    Epoch e is the positions from e * num_videos up to but not including (e + 1) * num_videos. It
    has every video once, in its own order. With `config.balance`, it has every class equally often
    instead (`clips.order`). The configuration's seed and the position alone decide a
    sample. Instances can be pickled and hold three numbers per video.

    This is for `training_loader`. Under `DataLoader(shuffle=True)`, each epoch would be epoch 0
    again, with the same clips and crops; `VideoClips` is for that.
    """

    def __init__(
        self,
        datasets: Sequence[FlowDataset],
        config: TrainConfig,
        inputs: Sequence[ClipInput],
        *,
        losses: Sequence[LossName] | None = None,
    ) -> None:
        """Takes the videos of `config.train_split` that have exactly one label.

        `inputs` are what the network takes from each clip: `config.inputs`, or a network's own.
        `losses` has one loss for each data set; by default `choose_losses` chooses. For the loss
        bce, videos with several labels are taken too. Data sets of one location with labels of
        different names are label sets of the same videos, and each sample has a target for each.
        Raises DatasetError if a data set has no such video, and ConfigError if a data set lacks
        the streams or if its frames are too small for the crops.
        """
        self.datasets = tuple(datasets)
        self.config = config
        self.inputs = tuple(inputs)
        if losses is None:
            losses = choose_losses(datasets, config.train_split, config.optimization.loss)
        self.targets = ClipTargets(self.datasets, losses)
        rows, self.num_skipped = self.targets.select(config, self.inputs)
        """Number of videos in the split without a label, or with several."""
        # An array instead of objects: loader processes would copy each object that they read.
        self._rows = np.array(rows, np.int64)
        self._order = self._new_order()

    def _new_order(self) -> VideoOrder:
        if self.config.balance:
            return BalancedOrder(self.classes, self.config.seed)
        return EpochOrder(self.num_videos, self.config.seed)

    @property
    def classes(self) -> list[tuple[int, int]]:
        """The data set's number and the label of each video of an epoch."""
        return [(task, label) for task, label in self._rows[:, [0, 2]].tolist()]

    @property
    def all_classes(self) -> list[tuple[int, int]]:
        """The data set's number and the label, for each label of each video of an epoch."""
        if self.targets.is_plain:
            return self.classes
        return self.targets.pairs(self._rows.tolist())

    @property
    def num_videos(self) -> int:
        """Length of an epoch."""
        return len(self._rows)

    def __len__(self) -> int:
        return self.num_videos

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_order": self._new_order()}

    def find(self, position: int) -> tuple[int, StoredVideo]:
        """Returns the data set's number and the video at a position of the stream."""
        task, place, _ = self._row(position)
        return task, self.datasets[task].videos[place]

    def count_tasks(self, first: int, count: int) -> list[int]:
        """Returns how many of the `count` positions from `first` on belong to each data set."""
        if len(self.targets.groups) == 1:
            return [count] * len(self.datasets)
        owners = [self._row(position)[0] for position in range(first, first + count)]
        counts = [0] * len(self.datasets)
        for heads in self.targets.groups:
            for head in heads:
                counts[head] = owners.count(heads[0])
        return counts

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Returns {"clips": {input: (S, C, ...) float32}, "label": int, "task": data set's number}.

        See `batch` for details.
        """
        sample = self.batch([position])
        one = _first(sample)
        one["clips"] = {name: clips[0] for name, clips in sample["clips"].items()}
        if "partner" in sample:
            one["partner"] = _first(sample["partner"])
            one["share"] = float(sample["share"][0])
        return one

    def batch(
        self, positions: Sequence[int], out: Mapping[str, NDArray[np.float32]] | None = None
    ) -> dict[str, Any]:
        """Returns the samples of n positions together.

        "clips" holds a tensor (n, S, C, ...) float32 for each input, by name. "label" and "task"
        are (n,) int64. For videos with several labels, and for several label sets of the same
        videos, "targets" holds what `ClipTargets.of` returns; then "label" and "task" are those of
        the first label set, and "label" is -1 for several. With `out`, the clips are written there
        and not returned.

        For samples of two videos (`AugmentSpec.mixup`, `cutmix`), "share" (n,) float32 is that of
        each sample's own label, and "partner" has the "label", "task" and "targets" of the other
        video, whose share is the rest.
        """
        clips = out
        if clips is None:
            shapes = sample_shapes(self.config.clip, self.inputs)
            clips = {
                name: np.empty((len(positions), *shape), np.float32)
                for name, shape in shapes.items()
            }
        for number, position in enumerate(positions):
            self._fill(position, {name: array[number] for name, array in clips.items()})
        batch = self._targets(positions)
        if self.config.augment.mixes_videos:
            batch["share"] = torch.from_numpy(self._mix(positions, clips))
            batch["partner"] = self._targets([partner_of(position) for position in positions])
        if out is None:
            batch["clips"] = {name: torch.from_numpy(array) for name, array in clips.items()}
        return batch

    def _targets(self, positions: Sequence[int]) -> dict[str, Any]:
        rows = np.array([self._row(position) for position in positions])
        targets: dict[str, Any] = {
            "label": torch.from_numpy(rows[:, 2].copy()),
            "task": torch.from_numpy(rows[:, 0].copy()),
        }
        if not self.targets.is_plain:
            targets["targets"] = self.targets.of(rows.tolist())
        return targets

    def _fill(self, position: int, out: Mapping[str, NDArray[np.float32]]) -> None:
        """Writes the sample at a position, before it is mixed."""
        task, video = self.find(position)
        rng = np.random.default_rng((self.config.seed, _SAMPLE, position))
        fill_sample(self.datasets[task], video, self.config, self.inputs, rng, out)

    def _mix(
        self, positions: Sequence[int], clips: Mapping[str, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Mixes each sample with its partner, in place; returns the samples' own shares, (n,)."""
        crop_px = self.config.clip.crop_px
        mixes = [
            draw_mix(
                self.config.augment,
                crop_px,
                np.random.default_rng((self.config.seed, _MIX, position)),
            )
            for position in positions
        ]
        # What the first of a pair was before it was mixed. The second one needs it.
        first: dict[str, NDArray[np.float32]] | None = None
        for number, (position, mix) in enumerate(zip(positions, mixes, strict=True)):
            own = {name: array[number] for name, array in clips.items()}
            wanted = partner_of(position)
            if first is not None:
                partner, first = first, None
            elif wanted > position and list(positions[number + 1 : number + 2]) == [wanted]:
                partner = {name: array[number + 1] for name, array in clips.items()}
                first = {name: array.copy() for name, array in own.items()}
            else:
                # A pair may be divided between two parts of a batch.
                partner = {name: np.empty_like(array) for name, array in own.items()}
                self._fill(wanted, partner)
            mix_clips(own, partner, mix, self.inputs, crop_px)
        return np.array([mix.share for mix in mixes], np.float32)

    def _row(self, position: int) -> tuple[int, int, int]:
        task, video, label = self._rows[self._order.find(position)].tolist()
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
    """Returns a rank's batches for the steps from `first_step` up to but not including `num_steps`.

    Step s covers the positions of `clips` from s * batch_size up to but not including
    (s + 1) * batch_size. Rank r takes the r-th of `world_size` equal parts: {"clips": {input:
    (n, S, C, ...) float32}, "label": (n,) int64, "task": (n,) int64}. `num_loaders` processes read
    the batches; 0 reads in this process. Raises ConfigError if the batch cannot be divided.
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
    shapes = sample_shapes(clips.config.clip, clips.inputs)
    batches = {name: (share, *shape) for name, shape in shapes.items()}
    return Loader(clips.batch, _Parts(starts, share), "clips", batches, num_loaders)


def _first(targets: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the label, the task and the targets of the first sample of a batch."""
    one: dict[str, Any] = {name: int(targets[name][0]) for name in ("label", "task")}
    if "targets" in targets:
        one["targets"] = [rows[0] for rows in targets["targets"]]
    return one


class _Parts(Sampler[list[int]]):
    """The positions of each batch: `length` consecutive positions from each start."""

    def __init__(self, starts: range, length: int) -> None:
        self._starts = starts
        self._length = length

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + self._length)) for start in self._starts)

    def __len__(self) -> int:
        return len(self._starts)
