"""The base of every network here: a trunk that computes features, and a classifier on top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput

__all__ = ["ClipModel"]


class ClipModel(nn.Module, ABC):
    """A network that turns a batch of clips into a score for each class.

    `forward` takes one tensor for each of the network's inputs, in their order.
    """

    inputs: tuple[ClipInput, ...]
    """What the network takes from each clip."""
    joins_segments: bool = False
    """Whether the network joins the scores of segments. If False, each tensor is (N, C, ...), N
    clips. If True, it is (N, S, C, ...), one clip from each of S segments of N videos."""
    num_segments: int | None = None
    """How many clips of a video the network joins. None means any number, as for an average.

    With None, `extract_features` treats each clip separately and returns (N, S, ...), and
    `classify` joins the clips. So a test of many clips need not hold them all in memory."""

    def __init__(self, inputs: Sequence[ClipInput]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)

    @abstractmethod
    def extract_features(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Returns the classifier's input, before dropout. Each network has its own shape.

        Takes the same arguments as `forward`.
        """

    @abstractmethod
    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits from the result of `extract_features`."""

    @abstractmethod
    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the classifier with a new, freshly initialized one.

        It keeps the names, device and dtype of the old classifier.
        """

    def forward(self, *clips: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        return self.classify(self.extract_features(*clips))
