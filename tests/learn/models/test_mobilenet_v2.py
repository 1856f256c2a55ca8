"""MobileNetV2: torchvision's names and widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.learn.models.mobilenet_v2 import InvertedResidual, MobileNetV2
from tests.learn.inputs import stack


def small() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2(stack(20), 5, width=0.1)


def test_names_are_torchvisions() -> None:
    """Table 2 of Sandler et al. in torchvision's order: 52 convolutions, each with batch norm."""
    state = small().state_dict()

    assert len(state) == 52 + 52 * 5 + 2
    assert list(state)[:2] == ["features.0.0.weight", "features.0.1.weight"]
    assert {
        "features.1.conv.0.0.weight",  # depthwise: the first block does not expand
        "features.1.conv.2.running_var",
        "features.2.conv.1.0.weight",
        "features.17.conv.3.bias",
        "features.18.0.weight",
    } <= state.keys()
    assert list(state)[-2:] == ["classifier.1.weight", "classifier.1.bias"]


def test_ten_blocks_have_a_shortcut() -> None:
    blocks = [
        index
        for index, layer in enumerate(small().features)
        if isinstance(layer, InvertedResidual) and layer.has_shortcut and layer.expands
    ]

    assert blocks == [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]


@pytest.mark.parametrize(("width", "first", "last"), [(0.1, 8, 1280), (1, 32, 1280), (2, 64, 2560)])
def test_channels_are_multiples_of_8(width: float, first: int, last: int) -> None:
    with torch.device("meta"):
        model = MobileNetV2(stack(20), 5, width=width)

    channels = {layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)}

    assert min(channels) in (first, 16 * width)
    assert model.classifier[1].in_features == last
    assert all(count % 8 == 0 for count in channels)


@pytest.mark.parametrize("size", [(64, 50), (33, 32)])
def test_any_size_and_every_gradient(size: tuple[int, int]) -> None:
    model = small()

    logits = model(torch.randn(2, 20, *size))
    logits.square().sum().backward()

    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_stages_are_all_but_the_classifier() -> None:
    staged = [name for stage in MobileNetV2.stages for name in stage]

    assert staged == [f"features.{index}" for index in range(19)]


def test_replaced_classifier_has_the_new_classes() -> None:
    model = small().double()

    model.replace_classifier(7)

    assert model(torch.randn(2, 20, 32, 32).double()).shape == (2, 7)
