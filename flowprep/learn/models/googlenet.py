"""GoogLeNet of Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015), table 1, over images
or stacks of flow fields.

Names, shapes and initial values are torchvision's (torchvision/models/googlenet.py), so that
torchvision's files load. As there, each convolution has a batch norm, the 5x5 convolutions are 3x3,
and the network takes frames from -1 to 1. The two classifiers in the middle are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel

__all__ = ["GoogLeNet"]

BLOCKS = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}
"""The channels of the four branches: 1x1, 1x1 and 3x3, 1x1 and "5x5", pooling and 1x1."""


class GoogLeNet(ClipModel):
    """GoogLeNet over (N, C, H, W), with H and W of any size.

    `width` multiplies the channels of every layer. `dropout` is torchvision's; the paper has .4.
    """

    stages = (
        ("conv1",),
        ("conv2", "conv3"),
        *(
            tuple(f"inception{block}" for block in BLOCKS if block.startswith(stage))
            for stage in ("3", "4", "5")
        ),
    )
    head = ("fc",)
    min_side_px = 15

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
        c1, c2, channels = (max(1, round(n * width)) for n in (64, 64, 192))
        self.conv1 = _Unit(clip.num_channels, c1, 7, stride=2)
        self.conv2 = _Unit(c1, c2, 1)
        self.conv3 = _Unit(c2, channels, 3)
        for name, branches in BLOCKS.items():
            block = _Inception(channels, branches, width)
            self.add_module(f"inception{name}", block)
            channels = block.out_channels
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.01)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 1024 * width)."""
        return self.extract_maps(x).mean((2, 3))  # (N, 1024)

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last map, (N, 1024 * width, H / 32, W / 32)."""
        x = _halve(self.conv1(x), 3)  # (N, 64, H/4, W/4)
        x = _halve(self.conv3(self.conv2(x)), 3)  # (N, 192, H/8, W/8)
        for name in BLOCKS:
            if name in ("4a", "5a"):
                x = _halve(x, 3 if name == "4a" else 2)
            # 3: 256, 480 channels; 4: 512, 512, 512, 528, 832; 5: 832, 1024
            x = self.get_submodule(f"inception{name}")(x)
        return x

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        nn.init.trunc_normal_(self.fc.weight, std=0.01)


class _Unit(nn.Module):
    """A convolution, its batch norm and a ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _Inception(nn.Module):
    """An inception block: four branches side by side."""

    def __init__(
        self,
        in_channels: int,
        branches: tuple[int, tuple[int, int], tuple[int, int], int],
        width: float,
    ) -> None:
        super().__init__()
        one, *pairs, pooled = branches
        first, last = max(1, round(one * width)), max(1, round(pooled * width))
        self.branch1 = _Unit(in_channels, first, 1)
        wide = []
        for number, pair in enumerate(pairs, start=2):
            assert isinstance(pair, tuple)
            reduced, channels = (max(1, round(n * width)) for n in pair)
            units = nn.Sequential(_Unit(in_channels, reduced, 1), _Unit(reduced, channels, 3))
            self.add_module(f"branch{number}", units)
            wide.append(channels)
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), _Unit(in_channels, last, 1)
        )
        self.out_channels = first + sum(wide) + last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def _halve(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """Returns the maxima of windows two apart; a part window at the edge counts."""
    return F.max_pool2d(x, kernel, stride=2, ceil_mode=True)
