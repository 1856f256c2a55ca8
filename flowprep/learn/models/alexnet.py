"""AlexNet of Krizhevsky et al., "ImageNet Classification" (NIPS 2012), in the form of one column
(Krizhevsky, arXiv 1404.5997), over images or stacks of flow fields.

Names, shapes and initial values are torchvision's (torchvision/models/alexnet.py), so that
torchvision's files load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel

__all__ = ["AlexNet"]

MAP_PX = 6
"""The side of the last map at 224 px. Maps of other sizes are averaged to it, as in torchvision."""


class AlexNet(ClipModel):
    """AlexNet over (N, C, H, W), with H and W of any size from 63.

    `width` multiplies the channels of every layer. `dropout` applies to fc6 and fc7.
    """

    stages = (
        *((f"features.{index}",) for index in (0, 3, 6, 8, 10)),
        ("classifier.1",),
        ("classifier.4",),
    )
    head = ("classifier",)
    min_side_px = 63

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        c1, c2, c3, c4, c5 = (max(1, round(n * width)) for n in (64, 192, 384, 256, 256))
        wide = max(1, round(4096 * width))
        self.features = nn.Sequential(
            nn.Conv2d(clip.num_channels, c1, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(MAP_PX)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(c5 * MAP_PX**2, wide),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(wide, wide),
            nn.ReLU(inplace=True),
            nn.Linear(wide, num_classes),
        )

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns fc7 after its ReLU, (N, 4096 * width)."""
        features: torch.Tensor = self.avgpool(self.extract_maps(x)).flatten(1)  # (N, 256 * 6 * 6)
        for index in range(6):  # to fc7's ReLU
            features = self.classifier[index](features)
        return features  # (N, 4096)

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns pool5, (N, 256 * width, 6, 6) at 224 px."""
        maps: torch.Tensor = self.features(x)
        return maps

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.classifier[6](features)  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces classifier.6."""
        old = self.classifier[6]
        assert isinstance(old, nn.Linear)
        self.classifier[6] = nn.Linear(old.in_features, num_classes).to(old.weight)
