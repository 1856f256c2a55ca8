"""Multiply-adds and parameters, counted by hand, and what counting must not do."""

from __future__ import annotations

import torch
from torch import nn

from flowprep.learn.layers.non_local import NonLocal
from flowprep.learn.models.cost import count_macs, count_parameters
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.models.tsn import TSN
from tests.learn.inputs import stack


def test_convolution_and_product_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 25, 7)
    )

    assert count_macs(model, (1, 4, 5, 5)) == 9 * 2 * 6 * 25 + 6 * 25 * 7
    assert count_parameters(model) == 9 * 2 * 6 + 6 + 6 * 25 * 7 + 7


def test_attention_counts() -> None:
    positions, seen = 2 * 4 * 4, 2 * 2 * 2
    layers = (2 * positions + 2 * seen) * 8 * 4
    products = 2 * positions * seen * 4

    assert count_macs(NonLocal(8), (1, 8, 2, 4, 4)) == layers + products


def test_snippets_count_each() -> None:
    model = resnet18(stack(4), 3, width=0.1)

    assert count_macs(TSN(model), (1, 3, 4, 32, 32)) == 3 * count_macs(model, (1, 4, 32, 32))


def test_counting_leaves_the_network_as_it_was() -> None:
    model = TSN(resnet18(stack(4), 3, width=0.1), partial_bn=True).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]

    count_macs(model, (1, 3, 4, 32, 32))

    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
