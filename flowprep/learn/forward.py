"""Passes clips through a network, which may take single clips or join segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.placement import with_channels_last

__all__ = ["answer_weights", "arrange_clips", "forward_clips", "group_size", "join_answers"]


def forward_clips(
    runner: Callable[..., Any],
    model: ClipModel | MultiTask,
    clips: Sequence[torch.Tensor],
    *,
    channels_last: bool = True,
) -> tuple[torch.Tensor, ...]:
    """Returns (N, K) logits for each task from clips (N, S, C, ...), one tensor for each input.

    While it trains, a network that answers several times gives (N, J, K).

    A network that joins segments joins the S clips of a video itself. For other networks, the
    scores of the S clips are averaged. `runner` is `model`, or a wrapper around `model`.
    """
    num_videos, num_segments = clips[0].shape[:2]
    output = runner(*arrange_clips(model, clips, channels_last=channels_last))
    logits = output if isinstance(output, tuple) else (output,)
    if model.joins_segments or num_segments == 1:
        return logits
    return tuple(
        scores.view(num_videos, num_segments, *scores.shape[1:]).mean(1) for scores in logits
    )


def answer_weights(
    model: ClipModel | MultiTask, logits: Sequence[torch.Tensor]
) -> torch.Tensor | None:
    """Returns the weights (J,) of the losses of answers (N, J, K); None for logits (N, K)."""
    if logits[0].dim() == 2:
        return None
    return model.answer_weights(logits[0].shape[1]).to(logits[0].device)


def join_answers(
    model: ClipModel | MultiTask, logits: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Returns (N, K) logits for each task, from the result of `forward_clips`."""
    return tuple(model.join_answers(one) if one.dim() == 3 else one for one in logits)


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
