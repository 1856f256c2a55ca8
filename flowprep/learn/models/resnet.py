"""ResNet-18 to 152 of He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016),
table 1, over images or stacks of flow fields.

Every name, shape, stride and initial value is torchvision's (torchvision/models/resnet.py), so that
torchvision's files load. A bottleneck has its stride in the 3x3 convolution ("v1.5"); the paper has
it in the first 1x1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput, ShiftPlace
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.temporal_shift import TemporalShift, temporal_pool
from flowprep.learn.models.base import ClipModel, Layer

__all__ = ["ResNet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


class ResidualBlock(nn.Module):
    """What the two kinds of block share: the place of TSM's shift, which plain networks lack, and
    drop path, which is off unless a training sets its rate."""

    shift: TemporalShift | None
    expansion: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.register_module("shift", None)
        self.shifts_shortcut = False
        self.drop_path = DropPath()

    def enter(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what the shortcut takes and what the first convolution takes."""
        if self.shift is None:
            return x, x
        shifted = self.shift(x)
        return (shifted if self.shifts_shortcut else x), shifted


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection(in_channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut, x = self.enter(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.drop_path(self.bn2(self.conv2(x)))
        return F.relu(x.add_(shortcut), inplace=True)


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions, the last with four times the channels, and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut, x = self.enter(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.drop_path(self.bn3(self.conv3(x)))
        return F.relu(x.add_(shortcut), inplace=True)


def _stage_layer(name: str, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> Layer:
    return Layer(name, run, (name,), (f"{name}.0.conv1", f"{name}.0.downsample.0"))


class ResNet(ClipModel):
    """A residual network over (N, C, H, W), with H and W of any size."""

    layers = (
        Layer(
            "conv1",
            lambda net, x: F.relu(net.bn1(net.conv1(x)), inplace=True),  # (N, 64, H/2, W/2)
            ("conv1", "bn1"),
            ("conv1",),
        ),
        _stage_layer("layer1", lambda net, x: net.layer1(net.maxpool(x))),  # (N, 64e, H/4, W/4)
        _stage_layer("layer2", lambda net, x: net.layer2(x)),  # (N, 128e, H/8, W/8)
        _stage_layer("layer3", lambda net, x: net.layer3(x)),  # (N, 256e, H/16, W/16)
        _stage_layer("layer4", lambda net, x: net.layer4(x)),  # (N, 512e, H/32, W/32)
        Layer("pool", lambda net, x: net.avgpool(x).flatten(1)),  # (N, 512e)
        Layer("fc", lambda net, x: net.fc(net.dropout(x)), ("fc",), ("fc",)),  # (N, K)
    )

    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    head = ("fc",)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.0,
        width: float = 1.0,
    ) -> None:
        """`depths` is the number of blocks in each stage; `width` multiplies all channels."""
        super().__init__(inputs)
        (clip,) = self.inputs
        base = max(1, round(64 * width))
        self.conv1 = nn.Conv2d(clip.num_channels, base, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wide = block.expansion
        self.layer1 = _stage(block, depths[0], base, base, stride=1)
        self.layer2 = _stage(block, depths[1], base * wide, base * 2, stride=2)
        self.layer3 = _stage(block, depths[2], base * 2 * wide, base * 4, stride=2)
        self.layer4 = _stage(block, depths[3], base * 4 * wide, base * 8, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(base * 8 * wide, num_classes)
        self.num_pooled_segments: int | None = None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 512 * expansion * width)."""
        return self.layers[-2].run(self, self.extract_maps(x))  # (N, 512e)

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last map, (N, 512 * expansion * width, H / 32, W / 32)."""
        for layer in self.layers[:-2]:
            if layer.name == "layer2" and self.num_pooled_segments is not None:
                x = temporal_pool(x, self.num_pooled_segments)  # half as many segments
            x = layer.run(self, x)
        return x  # (N, 512e, H/32, W/32)

    def insert_shifts(
        self,
        num_segments: int,
        make_shift: Callable[[int], TemporalShift],
        *,
        shift_place: ShiftPlace = "blockres",
        temporal_pool: bool = False,
    ) -> None:
        """Puts TSM's shifts in, for batches with the segments of a video side by side.

        As in TSM's release (ops/temporal_shift.py), `blockres` shifts in every second block of each
        stage if layer3 has 23 blocks or more. With `temporal_pool`, the segments are halved before
        layer2.
        """
        self.num_pooled_segments = num_segments if temporal_pool else None
        every = 2 if shift_place == "blockres" and len(self.layer3) >= 23 else 1
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            halved = temporal_pool and stage is not self.layer1
            for block in list(stage)[::every]:
                assert isinstance(block, ResidualBlock)
                block.shift = make_shift(num_segments // 2 if halved else num_segments)
                block.shifts_shortcut = shift_place == "block"

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        return self.layers[-1].run(self, features)  # (N, K)

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)


def resnet18(
    inputs: Sequence[ClipInput], num_classes: int, *, dropout: float = 0.0, width: float = 1.0
) -> ResNet:
    """Returns a ResNet of 18 layers: 11,689,512 parameters at 3 channels and 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), inputs, num_classes, dropout=dropout, width=width)


def resnet34(
    inputs: Sequence[ClipInput], num_classes: int, *, dropout: float = 0.0, width: float = 1.0
) -> ResNet:
    """Returns a ResNet of 34 layers: 21,797,672 parameters at 3 channels and 1000 classes."""
    return ResNet(BasicBlock, (3, 4, 6, 3), inputs, num_classes, dropout=dropout, width=width)


def resnet50(
    inputs: Sequence[ClipInput], num_classes: int, *, dropout: float = 0.0, width: float = 1.0
) -> ResNet:
    """Returns a ResNet of 50 layers: 25,557,032 parameters at 3 channels and 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), inputs, num_classes, dropout=dropout, width=width)


def resnet101(
    inputs: Sequence[ClipInput], num_classes: int, *, dropout: float = 0.0, width: float = 1.0
) -> ResNet:
    """Returns a ResNet of 101 layers: 44,549,160 parameters at 3 channels and 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 23, 3), inputs, num_classes, dropout=dropout, width=width)


def resnet152(
    inputs: Sequence[ClipInput], num_classes: int, *, dropout: float = 0.0, width: float = 1.0
) -> ResNet:
    """Returns a ResNet of 152 layers: 60,192,808 parameters at 3 channels and 1000 classes."""
    return ResNet(Bottleneck, (3, 8, 36, 3), inputs, num_classes, dropout=dropout, width=width)


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    depth: int,
    in_channels: int,
    channels: int,
    *,
    stride: int,
) -> nn.Sequential:
    """Returns `depth` blocks. The first has the stride and changes the number of channels."""
    wide = channels * block.expansion
    rest = [block(wide, channels, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(in_channels, channels, stride), *rest)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Returns the shortcut's 1x1 convolution, or None if the shortcut is the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
