"""CNN-M-2048, the network of both streams in Simonyan and Zisserman, "Two-Stream Convolutional
Networks for Action Recognition in Videos" (NIPS 2014), figure 1. Chatfield et al. describe it
first, "Return of the Devil in the Details" (BMVC 2014), table 1.

Layers, paddings and the names conv1 ... fc8 follow the authors' Caffe release
(VGG_CNN_M_2048). At 224 px a map is 109 -> 54 -> 26 -> 13 -> 6 px wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel, Layer, init_classifier

__all__ = ["CNNM"]


def _layer(name: str, module: str, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> Layer:
    return Layer(name, run, (module,), (module,))


class CNNM(ClipModel):
    """CNN-M-2048 over (N, C, crop_px, crop_px). Its fc6 fixes `crop_px`.

    For RGB, conv2 is normalized too. The paper's temporal net leaves this out to save memory
    (section 3). `width` multiplies every layer's channels.
    """

    layers = (
        _layer("relu1", "conv1", lambda net, x: F.relu(net.conv1(x))),  # (N, 96, 109, 109)
        _layer("relu2", "conv2", lambda net, x: F.relu(net.conv2(net.pool(net.norm(x))))),
        _layer("relu3", "conv3", lambda net, x: F.relu(net.conv3(net.pool(net.norm2(x))))),
        _layer("relu4", "conv4", lambda net, x: F.relu(net.conv4(x))),  # (N, 512, 13, 13)
        _layer("relu5", "conv5", lambda net, x: F.relu(net.conv5(x))),  # (N, 512, 13, 13)
        _layer("fc6", "fc6", lambda net, x: F.relu(net.fc6(net.pool(x).flatten(1)))),  # (N, 4096)
        _layer("fc7", "fc7", lambda net, x: F.relu(net.fc7(net.dropout(x)))),  # (N, 2048)
        _layer("fc8", "fc8", lambda net, x: net.fc8(net.dropout(x))),  # (N, K)
    )
    stages = tuple((name,) for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"))

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.9,
        width: float = 1.0,
        crop_px: int = 224,
    ) -> None:
        """`dropout` applies to fc6 and fc7; the default is the paper's .9 (section 5, Training)."""
        super().__init__(inputs)
        (clip,) = self.inputs
        conv = [max(1, round(channels * width)) for channels in (96, 256, 512, 512, 512)]
        fc6, fc7 = (max(1, round(channels * width)) for channels in (4096, 2048))
        map_px = _map_px(crop_px)
        if map_px < 1:
            raise ConfigError(f"crop_px must be at least 41 for cnn-m-2048, got {crop_px}")
        self.conv1 = nn.Conv2d(clip.num_channels, conv[0], 7, stride=2)
        self.conv2 = nn.Conv2d(conv[0], conv[1], 5, stride=2, padding=1)
        self.conv3 = nn.Conv2d(conv[1], conv[2], 3, padding=1)
        self.conv4 = nn.Conv2d(conv[2], conv[3], 3, padding=1)
        self.conv5 = nn.Conv2d(conv[3], conv[4], 3, padding=1)
        # n = 5, k = 2, beta = .75 as in AlexNet (Krizhevsky et al. 2012, section 3.3), from which
        # Chatfield took them. AlexNet's alpha = 1e-4 multiplies a sum. PyTorch and Caffe multiply a
        # mean over n, so the release has 5e-4.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.norm2 = self.norm if clip.stream == "rgb" else nn.Identity()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # Caffe rounds up
        self.fc6 = nn.Linear(conv[4] * map_px**2, fc6)
        self.fc7 = nn.Linear(fc6, fc7)
        self.dropout = nn.Dropout(dropout)
        self.fc8 = nn.Linear(fc7, num_classes)
        # Chatfield draws all weights with one fixed deviation and trains for weeks. He et al.
        # (2015) keeps the activations of eight layers alive at any width.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                _zero_bias(layer)
        init_classifier(self.fc8)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns fc7 after its ReLU, (N, 2048 * width)."""
        for layer in self.layers[:-1]:
            x = layer.run(self, x)
        return x  # (N, 2048)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        return self.layers[-1].run(self, features)  # (N, K)

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc8."""
        self.fc8 = nn.Linear(self.fc8.in_features, num_classes).to(self.fc8.weight)
        init_classifier(self.fc8)


def _map_px(crop_px: int) -> int:
    """Returns the side of pool5's map: 6 at 224 px, 1 at 41 to 72 px, 0 or less below that."""
    px = _pool((crop_px - 7) // 2 + 1)
    px = _pool((px + 2 - 5) // 2 + 1)
    return _pool(px)


def _pool(px: int) -> int:
    """The side after a 3x3 max pooling of stride 2 that rounds up."""
    return -((3 - px) // 2) + 1


def _zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
