"""C3D of Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks" (ICCV
2015), and the variant with batch norms of Carreira and Zisserman, "Quo Vadis, Action Recognition?"
(CVPR 2017), section 2.2.

Layers, paddings and the names conv1a ... fc8 follow the authors' Caffe release
(facebookarchive/C3D, c3d_sport1m_feature_extractor_frm.prototxt), whose poolings round up. At 16
frames of 112 px a map is 16x56 -> 8x28 -> 4x14 -> 2x7 -> 1x4. Only the initial weights differ: the
release draws them with deviations of .01 and .005 and takes biases of 1, which serves the
published width alone. He et al. (2015) keeps the activations alive at any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.network_options import Pool5Name

__all__ = ["C3D", "C3DBatchNorm", "Pool5"]

CONVOLUTIONS = {
    "conv1a": 64,
    "conv2a": 128,
    "conv3a": 256,
    "conv3b": 256,
    "conv4a": 512,
    "conv4b": 512,
    "conv5a": 512,
    "conv5b": 512,
}
"""The output channels of each convolution. A pooling follows the last one of each number."""

NUM_POOLS = 5


class C3D(ClipModel):
    """C3D over (N, C, T, crop_px, crop_px). Its fc6 fixes `crop_px` and the number of frames.

    `width` multiplies the channels of every layer, also the 4096 of fc6 and fc7. The output of fc6
    and fc7 is after their ReLU, as in the release, where it overwrites them: features of fc6 are
    those that the paper classifies.
    """

    conv1a: nn.Module
    conv2a: nn.Module
    conv3a: nn.Module
    conv3b: nn.Module
    conv4a: nn.Module
    conv4b: nn.Module
    conv5a: nn.Module
    conv5b: nn.Module

    has_norms: ClassVar[bool] = False
    """Whether a batch norm follows each convolution, fc6 and fc7, in place of a bias."""
    pool1_frames: ClassVar[int] = 1
    """How many frames pool1 joins."""

    stages = (
        ("conv1a",),
        ("conv2a",),
        ("conv3a", "conv3b"),
        ("conv4a", "conv4b"),
        ("conv5a", "conv5b"),
        ("fc6",),
        ("fc7",),
    )

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        crop_px: int = 112,
        pool5: Pool5Name = "ceil",
    ) -> None:
        """`dropout` applies to fc6 and fc7. `pool5` is for T, H and W of conv5b's map."""
        super().__init__(inputs)
        (clip,) = self.inputs
        channels = clip.num_channels
        for name, published in CONVOLUTIONS.items():
            wide = max(1, round(published * width))
            self.add_module(name, _convolution(channels, wide, self.has_norms))
            channels = wide
        self.pool1 = _pool(self.pool1_frames)
        self.pool2, self.pool3, self.pool4 = _pool(2), _pool(2), _pool(2)
        self.pool5 = Pool5(pool5)
        frames, side = clip.num_frames, clip.side_px(crop_px)
        for number in range(NUM_POOLS):
            frames = -(-frames // (self.pool1_frames if number == 0 else 2))
            if number < NUM_POOLS - 1:
                side = -(-side // 2)
        side = side // 2 + 1 if pool5 == "padded" else -(-side // 2)
        wide = max(1, round(4096 * width))
        self.fc6 = _fully_connected(channels * frames * side**2, wide, self.has_norms)
        self.fc7 = _fully_connected(wide, wide, self.has_norms)
        self.dropout = nn.Dropout(dropout)
        self.fc8 = nn.Linear(wide, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        init_classifier(self.fc8)
        self._shape = (channels, frames, side, side)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns fc7 after its ReLU, (N, 4096 * width).

        Raises ConfigError for a clip of another size than the one that the network is made for.
        """
        x = self.pool1(self.conv1a(x))  # (N, 64, 16, 56, 56)
        x = self.pool2(self.conv2a(x))  # (N, 128, 8, 28, 28)
        x = self.pool3(self.conv3b(self.conv3a(x)))  # (N, 256, 4, 14, 14)
        x = self.pool4(self.conv4b(self.conv4a(x)))  # (N, 512, 2, 7, 7)
        x = self.pool5(self.conv5b(self.conv5a(x)))  # (N, 512, 1, 4, 4)
        if tuple(x.shape[1:]) != self._shape:
            raise ConfigError(
                "a clip must have the size that C3D is made for, with a pool5 of "
                f"{self._shape}, got one of {tuple(x.shape[1:])}; give the crop and the frames of "
                "the weights"
            )
        x = self.dropout(self.fc6(x.flatten(1)))  # (N, 4096)
        result: torch.Tensor = self.fc7(x)  # (N, 4096)
        return result

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc8(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc8."""
        self.fc8 = nn.Linear(self.fc8.in_features, num_classes).to(self.fc8.weight)
        init_classifier(self.fc8)


class C3DBatchNorm(C3D):
    """C3D with a batch norm after every layer but the last, whose pool1 halves time too.

    The paper's 79 M parameters leave open whether its pool5 rounds up; it does here.
    """

    has_norms = True
    pool1_frames = 2


class Pool5(nn.Module):
    """C3D's last pooling, a maximum over windows of 2x2x2. Time is always rounded up.

    On a map of 7 px, Caffe's windows begin at 0, 2, 4 and 6, so the last one is cut off (`ceil`).
    DavideA/c3d-pytorch, mmaction2 and others pad a px in front instead: windows begin at -1, 1, 3
    and 5 (`padded`).
    """

    def __init__(self, reading: Pool5Name) -> None:
        super().__init__()
        self.reading = reading

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.reading == "ceil":
            return F.max_pool3d(x, 2, 2, ceil_mode=True)
        x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1), ceil_mode=True)
        return F.max_pool3d(x, (1, 2, 2), (1, 2, 2), padding=(0, 1, 1))


class RectifiedConv3d(nn.Conv3d):
    """A convolution and a ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x), inplace=True)


class RectifiedLinear(nn.Linear):
    """A fully connected layer and a ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x), inplace=True)


def _convolution(in_channels: int, out_channels: int, has_norm: bool) -> nn.Module:
    if not has_norm:
        return RectifiedConv3d(in_channels, out_channels, 3, padding=1)
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(inplace=True),
    )


def _fully_connected(in_features: int, out_features: int, has_norm: bool) -> nn.Module:
    if not has_norm:
        return RectifiedLinear(in_features, out_features)
    return nn.Sequential(
        nn.Linear(in_features, out_features, bias=False),
        nn.BatchNorm1d(out_features),
        nn.ReLU(inplace=True),
    )


def _pool(num_frames: int) -> nn.MaxPool3d:
    return nn.MaxPool3d((num_frames, 2, 2), ceil_mode=True)
