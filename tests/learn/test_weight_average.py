"""The average of weights is the sum that its rule says, and the network's own weights stay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.training_specs import OptimizationSpec
from flowprep.learn.weight_average import WeightAverage, average_decay


def test_the_average_is_the_closed_form() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    average = WeightAverage(network, 0.3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    seen = [{name: one.clone() for name, one in network.state_dict().items()}]
    for step in range(8):
        network(torch.randn(5, 3).double()).pow(2).sum().backward()
        optimizer.step()
        average.add(step)
        seen.append({name: one.clone() for name, one in network.state_dict().items()})
    # (1 + t) / (10 + t) is below .3 up to step 2.
    decays = [0.1, 2 / 11, 0.25, *[0.3] * 5]
    assert [average_decay(0.3, step) for step in range(8)] == pytest.approx(decays)
    shares = [math.prod(decays)] + [
        (1 - decay) * math.prod(decays[step + 1 :]) for step, decay in enumerate(decays)
    ]
    assert sum(shares) == pytest.approx(1)
    for name, found in average.state.items():
        if name.endswith("num_batches_tracked"):
            assert found == 8
            continue
        expected = sum(share * one[name] for share, one in zip(shares, seen, strict=True))
        torch.testing.assert_close(found, expected)
        assert not torch.equal(found, seen[-1][name])


def test_the_network_gets_its_own_weights_again() -> None:
    network = nn.Linear(3, 4)
    average = WeightAverage(network, 0.9)
    with torch.no_grad():
        network.weight.add_(1)
    average.add(0)
    own, kept = network.weight.clone(), average.state["weight"].clone()
    with average.in_use():
        assert torch.equal(network.weight, kept)
        assert not torch.equal(network.weight, own)
    assert torch.equal(network.weight, own)
    with pytest.raises(KeyError), average.in_use():
        raise KeyError
    assert torch.equal(network.weight, own)
    assert torch.equal(average.state["weight"], kept)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_other_decays_are_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="ema_decay must be > 0 and < 1"):
        OptimizationSpec(ema_decay=decay)
