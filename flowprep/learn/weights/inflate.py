"""Turns weights of image networks into weights of flow networks and of 3D networks.

For flow: cross-modality initialization (Wang et al., TSN, ECCV 2016, section 3.2). For 3D:
bootstrapping by inflation (Carreira and Zisserman, I3D, CVPR 2017, section 2.4).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

__all__ = ["cross_modality", "inflate_conv", "inflate_state_dict"]


def cross_modality(weight: torch.Tensor, in_channels: int) -> torch.Tensor:
    """Returns a first layer's weight for other input channels: the mean over the old channels,
    repeated.

    `weight` is (out, in, ...), of 2D or 3D convolutions; the result is (out, in_channels, ...).
    As in TSN, nothing is divided: the response to a constant input is multiplied by
    in_channels / in.
    """
    mean = weight.mean(1, keepdim=True)
    return mean.repeat_interleave(in_channels, 1)


def inflate_conv(weight: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Returns a 3D kernel that responds to a still video as `weight` responds to its frame.

    `weight` is (out, in, H, W). The result, (out, in, num_frames, H, W), repeats it over time and
    divides it by `num_frames`.
    """
    return weight.unsqueeze(2).repeat_interleave(num_frames, 2) / num_frames


def inflate_state_dict(
    state2d: Mapping[str, torch.Tensor], model3d: nn.Module
) -> dict[str, torch.Tensor]:
    """Returns the weights of a 2D network in the shapes of its 3D counterpart, matched by name.

    Each kernel is inflated to the number of frames of `model3d`'s kernel. If `model3d`'s kernel has
    another number of input channels, as for flow, `cross_modality` is applied first. All other
    tensors are returned unchanged: batch norms, which are the same in 2D and 3D; names that
    `model3d` lacks; a classifier of other classes. The caller decides what to do with these.
    """
    wanted = model3d.state_dict()
    state: dict[str, torch.Tensor] = {}
    for name, value in state2d.items():
        target = wanted.get(name)
        if target is not None and target.dim() == 5 and value.dim() == 4:
            if value.shape[1] != target.shape[1]:
                value = cross_modality(value, target.shape[1])
            value = inflate_conv(value, target.shape[2])
        state[name] = value
    return state
