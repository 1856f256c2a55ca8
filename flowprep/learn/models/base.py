"""What every network here is: a trunk that ends in features, and a classifier upon them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

__all__ = ["ClipModel", "Layout"]

Layout = Literal["stack", "volume"]
"""`stack`: a clip is (C, H, W), its time in the channels; `volume`: a clip is (C, T, H, W)."""


class ClipModel(nn.Module, ABC):
    """A network that turns a batch of clips into a score for each class."""

    layout: Layout
    """What `forward` takes: (N, C, H, W) for `stack`, (N, C, T, H, W) for `volume`.

    TSN, a `stack`, takes (N, S, C, H, W) as well: S snippets of each video.
    """
    in_channels: int
    """C of a clip: 2 or 3 for a volume, that many for each field or image of a stack."""

    @abstractmethod
    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what the classifier looks at, before its dropout; its shape is the model's."""

    @abstractmethod
    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits from what `extract_features` gave."""

    @abstractmethod
    def replace_classifier(self, num_classes: int) -> None:
        """Puts a new, freshly initialised classifier in the place of the old one.

        Its names, device and dtype are the old one's.
        """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        return self.classify(self.extract_features(x))
