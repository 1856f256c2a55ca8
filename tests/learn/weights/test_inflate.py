"""Weights carried from image networks to flow networks and to 3D ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.layers.inflated import TimePadding
from flowprep.learn.models.i3d_resnet import I3DResNet
from flowprep.learn.models.resnet import ResNet, resnet50
from flowprep.learn.network_options import NonLocalOptions
from flowprep.learn.weights.inflate import (
    cross_modality,
    fit_kernel,
    inflate_conv,
    inflate_state_dict,
)
from tests.learn.inputs import stack, volume


@pytest.mark.parametrize("channels", [2, 3, 10, 20])
def test_cross_modality_answers_a_constant_channels_thirds_as_strongly(channels: int) -> None:
    weight = torch.randn(8, 3, 7, 7)

    rgb = F.conv2d(torch.full((1, 3, 16, 16), 0.7), weight)
    flow = F.conv2d(torch.full((1, channels, 16, 16), 0.7), cross_modality(weight, channels))

    torch.testing.assert_close(flow, rgb * channels / 3, rtol=1e-5, atol=1e-3)


def test_cross_modality_by_hand() -> None:
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1, 1)

    assert torch.equal(cross_modality(weight, 2), torch.full((1, 2, 1, 1, 1), 3.0))


def test_inflated_kernel_sums_to_the_image_kernel() -> None:
    weight = torch.randn(4, 3, 5, 5)

    inflated = inflate_conv(weight, 7)

    assert inflated.shape == (4, 3, 7, 5, 5)
    torch.testing.assert_close(inflated.sum(2), weight)
    assert torch.equal(inflated[:, :, 0], inflated[:, :, 6])


@pytest.mark.parametrize("groups", [1, 2, 6], ids=["whole", "groups", "depthwise"])
@torch.no_grad()
def test_an_inflated_kernel_of_groups_answers_a_still_video_as_its_frame(groups: int) -> None:
    torch.manual_seed(0)
    conv2d = nn.Conv2d(6, 12, 3, groups=groups).double()
    conv3d = nn.Conv3d(6, 12, (5, 3, 3), groups=groups).double()
    image = torch.randn(2, 6, 8, 7, dtype=torch.float64)

    kernel, how = fit_kernel(conv2d.weight, conv3d.weight.shape, sees_clip=False)
    conv3d.weight.copy_(kernel)
    assert conv2d.bias is not None
    assert conv3d.bias is not None
    conv3d.bias.copy_(conv2d.bias)

    assert how == ["inflated over 5 frames"]
    still = conv3d(image.unsqueeze(2).expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(still[:, :, 0], conv2d(image))


def test_a_kernel_over_single_frames_is_inflated_as_an_image_network_s() -> None:
    weight = torch.randn(4, 2, 3, 3)

    image, _ = fit_kernel(weight, (4, 2, 3, 3, 3), sees_clip=False)
    frame, how = fit_kernel(weight.unsqueeze(2), (4, 2, 3, 3, 3), sees_clip=False)

    assert torch.equal(frame, image)
    assert how == ["inflated over 3 frames"]
    same, how = fit_kernel(weight.unsqueeze(2), (4, 2, 1, 3, 3), sees_clip=False)
    assert (same.shape, how) == ((4, 2, 1, 3, 3), [])


@pytest.mark.parametrize(
    ("kernel", "target"),
    [
        ((8, 3, 7, 7), (6, 3, 1, 7, 7)),  # R(2+1)D's first half has other filters
        ((8, 4, 3, 3), (8, 6, 3, 1, 1)),  # and its second half another window
        ((8, 4, 3, 3, 3), (8, 4, 1, 3, 3)),  # from several frames to one
        ((8, 4, 2, 3, 3), (8, 4, 4, 3, 3)),
        ((8, 4, 3, 3), (8, 4, 3, 5, 5)),
        ((8, 4, 3, 3), (8, 2, 3, 3, 3)),  # other channels inside the network, as of other groups
        ((8, 20, 7, 7), (8, 10, 7, 7)),  # flow of another length
        ((8, 3), (8, 2)),
    ],
)
@pytest.mark.parametrize("sees_clip", [True, False])
def test_no_other_kernel_is_changed(
    kernel: tuple[int, ...], target: tuple[int, ...], sees_clip: bool
) -> None:
    weight = torch.randn(kernel)

    value, how = fit_kernel(weight, target, sees_clip=sees_clip)

    assert value is weight
    assert how == []


def test_only_the_layer_that_sees_the_clip_has_colors() -> None:
    weight = torch.randn(8, 3, 7, 7)

    flow, how = fit_kernel(weight, (8, 2, 5, 7, 7), sees_clip=True)

    assert len(how) == 2
    torch.testing.assert_close(flow.sum(2), cross_modality(weight, 2))
    assert fit_kernel(weight, (8, 2, 5, 7, 7), sees_clip=False)[0] is weight
    # Flow with its magnitude has three channels, and LRCN starts it from RGB as it is.
    assert fit_kernel(weight, (8, 3, 7, 7), sees_clip=True)[0] is weight


def image_network() -> ResNet:
    """A ResNet-50 as if it had been trained: no batch norm is at its first values."""
    torch.manual_seed(0)
    model = resnet50(stack(3), 5, width=0.25).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


def inflated_network(model2d: ResNet, time_padding: TimePadding) -> I3DResNet:
    model = I3DResNet(volume(3), 5, width=0.25, time_padding=time_padding).eval()
    model.load_state_dict(inflate_state_dict(model2d.state_dict(), model))
    return model


@torch.no_grad()
def test_boring_video() -> None:
    """The inflated net scores a still video as the image net does the image (I3D, section 2.4)."""
    model2d = image_network()
    image = torch.randn(2, 3, 64, 64)
    still = image.unsqueeze(2).expand(-1, -1, 8, -1, -1)

    expected = model2d(image)
    replicated = inflated_network(model2d, "replicate")(still)
    zeros = inflated_network(model2d, "zeros")(still)

    assert (replicated - expected).norm() / expected.norm() < 1e-5
    assert (zeros - expected).norm() / expected.norm() > 1e-3


def test_first_layer_goes_over_to_flow() -> None:
    model2d = resnet50(stack(3), 5, width=0.1)
    model3d = I3DResNet(volume(2), 5, width=0.1)

    model3d.load_state_dict(inflate_state_dict(model2d.state_dict(), model3d))

    conv1 = model3d.conv1.weight
    assert torch.equal(conv1[:, 0], conv1[:, 1])
    torch.testing.assert_close(conv1[:, 0].sum(1), model2d.conv1.weight.mean(1))


def test_what_does_not_fit_is_passed_on() -> None:
    model2d = resnet50(stack(3), 9, width=0.1)
    state = {**model2d.state_dict(), "head.bias": torch.zeros(2)}

    inflated = inflate_state_dict(state, I3DResNet(volume(3), 5, width=0.1))

    assert inflated["fc.weight"] is state["fc.weight"]
    assert inflated["head.bias"] is state["head.bias"]
    assert list(inflated) == list(state)


def test_non_local_blocks_are_left_to_their_first_values() -> None:
    model3d = I3DResNet(volume(3), 5, width=0.1, non_local=NonLocalOptions(True))
    state = inflate_state_dict(resnet50(stack(3), 5, width=0.1).state_dict(), model3d)

    result = model3d.load_state_dict(state, strict=False)

    assert not result.unexpected_keys
    assert all(".non_local." in name for name in result.missing_keys)
