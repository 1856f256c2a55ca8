"""A convolutional network in which every layer is recurrent.

The lecture notes that flowprep follows end with it: instead of a recurrent network on top of a
convolutional one, every layer sees the layer below at the same time and itself at the time before,
both by convolutions, h(l, t) = f(W * h(l - 1, t), U * h(l, t - 1)). So the network sees motion of
any length at every scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.recurrent import make_conv_recurrent
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.network_options import CellName

__all__ = ["RecurrentCNN"]

LAYERS = ((32, 7), (64, 3), (128, 3), (256, 3))
"""Channels of each layer, and the side of its window over the layer below. Ours: the notes leave
the network open."""


class RecurrentCNN(ClipModel):
    """Four recurrent convolutional layers over (N, C, T, H, W), for any T, H and W.

    Each layer halves H and W, sees itself through windows of 3 x 3, and normalizes what it sees of
    the layer below over the batch. The last layer's maps of the last step are averaged over space
    and classified. Nothing at a step depends on later steps. `cell` is what f is: tanh of the sum,
    a GRU or an LSTM. `width` multiplies the channels of every layer.
    """

    stages = tuple((f"levels.{number}",) for number in range(len(LAYERS)))
    # What the last layer sees at each step; its own maps have time before the channels.
    map_layers = (f"levels.{len(LAYERS) - 1}.norm",)

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        cell: CellName = "plain",
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        make_layer = make_conv_recurrent(cell)
        before = clip.num_channels
        self.levels = nn.ModuleList()
        for published, kernel in LAYERS:
            channels = max(1, round(published * width))
            self.levels.append(make_layer(before, channels, kernel, stride=2, norm=nn.BatchNorm2d))
            before = channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(before, num_classes)
        init_classifier(self.fc)

    def forward_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last layer's maps at every step, (N, T, 256 * width, H/16, W/16)."""
        x = x.transpose(1, 2)  # (N, T, C, H, W)
        for layer in self.levels:
            x = layer(x)
        return x

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last layer after the last step, averaged over space, (N, 256 * width)."""
        return self.forward_maps(x)[:, -1].mean((2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)
