"""BN-Inception: its branches, poolings and sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.learn.models.bn_inception import BNInception
from tests.learn.inputs import stack


def small() -> BNInception:
    torch.manual_seed(0)
    return BNInception(stack(10), 5, width=0.1)


def test_maps_have_the_papers_channels() -> None:
    """Table 1 of Ioffe and Szegedy, as tsn-pytorch has it: channels and side after each block."""
    with torch.device("meta"):
        model = BNInception(stack(10), 5)
    sizes = {}

    def look(name: str) -> None:
        # The first convolution of a block sees the result of the block before it.
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, args: sizes.update({name: args[0].shape[1:]}))

    blocks = ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    for block in blocks:
        look(f"inception_{block}_3x3_reduce")
    features = model.extract_features(torch.empty(1, 10, 224, 224, device="meta"))

    channels = (192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024)
    sides = (28, 28, 28, 14, 14, 14, 14, 14, 7, 7)
    assert [tuple(size) for size in sizes.values()] == [
        (count, side, side) for count, side in zip(channels, sides, strict=True)
    ]
    assert features.shape == (1, 1024)


def test_names_are_tsn_pytorchs() -> None:
    state = small().state_dict()

    assert len(state) == 485
    assert list(state)[:2] == ["conv1_7x7_s2.weight", "conv1_7x7_s2.bias"]
    assert {"inception_3a_1x1_bn.running_mean", "inception_4e_double_3x3_2.bias"} <= state.keys()
    assert not any(name.startswith(("inception_3c_1x1", "inception_3c_pool")) for name in state)
    assert list(state)[-2:] == ["fc.weight", "fc.bias"]


@torch.no_grad()
def test_the_average_pooling_counts_its_padding() -> None:
    """Over a map of ones, a corner averages four ones and five zeros."""
    model = small().eval()
    seen = []
    model.inception_3a_pool_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.conv2_3x3_bn.register_forward_hook(lambda *call: torch.ones_like(call[2]))

    model(torch.zeros(1, 10, 64, 64))

    (pooled,) = seen
    ninths = torch.tensor([4.0, 6, 6, 6, 6, 6, 6, 4])
    torch.testing.assert_close(pooled[0, 0, 0] * 9, ninths)


@pytest.mark.parametrize("size", [(112, 75), (64, 50), (33, 46)])
@torch.no_grad()
def test_any_size_also_where_the_release_fails(size: tuple[int, int]) -> None:
    """At 112 px a map is 7 wide: Caffe's pooling gives 3 there and a convolution 4."""
    assert small().eval()(torch.randn(2, 10, *size)).shape == (2, 5)


def test_gradients_reach_every_parameter() -> None:
    model = small()

    model(torch.randn(2, 10, 64, 64)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_stages_are_all_but_the_classifier() -> None:
    model = small()

    staged = {name for stage in model.stages for name in stage}
    holding = {name.split(".")[0] for name, _ in model.named_parameters()}

    assert len(model.stages) == 5
    assert holding - staged == {"fc"}
    assert all(isinstance(model.get_submodule(name), nn.Module) for name in staged)


def test_replaced_classifier_has_the_new_classes() -> None:
    model = small().double()

    model.replace_classifier(7)

    assert model(torch.randn(2, 10, 32, 32).double()).shape == (2, 7)
