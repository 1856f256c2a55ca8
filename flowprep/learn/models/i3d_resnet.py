"""I3D on ResNet-50, optionally with the non-local blocks of Wang et al., "Non-local Neural
Networks" (CVPR 2018).

The network equals SlowFast's I3D 8x8 (configs/Kinetics/I3D_8x8_R50.yaml, I3D_NLN_8x8_R50.yaml) and
pytorchvideo's i3d_r50. Parameters have the names of torchvision's resnet50, so that its weights
inflate by name. A non-local block belongs to the block before it, as in
layer2.1.non_local.theta.weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.inflated import InflatedConv3d, TimePadding
from flowprep.learn.layers.non_local import add_non_local
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.network_options import NonLocalOptions

__all__ = ["I3DResNet", "inflated_stage", "init_convolutions"]

TIME_KERNELS: dict[str, tuple[int, ...]] = {
    "conv1": (5,),
    "layer1": (3, 3, 3),
    "layer2": (3, 1, 3, 1),
    "layer3": (3, 1, 3, 1, 3, 1),
    "layer4": (1, 3, 1),
}
"""Time size of each block's first kernel (SlowFast, models/video_model_builder.py, `i3d`)."""


class I3DResNet(ClipModel):
    """An inflated ResNet-50 over (N, C, T, H, W), published for 8 frames of 224 x 224, stride 8.

    Any T, H and W are allowed. `time_padding` is the padding before the first frame and after the
    last: zeros, or copies of these frames. With copies, a still video scores the same as its single
    frame. `width` multiplies the channels of every layer.
    """

    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    time_kernels: ClassVar[Mapping[str, tuple[int, ...]]] = TIME_KERNELS
    """The time size of the first kernel of the stem and of each block."""
    halves_time: ClassVar[bool] = True
    """Whether a pooling after layer1 halves the number of frames."""
    base_channels: ClassVar[int] = 64
    """The published channels of the first convolution."""

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        non_local: NonLocalOptions | None = None,
        time_padding: TimePadding = "zeros",
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        base = max(1, round(self.base_channels * width))
        kernels = self.time_kernels
        self.conv1 = InflatedConv3d(
            clip.num_channels, base, (kernels["conv1"][0], 7, 7), (1, 2, 2), time_padding
        )
        self.bn1 = nn.BatchNorm3d(base)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.layer1 = inflated_stage("layer1", kernels, base, base, 1, time_padding)
        self.layer2 = inflated_stage("layer2", kernels, base * 4, base * 2, 2, time_padding)
        self.layer3 = inflated_stage("layer3", kernels, base * 8, base * 4, 2, time_padding)
        self.layer4 = inflated_stage("layer4", kernels, base * 16, base * 8, 2, time_padding)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(base * 32, num_classes)
        add_non_local(self, self.stages, non_local)
        init_convolutions(self)
        init_classifier(self.fc)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 2048 * width)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))  # (N, 64, T, H/4, W/4)
        x = self.layer1(x)  # (N, 256, T, H/4, W/4)
        if self.halves_time and x.shape[2] > 1:
            x = F.max_pool3d(x, (2, 1, 1))  # (N, 256, T/2, H/4, W/4)
        x = self.layer2(x)  # (N, 512, T/2, H/8, W/8)
        x = self.layer3(x)  # (N, 1024, T/2, H/16, W/16)
        x = self.layer4(x)  # (N, 2048, T/2, H/32, W/32)
        return x.mean((2, 3, 4))  # (N, 2048)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)


class Bottleneck(nn.Module):
    """torchvision's bottleneck, whose first convolution spans `time_kernel` frames."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        time_kernel: int,
        time_padding: TimePadding,
    ) -> None:
        super().__init__()
        wide = channels * 4
        self.conv1 = InflatedConv3d(in_channels, channels, (time_kernel, 1, 1), 1, time_padding)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = InflatedConv3d(channels, channels, (1, 3, 3), (1, stride, stride))
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = InflatedConv3d(channels, wide, (1, 1, 1), 1)
        self.bn3 = nn.BatchNorm3d(wide)
        self.downsample = (
            nn.Sequential(
                InflatedConv3d(in_channels, wide, (1, 1, 1), (1, stride, stride)),
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


def inflated_stage(
    name: str,
    time_kernels: Mapping[str, tuple[int, ...]],
    in_channels: int,
    channels: int,
    stride: int,
    time_padding: TimePadding,
) -> nn.Sequential:
    """Returns the blocks of a stage. The first block has the stride and changes the channels."""
    blocks = []
    for index, time_kernel in enumerate(time_kernels[name]):
        block = Bottleneck(
            in_channels if index == 0 else channels * 4,
            channels,
            stride if index == 0 else 1,
            time_kernel,
            time_padding,
        )
        blocks.append(block)
    return nn.Sequential(*blocks)


def init_convolutions(network: nn.Module) -> None:
    """Initializes as SlowFast does (utils/weight_init_helper.py): He et al. (2015) by fan-out.

    The last batch norm of each block starts at 0, so that the block starts as its shortcut
    (ZERO_INIT_FINAL_BN in the configs).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, Bottleneck):
            nn.init.zeros_(layer.bn3.weight)
