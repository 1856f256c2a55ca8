"""What a file offers for the tensors of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

__all__ = ["Offer", "listed"]


@dataclass(frozen=True)
class Offer:
    """What a file offers for one tensor of the model."""

    source: tuple[str, ...]
    """Names in the file; empty if the value follows from the format."""
    value: torch.Tensor
    how: tuple[str, ...] = ()
    """The conversions that were applied."""


def listed(names: Iterable[str], most: int = 5) -> str:
    """Lists the first names of many."""
    items = list(names)
    if not items:
        return "nothing"
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
