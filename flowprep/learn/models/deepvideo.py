"""DeepVideo: the networks of Karpathy et al., "Large-scale Video Classification with Convolutional
Neural Networks" (CVPR 2014), figures 1 and 2.

    C(96,11,3)-N-P-C(256,5,1)-N-P-C(384,3,1)-C(384,3,1)-C(256,3,1)-P-FC(4096)-FC(4096)

C(d, f, s) has d filters of f x f at stride s, P is a 2x2 maximum, N a local response normalization.
The paper does not state paddings. These give its last map, 7 x 7 x 256: 5 px in the first
convolution, 2 px in the second, 1 px after that. Initial weights are He's (2015), which suits any
width; dropout of .5 is AlexNet's, from which the network comes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.network_options import DeepVideoFusion

__all__ = ["DeepVideo"]

CONVOLUTIONS = ((96, 11, 3, 5), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1))
"""The channels, the side of the kernel, the stride and the padding of each convolution."""

SLOW_FRAMES = (4, 2, 2)
"""How many frames the first convolutions of slow fusion see, at a stride of 2: 10 -> 4 -> 2 -> 1
(section 3.1)."""


class DeepVideo(ClipModel):
    """A network of one frame or of several over crops of `crop_px`, which fc6 fixes.

    `fusion` says what each clip is, and where its frames meet:

    single           (N, C, H, W), one frame
    early            (N, L C, H, W), frames in the channels of the first convolution
    late             (N, C, L, H, W), each frame through the same convolutions; fc6 sees all
    slow             (N, C, L, H, W), the first three convolutions go over time
    multiresolution  (N, C, H, W) twice, half the crop each: its center, and the whole of it at half
                     the resolution; each through its own convolutions, without the last pooling

    `width` multiplies the channels of every layer, also the 4096 of fc6 and fc7.
    """

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
        crop_px: int = 170,
        fusion: DeepVideoFusion = "single",
    ) -> None:
        """`dropout` applies to fc6 and fc7. Raises ConfigError for clips of which nothing is left.

        The fusions slow needs 10 frames at least.
        """
        super().__init__(inputs)
        self.fusion = fusion
        first = self.inputs[0]
        is_slow, is_whole = fusion == "slow", fusion != "multiresolution"
        names = ("fovea", "context") if not is_whole else ("trunk",)
        for name, clip in zip(names, self.inputs, strict=True):
            self.add_module(name, Trunk(clip.num_channels, width, is_slow=is_slow, pools=is_whole))
        self._trunks = names
        trunk = self.get_submodule(names[0])
        assert isinstance(trunk, Trunk)
        side, frames = trunk.map_size(first.side_px(crop_px), first.num_frames if is_slow else 1)
        if frames < 1:
            raise ConfigError(
                f"num_frames must be at least 10 for fusion slow, got {first.num_frames}"
            )
        if side < 1:
            raise ConfigError(
                f"crop_px must be larger for deepvideo with fusion {fusion}, because nothing is "
                f"left of {crop_px} after its poolings"
            )
        num_maps = first.num_frames if fusion == "late" else len(names)
        wide = max(1, round(4096 * width))
        self.fc6 = nn.Linear(num_maps * trunk.channels * frames * side**2, wide)
        self.fc7 = nn.Linear(wide, wide)
        self.dropout = nn.Dropout(dropout)
        self.fc8 = nn.Linear(wide, num_classes)
        numbers = range(1, len(CONVOLUTIONS) + 1)
        self.stages = (
            *(tuple(f"{name}.conv{number}" for name in names) for number in numbers),
            ("fc6",),
            ("fc7",),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        init_classifier(self.fc8)

    def extract_features(self, *clips: torch.Tensor) -> torch.Tensor:
        """Returns fc7 after its ReLU, (N, 4096 * width)."""
        if self.fusion == "late":
            (clip,) = clips
            clips = clip.unbind(2)  # L times (N, C, H, W)
        trunks = self._trunks * (len(clips) // len(self._trunks))
        maps = [
            self.get_submodule(name)(clip).flatten(1)
            for name, clip in zip(trunks, clips, strict=True)
        ]
        x = self.dropout(F.relu(self.fc6(torch.cat(maps, 1))))  # (N, 4096)
        return F.relu(self.fc7(x))  # (N, 4096)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc8(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc8."""
        self.fc8 = nn.Linear(self.fc8.in_features, num_classes).to(self.fc8.weight)
        init_classifier(self.fc8)


class Trunk(nn.Module):
    """The convolutions: (N, C, H, W) to (N, 256, H', W'), 7 x 7 at 170 px.

    With `is_slow` both have an axis of time. Without `pools`, the last pooling is left out.
    """

    conv1: nn.Module
    conv2: nn.Module
    conv3: nn.Module
    conv4: nn.Module
    conv5: nn.Module

    def __init__(self, in_channels: int, width: float, *, is_slow: bool, pools: bool) -> None:
        super().__init__()
        self._is_slow, self._pools = is_slow, pools
        before = in_channels
        for index, (published, kernel, stride, padding) in enumerate(CONVOLUTIONS):
            channels = max(1, round(published * width))
            layer: nn.Module
            if is_slow:
                frames, step = (SLOW_FRAMES[index], 2) if index < len(SLOW_FRAMES) else (1, 1)
                layer = nn.Conv3d(
                    before,
                    channels,
                    (frames, kernel, kernel),
                    (step, stride, stride),
                    (0, padding, padding),
                )
            else:
                layer = nn.Conv2d(before, channels, kernel, stride, padding)
            self.add_module(f"conv{index + 1}", layer)
            before = channels
        self.channels = before
        # k = 2, n = 5, alpha = 1e-4, beta = .5 (section 3.1). As in AlexNet, alpha multiplies a
        # sum; PyTorch's multiplies a mean over n.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2.0)
        self.pool = nn.MaxPool3d((1, 2, 2)) if is_slow else nn.MaxPool2d(2)

    def map_size(self, side_px: int, num_frames: int) -> tuple[int, int]:
        """Returns the side and the frames of the map for a clip of this size."""
        side, frames = side_px, num_frames
        for index, (_, kernel, stride, padding) in enumerate(CONVOLUTIONS):
            side = (side + 2 * padding - kernel) // stride + 1
            if self._is_slow and index < len(SLOW_FRAMES):
                frames = (frames - SLOW_FRAMES[index]) // 2 + 1
            if index < 2 or (self._pools and index == len(CONVOLUTIONS) - 1):
                side //= 2
        return side, frames

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.norm(F.relu(self.conv1(x))))  # (N, 96, 28, 28)
        x = self.pool(self.norm(F.relu(self.conv2(x))))  # (N, 256, 14, 14)
        x = F.relu(self.conv3(x))  # (N, 384, 14, 14)
        x = F.relu(self.conv4(x))  # (N, 384, 14, 14)
        x = F.relu(self.conv5(x))  # (N, 256, 14, 14)
        last: torch.Tensor = self.pool(x) if self._pools else x  # (N, 256, 7, 7)
        return last
