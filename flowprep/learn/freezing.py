"""Keeps the first weights of a part of a network, for all of the training or for its first share.

"Last layer" of Simonyan and Zisserman (2014, section 5) and "Fixed" of Carreira and Zisserman
(2017, section 4.1) are `trunk`: the classifier alone learns. A number freezes the first stages, as
mmaction2's `frozen_stages` does; each network names its stages.

A frozen part has no gradient, no weight decay and no momentum, and its batch norms use and keep
their stored statistics. The optimizer knows all weights from the first step on. When the part is
released, its momentum (AdamW: its moments and their bias correction) begins at zero, and the
learning rate follows the schedule on. Whether a part is frozen follows from the number of the step
alone, so an interrupted training goes on exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.config import TrainConfig
from flowprep.learn.models.base import ClipModel, batch_norms
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.training_specs import TRUNK, OptimizationSpec
from flowprep.learn.weights.load import classifier_names

__all__ = ["FrozenPart", "freeze_note", "freeze_part"]


@dataclass
class FrozenPart:
    """The part of a network that keeps its weights."""

    model: ClipModel
    parameters: list[nn.Parameter]
    norms_before: tuple[nn.Module, ...]
    """The batch norms that the network itself keeps frozen."""
    until: float
    """Share of the training after which the part learns; infinite if never."""

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether step `step` of `num_steps` is one in which the part learns."""
        return step / num_steps >= self.until

    def release(self) -> None:
        """Lets the part learn from now on."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.model.frozen_norms = self.norms_before
        self.model.train(self.model.training)


def freeze_part(
    network: ClipModel | MultiTask, spec: OptimizationSpec, step: int, num_steps: int
) -> FrozenPart | None:
    """Freezes the part that `spec.freeze` names; returns None if step `step` has none.

    Raises ConfigError for more stages than the network has.
    """
    if spec.freeze is None:
        return None
    model = network.model if isinstance(network, MultiTask) else network
    is_frozen = _chosen(model, spec.freeze)
    norms = set(batch_norms(model))
    part = FrozenPart(
        model,
        [
            parameter
            for name, parameter in model.named_parameters()
            if is_frozen(name) and parameter.requires_grad
        ],
        model.frozen_norms,
        float("inf") if spec.unfreeze_at is None else spec.unfreeze_at,
    )
    if part.is_due(step, num_steps):
        return None
    for parameter in part.parameters:
        parameter.requires_grad_(False)
    model.frozen_norms += tuple(
        module
        for name, module in model.named_modules()
        if module in norms and is_frozen(f"{name}.running_mean")
    )
    model.train(model.training)
    return part


def freeze_note(config: TrainConfig) -> str | None:
    """Returns a note if the part that is frozen has weights that nobody trained."""
    if config.optimization.freeze is None or config.model.weights is not None:
        return None
    return (
        f"--freeze {config.optimization.freeze} keeps the weights that the network begins with, "
        "and these are random; name trained ones with --weights FILE"
    )


def _chosen(model: ClipModel, freeze: str) -> Callable[[str], bool]:
    """Returns what says of the name of a tensor whether it is in the frozen part."""
    stages = model.stages
    if freeze == TRUNK and not stages:
        classifier = classifier_names(model)
        return lambda name: name not in classifier
    count = len(stages) if freeze == TRUNK else int(freeze)
    if not 0 < count <= len(stages):
        known = f" or a number from 1 to {len(stages)}" if stages else ""
        raise ConfigError(f"freeze must be {TRUNK}{known} for this network, got {freeze}")
    chosen = {name for stage in stages[:count] for name in stage}
    prefixes = tuple(f"{name}." for name in chosen)
    return lambda name: name in chosen or name.startswith(prefixes)
