"""A network of both streams, put among the networks while a test runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.networks import NETWORKS, Network

__all__ = ["LateFusion", "late_fusion"]


class LateFusion(ClipModel):
    """A ResNet-18 over flow beside one over RGB, and one classifier over the features of both."""

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(inputs)
        self.streams = nn.ModuleList(resnet18([one], 1, width=width) for one in self.inputs)
        self.dropout = nn.Dropout(dropout)
        self.replace_classifier(num_classes)

    def extract_features(self, flow: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        """Returns the features of both, side by side."""
        clips = zip(self.streams, (flow, rgb), strict=True)
        return torch.cat([stream.extract_features(clip) for stream, clip in clips], 1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Puts a new classifier in the place of the old one."""
        length = sum(stream.fc.in_features for stream in self.streams)
        self.fc = nn.Linear(length, num_classes)


def _build() -> Callable[..., ClipModel]:
    return LateFusion


ENTRY = Network(
    _build,
    {"both": (ClipInput("flow", "flow", "stack", 4), ClipInput("rgb", "rgb", "stack", 1))},
    "no paper",
    "ResNet-18 over each stream, one classifier.",
    normalization="tsn-resnet",
)


@pytest.fixture
def late_fusion(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a network of both streams."""
    monkeypatch.setitem(NETWORKS, "late-fusion", ENTRY)
    return "late-fusion"
