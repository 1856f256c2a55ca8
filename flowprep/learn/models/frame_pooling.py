"""Features of single frames, pooled over time: Ng et al., "Beyond Short Snippets: Deep Networks for
Video Classification" (CVPR 2015), section 3.1.

A 2D network, the base, looks at each of T frames or fields. The five poolings of the paper are of
its last maps. F are two fully connected layers of 4096, and max is over time:

    conv        max of the maps of all frames, F, classifier
    late        F of each frame, max, classifier
    slow        max in each window, first layer of F, max over windows, second layer, classifier
    local       max in each window, F, and one classifier over all windows side by side
    time-conv   a convolution over time with 256 kernels, max, F, classifier

Windows are of 10 frames, 5 apart, and all windows share their layers. The lecture notes have two
more, of the vectors before the base's classifier:

    mean        their mean, classifier
    concat      all side by side, a fully connected layer of 4096, classifier

A vector is made of a map as the base does it: AlexNet's and VGG-16's maps are flattened, those of
the others averaged over the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.models.per_frame import base_stages, by_clip, each_frame, map_base, vector_base
from flowprep.learn.network_options import FrameBackbone, PoolingName

__all__ = ["FramePooling", "num_windows"]

WINDOW, WINDOW_STRIDE = 10, 5
"""Frames of a window, and frames from one window to the next."""

NUM_KERNELS = 256
"""Kernels of time-conv. They are 3x3 in space."""


class FramePooling(ClipModel):
    """Pools what a 2D network finds in each frame of (N, C, T, H, W).

    T may be any number from a window on, but for `local` and `concat`, which are built for the T of
    their input. Frames after the last whole window are not seen by slow, local and time-conv. A
    clip that is shorter than a window is one window. `width` multiplies the channels of every
    layer, `dropout` applies to the fully connected layers. Its default is AlexNet's .5.
    """

    new_layers = ("time", "fc1", "fc2")

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        pooling: PoolingName = "conv",
        backbone: FrameBackbone = "googlenet",
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        self.pooling: PoolingName = pooling
        self._num_frames = clip.num_frames
        self._window = min(WINDOW, clip.num_frames)
        sees_vectors = pooling in ("mean", "concat")
        make = vector_base if sees_vectors else map_base
        self.base, channels, self._map_px = make(backbone, clip, width)
        self.stages = base_stages(self.base)
        wide = max(1, round(4096 * width))
        if pooling == "time-conv":
            kernels = max(1, round(NUM_KERNELS * width))
            kernel, stride, padding = (self._window, 3, 3), (WINDOW_STRIDE, 1, 1), (0, 1, 1)
            self.time = nn.Conv3d(channels, kernels, kernel, stride, padding)
            channels = kernels
            self.stages += (("time",),)
        length = channels * self._map_px**2
        if pooling == "concat":
            length *= clip.num_frames
        if pooling != "mean":
            self.fc1 = nn.Linear(length, wide)
            self.stages += (("fc1",),)
            length = wide
        if not sees_vectors:
            self.fc2 = nn.Linear(wide, wide)
            self.stages += (("fc2",),)
        if pooling == "local":
            length *= num_windows(clip.num_frames)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(length, num_classes)
        for name in self.new_layers:
            layer = getattr(self, name, None)
            if layer is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        init_classifier(self.fc)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the classifier's input, (N, F): 4096 * width, for `local` of each window."""
        if self.pooling in ("local", "concat") and x.shape[2] != self._num_frames:
            raise ConfigError(
                f"pooling {self.pooling} is built for {self._num_frames} frames, got {x.shape[2]}; "
                "make the network with this number of frames"
            )
        frames = each_frame(x)  # (N T, C, H, W)
        if self.pooling in ("mean", "concat"):
            vectors = by_clip(self.base.extract_features(frames), len(x))  # (N, T, F)
            return vectors.mean(1) if self.pooling == "mean" else self._first(vectors.flatten(1))
        maps = self.base.extract_maps(frames)  # (N T, C, h, w)
        if self.pooling == "late":
            vectors = self._second(self._first(self._flat(maps)))  # (N T, 4096)
            return by_clip(vectors, len(x)).amax(1)  # (N, 4096)
        maps = by_clip(maps, len(x))  # (N, T, C, h, w)
        if self.pooling == "time-conv":
            found = F.relu(self.time(maps.transpose(1, 2)))  # (N, C, W, h, w)
            return self._second(self._first(self._flat(found.amax(2))))
        if self.pooling == "conv":
            return self._second(self._first(self._flat(maps.amax(1))))  # (N, 4096)
        windows = self._windows(maps)  # (N, W, C, h, w)
        vectors = self._first(self._flat(windows.flatten(0, 1)))  # (N W, 4096)
        if self.pooling == "slow":
            return self._second(by_clip(vectors, len(x)).amax(1))  # (N, 4096)
        return self._second(vectors).reshape(len(x), -1)  # (N, W 4096)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)

    def _windows(self, maps: torch.Tensor) -> torch.Tensor:
        """Returns the maxima of each window of maps (N, T, ...): (N, W, ...)."""
        starts = range(0, maps.shape[1] - self._window + 1, WINDOW_STRIDE)
        return torch.stack([maps[:, at : at + self._window].amax(1) for at in starts], 1)

    def _flat(self, maps: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(maps, self._map_px).flatten(1)

    def _first(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.relu(self.fc1(vectors))

    def _second(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.relu(self.fc2(self.dropout(vectors)))


def num_windows(num_frames: int) -> int:
    """Returns the number of windows of a clip: 5 of 30 frames, 23 of 120."""
    return max(0, num_frames - WINDOW) // WINDOW_STRIDE + 1
