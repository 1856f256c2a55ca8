"""Turns weights of image networks into weights of flow networks and of 3D networks.

For flow: cross-modality initialization (Wang et al., TSN, ECCV 2016, section 3.2). For 3D:
bootstrapping by inflation (Carreira and Zisserman, I3D, CVPR 2017, section 2.4).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from flowprep.words import format_count

__all__ = ["RGB_CHANNELS", "cross_modality", "fit_kernel", "inflate_conv", "inflate_state_dict"]

RGB_CHANNELS = 3


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

    `weight` is (out, in, H, W), or (out, in, 1, H, W) of a network that sees frames alone. The
    result, (out, in, num_frames, H, W), repeats it over time and divides it by `num_frames`. The
    same holds for convolutions in groups, where `in` counts the channels of one group.
    """
    kernel = weight.unsqueeze(2) if weight.dim() == 4 else weight
    return kernel.repeat_interleave(num_frames, 2) / num_frames


def fit_kernel(
    kernel: torch.Tensor, shape: Sequence[int], *, sees_clip: bool
) -> tuple[torch.Tensor, list[str]]:
    """Returns a kernel for a convolution of another shape, and what was done to it.

    An RGB kernel becomes one for other channels (cross-modality) if `sees_clip`: only the layer
    that sees the clip has colors. Three channels stay as they are, also for flow with its
    magnitude, as LRCN starts it. A kernel over one frame becomes one over several (inflation).
    All other kernels are returned unchanged, whatever their shape: the filters, and the size of
    the window in space, must be the same. So no kernel becomes half of a (2+1)D convolution, which
    has other filters.
    """
    target = tuple(shape)
    dims = (kernel.dim(), len(target))
    if dims not in ((4, 4), (4, 5), (5, 5)) or kernel.shape[0] != target[0]:
        return kernel, []
    frames = 1 if kernel.dim() == 4 else kernel.shape[2]
    target_frames = 1 if len(target) == 4 else target[2]
    if kernel.shape[-2:] != target[-2:] or frames not in (1, target_frames):
        return kernel, []
    has_colors = sees_clip and kernel.shape[1] == RGB_CHANNELS
    if kernel.shape[1] != target[1] and not has_colors:
        return kernel, []
    how = []
    if kernel.shape[1] != target[1]:
        how.append(f"mean over RGB, repeated over {target[1]} channels (cross-modality)")
        kernel = cross_modality(kernel, target[1])
    if kernel.dim() < len(target) or frames != target_frames:
        how.append(f"inflated over {format_count(target_frames, 'frame')}")
        kernel = inflate_conv(kernel, target_frames)
    return kernel, how


def inflate_state_dict(
    state2d: Mapping[str, torch.Tensor],
    model3d: nn.Module,
    *,
    input_convs: Collection[str] = ("conv1.weight",),
) -> dict[str, torch.Tensor]:
    """Returns the weights of a 2D network in the shapes of its 3D counterpart, matched by name.

    `fit_kernel` converts each kernel. `input_convs` are the names of those that see the clip. All
    other tensors are returned unchanged: batch norms, which are the same in 2D and 3D; names that
    `model3d` lacks; a classifier of other classes. The caller decides what to do with these.
    """
    wanted = model3d.state_dict()
    state: dict[str, torch.Tensor] = {}
    for name, value in state2d.items():
        if name in wanted:
            value, _ = fit_kernel(value, wanted[name].shape, sees_clip=name in input_convs)
        state[name] = value
    return state
