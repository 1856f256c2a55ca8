"""LRCN of Donahue et al., "Long-term Recurrent Convolutional Networks" (CVPR 2015), for activity
recognition: an LSTM of one layer over the fc6 of single frames.

Layers and names follow the release (LisaAnne/lisa-caffe-public, train_test_lstm_RGB.prototxt in
examples/LRCN_activity_recognition). The 2D network is between CaffeNet's and Zeiler and Fergus': at
227 px a map is 111 -> 55 -> 26 -> 13 -> 6 px wide. Every step has a loss. The scores of a clip are
the mean of the steps' softmax. Flow has three channels: x, y and the magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import init_classifier
from flowprep.learn.models.cnn_lstm import StepModel
from flowprep.learn.network_options import StepScores

__all__ = ["LRCN"]


class LRCN(StepModel):
    """LRCN over (N, C, T, crop_px, crop_px), with any T. Its fc6 fixes `crop_px`.

    `width` multiplies the channels of every layer. `dropout` applies to fc6 and to the LSTM's
    output; the release has .9 and .5. It starts from a network of single frames. New weights are
    drawn as He et al. (2015) do, because the release's deviation of .01 lets the signal die away.
    """

    stages = tuple((name,) for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "lstm"))
    step_scores: StepScores = "sum"

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float | None = None,
        width: float = 1.0,
        crop_px: int = 227,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        map_px = _map_px(crop_px)
        if map_px < 1:
            raise ConfigError(f"crop_px must be at least 49 for lrcn, got {crop_px}")
        # Even numbers, for two groups.
        c1, c2, c3, c4, c5 = (2 * max(1, round(n * width / 2)) for n in (96, 384, 512, 512, 384))
        wide, cells = (max(1, round(n * width)) for n in (4096, 256))
        self.conv1 = nn.Conv2d(clip.num_channels, c1, 7, stride=2)
        self.conv2 = nn.Conv2d(c1, c2, 5, stride=2, groups=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # Caffe rounds up
        self.fc6 = nn.Linear(c5 * map_px**2, wide)
        self.drop6 = nn.Dropout(0.9 if dropout is None else dropout)
        self.lstm = nn.LSTM(wide, cells, batch_first=True)
        self.dropout = nn.Dropout(0.5 if dropout is None else dropout)
        self.fc8 = nn.Linear(cells, num_classes)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.fc6):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        init_classifier(self.fc8)

    @property
    def classifier(self) -> nn.Linear:
        """fc8, the release's fc8-final."""
        return self.fc8

    def frame_vectors(self, frames: torch.Tensor) -> torch.Tensor:
        """Returns fc6 after its ReLU and dropout, (M, 4096 * width), of frames (M, C, H, W)."""
        x = self.norm(self.pool(F.relu(self.conv1(frames))))  # (M, 96, 55, 55)
        x = self.norm(self.pool(F.relu(self.conv2(x))))  # (M, 384, 13, 13)
        x = F.relu(self.conv3(x))  # (M, 512, 13, 13)
        x = F.relu(self.conv4(x))  # (M, 512, 13, 13)
        x = self.pool(F.relu(self.conv5(x)))  # (M, 384, 6, 6)
        vectors: torch.Tensor = self.drop6(F.relu(self.fc6(x.flatten(1))))  # (M, 4096)
        return vectors

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc8."""
        self.fc8 = nn.Linear(self.fc8.in_features, num_classes).to(self.fc8.weight)
        init_classifier(self.fc8)


def _map_px(crop_px: int) -> int:
    """Returns the side of pool5's map: 6 at 224 and 227 px, 0 or less for too small a crop."""
    px = _pool((crop_px - 7) // 2 + 1)
    px = _pool((px - 5) // 2 + 1)
    return _pool(px)


def _pool(px: int) -> int:
    """The side after a 3x3 max pooling of stride 2 that rounds up."""
    return -((3 - px) // 2) + 1
