"""Training clips for a training loop of one's own, under any DataLoader.

clips = VideoClips("flow/", TrainConfig(ModelSpec("resnet18"), ClipSpec("flow")))
for inputs, labels in DataLoader(clips, batch_size=32, shuffle=True, collate_fn=collate):
    loss = cross_entropy(model(*inputs), labels)

VideoClips    a random clip of a video at each access
collate       joins samples into a network's inputs and the labels
SharedEpoch   the epoch, in memory that loader processes share
"""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Dataset

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.clip import fill_inputs
from flowprep.learn.clips.indices import test_indices
from flowprep.learn.clips.mixing import check_unmixed
from flowprep.learn.clips.select import select_labelled
from flowprep.learn.clips.training import fill_sample, sample_shapes
from flowprep.learn.clips.transforms import test_crops
from flowprep.learn.config import TrainConfig

__all__ = ["Clips", "SharedEpoch", "VideoClips", "collate", "own_place"]

Clips = dict[str, torch.Tensor]
"""The tensors of a sample, (S, C, H, W) or (S, C, L, H, W) float32, by the name of the input."""

# The second number of a random generator's seed names its purpose. Other modules use 0 to 4.
_ACCESS = 5


class VideoClips(Dataset[dict[str, Any]]):
    """A data set of videos for `torch.utils.data.DataLoader`: each access draws a random clip.

    Item i is a clip of video i, in a random crop, mirrored or not. The seed, the epoch and the
    number of accesses to this video in the epoch decide the clip. So two epochs differ, equal seeds
    agree, and the number of loader processes does not matter. `set_epoch` names the epoch, also to
    loader processes that are running. Without `set_epoch`, the accesses are counted on: each pass
    shows other clips, and each rank of `torch.distributed` draws its own.

    Works with `shuffle=True`, any sampler, every start method of processes, and persistent workers.
    A sampler that repeats videos within an epoch may exchange these clips between processes.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | FlowDataset,
        config: TrainConfig | None = None,
        inputs: Sequence[ClipInput] | None = None,
        *,
        split: str | None = None,
        seed: int | None = None,
        random: bool = True,
        transform: Callable[[Clips], Clips] | None = None,
    ) -> None:
        """Takes the videos of a split that have exactly one label.

        `out` is a data set, or its location: a folder or an fsspec URL. `config` says what a clip
        is, and how it is varied (`config.clip`, `config.augment`). `inputs` are what the network
        takes from each clip, such as `model.inputs`; the default is `config.inputs`. The defaults
        of `split` and `seed` are `config.train_split` and `config.seed`. `random=False` always
        gives the same clips, for validation: in the middle of each segment, the center crop, not
        mirrored. `transform` gets the tensors of each sample and returns those to use instead.

        Raises DatasetError if no video is left, and ConfigError if the data set lacks the streams
        or if its frames are too small for the crops.
        """
        config = config or TrainConfig()
        check_unmixed(config.augment)
        if split is not None:
            config = dataclasses.replace(config, train_split=split)
        self.dataset = out if isinstance(out, FlowDataset) else open_dataset(out)
        self.config = config
        self.inputs = tuple(config.inputs if inputs is None else inputs)
        self.seed = config.seed if seed is None else seed
        self.random = random
        self.transform = transform
        labels, self.num_skipped = select_labelled(self.dataset, config, self.inputs)
        self._positions = np.array(list(labels), np.int64)
        self._labels = np.array(list(labels.values()), np.int64)
        self._epoch = SharedEpoch(len(labels))

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of each item, (N,) int64, for samplers that balance classes."""
        return np.array(self._labels)

    def video(self, index: int) -> StoredVideo:
        """Returns the video of an item."""
        return self.dataset.videos[int(self._positions[self._checked(index)])]

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that begins now, counted from 0. Call it before the loader's loop."""
        self._epoch.begin(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"clips": {input: (S, C, ...) float32}, "label": int, "video": int}.

        S is `config.clip.num_segments`. "video" is the video's position in `dataset.videos`.
        """
        index = self._checked(index)
        video = self.video(index)
        shapes = sample_shapes(self.config.clip, self.inputs)
        arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        if self.random:
            epoch, rank, access = self._epoch.next_access(index)
            # Epochs that nobody named are another sequence, and each rank has its own.
            rng = np.random.default_rng((self.seed, _ACCESS, epoch + 1, rank, index, access))
            fill_sample(self.dataset, video, self.config, self.inputs, rng, arrays)
        else:
            self._fill_middle(video, arrays)
        clips = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {
            "clips": clips if self.transform is None else self.transform(clips),
            "label": int(self._labels[index]),
            "video": int(self._positions[index]),
        }

    def _fill_middle(self, video: StoredVideo, out: Mapping[str, NDArray[np.float32]]) -> None:
        clip = self.config.clip
        counts = (video.num_frames, video.num_flows)
        crops = test_crops(video.width, video.height, clip, 1)
        places = test_indices(*counts, self.inputs, clip, clip.num_segments)
        for segment in range(clip.num_segments):
            chosen = [clips[segment] for clips in places]
            views = [out[one.name][segment, None] for one in self.inputs]
            fill_inputs(self.dataset, video, self.inputs, chosen, crops, clip, views)

    def _checked(self, index: int) -> int:
        try:
            place = operator.index(index)
        except TypeError:
            raise ConfigError(
                "an item is found by its number, got a value of type "
                f"{type(index).__name__}; take clips[0] for a clip of the first video"
            ) from None
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are {len(self):,} videos, got item {place}")
        return place % len(self)


class SharedEpoch:
    """The epoch, and how often each of `num_places` was accessed in it, for all processes.

    Loader processes share this memory with the process that started them, however they started. A
    copy, such as one that goes to another machine, has memory of its own.
    """

    def __init__(self, num_places: int) -> None:
        # The epoch comes first; -1 means that nobody has named it.
        self._numbers = _shared(torch.zeros(1 + num_places, dtype=torch.int32))
        self._numbers[0] = -1
        self._place: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A loader process cannot ask for its rank.
        return self.__dict__ | {"_place": self.place()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._numbers = _shared(self._numbers)

    def begin(self, epoch: int) -> None:
        """Names the epoch that begins. Nothing was accessed in it so far."""
        if epoch < 0:
            raise ConfigError(f"epoch must be >= 0, got {epoch}")
        self._numbers[1:] = 0
        self._numbers[0] = epoch

    def next_access(self, place: int) -> tuple[int, int, int]:
        """Returns the epoch, the rank and the number of earlier accesses, and counts this one.

        If nobody has named an epoch, it is -1, and the accesses are those of all epochs. If it has
        a name, the rank is 0, so that all ranks draw the same clip of a video.
        """
        numbers = self._numbers.numpy()
        access = int(numbers[1 + place])
        numbers[1 + place] = access + 1
        epoch = int(numbers[0])
        return epoch, 0 if epoch >= 0 else self.place()[0], access

    def place(self) -> tuple[int, int]:
        """Returns this process's rank and the number of ranks."""
        return own_place() or self._place or (0, 1)


def _shared(numbers: torch.Tensor) -> torch.Tensor:
    """Returns the tensor in memory that is shared with processes; it stays there if it is."""
    numbers.share_memory_()  # type: ignore[no-untyped-call]
    return numbers


def own_place() -> tuple[int, int] | None:
    """Returns the rank of this process in torch.distributed and the number of ranks, if any."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return None


def collate(samples: Sequence[Mapping[str, Any]]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Joins N samples of VideoClips or StreamedClips: `model(*inputs)` takes the first result.

    Returns a tensor for each of the network's inputs, in their order, and the labels, (N,) int64.
    Each tensor is (N, S, C, ...) float32; samples of one segment give (N, C, ...).
    """
    if not samples:
        raise ConfigError("samples must be one or more, got none; give collate a batch")
    tensors = [
        torch.stack([sample["clips"][name] for sample in samples]) for name in samples[0]["clips"]
    ]
    inputs = tuple(one.squeeze(1) if one.shape[1] == 1 else one for one in tensors)
    return inputs, torch.tensor([sample["label"] for sample in samples])
