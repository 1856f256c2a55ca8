"""The state of a training besides weights and step: the `training` entry of a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from flowprep.config import build_spec
from flowprep.errors import WeightsError
from flowprep.learn.weights.reading import odd_tensor

__all__ = ["TrainState", "restore_optimizer"]


@dataclass
class TrainState:
    """What a training needs to continue. The training loop keeps it up to date."""

    videos: str
    """Checksum of the training videos, whose order decides the sample at a position."""
    tested_step: int = 0
    """Step of the last test."""
    best: tuple[float, int] | None = None
    """The measure, top-1 or mAP, and the step of the best test."""
    loss: float | None = None
    """The training loss that was logged last."""
    top1: float | None = None
    """Top-1 of the last test, or mAP for videos of several labels, averaged over data sets."""
    totals: torch.Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    """Sums since the last line of metrics.csv: loss, correct samples, samples of one label,
    steps."""
    seconds: float = 0.0
    """Time spent training."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """The optimizer's state dict."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State dict of the gradient scaler."""
    raw: dict[str, torch.Tensor] | None = None
    """State dict of the network as the last step left it, where the checkpoint's weights are an
    average over steps. None without an average."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint stores; `from_dict` is its inverse."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "totals": self.totals.cpu()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], step: int) -> TrainState:
        """Rebuilds a state that was stored after `step` steps.

        Raises ConfigError for a field too many or too few, ValueError for one that no training
        writes: a file may hold anything.
        """
        state: TrainState = build_spec(cls, values)
        for name, is_right in state._checks(step).items():
            if not is_right:
                raise ValueError(f"training has a {name} that no training writes")
        return dataclasses.replace(state, totals=state.totals.clone())

    def _checks(self, step: int) -> dict[str, bool]:
        """Returns whether each field can be, without a look into optimizer and scaler."""
        best, totals = self.best, self.totals
        return {
            "videos": type(self.videos) is str,
            "tested_step": _is_step(self.tested_step, step),
            "best": best is None
            or (
                type(best) is tuple
                and len(best) == 2
                and _is_number(best[0], 1.0)
                and _is_step(best[1], step)
            ),
            "loss": self.loss is None or (type(self.loss) is float and math.isfinite(self.loss)),
            "top1": self.top1 is None or _is_number(self.top1, 1.0),
            "totals": isinstance(totals, torch.Tensor)
            and odd_tensor(totals) is None
            and (totals.dtype, totals.shape) == (torch.float64, (4,))
            and bool(torch.isfinite(totals).all()),
            "seconds": _is_number(self.seconds, math.inf) and math.isfinite(self.seconds),
            "optimizer": type(self.optimizer) is dict,
            "scaler": type(self.scaler) is dict,
            "raw": self.raw is None or _is_state(self.raw),
        }


def _is_state(values: object) -> bool:
    return isinstance(values, dict) and all(
        type(name) is str and isinstance(value, torch.Tensor) and odd_tensor(value) is None
        for name, value in values.items()
    )


def _is_step(value: object, last: int) -> bool:
    return type(value) is int and 0 <= value <= last


def _is_number(value: object, most: float) -> bool:
    return type(value) is float and 0 <= value <= most


# ---- the optimizer

_OWN_STATE: dict[type[torch.optim.Optimizer], frozenset[str]] = {
    torch.optim.SGD: frozenset(["momentum_buffer"]),
    torch.optim.AdamW: frozenset(["step", "exp_avg", "exp_avg_sq"]),
}
"""What an optimizer keeps of each parameter that it has changed."""


def restore_optimizer(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, state: TrainState
) -> None:
    """Gives an optimizer and a scaler, which are new, what a checkpoint holds of them.

    Raises WeightsError where that is not of this network and configuration.
    """
    try:
        problem = _optimizer_problem(optimizer, state.optimizer)
        problem = problem or _scaler_problem(scaler, state.scaler)
        if problem is None:
            stored = _copied(state.optimizer)
            # All else of a group is as here, or was refused: another version of PyTorch may not
            # have stored it.
            for group, own in zip(
                stored["param_groups"], optimizer.state_dict()["param_groups"], strict=True
            ):
                group.update({name: own[name] for name in own.keys() - group.keys()})
            optimizer.load_state_dict(stored)
            scaler.load_state_dict(state.scaler)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        problem = str(error) or type(error).__name__
    if problem is not None:
        raise WeightsError(
            f"the checkpoint cannot be gone on from: its optimizer is not that of its network "
            f"({problem}); take another checkpoint"
        )


def _optimizer_problem(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> str | None:
    own = optimizer.state_dict()["param_groups"]
    groups, states = stored["param_groups"], stored["state"]
    if len(groups) != len(own):
        return f"{len(groups)} groups of parameters, and not {len(own)}"
    for group, wanted in zip(groups, own, strict=True):
        for name in group.keys() & wanted.keys() - {"lr"}:
            if group[name] != wanted[name]:
                return f"{name} is {group[name]!r}, and not {wanted[name]!r}"
        if not group.keys() >= {"lr", "params"} or not _is_number(group["lr"], math.inf):
            return "a group has no learning rate, or no parameters"
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    names = _OWN_STATE[type(optimizer)]
    for number, state in states.items():
        if type(number) is not int or not 0 <= number < len(shapes):
            return f"there is no parameter {number!r}"
        if state.keys() != names:
            return f"parameter {number} has {', '.join(map(str, state))}"
        for name, value in state.items():
            is_counter = name == "step"
            if (
                not isinstance(value, torch.Tensor)
                or odd_tensor(value) is not None
                or value.dtype != torch.float32
                or value.shape != (() if is_counter else shapes[number])
                or not torch.isfinite(value).all()
                or (name != "exp_avg" and name != "momentum_buffer" and bool((value < 0).any()))
            ):
                return f"{name} of parameter {number} is not of its shape, or not all numbers"
    return None


def _scaler_problem(scaler: torch.amp.GradScaler, stored: dict[str, Any]) -> str | None:
    own = scaler.state_dict()
    if stored.keys() != own.keys():
        return "the scaler is that of another precision"
    for name, value in stored.items():
        if type(value) is not type(own[name]) or not _is_number(float(value), 1e30):
            return f"{name} of the scaler is {value!r}"
    return None


def _copied(stored: dict[str, Any]) -> dict[str, Any]:
    """Returns what an optimizer may change: tensors of its own, and not of the file."""
    states = {
        number: {name: value.clone() for name, value in state.items()}
        for number, state in stored["state"].items()
    }
    groups = [dict(group) for group in stored["param_groups"]]
    return {**stored, "state": states, "param_groups": groups}
