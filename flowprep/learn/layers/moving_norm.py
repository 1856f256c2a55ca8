"""A batch norm whose moving averages keep up with a network that learns quickly."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["MovingNorm3d"]


class MovingNorm3d(nn.BatchNorm3d):
    """A batch norm whose moving averages cover about the last quarter of the batches, up to a
    maximum.

    With a momentum of .01 from the start, the averages would lag behind the network for hundreds of
    steps: a network that learned its videos by heart would hardly recognize them in a test. A
    momentum of 4 / (n + 4) after n batches is polynomial-decay averaging (Shamir and Zhang, ICML
    2013, section 4) with eta = 3. From 396 batches on, the momentum is .01.
    """

    def __init__(self, num_features: int, *, eps: float, momentum: float) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self._least_momentum = momentum
        # A copy of `num_batches_tracked`: reading that from a GPU at each batch would be slow.
        self._num_batches: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.momentum is not None:
            if self._num_batches is None:
                assert self.num_batches_tracked is not None
                self._num_batches = int(self.num_batches_tracked)
            self.momentum = max(self._least_momentum, 4 / (self._num_batches + 4))
            # Counting stops once it has no effect, so compiled code is compiled only once.
            self._num_batches += self.momentum > self._least_momentum
        return super().forward(x)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._num_batches = None
