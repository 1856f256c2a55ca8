"""MobileNetV2 of Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR
2018), table 2, over images or stacks of flow fields.

Every name, shape, stride and initial value is torchvision's (torchvision/models/mobilenetv2.py), so
that torchvision's files load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.temporal_shift import TemporalShift
from flowprep.learn.models.base import ClipModel, init_classifier

__all__ = ["MobileNetV2"]

GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, number of blocks and first stride of each group of blocks (table 2)."""


class MobileNetV2(ClipModel):
    """MobileNetV2 over (N, C, H, W), with H and W of any size.

    `width` multiplies the channels as torchvision's `width_mult` does: all are multiples of 8, and
    the last convolution never has fewer than 1280.
    """

    stages = tuple(
        tuple(f"features.{index}" for index in range(first, end))
        for first, end in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))
    )
    """A stage ends where the map is halved next."""

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.2,
        width: float = 1.0,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        channels = _multiple_of_8(32 * width)
        layers: list[nn.Module] = [_unit(clip.num_channels, channels, 3, stride=2)]
        for expansion, published, depth, stride in GROUPS:
            before, channels = channels, _multiple_of_8(published * width)
            layers.append(InvertedResidual(before, channels, stride, expansion))
            layers += [InvertedResidual(channels, channels, 1, expansion) for _ in range(1, depth)]
        last = _multiple_of_8(1280 * max(1.0, width))
        layers.append(_unit(channels, last, 1))
        self.features = nn.Sequential(*layers)
        linear = nn.Linear(last, num_classes)
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        init_classifier(linear)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 1280)."""
        x = self.features(x)  # (N, 1280, H/32, W/32)
        return x.mean((2, 3))  # (N, 1280)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.classifier(features)  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces classifier.1."""
        old = self.classifier[1]
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, num_classes).to(old.weight)
        init_classifier(new)
        self.classifier[1] = new

    def insert_shifts(self, num_segments: int, make_shift: Callable[[int], TemporalShift]) -> None:
        """Puts TSM's shifts in, for batches with the segments of a video side by side.

        As in TSM's release (ops/models.py), a block shifts if it has a shortcut and expands its
        channels: features 3, 5, 6, 8, 9, 10, 12, 13, 15 and 16. The shortcut is not shifted.
        """
        for block in self.features:
            if isinstance(block, InvertedResidual) and block.has_shortcut and block.expands:
                block.shift = make_shift(num_segments)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a 3x3 one in each channel and a 1x1 one that projects."""

    shift: TemporalShift | None
    drop_path: DropPath | None

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        self.expands = expansion > 1
        self.register_module("shift", None)
        self.conv = nn.Sequential(
            *([_unit(in_channels, wide, 1)] if self.expands else []),
            _unit(wide, wide, 3, stride=stride, groups=wide),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.register_module("drop_path", DropPath() if self.has_shortcut else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.conv(x if self.shift is None else self.shift(x))
        return result if self.drop_path is None else x + self.drop_path(result)


def _unit(
    in_channels: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Returns a convolution, batch norm and ReLU6."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))


def _multiple_of_8(channels: float) -> int:
    """Returns the nearest multiple of 8, at least 8, and not below 90 % of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
