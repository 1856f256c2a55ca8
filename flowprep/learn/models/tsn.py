"""Temporal segment networks: Wang et al., "Temporal Segment Networks: Towards Good Practices for
Deep Action Recognition" (ECCV 2016), section 3. The paper's longer version compares the consensus
functions (TPAMI 2019, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from flowprep.config import check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput, ConsensusName
from flowprep.learn.models.base import ClipModel, batch_norms

__all__ = ["TSN", "tsn_over"]


class TSN(ClipModel):
    """Applies one 2D network to each of S snippets of a video, and joins their logits.

    It takes (N, S, C, H, W), one snippet from each of S segments, or (N, C, H, W) for S = 1. For
    `avg` and `max`, S may be any number (3 in the paper's training and 25 in its tests). For
    `weighted`, S should be `num_segments`.

    `weighted` multiplies segment k's logits by softmax(w)_k. w is learned and starts at 0, which
    gives the average. The paper's weights are free. Here the result stays an average, so its logits
    have the scale of `avg`. If S differs from `num_segments`, the consensus falls back to `avg`.

    `partial_bn` freezes every batch norm except the first (section 3.2 of 2016). Frozen norms
    normalize with their stored statistics, also in training, and their weights and biases get no
    gradient.
    """

    joins_segments = True

    def __init__(
        self,
        base: ClipModel,
        *,
        num_segments: int = 3,
        consensus: ConsensusName = "avg",
        partial_bn: bool = False,
    ) -> None:
        super().__init__(base.inputs)
        if others := [one.form for one in base.inputs if one.form != "stack"]:
            raise ConfigError(f"TSN's base must take stacks, got one that takes {others[0]}s")
        if num_segments < 1:
            raise ConfigError(f"num_segments must be at least 1, got {num_segments}")
        check_choice("consensus", consensus, ConsensusName)
        self.base = base
        self.num_segments = num_segments if consensus == "weighted" else None
        self.consensus: ConsensusName = consensus
        self.partial_bn = partial_bn
        if consensus == "weighted":
            self.segment_weight = nn.Parameter(torch.zeros(num_segments))
        self.name_stages()
        if partial_bn:
            self.frozen_norms = tuple(batch_norms(self)[1:])
        for norm in self.frozen_norms:
            norm.requires_grad_(False)
        self.train(self.training)

    def name_stages(self) -> None:
        """Takes the base network's stages."""
        self.stages = tuple(tuple(f"base.{name}" for name in stage) for stage in self.base.stages)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (N, S, F), the base network's features of each snippet.

        Raises ConfigError for another S than `num_segments`, if the segments see each other.
        """
        if x.dim() == 4:
            x = x.unsqueeze(1)  # (N, 1, C, H, W)
        if self.mixes_segments and x.shape[1] != self.num_segments:
            raise ConfigError(
                f"this network takes {self.num_segments} segments of a video together, got "
                f"{x.shape[1]}"
            )
        features = self.base.extract_features(x.flatten(0, 1))  # (N S, F)
        return features.reshape(len(x), -1, features.shape[-1])  # (N, S, F), or (N, S/2, F)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, the consensus of the snippets' logits."""
        snippets = self.base.classify(features.flatten(0, 1))  # (N S, K)
        return self.agree(snippets.reshape(*features.shape[:2], -1))  # (N, K)

    def agree(self, snippets: torch.Tensor) -> torch.Tensor:
        """Returns the consensus (N, K) of the snippets' logits (N, S, K)."""
        if self.consensus == "max":
            return snippets.amax(1)
        if self.consensus == "weighted" and snippets.shape[1] == self.num_segments:
            weight = self.segment_weight.softmax(0).to(snippets.dtype)  # (S,)
            return torch.einsum("s,nsk->nk", weight, snippets)
        return snippets.mean(1)

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the base network's classifier."""
        self.base.replace_classifier(num_classes)


def tsn_over(base: Callable[..., ClipModel]) -> Callable[..., TSN]:
    """Returns a function that makes a TSN over the network that `base` makes."""

    def build(
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float | None = None,
        width: float = 1.0,
        num_segments: int = 3,
        consensus: ConsensusName = "avg",
        partial_bn: bool = False,
    ) -> TSN:
        if dropout is None:
            dropout = 0.7 if inputs[0].stream == "flow" else 0.8  # Wang et al. 2016, section 4
        return TSN(
            base(inputs, num_classes, dropout=dropout, width=width),
            num_segments=num_segments,
            consensus=consensus,
            partial_bn=partial_bn,
        )

    return build
