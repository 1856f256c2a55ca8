"""Rules for the blobs of Caffe's layers, which a file only numbers: `conv1[0]`, `conv1[1]`."""

from __future__ import annotations

import math

import torch

from flowprep.learn.weights.foreign import Conversion, Rule

__all__ = ["CAFFE_MATRIX", "CAFFE_VECTOR", "caffe_layer"]


def _as_vector(value: torch.Tensor) -> torch.Tensor | None:
    """Turns (1, C) and (1, 1, 1, C) into (C)."""
    is_row = value.dim() > 1 and value.shape[-1] == value.numel()
    return value.flatten() if is_row else None


def _as_matrix(value: torch.Tensor) -> torch.Tensor | None:
    """Turns (1, 1, out, in) into (out, in)."""
    is_wide = value.dim() > 2 and math.prod(value.shape[:-2]) == 1
    return value.flatten(0, -2) if is_wide else None


CAFFE_VECTOR = Conversion("squeezed to a vector", _as_vector)
"""For the biases of old files, (1, 1, 1, C)."""
CAFFE_MATRIX = Conversion("squeezed to a matrix", _as_matrix)
"""For the matrices of old files, (1, 1, out, in)."""


def caffe_layer(theirs: str, ours: str, *conversions: Conversion) -> tuple[Rule, Rule]:
    """Returns the rules for a layer with a weight and a bias."""
    return (
        Rule(rf"{theirs}\[0\]", f"{ours}.weight", conversions),
        Rule(rf"{theirs}\[1\]", f"{ours}.bias", (CAFFE_VECTOR,)),
    )
