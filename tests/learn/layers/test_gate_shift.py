"""The gate-shift module: what its gates let through moves, and channels are shuffled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.layers.gate_shift import GateShift

SEGMENTS = 4


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """Interleaves the two parts of each half of the channels of (N, C, ...)."""
    quarter = x.shape[1] // 4
    order = [half * 2 * quarter + part * quarter + place
             for half in range(2) for place in range(quarter) for part in range(2)]  # fmt: skip
    return x[:, order]


@torch.no_grad()
def test_it_begins_as_a_shuffle_of_channels() -> None:
    layer = GateShift(8, SEGMENTS).eval()
    x = torch.randn(2 * SEGMENTS, 8, 3, 5)

    assert torch.equal(layer(x), x[:, [0, 2, 1, 3, 4, 6, 5, 7]])
    assert torch.equal(layer(x), shuffled(x))
    assert sum(p.numel() for p in GateShift(64, 8).parameters()) == 1858


@torch.no_grad()
def test_open_gates_shift_the_halves_apart() -> None:
    layer = GateShift(8, SEGMENTS).eval()
    nn.init.constant_(layer.conv.bias, 50.0)  # tanh(50) = 1
    x = torch.randn(2 * SEGMENTS, 8, 3, 5)
    clips = x.unflatten(0, (2, SEGMENTS))
    wanted = torch.zeros_like(clips)
    wanted[:, :-1, :4] = clips[:, 1:, :4]  # from the segment after
    wanted[:, 1:, 4:] = clips[:, :-1, 4:]  # from the segment before

    torch.testing.assert_close(layer(x), shuffled(wanted.flatten(0, 1)))


@torch.no_grad()
def test_half_open_gates_share() -> None:
    layer = GateShift(4, SEGMENTS).eval()
    nn.init.constant_(layer.conv.bias, 0.4)
    x = torch.randn(SEGMENTS, 4, 2, 2)
    gate = torch.tanh(torch.tensor(0.4))
    after, before = torch.zeros_like(x), torch.zeros_like(x)
    after[:-1], before[1:] = x[1:], x[:-1]
    wanted = (1 - gate) * x
    wanted[:, :2] += gate * after[:, :2]
    wanted[:, 2:] += gate * before[:, 2:]

    torch.testing.assert_close(layer(x), shuffled(wanted))


def test_each_half_has_a_gate_of_its_own() -> None:
    layer = GateShift(8, SEGMENTS).eval()
    nn.init.normal_(layer.conv.weight)
    x = torch.randn(SEGMENTS, 8, 3, 3, requires_grad=True)

    layer(x)[:, :4].sum().backward()

    assert x.grad is not None
    assert not x.grad[:, 4:].any()
    assert x.grad[:, :4].abs().sum() > 0


def test_channels_that_have_no_quarters_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4, got 6"):
        GateShift(6, SEGMENTS)
