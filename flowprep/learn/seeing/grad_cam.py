"""Where a network looks for a class: Grad-CAM over the last maps of each tower.

    heat = relu(sum over channels of alpha A),   alpha = mean over h, w of d score / d A

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization (ICCV 2017), section 3; the score is the class's, before the softmax. Maps over time
have an alpha at each of their places in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.forward import arrange_clips
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.seeing.last_maps import last_maps, traceable

__all__ = ["ClipHeat", "grad_cam"]


@dataclass(frozen=True)
class ClipHeat:
    """Where a network looks in each of its clips."""

    inputs: tuple[int, ...]
    """The numbers of the network's inputs that the maps come from."""
    heat: torch.Tensor
    """(N, S, T, h, w) >= 0 on the CPU: S clips of each of N items. T is 1 for maps that stand for a
    whole clip."""


def grad_cam(
    model: ClipModel | MultiTask,
    clips: Sequence[torch.Tensor],
    score_of: Callable[[torch.Tensor | tuple[torch.Tensor, ...]], torch.Tensor],
) -> list[ClipHeat]:
    """Returns the heat of clips (N, S, C, ...), one tensor for each input; one result per tower.

    `score_of` makes (N or N S,) scores of the network's output. Raises ConfigError for a network
    without maps.
    """
    num_items, num_clips = clips[0].shape[:2]
    taken = [one.detach().requires_grad_(True) for one in clips]
    with traceable(model):
        score, maps = last_maps(
            model, taken, lambda: score_of(model(*arrange_clips(model, taken))).sum()
        )
        gradients = torch.autograd.grad(score, [one.values for one in maps])
    # Maps that come from the same inputs are one picture, as if their channels stood side by side.
    joined: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for one, gradient in zip(maps, gradients, strict=True):
        values, slopes = (one.arrange(x).detach().float() for x in (one.values, gradient))
        weights = slopes.mean((-2, -1), keepdim=True)
        raw = (weights * values).sum(1)  # (B, h, w) or (B, T, h, w)
        height, width = raw.shape[-2:]
        raw = raw.reshape(num_items, -1, height, width)  # in the order of time
        joined.setdefault(one.inputs, []).append(_by_clip(raw, num_clips).cpu())
    return [ClipHeat(inputs, _joined(heats).relu_()) for inputs, heats in joined.items()]


def _by_clip(raw: torch.Tensor, num_clips: int) -> torch.Tensor:
    """Returns maps along the time of a whole item (N, S T, h, w) as (N, S, T, h, w)."""
    length = raw.shape[1]
    if length % num_clips:
        # A network that joins neighboring clips, such as TSM's pooling over time, has fewer maps.
        size = (num_clips, *raw.shape[2:])
        raw = F.interpolate(raw[:, None], size, mode="trilinear", align_corners=False)[:, 0]
    return raw.reshape(raw.shape[0], num_clips, -1, *raw.shape[2:])


def _joined(heats: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the sum of maps of any sizes, at the largest."""
    if len(heats) == 1:
        return heats[0]
    size = [max(one.shape[axis] for one in heats) for axis in (-3, -2, -1)]
    num_items, num_clips = heats[0].shape[:2]
    total = torch.zeros(num_items, num_clips, *size)
    for one in heats:
        flat = one.flatten(0, 1)[:, None]
        large = F.interpolate(flat, size, mode="trilinear", align_corners=False)[:, 0]
        total += large.view_as(total)
    return total
