"""The state of a training besides weights and step: the `training` entry of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from flowprep.config import build_spec

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """What a training needs to continue. The training loop keeps it up to date."""

    videos: str
    """Checksum of the training videos, whose order decides the sample at a position."""
    tested_step: int = 0
    """Step of the last test."""
    best: tuple[float, int] | None = None
    """Top-1 and step of the best test."""
    loss: float | None = None
    """The training loss that was logged last."""
    top1: float | None = None
    """Top-1 of the last test, averaged over data sets."""
    totals: torch.Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    """Sums since the last line of metrics.csv: loss, correct samples, samples, steps."""
    seconds: float = 0.0
    """Time spent training."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """The optimizer's state dict."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State dict of the gradient scaler."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint stores; `from_dict` is its inverse."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "totals": self.totals.cpu()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Rebuilds a stored state; raises ConfigError for a field too many or too few."""
        state: TrainState = build_spec(cls, values)
        return state
