"""The views of a test, clip by clip, and each rank's share of the videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.clip import fill_inputs
from flowprep.learn.clips.indices import test_indices
from flowprep.learn.clips.loader import Loader
from flowprep.learn.clips.select import check_clip, select_videos
from flowprep.learn.clips.transforms import test_crops
from flowprep.learn.config import ClipSpec, ViewSpec

__all__ = ["TestViews", "TestedPart", "test_loader"]


@dataclass(frozen=True)
class TestedPart:
    """What is tested as if it were a video of its own: a video, or a part of one."""

    __test__ = False

    video: StoredVideo
    first: int
    """The first frame and field."""
    num_frames: int
    num_flows: int


class TestViews(Dataset[dict[str, Any]]):
    """The views of a test: item i is clip i % num_clips of video i // num_clips, in all crops.

    A network that joins segments is tested with groups of clips. The clips of a group follow each
    other. The video is divided into as many equal segments as a group has clips, and each segment
    gives one clip to the group.
    """

    __test__ = False  # not a class of tests, whatever its name

    def __init__(
        self,
        dataset: FlowDataset,
        clip: ClipSpec,
        inputs: Sequence[ClipInput],
        views: ViewSpec,
        *,
        split: str = "test",
        videos: Sequence[str] | None = None,
        group_size: int | None = 1,
    ) -> None:
        """Takes the videos of `split`, or those with the keys `videos`.

        `inputs` are what the network takes from each clip. `group_size` is the number of clips of a
        video that the network sees together: 1 for networks of single clips, otherwise ClipModel's
        `num_segments`. If that is None, all clips form one group, and there are at least as many
        clips as segments in training. Otherwise the number of clips is rounded up to whole groups.
        Raises DatasetError if there is no video, and ConfigError if the data set lacks the streams
        or if its frames are too small for the crops.
        """
        check_clip(dataset, clip, inputs)
        self.dataset = dataset
        self.clip = clip
        self.inputs = tuple(inputs)
        self.views = views
        if group_size is None:
            self.num_groups = 1
            self.num_clips = max(views.num_clips, clip.num_segments)
        else:
            self.num_groups = -(-views.num_clips // group_size)
            self.num_clips = self.num_groups * group_size
        self.group_size = group_size
        if videos is None:
            self._positions = select_videos(dataset, split)
        else:
            self._positions = np.array([dataset.videos.position(key) for key in videos], np.int64)
        chosen = [dataset.videos[position] for position in self._positions.tolist()]
        self.labels = np.array([-1 if v.label is None else v.label for v in chosen], np.int64)
        """(num_videos,) int64; -1 for a video without a label or with several."""
        for width, height in sorted({(video.width, video.height) for video in chosen}):
            test_crops(width, height, clip, views.num_crops)

    @property
    def num_videos(self) -> int:
        """How many videos are tested."""
        return len(self._positions)

    @property
    def keys(self) -> list[str]:
        """The keys of the videos, in the order of `labels`."""
        return [self.dataset.videos[position].key for position in self._positions.tolist()]

    def label_sets(self, dataset: FlowDataset) -> list[tuple[int, ...]]:
        """Returns the labels of each video in `dataset`, which holds the same videos."""
        return [dataset.videos[position].labels for position in self._positions.tolist()]

    def __len__(self) -> int:
        return self.num_videos * self.num_clips

    def __getitem__(self, item: int) -> dict[str, Any]:
        """Returns {"views": {input: (num_crops, C, ...) float32}, "video": its number, "label"}.

        The label is -1 for a video without a label or with several.
        """
        return self.read(item)

    def read(
        self, item: int, out: Mapping[str, NDArray[np.float32]] | None = None
    ) -> dict[str, Any]:
        """Returns an item. With `out`, arrays of `shapes`, it writes the views there instead."""
        if not 0 <= item < len(self):
            raise IndexError(f"item must be from 0 to {len(self) - 1}, got {item}")
        number = item // self.num_clips
        video, clip = self._part(number).video, self.clip
        crops = test_crops(video.width, video.height, clip, self.views.num_crops)
        views = out
        if views is None:
            views = {name: np.empty(shape, np.float32) for name, shape in self.shapes.items()}
        arrays = [views[one.name] for one in self.inputs]
        fill_inputs(self.dataset, video, self.inputs, self.indices(item), crops, clip, arrays)
        found: dict[str, Any] = {}
        if out is None:
            found["views"] = {name: torch.from_numpy(array) for name, array in views.items()}
        return found | {"video": number, "label": int(self.labels[number])}

    def indices(self, item: int) -> list[NDArray[np.int64]]:
        """Returns which fields or frames of its video each input of an item shows, (L,) each."""
        number, place = divmod(item, self.num_clips)
        part = self._part(number)
        clips = test_indices(
            part.num_frames, part.num_flows, self.inputs, self.clip, self.num_clips
        )
        return [one[self._clip_in_time(place)] + part.first for one in clips]

    def _part(self, number: int) -> TestedPart:
        video = self.dataset.videos[int(self._positions[number])]
        return TestedPart(video, 0, video.num_frames, video.num_flows)

    def _clip_in_time(self, place: int) -> int:
        """Returns the index in time order (`test_indices`) of a video's item `place`."""
        if self.clip.sampling == "dense":
            return place  # in order of windows: the clips of a window form a group
        group, segment = divmod(place, self.num_clips // self.num_groups)
        return segment * self.num_groups + group

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of an item's views, (num_crops, C, H, W) or (num_crops, C, L, H, W)."""
        crop_px, num_crops = self.clip.crop_px, self.views.num_crops
        return {one.name: (num_crops, *one.shape(crop_px)) for one in self.inputs}


def test_loader(
    views: TestViews,
    *,
    num_loaders: int = 0,  # noqa: PT028
    rank: int = 0,  # noqa: PT028
    world_size: int = 1,  # noqa: PT028
) -> DataLoader[Any]:
    """Returns the items of the videos rank, rank + world_size, ...; each item is one batch."""
    items = [
        item
        for number in range(rank, views.num_videos, world_size)
        for item in range(number * views.num_clips, (number + 1) * views.num_clips)
    ]
    return Loader(views.read, items, "views", views.shapes, num_loaders)


test_loader.__test__ = False  # type: ignore[attr-defined]
