"""ResNeXt-101 3D: groups, sizes, and blocks as their shortcuts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.learn.models.resnext3d import Bottleneck, ResNeXt3D
from tests.learn.inputs import volume


@pytest.mark.parametrize(("width", "per_group"), [(1, [4, 8, 16, 32]), (0.125, [1, 1, 2, 4])])
def test_width_keeps_the_groups(width: float, per_group: list[int]) -> None:
    with torch.device("meta"):
        model = ResNeXt3D(volume(2), 5, width=width)
    grouped = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv3d) and layer.kernel_size == (3, 3, 3)
    }

    assert len(grouped) == 3 + 4 + 23 + 3
    assert {layer.groups for layer in grouped.values()} == {32}
    assert [grouped[f"layer{n}.0.conv2"].weight.shape[1] for n in (1, 2, 3, 4)] == per_group


@pytest.mark.parametrize(
    ("shape", "map_shape"),
    # Halved in time four times and on each side five times, rounded up.
    [((16, 112, 112), (1, 4, 4)), ((64, 112, 112), (4, 4, 4)), ((1, 33, 50), (1, 2, 2))],
)
@torch.no_grad()
def test_maps_are_halved(shape: tuple[int, ...], map_shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = ResNeXt3D(volume(2), 5, width=0.125).eval()
        clip = torch.randn(1, 2, *shape)
    maps: list[torch.Tensor] = []
    model.layer4.register_forward_hook(lambda _, __, result: maps.append(result))

    assert model(clip).shape == (1, 5)
    assert maps[0].shape == (1, 256, *map_shape)


@torch.no_grad()
def test_without_its_last_norm_a_block_is_its_shortcut() -> None:
    block = Bottleneck(8, 32, 16, 2)
    nn.init.zeros_(block.bn3.weight)
    x = torch.randn(2, 8, 5, 6, 7)

    assert block.downsample is not None
    assert torch.equal(block(x), block.downsample(x).relu())
    assert block(x).shape == (2, 16, 3, 3, 4)


def test_gradients_reach_every_parameter() -> None:
    model = ResNeXt3D(volume(2), 5, width=0.02)

    model(torch.randn(4, 2, 4, 16, 24)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
