"""The views of a test, and who reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import DatasetError
from flowprep.learn.clips import transforms
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.testing import TestViews, test_loader
from flowprep.learn.config import ViewSpec
from flowprep.learn.recipes import VIEWS
from tests.learn.clips.samples import FLOW, RGB, taken, view_indices, with_videos


def test_views_are_all_crops_of_all_clips_of_all_videos(dataset: FlowDataset) -> None:
    views = TestViews(dataset, FLOW, [taken(FLOW, "stack")], ViewSpec(3, 10))
    assert (views.num_videos, views.num_clips, len(views)) == (8, 3, 24)
    wanted = [video for video in dataset.videos if video.split == "test"]
    assert views.keys == [video.key for video in wanted]
    np.testing.assert_array_equal(views.labels, [video.label for video in wanted])
    crops = transforms.test_crops(64, 48, FLOW, 10)
    starts = view_indices(13, FLOW, 3)
    for item in (0, 4, 23):
        found = views[item]
        number, place = divmod(item, 3)
        assert (found["video"], found["label"]) == (number, wanted[number].label)
        assert found["views"]["flow"].shape == (10, 8, 32, 32)
        for view, crop in zip(found["views"]["flow"], crops, strict=True):
            expected = load_clip(dataset, wanted[number], starts[place], crop, FLOW, taken(FLOW))
            np.testing.assert_allclose(view.numpy(), expected, atol=1e-6)
    with pytest.raises(IndexError):
        views[24]


def test_views_of_chosen_videos_come_in_their_order(dataset: FlowDataset) -> None:
    keys = [dataset.videos[9].key, dataset.videos[2].key]
    changed = with_videos(dataset, labels=(1, 2))
    views = TestViews(changed, FLOW, [taken(FLOW, "volume")], VIEWS["center"], videos=keys)
    assert views.keys == keys
    assert [views[item]["label"] for item in range(2)] == [dataset.videos[9].label, -1]
    assert views[0]["views"]["flow"].shape == (1, 2, 4, 32, 32)
    with pytest.raises(DatasetError, match="no video has the key 'x'"):
        TestViews(dataset, FLOW, [taken(FLOW, "stack")], VIEWS["center"], videos=["x"])


def test_ranks_and_loaders_share_whole_videos(motion: Path) -> None:
    views = TestViews(open_dataset(motion), RGB, [taken(RGB)], ViewSpec(2, 3))
    expected = [views[item] for item in range(len(views))]
    for world_size, num_loaders in ((1, 0), (4, 0), (1, 2)):
        seen: dict[tuple[int, int], torch.Tensor] = {}
        for rank in range(world_size):
            loader = test_loader(views, num_loaders=num_loaders, rank=rank, world_size=world_size)
            items = list(loader)
            assert [item["video"] % world_size for item in items] == [rank] * len(items)
            for place, item in enumerate(items):
                seen[item["video"], place % 2] = item["views"]["rgb"]
        assert len(seen) == len(expected) == 16
        for item, found in enumerate(expected):
            assert torch.equal(seen[found["video"], item % 2], found["views"]["rgb"])
