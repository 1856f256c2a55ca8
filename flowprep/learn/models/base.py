"""What every network here is: a trunk that ends in features, and a classifier upon them."""

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

    `forward` takes a tensor for each of its inputs, in their order.
    """

    inputs: tuple[ClipInput, ...]
    """What it takes of each clip."""
    joins_segments: bool = False
    """What each tensor is: (N, C, ...), N clips; or (N, S, C, ...), S clips of each of N videos,
    one from each of S segments, whose scores the network joins."""
    num_segments: int | None = None
    """How many clips of a video it joins; None where any number will do, as of an average.

    With None, `extract_features` looks at each clip by itself and returns (N, S, ...), and
    `classify` joins them: so a test of many clips need not have them in memory at once."""

    def __init__(self, inputs: Sequence[ClipInput]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)

    @abstractmethod
    def extract_features(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Returns what the classifier looks at, before its dropout; its shape is the model's.

        It takes what `forward` takes.
        """

    @abstractmethod
    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits from what `extract_features` gave."""

    @abstractmethod
    def replace_classifier(self, num_classes: int) -> None:
        """Puts a new, freshly initialized classifier in the place of the old one.

        Its names, device and dtype are the old one's.
        """

    def forward(self, *clips: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        return self.classify(self.extract_features(*clips))
