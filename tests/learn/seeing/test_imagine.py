"""The videos that a network imagines for a class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import Checkpoint, Task, build_model
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.seeing.imagine import imagine, imagined_notes, variation_gradient
from flowprep.learn.seeing.specs import ImagineSpec
from flowprep.synthetic import ACTIONS, action_scene
from tests.learn.seeing.trained import EXTRACT, learned
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

SIDE = 32


@pytest.fixture(scope="module")
def actions() -> Checkpoint:
    """A network that tells the eight actions apart by four fields of flow."""
    config = TrainConfig(ModelSpec("resnet18", width=0.125), ClipSpec("flow", 4, crop_px=SIDE))
    scenes = [
        [
            action_scene(action, num_frames=5, width=SIDE, height=SIDE, seed=(number, seed))
            for seed in range(16)
        ]
        for number, action in enumerate(ACTIONS)
    ]
    return learned(config, tuple(ACTIONS), scenes, 80)


def test_imagined_flow_points_where_the_class_moves(actions: Checkpoint) -> None:
    directions = {name: one.direction for name, one in ACTIONS.items() if any(one.direction)}
    names = ["move_left", "move_down"]
    videos = imagine(actions, names, ImagineSpec(), device="cpu")
    assert [(one.class_name, one.motion) for one in videos] == [
        (name, motion) for name in names for motion in ("slow", "fast")
    ]
    for one in videos:
        assert one.flow is not None
        assert one.frames is None
        assert one.flow.shape == (4, SIDE, SIDE, 2)
        assert np.abs(one.flow).max() <= EXTRACT.flow.bound_px
        assert one.probability > 0.9
        speeds = np.linalg.norm(one.flow, axis=-1)
        along = one.flow @ np.array(directions[one.class_name], np.float32)
        if one.motion == "slow":
            assert (along / np.maximum(speeds, 1e-9)).mean() > 0.8
    slow, fast = (
        np.abs(np.diff(one.flow, axis=0)).mean() for one in videos[:2] if one.flow is not None
    )
    assert slow < fast / 2
    (again,) = imagine(actions, names[:1], ImagineSpec("slow"), device="cpu")
    assert again.flow is not None
    assert videos[0].flow is not None
    np.testing.assert_array_equal(again.flow, videos[0].flow)


@pytest.mark.parametrize(
    ("model", "clip", "shapes"),
    [
        ("tsn-resnet18", ClipSpec("rgb", 1, num_segments=3, crop_px=32), (None, 3)),
        ("recurrent-cnn", ClipSpec("flow", 4, crop_px=32, normalization="tsn"), (4, None)),
        ("lrcn", ClipSpec("flow", 2, crop_px=64, normalization="lrcn"), (2, None)),
        ("two-stream-fusion", ClipSpec("both", 2, 3, crop_px=32), (13, 2)),
    ],
)
def test_every_kind_of_input(
    model: str, clip: ClipSpec, shapes: tuple[int | None, int | None]
) -> None:
    config = TrainConfig(ModelSpec(model, width=0.0625), clip)
    task = Task("scenes", ("a", "b"), EXTRACT.to_dict(), "opencv-5")
    torch.manual_seed(0)
    state = build_model(config, [2]).state_dict()
    checkpoint = Checkpoint(config, (task,), 0, state)
    (video,) = imagine(checkpoint, ["b"], ImagineSpec("slow", steps=2), device="cpu")
    lengths = tuple(None if x is None else len(x) for x in (video.flow, video.frames))
    assert lengths == shapes
    if video.frames is not None:
        assert video.frames.dtype == np.uint8


def test_the_gradient_of_the_variation_is_that_of_its_formula() -> None:
    video = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    x = video.flatten(0, 1)
    cost = 3 * (x.diff(dim=-1).square().sum() + x.diff(dim=-2).square().sum())
    cost = cost + 7 * x.diff(dim=0).square().sum()
    (wanted,) = torch.autograd.grad(cost, video)
    torch.testing.assert_close(variation_gradient(video.detach(), 3, 7), wanted)


def test_mistakes_and_notes(actions: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"class must be one of move_left, .*, got 'jump'"):
        imagine(actions, ["jump"], ImagineSpec(), device="cpu")
    with pytest.raises(ConfigError, match="smoothness must be from 0 to 1000, got -1"):
        ImagineSpec(smoothness=-1)
    assert imagined_notes(actions) == []
