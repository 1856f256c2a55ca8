"""A small network of two inputs, flow and the frame in its middle, and its entry."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel
from flowprep.learn.network_entry import Network
from flowprep.learn.networks import NETWORKS

__all__ = ["INPUTS", "TwoTowers", "add_two_towers", "two_towers"]

INPUTS = (ClipInput("flow", "flow", "stack", 4), ClipInput("rgb", "rgb", "volume", 3, 2))


class TwoTowers(ClipModel):
    """A 2D convolution over the flow, a 3D one over the frames; both see the classifier."""

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        width: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(inputs)
        flow, rgb = inputs
        channels = max(1, round(64 * width))
        self.flow = nn.Conv2d(flow.num_channels, channels, 7, stride=4)
        self.rgb = nn.Conv3d(rgb.num_channels, channels, (1, 7, 7), stride=(1, 4, 4))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * channels, num_classes)

    def extract_features(self, flow: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
        towers = (self.flow(flow).abs().mean((2, 3)), self.rgb(rgb).abs().mean((2, 3, 4)))
        return torch.cat(towers, 1)  # (N, 2 channels)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.dropout(features))
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        self.fc = nn.Linear(self.fc.in_features, num_classes)


def add_two_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the entry beside the others."""
    entry = Network(lambda: TwoTowers, {"both": INPUTS}, "None", "Two towers.")
    monkeypatch.setitem(NETWORKS, "two-towers", entry)


@pytest.fixture
def two_towers(monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name; it is among the networks while a test runs."""
    add_two_towers(monkeypatch)
    return "two-towers"
