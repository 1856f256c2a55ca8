"""Inputs of one stream at two rates: each field and frame of a clip is decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.learn.clip_inputs import ClipInput, StreamName
from flowprep.learn.clips.clip import DecodedOnce, fill_inputs, load_views
from flowprep.learn.clips.indices import training_indices
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec


def two_rates(stream: Any) -> tuple[ClipInput, ...]:
    return (
        ClipInput("slow", stream, "volume", 2, 4, rate_ratio=4),
        ClipInput("fast", stream, "volume", 8, 1),
    )


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_both_are_as_alone_and_decoded_once(
    motion: Path, monkeypatch: pytest.MonkeyPatch, stream: StreamName, num_crops: int
) -> None:
    dataset = open_dataset(motion)
    video = dataset.videos[0]
    inputs = two_rates(stream)
    clip = ClipSpec(stream, 2, 4, crop_px=32)
    rng = np.random.default_rng(1)
    chosen = [
        one[0] for one in training_indices(video.num_frames, video.num_flows, inputs, clip, rng)
    ]
    crops = view_crops(video.width, video.height, clip, num_crops)
    alone = [
        load_views(dataset, video, indices, crops, clip, one)
        for one, indices in zip(inputs, chosen, strict=True)
    ]
    name = "frames" if stream == "rgb" else "planes"
    plain = getattr(FlowDataset, name)
    decoded: list[int] = []

    def counted(self: FlowDataset, key: Any, indices: Any, *args: Any, **kwargs: Any) -> Any:
        decoded.extend(np.asarray(indices).tolist())
        return plain(self, key, indices, *args, **kwargs)

    monkeypatch.setattr(FlowDataset, name, counted)
    views = [np.empty_like(one) for one in alone]
    fill_inputs(dataset, video, inputs, chosen, crops, clip, views)

    assert sorted(decoded) == sorted(set(chosen[1].tolist()))
    for found, wanted in zip(views, alone, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_is_asked_for_later_is_decoded_too(motion: Path) -> None:
    dataset = open_dataset(motion)
    video = dataset.videos[0]
    once = DecodedOnce(dataset)
    for indices in ([3, 1, 3], [0, 1, 2, 3, 4], [4, 0]):
        given = np.array(indices)
        np.testing.assert_array_equal(
            once.frames(video.key, given), dataset.frames(video.key, given)
        )
        for direction in ("forward", "backward"):
            for box in (None, (1, 2, 8, 8)):
                np.testing.assert_array_equal(
                    once.planes(video.key, given, direction, box=box),  # type: ignore[arg-type]
                    dataset.planes(video.key, given, direction, box=box),  # type: ignore[arg-type]
                )
