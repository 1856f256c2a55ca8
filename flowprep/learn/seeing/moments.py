"""Which moments of a clip count for a class: integrated gradients, summed over each moment.

    weight of an input value = (x - x0) * mean over the way from x0 to x of d score / d x

x0 is a clip of nothing: no motion, or frames of the mean color. The weights of all values add up to
score(x) - score(x0), so weights of moments can be compared and added. Source: Sundararajan, Taly
and Yan, Axiomatic Attribution for Deep Networks (ICML 2017), section 3; the mean is taken at the
middles of equal steps. The score is the class's logit minus the mean of all logits, which a softmax
cannot tell from the logit; for classes that exclude nothing it is the logit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.indices import bidirectional_indices
from flowprep.learn.clips.levels import flow_line
from flowprep.learn.config import ClipSpec
from flowprep.learn.forward import arrange_clips
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.seeing.last_maps import traceable
from flowprep.learn.seeing.video_inputs import MIDDLE_LEVEL

__all__ = ["blank_clips", "time_weights", "times_of"]


def blank_clips(
    clips: Sequence[torch.Tensor], inputs: Sequence[ClipInput], clip: ClipSpec, bound_px: float
) -> list[torch.Tensor]:
    """Returns clips (N, S, C, ...) of the same shapes that show nothing: no motion, mean color."""
    blanks = []
    for x, one in zip(clips, inputs, strict=True):
        blank = torch.zeros_like(x)
        if one.stream == "flow":
            zero, _ = flow_line(clip.normalization, bound_px)
            values = torch.tensor(zero, dtype=x.dtype, device=x.device)
            if one.has_magnitude:
                values = torch.cat([values, values[:1]])
            places = _by_time(blank, one, clip)
            # In place: the view by time shares the memory of the clip.
            places += values[:, None, None]
        elif one.stream == "rgb-pair":
            blank += MIDDLE_LEVEL  # of levels, which no mean is taken from
        blanks.append(blank)
    return blanks


def time_weights(
    model: ClipModel | MultiTask,
    clips: Sequence[torch.Tensor],
    blanks: Sequence[torch.Tensor],
    inputs: Sequence[ClipInput],
    clip: ClipSpec,
    score_of: Callable[[torch.Tensor | tuple[torch.Tensor, ...]], torch.Tensor],
    *,
    steps: int,
) -> list[NDArray[np.float64]]:
    """Returns the weight of each field or frame of each input, (N, S, L) float64.

    `score_of` makes (N or N S,) scores of the network's output.
    """
    sums = [torch.zeros_like(x) for x in clips]
    for number in range(steps):
        share = (number + 0.5) / steps
        between = [
            torch.lerp(blank, x, share).requires_grad_(True)
            for x, blank in zip(clips, blanks, strict=True)
        ]
        with traceable(model):
            score = score_of(model(*arrange_clips(model, between))).sum()
            for total, gradient in zip(sums, torch.autograd.grad(score, between), strict=True):
                total += gradient / steps
    weights = []
    for x, blank, slopes, one in zip(clips, blanks, sums, inputs, strict=True):
        parts = _by_time((x - blank) * slopes, one, clip).sum((-3, -2, -1), dtype=torch.float64)
        weights.append(parts.flatten(2).cpu().numpy())
    return weights


def times_of(
    one: ClipInput, indices: NDArray[np.int64], clip: ClipSpec, num_fields: int
) -> NDArray[np.int64]:
    """Returns the place in the video of each field or frame of clips (S, L), in their order."""
    if one.stream == "flow" and clip.stack == "bidirectional":
        return np.concatenate(bidirectional_indices(indices, num_fields), axis=1)
    return indices


def _by_time(x: torch.Tensor, one: ClipInput, clip: ClipSpec) -> torch.Tensor:
    """Returns clips (N, S, C, ...) as a view (N, S, T, k, c, H, W): k fields at each of T places.

    T is 1 for a stack.
    """
    if one.form == "stack":
        x = x.unsqueeze(3)  # (N, S, C, 1, H, W)
    length = one.num_frames if one.form == "stack" else one.stack_length
    channels = x.shape[2] // length
    if clip.channel_order == "grouped" and one.stream == "flow":
        stacks = x.unflatten(2, (channels, length)).transpose(2, 3)
    else:
        stacks = x.unflatten(2, (length, channels))  # (N, S, k, c, T, H, W)
    return stacks.permute(0, 1, 4, 2, 3, 5, 6)
