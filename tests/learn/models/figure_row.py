"""A row of the table of networks' figures (`test_figures`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowprep.learn.clip_inputs import StreamName

__all__ = ["Row", "Shapes"]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Row:
    """A network as it was published, and its figures. None is a figure that no source has."""

    network: str
    stream: StreamName
    num_classes: int
    crop_px: int = 224
    parameters: int | None = None
    millions: float | None = None
    """Parameters that the source rounds, in millions."""
    gmacs: float | None = None
    """Multiply-adds of one view, in billions."""
    digits: int = 2
    """Digits after the point of rounded figures."""
    tensors: tuple[int, int] | None = None
    """Tensors of the state dict, with and without `num_batches_tracked`."""
    shapes: Shapes = field(default_factory=dict)
    num_frames: int | None = None
    num_segments: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.network} {self.stream} {self.crop_px} px {self.num_classes} classes"]
        parts += [f"{self.num_frames} frames"] if self.num_frames else []
        parts += [f"{self.num_segments} segments"] if self.num_segments else []
        return " ".join([*parts, *(f"{name}={value}" for name, value in self.options.items())])
