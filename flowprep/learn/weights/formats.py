"""The table of all formats of foreign weights, and which of them a file has."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from flowprep.learn.weights.c3d import C3D
from flowprep.learn.weights.foreign import ForeignFormat
from flowprep.learn.weights.gsm import GSM
from flowprep.learn.weights.kinetics_i3d import KINETICS_I3D
from flowprep.learn.weights.lrcn import LRCN
from flowprep.learn.weights.mars import MARS
from flowprep.learn.weights.mmaction1 import MMACTION1
from flowprep.learn.weights.mmaction2 import MMACTION2
from flowprep.learn.weights.mobilenet import MOBILENET
from flowprep.learn.weights.reading import WeightsFile
from flowprep.learn.weights.representation_flow import REPRESENTATION_FLOW
from flowprep.learn.weights.slowfast import SLOWFAST
from flowprep.learn.weights.timesformer import TIMESFORMER
from flowprep.learn.weights.torchvision import TORCHVISION
from flowprep.learn.weights.tsm import TSM
from flowprep.learn.weights.vmz import VMZ
from flowprep.learn.weights.yjxiong import YJXIONG

__all__ = ["FOREIGN", "find_format", "format_of", "nearest_format"]

FOREIGN: dict[str, ForeignFormat] = {
    **KINETICS_I3D,
    **TSM,
    **MMACTION2,
    **MMACTION1,
    **MARS,
    **SLOWFAST,
    **MOBILENET,
    **YJXIONG,
    **LRCN,
    **VMZ,
    **TORCHVISION,
    **C3D,
    **REPRESENTATION_FLOW,
    **TIMESFORMER,
    **GSM,
}
"""The formats by name. Each project's file makes its own."""


def format_of(file: WeightsFile) -> tuple[str, ForeignFormat] | None:
    """Returns the format of a file and its name; None for a file of ours or one that is not known.

    Some of our networks have the names of another project, so that only the writer tells.
    """
    return None if file.is_own else find_format(file.tensors)


def find_format(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ForeignFormat] | None:
    """Returns the format of a file's tensors and its name; None for one that is not known.

    Of several whose marks are there, the one that knows the most names is taken, and of equals the
    first in `FOREIGN`.
    """
    found = {name: form for name, form in FOREIGN.items() if form.is_format_of(tensors)}
    if not found:
        return None
    best = max(found, key=lambda name: _num_known(found[name], tensors))
    return best, found[best]


def nearest_format(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ForeignFormat] | None:
    """Returns the format that knows the most of a file's names; None if all know none."""
    best = max(FOREIGN, key=lambda name: _num_known(FOREIGN[name], tensors))
    return (best, FOREIGN[best]) if _num_known(FOREIGN[best], tensors) else None


def _num_known(form: ForeignFormat, tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(form.find_rule(name) is not None for name in tensors)
