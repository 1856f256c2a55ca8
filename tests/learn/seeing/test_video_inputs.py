"""Inputs made of a video of tensors are those that the loader makes of the same data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.config import FlowSpec
from flowprep.dataset.read import open_dataset
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.config import ClipSpec
from flowprep.learn.seeing.video_inputs import MIDDLE_LEVEL, VideoInputs
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

SIDE = 32
FLOW = ClipSpec("flow", 4, crop_px=SIDE)
RGB = ClipSpec("rgb", 4, crop_px=SIDE, normalization="tsn")


@pytest.mark.parametrize(
    ("one", "clip"),
    [
        (ClipInput("x", "flow", "stack", 4), dataclasses.replace(FLOW, normalization="tsn")),
        (ClipInput("x", "flow", "stack", 4), dataclasses.replace(FLOW, channel_order="grouped")),
        (ClipInput("x", "flow", "volume", 3, 2), dataclasses.replace(FLOW, normalization="px")),
        (ClipInput("x", "flow", "volume", 3, 2, 3), dataclasses.replace(FLOW, normalization="vmz")),
        (
            ClipInput("x", "flow", "volume", 3, 2, 3),
            dataclasses.replace(FLOW, channel_order="grouped"),
        ),
        (ClipInput("x", "flow", "volume", 2, has_magnitude=True), FLOW),
        (ClipInput("x", "rgb", "volume", 3, 2), RGB),
        (ClipInput("x", "rgb", "stack", 2, view="fovea"), RGB),
        (ClipInput("x", "rgb", "stack", 2, view="context"), RGB),
        (ClipInput("x", "rgb-pair", "volume", 2, 2), RGB),
        (ClipInput("x", "rgb", "volume", 2, 4, rate_ratio=2), RGB),
        (
            ClipInput("x", "rgb-difference", "stack", 3),
            ClipSpec("rgb-difference", 3, crop_px=SIDE, normalization="tsn-resnet"),
        ),
    ],
    ids=lambda value: f"{value.stream}" if isinstance(value, ClipInput) else "",
)
def test_they_are_the_loaders(little_motion: Path, one: ClipInput, clip: ClipSpec) -> None:
    dataset = open_dataset(little_motion)
    video = dataset.videos[0]
    crop = Crop((video.width - SIDE) / 2, (video.height - SIDE) / 2, SIDE, SIDE)
    steps = np.array(one.steps)
    loaded = load_clip(dataset, video, steps, crop, clip, one)

    inputs = VideoInputs([one], clip, dataset.config.flow)
    rows = slice(int(crop.y), int(crop.y) + SIDE)
    columns = slice(int(crop.x), int(crop.x) + SIDE)
    made = {}
    if inputs.fields:
        flow = dataset.flow(video.key, 0, max(inputs.fields) + 1)[inputs.fields, rows, columns]
        made["flow"] = torch.from_numpy(flow / dataset.config.flow.bound_px).movedim(-1, 1)[None]
    if inputs.frames:
        frames = dataset.frames(video.key, inputs.frames)[:, rows, columns]
        levels = torch.from_numpy(frames).float().movedim(-1, 1)[None]
        made["rgb"] = (levels - MIDDLE_LEVEL) / MIDDLE_LEVEL
    assert {name: tuple(x.shape) for name, x in made.items()} == inputs.shapes
    (clips,) = inputs.clips(made)
    # `context` is rounded to levels in the loader.
    allowed = 1.0 if one.view == "context" else 2e-3
    np.testing.assert_allclose(clips[0, 0].numpy(), loaded, atol=allowed)
    if "flow" in made:
        np.testing.assert_allclose(inputs.to_px(made["flow"])[0], flow, atol=1e-5)
    else:
        np.testing.assert_array_equal(inputs.to_levels(made["rgb"])[0], frames)


def test_backward_fields_are_the_forward_ones_turned_around() -> None:
    clip = dataclasses.replace(FLOW, stack="bidirectional", normalization="px")
    inputs = VideoInputs([ClipInput("x", "flow", "stack", 4)], clip, FlowSpec())
    video = torch.zeros(inputs.shapes["flow"])
    video[0, :, 0] = torch.tensor([1.0, 2, 3, 4])[:, None, None]  # u of fields 0 to 3
    (clips,) = inputs.clips({"flow": video})
    bound = FlowSpec().bound_px
    assert clips[0, 0, ::2, 0, 0].tolist() == [3 * bound, 4 * bound, -2 * bound, -bound]
