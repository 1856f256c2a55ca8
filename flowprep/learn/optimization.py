"""Steps, learning rates and optimizers: everything that OptimizationSpec alone decides."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.training_specs import OptimizationSpec
from flowprep.learn.weights.load import classifier_names

__all__ = [
    "WARMUP_START",
    "count_steps",
    "learning_rate",
    "make_optimizer",
    "rate_factors",
    "set_learning_rate",
]

_FACTOR = "rate_factor"
"""The key of a group of parameters whose learning rate is not the common one."""

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


def set_learning_rate(
    optimizer: torch.optim.Optimizer, spec: OptimizationSpec, step: int, num_steps: int
) -> float:
    """Gives each group of parameters the rate of a step times its factor; returns the rate."""
    rate = learning_rate(spec, step, num_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(_FACTOR, 1.0)
    return rate


def rate_factors(spec: OptimizationSpec, model: nn.Module) -> dict[str, float]:
    """Returns the factor of the learning rate of each parameter of a network, by name.

    The parameters of the last of n stages have `layer_decay`, those of the first have it to the
    power of n (as in BEiT's layer decay, Bao et al. 2022, where the head has the whole rate).
    Those in no stage have 1, and those of the classifier `classifier_rate`. Raises ConfigError for
    a network that names no stages.
    """
    names = [name for name, _ in model.named_parameters()]
    if spec.layer_decay == 1 and spec.classifier_rate == 1:
        return dict.fromkeys(names, 1.0)
    network, prefix = (model.model, "model.") if isinstance(model, MultiTask) else (model, "")
    assert isinstance(network, ClipModel)
    if spec.layer_decay != 1 and not network.stages:
        raise ConfigError(
            f"layer_decay is for networks with stages, got {spec.layer_decay:g} and "
            f"{type(network).__name__}, which names none; leave it out"
        )
    powers = {
        f"{prefix}{part}.": len(network.stages) - number
        for number, stage in enumerate(network.stages)
        for part in stage
    }
    classifier = {f"{prefix}{name}" for name in classifier_names(network)}
    return {
        name: spec.classifier_rate
        if name in classifier
        else spec.layer_decay
        ** next((n for part, n in powers.items() if f"{name}.".startswith(part)), 0)
        for name in names
    }


def make_optimizer(spec: OptimizationSpec, model: nn.Module) -> torch.optim.Optimizer:
    """Makes the optimizer of the model's parameters that are not frozen.

    SGD decays all of them, as the published trainings do. AdamW does not decay vectors: these are
    biases and the weights of norms. Parameters of one factor (`rate_factors`) are a group.
    """
    factors = rate_factors(spec, model)
    by_factor: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_factor.setdefault(factors[name], []).append(parameter)
    groups: list[dict[str, Any]] = []
    for factor, parameters in by_factor.items():
        own = {} if factor == 1 else {_FACTOR: factor}
        if spec.optimizer == "sgd":
            groups.append({"params": parameters, **own})
            continue
        matrices = [parameter for parameter in parameters if parameter.dim() > 1]
        vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
        groups.append({"params": matrices, "weight_decay": spec.weight_decay, **own})
        groups.append({"params": vectors, "weight_decay": 0.0, **own})
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=spec.learning_rate,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
        )
    return torch.optim.AdamW(groups, lr=spec.learning_rate)
