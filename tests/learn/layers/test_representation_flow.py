"""Representation flow: the flow of each channel, without a part of other clips, and its starts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.layers.representation_flow import (
    FeatureFlow,
    FlowOfFlow,
    ReleasedFlow,
    RepresentationFlow,
    TVL1Flow,
)
from tests.flow.scenes import frames, moving
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

KINDS = (ReleasedFlow, TVL1Flow)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def video(*velocities_px: tuple[float, float]) -> torch.Tensor:
    """A clip of gray frames in motion for each channel, (1, C, 3, H, W)."""
    channels = [
        frames(moving(40, 32, velocity, seed=seed), 3)
        for seed, velocity in enumerate(velocities_px)
    ]
    return torch.tensor([[[one.tolist() for one in channel] for channel in channels]]).float()


@torch.no_grad()
def test_tvl1_flow_is_the_flow_of_each_channel() -> None:
    clip = video((0.6, 0.0), (0.0, -0.6))
    flow = TVL1Flow(2, 60)(clip)
    assert flow.shape == (1, 4, 2, 32, 40)
    middle = flow[0, :, :, 4:-4, 4:-4].mean((1, 2, 3))  # x of both channels, then y of both
    torch.testing.assert_close(middle, torch.tensor([0.6, 0.0, 0.0, -0.6]), atol=0.15, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_channels_of_still_frames_do_not_move(kind: type[FeatureFlow]) -> None:
    still = maps(1, 3, 1, 12, 14).expand(2, 3, 4, 12, 14)
    flow = kind(3)(still)
    assert flow.shape == (2, 6, 3, 12, 14)
    assert flow.abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_flow_of_a_clip_does_not_depend_on_the_clips_beside_it(kind: type[FeatureFlow]) -> None:
    layer, clips = kind(3), maps(2, 3, 3, 12, 14)
    clips[1] *= 50
    together = layer(clips)
    torch.testing.assert_close(together[:1], layer(clips[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_may_have_any_scale_and_offset(kind: type[FeatureFlow]) -> None:
    layer, clip = kind(3).double(), maps(1, 3, 3, 12, 14).double()
    torch.testing.assert_close(layer(7 * clip - 3), layer(clip))
    assert torch.isfinite(layer(torch.ones_like(clip))).all()


def test_the_release_has_its_tensors_and_first_values() -> None:
    layer = RepresentationFlow(512, 32, ReleasedFlow)
    # piergiaj/representation-flow-cvpr19, built with 512 channels.
    assert sum(one.numel() for one in layer.parameters()) == 64_515
    flow = layer.flow
    assert isinstance(flow, ReleasedFlow)
    shapes = {name: tuple(one.shape) for name, one in flow.named_parameters()}
    assert shapes == {
        "img_grad": (32, 32, 1, 3),
        "img_grad2": (32, 32, 3, 1),
        **dict.fromkeys(("f_grad", "f_grad2", "div", "div2"), (32, 32, 2, 1)),
        **dict.fromkeys("tla", (1,)),
    }
    # Both slopes of the flow begin as that along y.
    assert torch.equal(flow.f_grad, flow.f_grad2)
    assert flow.f_grad[3, 5].flatten().tolist() == [-1, 1]
    assert (flow.t.item(), flow.l.item(), flow.a.item()) == pytest.approx((0.3, 0.15, 0.25))


@torch.no_grad()
def test_the_release_keeps_features_between_minus_255_and_0() -> None:
    levels = ReleasedFlow(3)._levels(maps(2, 3, 3, 6, 7))
    assert levels.amax((1, 2, 3, 4)).tolist() == [0, 0]
    assert levels.amin((1, 2, 3, 4)).tolist() == pytest.approx([-255, -255])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_right(kind: type[FeatureFlow]) -> None:
    layer = kind(2, 3).double()
    clip = maps(1, 2, 2, 6, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (clip,), eps=1e-6, atol=1e-3, fast_mode=True)
    layer(clip).square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in layer.parameters())


@torch.no_grad()
def test_the_flow_of_flow_begins_as_the_mean_of_three_frames() -> None:
    layer = FlowOfFlow(6, 4, TVL1Flow)
    torch.nn.init.zeros_(layer.bnf.weight)
    x = maps(2, 6, 5, 8, 9)
    torch.testing.assert_close(layer(x), F.relu(F.avg_pool3d(x, (3, 1, 1), 1)))


@torch.no_grad()
def test_the_layer_adds_its_flow_to_all_frames_but_the_last() -> None:
    layer = RepresentationFlow(6, 4, TVL1Flow)
    torch.nn.init.zeros_(layer.bn.weight)
    x = maps(2, 6, 5, 8, 9)
    torch.testing.assert_close(layer(x), F.relu(x[:, :, :-1]))


@torch.no_grad()
def test_half_precision_changes_no_flow() -> None:
    layer, clip = ReleasedFlow(3), maps(1, 3, 3, 12, 14)
    expected = layer(clip)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(clip), expected)
