"""The views of a test, clip by clip; a rank's videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from flowprep.dataset.read import FlowDataset
from flowprep.learn.clips.clip import clip_shape, fill_views, num_fields
from flowprep.learn.clips.indices import test_indices
from flowprep.learn.clips.loader import Loader
from flowprep.learn.clips.select import check_clip, select_videos
from flowprep.learn.clips.transforms import test_crops
from flowprep.learn.config import ClipSpec, ViewSpec

if TYPE_CHECKING:
    from flowprep.learn.models.base import Layout

__all__ = ["TestViews", "test_loader"]


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
        fill_views(self.dataset, video, indices, crops, clip, self.layout, views)
        found: dict[str, Any] = {} if out is not None else {"views": torch.from_numpy(views)}
        return found | {"video": number, "label": int(self.labels[number])}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an item's views, (num_crops, C, H, W) or (num_crops, C, L, H, W)."""
        clip = self.clip
        return (self.views.num_crops, *clip_shape(clip, clip.num_frames, self.layout))


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
