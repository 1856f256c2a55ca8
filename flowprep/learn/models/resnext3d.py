"""ResNeXt-101 over volumes: Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs
and ImageNet?" (CVPR 2018), and the streams of Crasto et al., "MARS: Motion-Augmented
RGB Stream for Action Recognition" (CVPR 2019).

The network equals resnext101 of kenshohara/3D-ResNets-PyTorch and of craston/MARS
(models/resnext.py) with 32 groups and shortcuts of type B. Parameters have their names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.inflated import InflatedConv3d
from flowprep.learn.layers.non_local import add_non_local
from flowprep.learn.models.base import ClipModel
from flowprep.learn.network_options import NonLocalOptions

__all__ = ["ResNeXt3D"]

NUM_GROUPS = 32
"""Cardinality: the groups of each 3x3x3 convolution."""

GROUP_CHANNELS = (4, 8, 16, 32)
"""The channels of one group, in each stage."""

DEPTHS = (3, 4, 23, 3)
"""The number of blocks in each stage."""


class ResNeXt3D(ClipModel):
    """ResNeXt-101 over (N, C, T, H, W), published for 16 or 64 frames of 112 x 112.

    Any T, H and W are allowed: the last map is averaged over its whole size. `width` multiplies
    the channels of every layer; the number of groups stays.
    """

    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.0,
        width: float = 1.0,
        non_local: NonLocalOptions | None = None,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        channels = max(1, round(64 * width))
        self.conv1 = InflatedConv3d(clip.num_channels, channels, (7, 7, 7), (1, 2, 2))
        self.bn1 = nn.BatchNorm3d(channels)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        self.layer1 = _stage(0, channels, width)
        self.layer2 = _stage(1, _wide(0, width), width)
        self.layer3 = _stage(2, _wide(1, width), width)
        self.layer4 = _stage(3, _wide(2, width), width)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(_wide(3, width), num_classes)
        add_non_local(self, self.stages, non_local)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 2048 * width)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))  # (N, 64, T/2, H/4, W/4)
        x = self.layer1(x)  # (N, 256, T/2, H/4, W/4)
        x = self.layer2(x)  # (N, 512, T/4, H/8, W/8)
        x = self.layer3(x)  # (N, 1024, T/8, H/16, W/16)
        x = self.layer4(x)  # (N, 2048, T/16, H/32, W/32)
        return x.mean((2, 3, 4))  # (N, 2048)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions, and a shortcut. The 3x3x3 has the stride."""

    def __init__(self, in_channels: int, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = InflatedConv3d(in_channels, channels, (1, 1, 1), 1)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(
            channels, channels, 3, stride=stride, padding=1, groups=NUM_GROUPS, bias=False
        )
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = InflatedConv3d(channels, wide, (1, 1, 1), 1)
        self.bn3 = nn.BatchNorm3d(wide)
        self.downsample = (
            nn.Sequential(
                InflatedConv3d(in_channels, wide, (1, 1, 1), (stride, stride, stride)),
                nn.BatchNorm3d(wide),
            )
            if stride != 1 or in_channels != wide
            else None
        )
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.drop_path(self.bn3(self.conv3(x)))
        return F.relu(x + shortcut, inplace=True)


def _wide(stage: int, width: float) -> int:
    """Returns the channels between the blocks of a stage: 256 in the first, then doubled."""
    return max(1, round((256 << stage) * width))


def _stage(stage: int, in_channels: int, width: float) -> nn.Sequential:
    """Returns the blocks of a stage. The first changes the channels, and the size after stage 0."""
    wide = _wide(stage, width)
    channels = NUM_GROUPS * max(1, round(GROUP_CHANNELS[stage] * width))
    rest = [Bottleneck(wide, channels, wide, 1) for _ in range(DEPTHS[stage] - 1)]
    return nn.Sequential(Bottleneck(in_channels, channels, wide, 1 if stage == 0 else 2), *rest)
