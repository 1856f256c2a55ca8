"""Temporal segment networks: Wang et al., "Temporal Segment Networks: Towards Good Practices for
Deep Action Recognition" (ECCV 2016), section 3; the consensus functions are compared in its longer
version (TPAMI 2019, section 3.2).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.models.base import ClipModel

__all__ = ["CONSENSUSES", "TSN", "Consensus"]

Consensus = Literal["avg", "max", "weighted"]

CONSENSUSES: tuple[Consensus, ...] = ("avg", "max", "weighted")
"""How the scores of a video's snippets become the video's."""


class TSN(ClipModel):
    """One 2D network over each of S snippets of a video, and a consensus of their logits.

    It takes (N, S, C, H, W), a snippet from each of S segments, or (N, C, H, W) as S = 1. S is
    `num_segments` in training and any number in testing (25 in the paper).

    `weighted` multiplies segment k's logits by softmax(w)_k, w learnt and 0 at first, which is the
    average. The paper's weights are free; these stay an average, so that their logits have the
    scale of `avg`, to which the consensus falls back wherever S is not `num_segments`.

    `partial_bn` freezes every batch norm but the first (section 3.2 of 2016): they normalise with
    the statistics they have, also in training, and their weights and biases take no gradient.
    """

    layout = "stack"

    def __init__(
        self,
        base: ClipModel,
        *,
        num_segments: int = 3,
        consensus: Consensus = "avg",
        partial_bn: bool = False,
    ) -> None:
        super().__init__()
        if base.layout != "stack":
            raise ConfigError(f"TSN's base must take stacks, got one that takes {base.layout}s")
        if num_segments < 1:
            raise ConfigError(f"num_segments must be at least 1, got {num_segments}")
        if consensus not in CONSENSUSES:
            raise ConfigError(
                f"consensus must be one of {', '.join(CONSENSUSES)}, got {consensus!r}"
            )
        self.in_channels = base.in_channels
        self.base = base
        self.num_segments = num_segments
        self.consensus: Consensus = consensus
        self.partial_bn = partial_bn
        if consensus == "weighted":
            self.segment_weight = nn.Parameter(torch.zeros(num_segments))
        for norm in self._frozen_norms():
            norm.requires_grad_(False)
        self.train(self.training)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (N, S, F), the base's features of each snippet."""
        if x.dim() == 4:
            x = x.unsqueeze(1)  # (N, 1, C, H, W)
        features = self.base.extract_features(x.flatten(0, 1))  # (N S, F)
        return features.reshape(*x.shape[:2], -1)  # (N, S, F)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, the consensus of the snippets'."""
        snippets = self.base.classify(features.flatten(0, 1))  # (N S, K)
        return self.agree(snippets.reshape(*features.shape[:2], -1))  # (N, K)

    def agree(self, snippets: torch.Tensor) -> torch.Tensor:
        """Returns the consensus, (N, K), of the logits (N, S, K) of snippets."""
        if self.consensus == "max":
            return snippets.amax(1)
        if self.consensus == "weighted" and snippets.shape[1] == self.num_segments:
            weight = self.segment_weight.softmax(0).to(snippets.dtype)  # (S,)
            return torch.einsum("s,nsk->nk", weight, snippets)
        return snippets.mean(1)

    def replace_classifier(self, num_classes: int) -> None:
        """Puts a new classifier in the place of the base's."""
        self.base.replace_classifier(num_classes)

    def train(self, mode: bool = True) -> TSN:
        """Sets the mode of all but the frozen batch norms, which stay in evaluation."""
        super().train(mode)
        for norm in self._frozen_norms():
            norm.eval()
        return self

    def _frozen_norms(self) -> list[nn.Module]:
        batch_norm = nn.modules.batchnorm._BatchNorm
        norms: list[nn.Module] = [m for m in self.modules() if isinstance(m, batch_norm)]
        return norms[1:] if self.partial_bn else []
