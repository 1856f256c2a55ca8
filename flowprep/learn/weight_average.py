"""The average of a network's weights over the steps of a training (`--ema-decay`).

After step t, counted from 0, the average becomes d a + (1 - d) w, where w are the weights and d is
the wanted decay, or (1 + t) / (10 + t) if that is less: a short training would otherwise keep its
first weights (TensorFlow, tf.train.ExponentialMovingAverage, `num_updates`). The statistics of
batch norms are averaged as the weights are, and their counters are copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["WeightAverage", "average_decay"]


def average_decay(decay: float, step: int) -> float:
    """Returns the share of the average that stays after step `step`, counted from 0."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """An exponential moving average of the weights of a network, on the network's device."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begins with the weights that the network has now."""
        # Steps change these tensors in place, so they stay the network's.
        self._weights = network.state_dict()
        self._decay = decay
        self.state = {name: tensor.clone() for name, tensor in self._weights.items()}
        """The average, by the names of the network's state dict."""
        floats = [name for name, tensor in self._weights.items() if tensor.is_floating_point()]
        self._averaged = [self.state[name] for name in floats]
        self._learned = [self._weights[name] for name in floats]
        self._counters = [name for name in self._weights if name not in set(floats)]

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes in the weights after step `step`, counted from 0."""
        share = 1 - average_decay(self._decay, step)
        torch._foreach_lerp_(self._averaged, self._learned, share)
        for name in self._counters:
            self.state[name].copy_(self._weights[name])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Gives the network the average for a while, and then its own weights again."""
        own = {name: tensor.clone() for name, tensor in self._weights.items()}
        self._fill(self.state)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: dict[str, torch.Tensor]) -> None:
        for name, tensor in self._weights.items():
            tensor.copy_(values[name])
