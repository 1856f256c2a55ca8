"""The last maps of networks, Grad-CAM and the weights of moments, against what they must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.config import ClipSpec
from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.seeing.grad_cam import grad_cam
from flowprep.learn.seeing.moments import blank_clips, time_weights
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

FLOW = ClipInput("flow", "flow", "stack", 2)


class Pooled(ClipModel):
    """A convolution, its mean over the image, and a classifier: Grad-CAM is known then."""

    def __init__(self) -> None:
        super().__init__([FLOW])
        self.conv = nn.Conv2d(4, 3, 3)
        self.fc = nn.Linear(3, 2)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.conv(x)
        return maps.relu().mean((2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(features)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        self.fc = nn.Linear(3, num_classes)


class Flat(Pooled):
    """A network without maps."""

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))[:, :3]


class Tokens(Pooled):
    """A network whose maps are tokens after one of no place."""

    map_layers = ("norm",)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()

    def arrange_maps(self, output: torch.Tensor) -> torch.Tensor:
        return output[:, 1:].transpose(1, 2).unflatten(2, (6, 6))

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).relu().flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([tokens[:, :1], tokens], 1))
        return tokens[:, 1:].mean(1)


@pytest.mark.parametrize("kind", [Pooled, Tokens])
def test_heat_is_the_classifier_at_every_place(kind: type[Pooled]) -> None:
    torch.manual_seed(1)
    model = kind().eval()
    clips = [torch.randn(2, 1, 4, 8, 8)]
    (found,) = grad_cam(model, clips, lambda output: output[:, 1])
    maps = model.conv(clips[0][:, 0])
    # The last module is the convolution for Pooled, whose ReLU is none.
    shown = maps if kind is Pooled else maps.relu()
    slopes = model.fc.weight[1] / 36
    if kind is Pooled:
        slopes = slopes * (maps > 0).float().mean((2, 3))
    wanted = torch.einsum("nc,nchw->nhw", slopes.expand(2, 3), shown).relu()
    torch.testing.assert_close(found.heat[:, 0, 0], wanted.detach(), rtol=1e-4, atol=1e-6)
    assert found.inputs == (0,)


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"explain needs a network with maps .*, got Flat"):
        grad_cam(Flat().eval(), [torch.randn(1, 1, 4, 8, 8)], lambda output: output[:, 0])


@pytest.mark.parametrize(
    ("name", "stream", "crop_px", "towers"),
    [
        ("vgg16", "flow", 64, [((0,), 1, 7)]),
        ("tsm-resnet18", "rgb", 64, [((0,), 1, 2)]),
        ("i3d", "flow", 96, [((0,), 2, 3)]),
        ("recurrent-cnn", "flow", 64, [((0,), 16, 4)]),
        ("gru-rcn", "rgb", 64, [((0,), 16, 16)]),
        ("cnn-lstm", "rgb", 64, [((0,), 16, 2)]),
        ("timesformer", "rgb", 64, [((0,), 8, 4)]),
        ("slowfast-4x16", "rgb", 64, [((0, 1), 4, 2), ((1,), 32, 2)]),
        ("two-stream-fusion", "both", 64, [((0, 1), 1, 7), ((1,), 1, 7)]),
    ],
)
def test_the_maps_of_networks(
    name: str, stream: str, crop_px: int, towers: list[tuple[tuple[int, ...], int, int]]
) -> None:
    torch.manual_seed(0)
    frames = 16 if name in ("i3d", "recurrent-cnn", "gru-rcn", "cnn-lstm") else None
    model = create_model(
        name, stream=stream, num_classes=3, width=0.0625, crop_px=crop_px, num_frames=frames
    )
    model.eval().requires_grad_(False)
    parts = (model.num_segments or 3) if model.joins_segments else 1
    clips = [torch.randn(1, parts, *one.shape(crop_px)) for one in model.inputs]
    found = grad_cam(model, clips, lambda output: output[:, 0])
    shapes = sorted((one.inputs, *one.heat.shape[2:4]) for one in found)
    assert shapes == towers
    assert all(one.heat.shape[:2] == (1, parts) for one in found)


@pytest.mark.parametrize("order", ["interleaved", "grouped"])
def test_weights_of_moments_add_up_and_stand_where_the_motion_is(order: str) -> None:
    torch.manual_seed(0)
    clip = ClipSpec("flow", 2, crop_px=8, normalization="tsn", channel_order=order)
    model = Pooled().eval()
    blanks = blank_clips([torch.empty(1, 1, 4, 8, 8)], [FLOW], clip, 20.0)
    assert blanks[0].unique().tolist() == [-0.5]  # 0 px
    moved = blanks[0].clone()
    second = [2, 3] if order == "interleaved" else [1, 3]
    moved[:, :, second] += torch.randn(1, 1, 2, 8, 8)

    def score(output: torch.Tensor) -> torch.Tensor:
        return output[:, 0]

    (weights,) = time_weights(model, [moved], blanks, [FLOW], clip, score, steps=200)
    assert weights.shape == (1, 1, 2)
    assert weights[0, 0, 0] == 0
    with torch.no_grad():
        gained = float(model(moved[0])[0, 0] - model(blanks[0][0])[0, 0])
    np.testing.assert_allclose(weights.sum(), gained, rtol=0.02)
