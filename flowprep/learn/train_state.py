"""How far a training is: what it needs, besides the weights, to go on as if it had not stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

__all__ = ["TrainState"]


def _no_totals() -> torch.Tensor:
    return torch.zeros(4, dtype=torch.float64)


@dataclass(eq=False)
class TrainState:
    """Where a training stands after `step` steps; the loop changes it, a checkpoint holds it."""

    videos: str
    """Checksum of the training videos, whose order decides which sample is where."""
    step: int = 0
    """Steps that are done."""
    tested_step: int = 0
    """The step after which the last test was."""
    best: tuple[float, int] | None = None
    """The best top-1 of a test, and its step."""
    loss: float | None = None
    """Of the last line of training in metrics.csv."""
    top1: float | None = None
    """Of the last test, the mean over data sets."""
    totals: torch.Tensor = field(default_factory=_no_totals)
    """(4,) float64: loss, right samples, samples and steps since the last line of metrics.csv."""
    seconds: float = 0.0
    """Spent in all runs before this one."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """State dict of the optimizer; while the loop runs the optimizer has it."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State dict of the gradient scaler; while the loop runs the scaler has it."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint stores under `training`; it holds the step for itself."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "step"}

    @classmethod
    def from_dict(cls, step: int, values: Mapping[str, Any]) -> TrainState:
        """Rebuilds a stored state; raises TypeError for a field too many, KeyError for one too few.

        A step and what is stored beside it are of the same checkpoint.
        """
        missing = {item.name for item in fields(cls)} - {"step"} - set(values)
        if missing:
            raise KeyError(min(missing))
        return cls(step=step, **values)
