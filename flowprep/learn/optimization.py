"""Steps, learning rates and optimizers: everything that OptimizationSpec alone decides."""

from __future__ import annotations

import math

import torch
from torch import nn

from flowprep.learn.training_specs import OptimizationSpec

__all__ = ["WARMUP_START", "count_steps", "learning_rate", "make_optimizer"]

WARMUP_START = 0.1
"""Share of the learning rate at the start of the warm-up."""


def count_steps(spec: OptimizationSpec, num_videos: int) -> int:
    """Returns the number of steps of a whole training over `num_videos` videos, at least one."""
    if spec.num_steps is not None:
        return spec.num_steps
    return max(1, math.ceil(spec.num_epochs * num_videos / spec.batch_size))


def learning_rate(spec: OptimizationSpec, step: int, num_steps: int) -> float:
    """Returns the learning rate of step `step`, with 0 <= step < num_steps.

    During the share `warmup` of the steps, it rises linearly from a tenth. After that it depends on
    the schedule. `constant`: it stays the same. `step`: it is multiplied by `decay` at every
    milestone (milestones are shares of all steps). `cosine`: it follows half a cosine from the end
    of the warm-up down to 0 after the last step.
    """
    done = step / num_steps
    if done < spec.warmup:
        return spec.learning_rate * (WARMUP_START + (1 - WARMUP_START) * done / spec.warmup)
    if spec.schedule == "step":
        return spec.learning_rate * spec.decay ** sum(done >= share for share in spec.milestones)
    if spec.schedule == "cosine":
        fallen = (done - spec.warmup) / (1 - spec.warmup)
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * fallen))
    return spec.learning_rate


def make_optimizer(spec: OptimizationSpec, model: nn.Module) -> torch.optim.Optimizer:
    """Makes the optimizer of the model's parameters that are not frozen.

    SGD decays all of them, as the published trainings do. AdamW does not decay vectors: these are
    biases and the weights of norms.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=spec.learning_rate,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
        )
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": spec.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=spec.learning_rate,
    )
