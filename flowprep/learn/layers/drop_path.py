"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth" (ECCV 2016), section 3.

A residual branch is left out at random while a network trains, for each clip of a batch alone. What
stays is divided by its probability, so that a test needs no other scale (as in timm's DropPath).
"""

from __future__ import annotations

import torch
from torch import nn

from flowprep.errors import ConfigError

__all__ = ["DropPath", "spread_rates"]


class DropPath(nn.Module):
    """Sets a residual branch (N, ...) to zero for some of the N clips, in training alone.

    A network may use one of these for several branches of a block: each call draws anew.
    """

    rate: float
    """The probability that a clip's branch is left out, at least 0 and below 1. It may be changed
    at any time."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ConfigError(f"the rate of drop path must be >= 0 and < 1, got {rate:g}")
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        """Returns the argument."""
        return f"{self.rate:g}"


def spread_rates(highest: float, num_blocks: int) -> tuple[float, ...]:
    """Returns the rate of each block: from 0 at the first evenly up to `highest` at the last.

    Section 3, "linear decay" of the probability that a block stays. The first block keeps its
    branches, as in timm; in the paper the input has rate 0, and the first block a little more.
    """
    return tuple(highest * index / max(1, num_blocks - 1) for index in range(num_blocks))
