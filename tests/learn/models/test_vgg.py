"""VGG-16: torchvision's names, the two-stream dropouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.learn.models.vgg import VGG16
from tests.learn.inputs import stack


def small(channels: int = 20, dropout: float | None = None) -> VGG16:
    torch.manual_seed(0)
    return VGG16(stack(channels), 5, width=0.05, dropout=dropout)


def test_names_are_torchvisions() -> None:
    """Thirteen convolutions and three fully connected layers, each with a bias."""
    names = [name.removesuffix(".weight") for name in small().state_dict() if "weight" in name]

    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    linear = [f"classifier.{index}" for index in (0, 3, 6)]
    assert names == [f"features.{index}" for index in convolutions] + linear


@pytest.mark.parametrize(
    ("channels", "dropout", "expected"),
    [(20, None, [0.9, 0.8]), (3, None, [0.9, 0.9]), (20, 0.5, [0.5, 0.5])],
)
def test_dropouts(channels: int, dropout: float | None, expected: list[float]) -> None:
    model = small(channels, dropout)

    assert [one.p for one in model.modules() if isinstance(one, nn.Dropout)] == expected


def test_width_is_that_of_every_layer() -> None:
    model = small()

    assert [layer.out_channels for layer in model.features if isinstance(layer, nn.Conv2d)] == [
        *(3, 3, 6, 6, 13, 13, 13),
        *(26,) * 6,
    ]
    assert model.classifier[0].in_features == 26 * 7 * 7
    assert model.classifier[3].in_features == 205


@pytest.mark.parametrize("size", [(64, 50), (32, 33)])
def test_any_size_and_every_gradient(size: tuple[int, int]) -> None:
    model = small(dropout=0.0)

    logits = model(torch.randn(2, 20, *size))
    logits.square().sum().backward()

    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_features_are_fc7_before_its_dropout() -> None:
    model = small().eval()
    clip = torch.randn(2, 20, 64, 64)

    features = model.extract_features(clip)

    assert features.shape == (2, 205)
    assert (features >= 0).all()
    maps = model.avgpool(model.features(clip)).flatten(1)
    assert torch.equal(model(clip), model.classifier(maps))


def test_stages_are_all_but_the_classifier() -> None:
    staged = [name for stage in small().stages for name in stage]

    assert staged == [*(f"features.{index}" for index in range(31)), "classifier.0", "classifier.3"]


def test_replaced_classifier_has_the_new_classes() -> None:
    model = small().double()

    model.replace_classifier(7)

    assert model(torch.randn(2, 20, 32, 32).double()).shape == (2, 7)
