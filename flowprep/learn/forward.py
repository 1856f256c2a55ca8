"""Passes clips through a network, which may take single clips or join segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.placement import with_channels_last

__all__ = ["arrange_clips", "forward_clips", "group_size"]


def forward_clips(
    runner: Callable[..., Any],
    model: ClipModel | MultiTask,
    clips: Sequence[torch.Tensor],
    *,
    channels_last: bool = True,
) -> tuple[torch.Tensor, ...]:
    """Returns (N, K) logits for each task from clips (N, S, C, ...), one tensor for each input.

    A network that joins segments joins the S clips of a video itself. For other networks, the
    scores of the S clips are averaged. `runner` is `model`, or a wrapper around `model`.
    """
    num_videos, num_segments = clips[0].shape[:2]
    output = runner(*arrange_clips(model, clips, channels_last=channels_last))
    logits = output if isinstance(output, tuple) else (output,)
    if model.joins_segments or num_segments == 1:
        return logits
    return tuple(scores.view(num_videos, num_segments, -1).mean(1) for scores in logits)


def arrange_clips(
    model: ClipModel | MultiTask, clips: Sequence[torch.Tensor], *, channels_last: bool = True
) -> list[torch.Tensor]:
    """Returns clips (N, S, C, ...) in the shape that the network takes.

    That shape is (N, S, C, ...) for a network that joins segments, and (N S, C, ...) for others.
    With `channels_last`, the channels are innermost in memory.
    """
    arranged = []
    for tensor in clips:
        x = tensor.flatten(0, 1)  # (N S, C, ...)
        if channels_last:
            x = with_channels_last(x)
        arranged.append(x.view(*tensor.shape[:2], *x.shape[1:]) if model.joins_segments else x)
    return arranged


def group_size(model: ClipModel | MultiTask) -> int | None:
    """Returns how many clips of a video the network sees together in a test; None means all."""
    return model.num_segments if model.joins_segments else 1
