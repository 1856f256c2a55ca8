"""Stochastic depth leaves out whole clips' branches, and keeps the mean of what stays."""

from __future__ import annotations

import pytest
import torch

from flowprep.errors import ConfigError
from flowprep.learn.layers.drop_path import DropPath, spread_rates


@pytest.mark.parametrize("shape", [(4000, 3), (4000, 2, 1, 2)])
def test_whole_clips_are_left_out_and_the_rest_is_scaled(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    out = DropPath(0.25)(torch.ones(shape)).flatten(1)

    assert torch.equal(out, out[:, :1].expand_as(out)), "a clip's branch is kept as a whole"
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    # 4000 draws have a deviation of .007; five of them.
    assert (out[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.035)
    assert out.mean().item() == pytest.approx(1, abs=0.05)


def test_nothing_is_left_out_in_tests_or_at_rate_0() -> None:
    x = torch.randn(6, 5)
    layer = DropPath(0.9)
    assert layer.eval()(x) is x
    layer.train().rate = 0.0
    assert layer(x) is x


def test_type_and_gradient_follow_the_branch() -> None:
    torch.manual_seed(2)
    x = torch.ones(64, 3, dtype=torch.bfloat16, requires_grad=True)
    out = DropPath(0.5)(x)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())


def test_rates_rise_evenly() -> None:
    assert spread_rates(0.1, 12) == pytest.approx(torch.linspace(0, 0.1, 12).tolist())
    assert spread_rates(0.3, 1) == (0.0,)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_other_rates_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="must be >= 0 and < 1"):
        DropPath(rate)
