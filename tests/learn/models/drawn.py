"""Weights and inputs by a fixed rule, so that a reference implementation can be given the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from flowprep.learn import create_model
from flowprep.learn.models.base import ClipModel


def drawn_network(
    arguments: Mapping[str, Any], seed: int
) -> tuple[ClipModel, np.random.RandomState]:
    """Returns a network of `create_model` in eval mode, filled; and the generator."""
    with torch.device("meta"):  # no initial weights: drawing them takes longer than all else
        model = create_model(**arguments)
    model.to_empty(device="cpu")
    return model.eval(), fill(model, seed)


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> np.random.RandomState:
    """Gives every tensor, in the order of sorted names, drawn values; returns the generator.

    Its stream is frozen by numpy's policy. Kernels get He's deviation, so that activations neither
    fade nor grow; batch norms' scales and variances lie about 1, all other values about 0.
    """
    rng = np.random.RandomState(seed)
    state = model.state_dict()
    for name in sorted(state):
        if name.endswith("num_batches_tracked"):
            continue
        value = rng.standard_normal(tuple(state[name].shape))
        if value.ndim > 1:
            value *= (2 / state[name][0].numel()) ** 0.5
        elif name.endswith("running_var"):
            value = np.exp(0.1 * value)
        elif name.endswith("weight"):
            value = 1 + 0.1 * value
        else:
            value *= 0.1
        state[name].copy_(torch.from_numpy(value))
    return rng


def draw(rng: np.random.RandomState, *shape: int) -> torch.Tensor:
    """Returns values between -1 and 1."""
    return torch.from_numpy(rng.uniform(-1, 1, shape)).float()


def draw_clips(rng: np.random.RandomState, shape: Sequence[Any]) -> list[torch.Tensor]:
    """Returns the clips of a shape, or of the shapes of several inputs."""
    shapes = shape if isinstance(shape[0], Sequence) else [shape]
    return [draw(rng, *one) for one in shapes]
