"""Slow: an image network whose last stages see several frames."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.models.resnet import resnet50
from flowprep.learn.models.slow import Slow
from tests.learn.inputs import stack, volume
from tests.learn.models.drawn import draw, fill


def test_names_are_those_of_the_image_network() -> None:
    ours = Slow(volume(2), 5, width=0.1).state_dict()

    assert list(ours) == list(resnet50(stack(2), 5, width=0.1).state_dict())


def test_only_the_last_two_stages_see_several_frames() -> None:
    model = Slow(volume(2), 5, width=0.1)

    several = {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] > 1
    }
    strides = {layer.stride[0] for layer in model.modules() if isinstance(layer, nn.Conv3d)}

    assert several == {
        f"layer{stage}.{block}.conv1" for stage, depth in ((3, 6), (4, 3)) for block in range(depth)
    }
    assert strides == {1}


@torch.no_grad()
def test_with_the_middle_tap_alone_it_is_the_average_of_images() -> None:
    model, image_model = Slow(volume(3), 5, width=0.25).eval(), resnet50(stack(3), 5, width=0.25)
    clip = draw(fill(image_model.eval(), 5), 2, 3, 4, 40, 48)
    state = model.state_dict()
    for name, value in image_model.state_dict().items():
        if value.dim() == 4:
            kernel = torch.zeros_like(state[name])
            kernel[:, :, kernel.shape[2] // 2] = value
            value = kernel
        state[name] = value
    model.load_state_dict(state)

    by_frame = image_model(clip.transpose(1, 2).flatten(0, 1)).reshape(2, 4, 5)

    torch.testing.assert_close(model(clip), by_frame.mean(1), rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_blocks_begin_as_their_shortcuts() -> None:
    model = Slow(volume(2), 5, width=0.1).eval()
    x = F.relu(model.bn1(model.conv1(torch.randn(1, 2, 4, 32, 32))))

    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            shortcut = x if block.downsample is None else block.downsample(x).relu()
            assert torch.equal(block(x), shortcut)
            x = shortcut


def test_gradients_reach_every_parameter() -> None:
    model = Slow(volume(2), 5, width=0.05)
    for layer in model.modules():  # else nothing passes the zeros that blocks begin with
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.ones_(layer.weight)

    model(torch.randn(2, 2, 3, 33, 40)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
