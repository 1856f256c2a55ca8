"""ResNets: torchvision's names, shapes and strides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from flowprep.learn.features_network import FeatureNetwork
from flowprep.learn.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
)
from flowprep.learn.placement import place_model
from tests.learn.inputs import stack
from tests.learn.models.drawn import draw, fill

Build = Callable[..., ResNet]


def torchvision_shapes(depths: tuple[int, ...], wide: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a torchvision ResNet's state dict, in its order, by formula."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64)
    before = 64
    for stage, depth in enumerate(depths):
        c = 64 * 2**stage
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            kernels = [(c, before, 1, 1), (c, c, 3, 3), (4 * c, c, 1, 1)]
            if wide == 1:
                kernels = [(c, before, 3, 3), (c, c, 3, 3)]
            for index, kernel in enumerate(kernels, 1):
                shapes[f"{name}.conv{index}.weight"] = kernel
                norm(f"{name}.bn{index}", kernel[0])
            if block == 0 and before != c * wide:
                shapes[f"{name}.downsample.0.weight"] = (c * wide, before, 1, 1)
                norm(f"{name}.downsample.1", c * wide)
            before = c * wide
    shapes["fc.weight"] = (1000, before)
    shapes["fc.bias"] = (1000,)
    return shapes


@pytest.mark.parametrize(
    ("build", "depths", "wide"),
    [(resnet18, (2, 2, 2, 2), 1), (resnet34, (3, 4, 6, 3), 1), (resnet50, (3, 4, 6, 3), 4)],
)
def test_state_dict_is_torchvisions(build: Build, depths: tuple[int, ...], wide: int) -> None:
    ours = {name: tuple(value.shape) for name, value in build(stack(3), 1000).state_dict().items()}

    assert ours == torchvision_shapes(depths, wide)
    assert list(ours) == list(torchvision_shapes(depths, wide))


@pytest.mark.parametrize(
    ("build", "seed", "norm", "first"),
    [
        (resnet18, 10, 595.1420615122628, [15.416553291227634, 4.579294054115621]),
        (resnet34, 11, 10132.356428042116, [-113.9670212297394, -245.7268594743]),
        (resnet50, 12, 23845.14974635155, [-20.984724706727764, -615.5032897113929]),
    ],
)
@torch.no_grad()
def test_logits_are_torchvisions(build: Build, seed: int, norm: float, first: list[float]) -> None:
    """The numbers are torchvision 0.29.2's in double precision, in eval mode, 1000 classes.

    Filled with the seed, then shown (1, 3, 75, 90) drawn from the same generator.
    """
    model = build(stack(3), 1000).eval()
    image = draw(fill(model, seed), 1, 3, 75, 90)

    logits = model(image)

    assert logits.norm().item() == pytest.approx(norm, rel=1e-5)
    assert logits[0, :2].tolist() == pytest.approx(first, abs=1e-6 * norm)


def test_a_bottleneck_strides_in_its_3x3() -> None:
    block = resnet50(stack(3), 5, width=0.1).layer2[0]

    assert block.conv1.stride == (1, 1)
    assert block.conv2.stride == (2, 2)
    assert block.downsample[0].stride == (2, 2)


def test_first_weights_are_torchvisions() -> None:
    """He's normal by fan-out for kernels, 1 and 0 for batch norms, no zero in the last of them."""
    torch.manual_seed(0)
    model = resnet18(stack(20), 5)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()


@pytest.mark.parametrize("build", [resnet18, resnet34, resnet50])
@torch.no_grad()
def test_a_stack_of_any_channels_and_size(build: Build) -> None:
    model = build(stack(20), 5, width=0.1).eval()

    assert model(torch.randn(2, 20, 64, 50)).shape == (2, 5)
    assert model.inputs == stack(20)


def test_dropout_stands_before_the_classifier() -> None:
    torch.manual_seed(0)
    model = resnet18(stack(2), 5, width=0.5, dropout=0.5)
    features = torch.ones(1, 256)

    assert model.extract_features(torch.randn(2, 2, 64, 64)).shape == (2, 256)
    assert not torch.equal(model.classify(features), model.classify(features))
    model.eval()
    assert torch.equal(model.classify(features), model.fc(features))


def test_replaced_classifier_has_the_new_classes() -> None:
    model = resnet18(stack(2), 5, width=0.1).double()

    model.replace_classifier(7)

    assert model(torch.randn(2, 2, 32, 32).double()).shape == (2, 7)


@torch.no_grad()
def test_bfloat16_autocast_is_near() -> None:
    torch.manual_seed(0)
    model = resnet18(stack(20), 5, width=0.5).eval()
    clip = torch.randn(2, 20, 64, 64)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(clip)

    torch.testing.assert_close(got.float(), model(clip), rtol=0.05, atol=0.03)


@torch.no_grad()
def test_a_layers_features_are_those_before_an_activation_in_place() -> None:
    """Batch norm's result has both signs; the ReLU that follows it writes into it."""
    model = resnet18(stack(2), 5, width=0.1)
    clip = torch.randn(2, 2, 32, 32)
    place_model(model, torch.device("cpu"))
    expected = model.eval().bn1(model.conv1(clip))

    maps = FeatureNetwork(model, "cpu", layer="bn1", maps=True)([clip])

    assert (expected < 0).any()
    torch.testing.assert_close(maps, expected)
