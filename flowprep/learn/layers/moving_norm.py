"""A batch norm whose moving averages follow a network that learns quickly."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["MovingNorm3d"]


class MovingNorm3d(nn.BatchNorm3d):
    """A batch norm whose moving averages are of the last quarter of the batches, until these are
    many.

    At a momentum of .01 they would be those of a network that is long gone, for hundreds of steps:
    one that learned its videos by heart would hardly know them in a test. A momentum of 4 / (n +
    4) after n batches is polynomial-decay averaging (Shamir and Zhang, ICML 2013, section 4) with
    eta = 3; from 396 batches on the momentum is .01.
    """

    def __init__(self, num_features: int, *, eps: float, momentum: float) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self._least_momentum = momentum
        # Of `num_batches_tracked`, which would have to be fetched from a GPU for each batch.
        self._num_batches: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.momentum is not None:
            if self._num_batches is None:
                assert self.num_batches_tracked is not None
                self._num_batches = int(self.num_batches_tracked)
            self.momentum = max(self._least_momentum, 4 / (self._num_batches + 4))
            # Not counted further than it matters, and so compiled code is compiled once.
            self._num_batches += self.momentum > self._least_momentum
        return super().forward(x)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._num_batches = None
