"""SlowFast of Feichtenhofer et al., "SlowFast Networks for Video Recognition" (ICCV 2019), on
ResNet-50, and its fast path as a network of its own.

A slow path of 64 channels sees few frames of a clip. A fast path of an eighth of the channels (beta
of the paper) sees alpha times as many. After the first convolution and after each stage but the
last, a convolution over time with a stride of alpha takes the fast path's map to the slow one's
frames; its result has twice the fast channels and is put behind the slow map (section 3.4,
"time-strided convolution").

The networks equal SLOWFAST_4x16_R50 and SLOWFAST_8x8_R50 of facebookresearch/SlowFast
(models/video_model_builder.py), pytorchvideo's create_slowfast and, without the norms of the
lateral convolutions, mmaction2's ResNet3dSlowFast. In each path parameters are named as in
`i3d_resnet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput, PickName
from flowprep.learn.layers.inflated import InflatedConv3d
from flowprep.learn.layers.non_local import add_non_local
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.models.i3d_resnet import I3DResNet, inflated_stage, init_convolutions
from flowprep.learn.models.slow import Slow
from flowprep.learn.network_options import NonLocalOptions

__all__ = ["Fast", "SlowFast", "slowfast_with"]

LAYERS = ("layer1", "layer2", "layer3", "layer4")
CHANNEL_RATIO = 8
"""1 / beta (section 3.2)."""
LATERAL_RATIO = 2
"""Channels of a lateral convolution for each channel of the fast path (section 3.4)."""


class Fast(I3DResNet):
    """The fast path alone, over (N, C, T, H, W): an eighth of the channels, 32 frames at stride 2.

    Every block sees three frames, the first convolution five (table 1). No released network is the
    fast path alone; the head is SlowFast's, over its 256 channels.
    """

    time_kernels: ClassVar = {
        "conv1": (5,),
        "layer1": (3,) * 3,
        "layer2": (3,) * 4,
        "layer3": (3,) * 6,
        "layer4": (3,) * 3,
    }
    halves_time = False
    base_channels = 64 // CHANNEL_RATIO


class SlowFast(ClipModel):
    """A slow path over (N, C, T, H, W) and a fast one over (N, C, alpha T, H, W) of the same clip.

    alpha is the `rate_ratio` of the slow input. `lateral_frames` is what a lateral convolution
    sees. Non-local blocks stand in the slow path (configs/Kinetics/SLOWFAST_NLN_8x8_R50.yaml).

    Features are the averages of the last maps. In a test the release averages windows as large as
    the training's maps, classifies each, and averages their softmax (models/head_helper.py). At the
    crop of the training there is one window, and both are the same.
    """

    stages = (
        ("slow.conv1", "slow.bn1", "fast.conv1", "fast.bn1", "laterals.conv1"),
        *((f"slow.{name}", f"fast.{name}", f"laterals.{name}") for name in LAYERS[:-1]),
        ("slow.layer4", "fast.layer4"),
    )

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        non_local: NonLocalOptions | None = None,
        lateral_frames: int = 7,
        lateral_norm: bool = True,
        slow_frames: PickName = "spread",
    ) -> None:
        """Raises ConfigError for a fast input that has not alpha times the slow one's frames.

        `slow_frames` is what the inputs say; the network is the same.
        """
        super().__init__(inputs)
        slow, fast = self.inputs
        alpha = slow.rate_ratio
        if fast.num_frames != alpha * slow.num_frames:
            raise ConfigError(
                f"the fast input must have {alpha} times the slow one's frames, got "
                f"{fast.num_frames} and {slow.num_frames}"
            )
        base = max(1, round(64 * width))
        fast_base = max(1, round(64 // CHANNEL_RATIO * width))
        lateral_base = LATERAL_RATIO * fast_base
        self.slow = Path(slow.num_channels, base, lateral_base, Slow.time_kernels)
        self.fast = Path(fast.num_channels, fast_base, 0, Fast.time_kernels)
        self.laterals = nn.ModuleDict(
            {
                name: Lateral(fast_base << doubled, lateral_frames, alpha, has_norm=lateral_norm)
                for name, doubled in (("conv1", 0), ("layer1", 2), ("layer2", 3), ("layer3", 4))
            }
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(32 * (base + fast_base), num_classes)
        add_non_local(self, self.block_stages, non_local)
        init_convolutions(self)
        init_classifier(self.fc)

    @property
    def block_stages(self) -> tuple[tuple[str, ...], ...]:
        """The stages of the slow path."""
        return tuple((f"slow.{name}",) for name in LAYERS)

    def extract_features(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        """Returns the averages of the last maps, slow then fast, (N, 2304 * width)."""
        slow, fast = self.slow.enter(slow), self.fast.enter(fast)  # (N, 64, T, H/4, W/4), (N, 8,..
        slow = self._join("conv1", slow, fast)  # (N, 80, T, H/4, W/4)
        for name in LAYERS:
            slow = self.slow.get_submodule(name)(slow)
            fast = self.fast.get_submodule(name)(fast)
            if name in self.laterals:
                slow = self._join(name, slow, fast)  # 320, 640, 1280 channels
        return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)  # (N, 2048 + 256)

    def _join(self, place: str, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        return torch.cat([slow, self.laterals[place](fast)], 1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)


class Path(nn.Module):
    """The layers of one path. `added` channels come from the first lateral convolution."""

    def __init__(
        self,
        in_channels: int,
        base: int,
        added: int,
        time_kernels: Mapping[str, tuple[int, ...]],
    ) -> None:
        super().__init__()
        kernel = (time_kernels["conv1"][0], 7, 7)
        self.conv1 = InflatedConv3d(in_channels, base, kernel, (1, 2, 2))
        self.bn1 = nn.BatchNorm3d(base)
        before = base + added
        for number, name in enumerate(LAYERS):
            inner = base << number
            stride = 1 if number == 0 else 2
            self.add_module(
                name, inflated_stage(name, time_kernels, before, inner, stride, "zeros")
            )
            # A lateral convolution of a stage has as many times the channels of the first one as
            # the stage's map has times those of conv1.
            before = 4 * inner + (added << number + 2)

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what goes into the first stage, but for the lateral convolution's channels."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Lateral(nn.Module):
    """Takes a map of the fast path to the frames and to twice the channels for the slow path.

    Without the norm there is no ReLU either, as in mmaction2 (models/backbones/
    resnet3d_slowfast.py, `lateral_norm`).
    """

    def __init__(self, channels: int, num_frames: int, alpha: int, *, has_norm: bool) -> None:
        super().__init__()
        wide = LATERAL_RATIO * channels
        self.conv = InflatedConv3d(channels, wide, (num_frames, 1, 1), (alpha, 1, 1))
        self.bn = nn.BatchNorm3d(wide) if has_norm else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x if self.bn is None else F.relu(self.bn(x), inplace=True)


def slowfast_with(default_frames: int) -> Callable[..., SlowFast]:
    """Returns a function that makes a network whose lateral convolutions see so many frames."""

    def build(
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        non_local: NonLocalOptions | None = None,
        lateral_frames: int | None = None,
        lateral_norm: bool = True,
        slow_frames: PickName = "spread",
    ) -> SlowFast:
        return SlowFast(
            inputs,
            num_classes,
            dropout=dropout,
            width=width,
            non_local=non_local,
            lateral_frames=lateral_frames or default_frames,
            lateral_norm=lateral_norm,
            slow_frames=slow_frames,
        )

    return build
