"""Where a training stands, beside weights and step: what a checkpoint's `training` holds."""

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
    """What a training needs to go on, and its loop keeps up to date."""

    videos: str
    """Checksum of the training videos, whose order decides which sample is where."""
    tested_step: int = 0
    """Step of the last test."""
    best: tuple[float, int] | None = None
    """Top-1 and step of the best test."""
    loss: float | None = None
    """The last one that was logged, of the training split."""
    top1: float | None = None
    """Of the last test, the mean over data sets."""
    totals: torch.Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    """Since the last line of the metrics: loss, right samples, samples, steps."""
    seconds: float = 0.0
    """That the training took."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """The optimizer's state dict."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """That of the gradients' scaler."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint stores; `from_dict` is its inverse."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "totals": self.totals.cpu()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Rebuilds a stored state; raises ConfigError for a field too many or too few."""
        state: TrainState = build_spec(cls, values)
        return state
