"""Piergiovanni and Ryoo, "Representation Flow for Action Recognition" (CVPR 2019): a (2+1)D
ResNet-50 with a layer for the flow of its features in the middle.

Layers are named as in piergiaj/representation-flow-cvpr19 (kinetics_2p1d_model.py), but for the
classifier. Its authors converted it from TensorFlow: paddings are SAME, and a shortcut has two
batch norms. Its first convolution has no padding, so that 16 frames become 3 before the flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.inflated import InflatedConv3d
from flowprep.learn.layers.representation_flow import (
    FeatureFlow,
    FlowOfFlow,
    ReleasedFlow,
    RepresentationFlow,
    TVL1Flow,
)
from flowprep.learn.layers.same_padding import SameConv3d, SameMaxPool3d
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.network_options import FlowLayerName

__all__ = ["RepresentationFlowResNet"]

STEM_FRAMES = 7
"""Frames of the first kernel, which moves by two."""


class RepresentationFlowResNet(ClipModel):
    """A (2+1)D ResNet-50 over (N, C, T, H, W), with the flow of features behind its third stage.

    T must be at least 11, or 15 for the flow of flow. H and W at least 23. `width` multiplies the
    channels of every layer, also those that the flow is computed of, which are 32 as published.
    """

    min_side_px = 23
    stages = (("stem", "bn1"), ("res2",), ("res3", "rep_flow"), ("res4",), ("res5",))

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        flow_layer: FlowLayerName = "release",
        flow_of_flow: bool = False,
        flow_iterations: int = 10,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        base, between = max(1, round(64 * width)), max(1, round(32 * width))
        kind = FlowOfFlow if flow_of_flow else RepresentationFlow
        _check_length(clip.num_frames, kind.num_frames_lost)

        def make_flow(channels: int) -> FeatureFlow:
            made = TVL1Flow if flow_layer == "tvl1" else ReleasedFlow
            return made(channels, flow_iterations)

        self.stem = nn.Conv3d(clip.num_channels, base, STEM_FRAMES, stride=2, bias=False)
        self.bn1 = nn.BatchNorm3d(base, eps=0.001, momentum=0.01)
        self.maxpool = SameMaxPool3d((3, 3, 3), (2, 2, 2))
        self.rep_flow = kind(base * 8, between, make_flow)
        self.res2 = _Stage(base, base, 3, 1)
        self.res3 = _Stage(base * 4, base * 2, 4, 2)
        self.res4 = _Stage(base * 8, base * 4, 6, 2)
        self.res5 = _Stage(base * 16, base * 8, 3, 2)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(base * 32, num_classes)
        self._init_weights()

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 2048 * width)."""
        x = F.relu(self.bn1(self.stem(x)), inplace=True)  # (N, 64, (T - 5) / 2, H/2 - 3, W/2 - 3)
        x = self.maxpool(x)  # (N, 64, T/4 - 1, H/4 - 1, W/4 - 1), rounded up
        x = self.res2(x)  # (N, 256, T/4 - 1, ...)
        x = self.res3(x)  # (N, 512, T/4 - 1, half of H and W)
        x = self.rep_flow(x)  # (N, 512, T/4 - 2, ...)
        x = self.res4(x)  # (N, 1024, T/4 - 2, half of H and W)
        x = self.res5(x)  # (N, 2048, T/4 - 2, half of H and W)
        return x.mean((2, 3, 4))  # (N, 2048)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)

    def _init_weights(self) -> None:
        """He's initialization by fan-out (flow_2p1d_resnets.py), and the flow of flow at 0."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, FlowOfFlow):
                nn.init.zeros_(layer.bnf.weight)
        init_classifier(self.fc)


def _check_length(num_frames: int, num_lost: int) -> None:
    """Raises ConfigError for a clip of which no frame is left behind the flow."""
    least = STEM_FRAMES + 4 * num_lost
    if num_frames < least:
        raise ConfigError(
            f"num_frames of representation-flow must be at least {least} here, got {num_frames}: "
            "of fewer, no two frames are left where the flow is computed"
        )


class _Stage(nn.Module):
    """`depth` blocks. The first has the stride; every other one spans three frames."""

    def __init__(self, in_channels: int, channels: int, depth: int, stride: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            _Block(in_channels, channels, 3, stride, has_shortcut=True),
            *(
                _Block(channels * 4, channels, 1 if number % 2 else 3, 1)
                for number in range(depth - 1)
            ),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.blocks(x)
        return result


class _Block(nn.Module):
    """A bottleneck: over time, over the image, over the channels.

    The places in the sequences are the release's, whose paddings are layers of their own.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_frames: int,
        stride: int,
        *,
        has_shortcut: bool = False,
    ) -> None:
        super().__init__()
        wide, strides = channels * 4, (1, stride, stride)
        self.shortcut = (
            nn.Sequential(
                nn.Identity(),
                InflatedConv3d(in_channels, wide, (1, 1, 1), strides),
                nn.BatchNorm3d(wide),
                nn.BatchNorm3d(wide),
            )
            if has_shortcut
            else None
        )
        self.layers = nn.Sequential(
            nn.Identity(),
            InflatedConv3d(in_channels, channels, (num_frames, 1, 1), 1),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            nn.Identity(),
            SameConv3d(channels, channels, (1, 3, 3), strides, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            InflatedConv3d(channels, wide, (1, 1, 1), 1),
            nn.BatchNorm3d(wide),
        )

        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.drop_path(self.layers(x)) + shortcut, inplace=True)
