"""GSM: gates between segments, and Inception-V3 below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.layers.gate_shift import GateShift
from flowprep.learn.models.bn_inception import BNInception
from flowprep.learn.models.gsm import GSM, gsm_over
from flowprep.learn.models.inception_v3 import InceptionV3
from tests.learn.inputs import stack
from tests.learn.models.drawn import draw, fill

SEGMENTS = 4
BASES = [BNInception, InceptionV3]


def small(base: Callable[..., Any], **options: Any) -> GSM:
    return gsm_over(base)(stack(4), 5, width=0.0625, num_segments=SEGMENTS, **options)


@pytest.mark.parametrize("base", BASES)
@torch.no_grad()
def test_segments_see_each_other_through_open_gates_alone(base: Callable[..., Any]) -> None:
    model = small(base).eval()
    rng = fill(model, 2)
    clip = draw(rng, 1, SEGMENTS, 4, 43, 51)
    gates = [one for one in model.modules() if isinstance(one, GateShift)]
    assert len(gates) == 10
    logits = model(clip)
    assert (logits - model(clip.flip(1))).abs().max() > 1e-3 * logits.std()
    for gate in gates:
        nn.init.zeros_(gate.conv.weight)
        nn.init.zeros_(gate.conv.bias)

    closed = model(clip)

    torch.testing.assert_close(closed, model(clip.flip(1)))
    # What is left is a shuffle: each segment by itself gives its own part of the mean.
    alone = [model(clip[:, [k] * SEGMENTS]) for k in range(SEGMENTS)]
    torch.testing.assert_close(closed, torch.stack(alone).mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base", BASES)
def test_gates_stand_between_a_convolution_and_its_norm(base: Callable[..., Any]) -> None:
    model = small(base)
    seen = []

    def remember(name: str) -> Callable[..., None]:
        return lambda *_: seen.append(name)

    for name, module in model.base.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | GateShift):
            module.register_forward_hook(remember(name))
    with torch.no_grad():
        model.eval()(torch.randn(1, SEGMENTS, 4, 75, 75))
    for gated in model.base.gated:
        place = seen.index(f"gates.{gated}")
        assert seen[place - 1 : place + 2] == [gated, f"gates.{gated}", f"{gated}_bn"]


def test_another_number_of_segments_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes 4 segments of a video together, got 3"):
        small(BNInception)(torch.zeros(1, 3, 4, 64, 64))


def test_partial_bn_leaves_the_gates_free() -> None:
    model = small(BNInception, partial_bn=True).train()
    gates = [one for one in model.modules() if isinstance(one, nn.BatchNorm3d)]
    assert all(one.training and one.weight.requires_grad for one in gates)
    others = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    assert [one.training for one in others] == [True] + [False] * 68


@pytest.mark.parametrize("base", BASES)
def test_gradients_reach_every_parameter(base: Callable[..., Any]) -> None:
    model = small(base, dropout=0)
    for gate in model.modules():
        if isinstance(gate, GateShift):  # else none passes the zeros that they begin with
            nn.init.normal_(gate.conv.weight, std=0.1)

    model(torch.randn(2, SEGMENTS, 4, 75, 75)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- Inception-V3


@torch.no_grad()
@pytest.mark.parametrize(("side", "last"), [(229, 6), (299, 8), (75, 1), (64, 1), (20, 1)])
def test_inception_v3_takes_any_size(side: int, last: int) -> None:
    model = InceptionV3(stack(2), 5, width=0.02).eval()

    maps = model.extract_maps(torch.randn(1, 2, side, side + 1))

    assert maps.shape[2:] == (last, last)
    assert model.classify(maps.mean((2, 3))).shape == (1, 5)
