"""The residual networks of Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action
Recognition" (CVPR 2018): R(2+1)D, R3D, MC3, rMC3 and R2D.

They differ in their convolutions alone. Parameters are named as in torchvision
(models/video/resnet.py), so that its files load. The authors' code is in Caffe2
(facebookresearch/VMZ, c2/lib/models/r3d_model.py). Two things differ between the two sources, and
`variant` chooses between them:

- The plane between the two halves of a (2+1)D convolution. VMZ computes its channels for each
  convolution (builder/video_model.py, add_conv), torchvision once for the two of a block.
- The epsilon of batch norm. It is 1e-3 in VMZ and in everything converted from it, such as
  moabitcoin/ig65m-pytorch, and 1e-5 in torchvision.

VMZ's momentum of .9 weights the old average: PyTorch's .1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.inflated import InflatedConv3d
from flowprep.learn.layers.non_local import add_non_local
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.network_options import NonLocalOptions, VideoResNetVariant

__all__ = ["MC3", "R2D", "R3D", "RMC3", "R2Plus1D", "R2Plus1D34", "VideoResNet", "middle_channels"]

ConvKind = Literal["3d", "2+1d", "2d", "clip"]
"""`3d`: over 3 frames. `2+1d`: over each frame, then over 3 frames. `2d`: over each frame. `clip`:
over all frames at once, for a stem."""


def middle_channels(in_channels: int, out_channels: int) -> int:
    """Returns the channels between the halves of a (2+1)D convolution, as many as give it the
    parameters of a 3x3x3 convolution: 27 i o / (9 i + 3 o), rounded down."""
    return 27 * in_channels * out_channels // (9 * in_channels + 3 * out_channels)


class VideoResNet(ClipModel):
    """A residual network of two convolutions per block over (N, C, T, H, W), of any T, H and W.

    Published for clips of 112 x 112. `width` multiplies the channels of every layer.
    """

    convolutions: ClassVar[tuple[ConvKind, ConvKind, ConvKind, ConvKind, ConvKind]]
    """The kinds of the stem's convolution and of those of the four stages."""
    depths: ClassVar[tuple[int, int, int, int]] = (2, 2, 2, 2)
    """The number of blocks in each stage."""

    stages = (("stem",), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        variant: VideoResNetVariant,
        dropout: float = 0.0,
        width: float = 1.0,
        non_local: NonLocalOptions | None = None,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        base = max(1, round(64 * width))
        stem, first, second, third, fourth = self.convolutions
        depths = self.depths
        self.stem = _stem(stem, clip, base, max(1, round(45 * width)))
        self.layer1 = _stage(first, depths[0], base, base, 1, variant)
        self.layer2 = _stage(second, depths[1], base, base * 2, 2, variant)
        self.layer3 = _stage(third, depths[2], base * 2, base * 4, 2, variant)
        self.layer4 = _stage(fourth, depths[3], base * 4, base * 8, 2, variant)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(base * 8, num_classes)
        add_non_local(self, self.stages, non_local)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.BatchNorm3d):
                layer.eps = 1e-3 if variant == "vmz" else 1e-5
        init_classifier(self.fc)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 512 * width)."""
        x = self.stem(x)  # (N, 64, T, H/2, W/2)
        x = self.layer1(x)  # (N, 64, T, H/2, W/2)
        x = self.layer2(x)  # (N, 128, T/2, H/4, W/4), T where the stage is 2d
        x = self.layer3(x)  # (N, 256, T/4, H/8, W/8)
        x = self.layer4(x)  # (N, 512, T/8, H/16, W/16)
        return x.mean((2, 3, 4))  # (N, 512)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)


class R3D(VideoResNet):
    """R3D-18: every convolution spans 3 frames."""

    convolutions = ("3d", "3d", "3d", "3d", "3d")


class MC3(VideoResNet):
    """MC3-18, mixed convolutions: 3D in the stem and the first stage, and 2D without a stride in
    time above."""

    convolutions = ("3d", "3d", "2d", "2d", "2d")


class RMC3(VideoResNet):
    """rMC3-18, the reverse (VMZ's rmc3): 2D in the stem and the first stage, and 3D above."""

    convolutions = ("2d", "2d", "3d", "3d", "3d")


class R2D(VideoResNet):
    """R2D-18 (VMZ's r2d): 2D convolutions over the whole clip.

    Its stem sees all frames at once, as the channels of one image, and time is gone above. It is
    built for the number of frames of its input. A longer clip gets the average over all its
    windows of this length. The paper's f-R2D, which sees single frames, is another network.
    """

    convolutions = ("clip", "2d", "2d", "2d", "2d")


class R2Plus1D(VideoResNet):
    """R(2+1)D-18: every convolution is a 2D one and one over time, with a ReLU between."""

    convolutions = ("2+1d", "2+1d", "2+1d", "2+1d", "2+1d")


class R2Plus1D34(R2Plus1D):
    """R(2+1)D-34, the same with more blocks."""

    depths = (3, 4, 6, 3)


class Block(nn.Module):
    """Two convolutions of one kind, each with a batch norm, and a shortcut."""

    def __init__(
        self,
        kind: ConvKind,
        in_channels: int,
        channels: int,
        stride: int,
        variant: VideoResNetVariant,
    ) -> None:
        super().__init__()
        first = middle_channels(in_channels, channels)
        second = middle_channels(channels, channels) if variant == "vmz" else first
        time_stride = 1 if kind == "2d" else stride
        strides = (time_stride, stride, stride)
        self.conv1 = nn.Sequential(
            _conv(kind, in_channels, channels, max(1, first), strides),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            _conv(kind, channels, channels, max(1, second), (1, 1, 1)), nn.BatchNorm3d(channels)
        )
        self.downsample = (
            nn.Sequential(
                InflatedConv3d(in_channels, channels, (1, 1, 1), strides), nn.BatchNorm3d(channels)
            )
            if stride != 1 or in_channels != channels
            else None
        )
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.drop_path(self.conv2(self.conv1(x)))
        return F.relu(x + shortcut, inplace=True)


def _stem(kind: ConvKind, clip: ClipInput, channels: int, middle: int) -> nn.Sequential:
    """Returns the first layer, whose 7x7 kernels have a stride of 2."""
    norm, relu = nn.BatchNorm3d(channels), nn.ReLU(inplace=True)
    strides = (1, 2, 2)
    if kind == "clip":
        conv = nn.Conv3d(
            clip.num_channels, channels, (clip.num_frames, 7, 7), strides, (0, 3, 3), bias=False
        )
        return nn.Sequential(conv, norm, relu)
    if kind != "2+1d":
        frames = 3 if kind == "3d" else 1
        conv = InflatedConv3d(clip.num_channels, channels, (frames, 7, 7), strides)
        return nn.Sequential(conv, norm, relu)
    return nn.Sequential(
        InflatedConv3d(clip.num_channels, middle, (1, 7, 7), strides),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        InflatedConv3d(middle, channels, (3, 1, 1), 1),
        norm,
        relu,
    )


def _stage(
    kind: ConvKind,
    depth: int,
    in_channels: int,
    channels: int,
    stride: int,
    variant: VideoResNetVariant,
) -> nn.Sequential:
    """Returns `depth` blocks. The first has the stride and changes the number of channels."""
    rest = [Block(kind, channels, channels, 1, variant) for _ in range(depth - 1)]
    return nn.Sequential(Block(kind, in_channels, channels, stride, variant), *rest)


def _conv(
    kind: ConvKind,
    in_channels: int,
    channels: int,
    middle: int,
    strides: tuple[int, int, int],
) -> nn.Module:
    """Returns one convolution of a block; `middle` counts for (2+1)D alone."""
    if kind != "2+1d":
        frames = 3 if kind == "3d" else 1
        return InflatedConv3d(in_channels, channels, (frames, 3, 3), strides)
    return nn.Sequential(
        InflatedConv3d(in_channels, middle, (1, 3, 3), (1, *strides[1:])),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        InflatedConv3d(middle, channels, (3, 1, 1), (strides[0], 1, 1)),
    )
