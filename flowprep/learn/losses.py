"""Losses of the heads of a network, and whether its answers are right.

A head says one class of each video (softmax and cross-entropy), or each class by itself (a sigmoid
and a binary cross-entropy for each class), for videos that show several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.scores import Scores

__all__ = [
    "BatchTargets",
    "batch_targets",
    "count_right",
    "mean_loss",
    "target_loss",
    "task_loss",
]


def batch_targets(batch: Mapping[str, Any], num_tasks: int) -> list[torch.Tensor]:
    """Returns the targets of a batch for each task, as `target_loss` takes them."""
    if "targets" in batch:
        return list(batch["targets"])
    labels, owners = batch["label"], batch["task"]
    if num_tasks == 1:
        return [labels]
    return [torch.where(owners == task, labels, -1) for task in range(num_tasks)]


@dataclass(frozen=True)
class BatchTargets:
    """What a network must say of each sample of a batch, for each task: see `target_loss`."""

    own: list[torch.Tensor]
    partner: list[torch.Tensor] | None = None
    """Those of the videos that the samples are mixed with."""
    shares: torch.Tensor | None = None
    """(n,), of the samples' own targets. The rest is the partner's."""

    @classmethod
    def of(cls, batch: Mapping[str, Any], num_tasks: int, device: torch.device) -> BatchTargets:
        """Returns those of a batch of `TrainingClips`, on a device."""

        def placed(targets: Mapping[str, Any]) -> list[torch.Tensor]:
            return [one.to(device, non_blocking=True) for one in batch_targets(targets, num_tasks)]

        if "partner" not in batch:
            return cls(placed(batch))
        shares = batch["share"].to(device, non_blocking=True)
        return cls(placed(batch), placed(batch["partner"]), shares)

    def loss(
        self, logits: Sequence[torch.Tensor], counts: Sequence[int], **options: Any
    ) -> torch.Tensor:
        """Returns `target_loss`, with its options, of both videos of each sample."""
        own = target_loss(logits, self.own, counts, shares=self.shares, **options)
        if self.partner is None or self.shares is None:
            return own
        rest = 1 - self.shares
        return own + target_loss(logits, self.partner, counts, shares=rest, **options)

    @property
    def largest(self) -> list[torch.Tensor]:
        """The targets of the video that has the larger share of each sample."""
        if self.partner is None or self.shares is None:
            return self.own
        is_own = self.shares >= 0.5
        return [
            torch.where(is_own if own.dim() == 1 else is_own[:, None], own, other)
            for own, other in zip(self.own, self.partner, strict=True)
        ]


def task_loss(
    logits: Sequence[torch.Tensor],
    labels: torch.Tensor,
    tasks: torch.Tensor,
    counts: Sequence[int],
    *,
    label_smoothing: float = 0.0,
    weights: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Returns `target_loss` of samples with one label, (n,), each of which has one task, (n,)."""
    targets = batch_targets({"label": labels, "task": tasks}, len(logits))
    return target_loss(logits, targets, counts, label_smoothing=label_smoothing, weights=weights)


def target_loss(
    logits: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    counts: Sequence[int],
    *,
    label_smoothing: float = 0.0,
    weights: Sequence[torch.Tensor] | None = None,
    answer_weights: torch.Tensor | None = None,
    shares: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns the contribution of these samples to the loss of the step's whole batch, a scalar.

    The loss is the sum over tasks (data sets, or label sets of one). `logits` holds (n, K) for each
    task. `targets` holds (n,) int64 classes for a task of one class a sample: its loss is the mean
    cross-entropy. It holds (n, K) zeros and ones for a task of several: its loss is the mean over
    samples and classes of the binary cross-entropy, as in PySlowFast and pytorch-i3d for Charades.
    A sample with -1 is not of this task and does not influence its logits. `counts` is the number
    of samples of each task in the whole batch, over all its parts and processes. The losses of the
    parts add up to the loss of the batch, however the batch is divided.

    `label_smoothing` s spreads a share of the target evenly: over the classes, or for a class by
    itself over yes and no, t -> (1 - s) t + s / 2.

    `weights` holds (K,) for each task of one class a sample. The loss of a sample is multiplied by
    the weight of its class, and the mean is still over the number of samples.
    (`nn.CrossEntropyLoss` divides by the sum of the weights instead, which would change with the
    parts of a batch.)

    `answer_weights` (J,) is for networks that answer several times, with logits (n, J, K): the loss
    is the sum of the losses of the answers, each times its weight.

    `shares` (n,) multiplies the loss of each sample. A sample of two videos has a target of each.
    As a loss is linear in its target, that of the mixed target is the sum of two calls, with shares
    that sum to 1 (Zhang et al., mixup, ICLR 2018).
    """
    if answer_weights is not None:
        each_answer = [
            target_loss(
                *([one[:, number] for one in logits], targets, counts),
                label_smoothing=label_smoothing,
                weights=weights,
                shares=shares,
            )
            for number in range(len(answer_weights))
        ]
        return (torch.stack(each_answer) * answer_weights).sum()
    total = logits[0].new_zeros((), dtype=torch.float32)
    for task, (scores, wanted, count) in enumerate(zip(logits, targets, counts, strict=True)):
        own = _own(wanted)
        chosen, wanted = scores[own].float(), wanted[own]
        if wanted.dim() == 2:
            smooth = wanted * (1 - label_smoothing) + label_smoothing / 2
            if shares is None:
                losses = F.binary_cross_entropy_with_logits(chosen, smooth, reduction="sum")
            else:
                each = F.binary_cross_entropy_with_logits(chosen, smooth, reduction="none")
                losses = (each.sum(1) * shares[own]).sum()
            losses = losses / wanted.shape[1]
        elif weights is None and shares is None:
            losses = F.cross_entropy(
                chosen, wanted, reduction="sum", label_smoothing=label_smoothing
            )
        else:
            each = F.cross_entropy(
                chosen, wanted, reduction="none", label_smoothing=label_smoothing
            )
            if weights is not None:
                each = each * weights[task][wanted]
            if shares is not None:
                each = each * shares[own]
            losses = each.sum()
        total = total + losses / max(1, count)
    return total


def count_right(
    logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns how many samples are right, and how many of them can be right or wrong, as scalars.

    A sample is right if all its tasks of one class are right. Tasks of several do not count.
    """
    is_right = is_known = None
    for scores, wanted in zip(logits, targets, strict=True):
        if wanted.dim() == 2:
            continue
        own = _own(wanted)
        right = (scores.argmax(1) == wanted) | ~own
        is_right = right if is_right is None else is_right & right
        is_known = own if is_known is None else is_known | own
    if is_right is None or is_known is None:
        return logits[0].new_zeros(()), logits[0].new_zeros(())
    return (is_right & is_known).sum(), is_known.sum()


def _own(targets: torch.Tensor) -> torch.Tensor:
    """Returns which samples have a target of this task, (n,) bool."""
    return (targets if targets.dim() == 1 else targets[:, 0]) >= 0


def mean_loss(scores: Scores) -> float:
    """Returns the mean loss of the probabilities that videos with labels got."""
    known = np.flatnonzero(scores.is_labelled)
    if scores.targets is None:
        likelihoods = scores.probabilities[known, scores.labels[known]]
    else:
        shares = scores.probabilities[known]
        likelihoods = np.where(scores.targets[known], shares, 1 - shares)
    return float(-np.log(np.maximum(likelihoods, 1e-12)).mean())
