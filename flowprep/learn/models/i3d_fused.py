"""The 3D-fused two-stream network of Carreira and Zisserman, "Quo Vadis, Action Recognition? A New
Model and the Kinetics Dataset" (CVPR 2017), section 2.3.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.same_padding import SameMaxPool3d
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.i3d import ConvLogits, InceptionTrunk, Unit3D, init_convs
from flowprep.learn.models.inception_v1 import InceptionV1

__all__ = ["FusedInception"]


class FusedInception(ClipModel):
    """Two Inception-V1 and a 3D convolution over the maps of both, for flow and RGB together.

    It takes frames (N, 3, S, H, W) and flow (N, 2 * L, S, H, W): S = 5 frames that are ten frames
    apart in the paper, and the stacks of L = 10 fields around them. S may be any number. The maps
    of both towers, S x 7 x 7, go through a convolution of 3 x 3 x 3 to 512 channels, a max pooling
    of 3 x 3 x 3, and the classifier.

    The paper does not say how far apart the windows of the pooling are, nor what the classifier
    makes of the places that are left. As in I3D, windows are 2 apart, and the scores of all places
    are averaged. The paper's 39 M parameters leave no room for a classifier of all places together.
    Dropout is I3D's. `width` multiplies the channels of every layer.
    """

    stages = (
        *(
            tuple(f"{tower}.{name}" for tower in ("rgb", "flow") for name in stage)
            for stage in InceptionTrunk.stages
        ),
        ("fusion",),
    )

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(inputs)
        rgb, flow = self.inputs
        self.whole_towers = {
            "rgb": functools.partial(InceptionV1, (rgb,), num_classes, width=width),
            "flow": functools.partial(InceptionV1, (flow,), num_classes, width=width),
        }
        self.rgb = _Tower(rgb.num_channels, width)
        self.flow = _Tower(flow.num_channels, width)
        channels = max(1, round(512 * width))
        self.fusion = Unit3D(2 * self.rgb.Mixed_5c.channels, channels, 3, 1, "zeros")
        self.pool = SameMaxPool3d((3, 3, 3), (2, 2, 2))
        self.dropout = nn.Dropout(dropout)
        self.logits = ConvLogits(channels, num_classes)
        init_convs(self)

    def extract_features(self, rgb: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """Returns the pooled maps of both towers, (N, 512 * width, 3, 4, 4) as published."""
        towers = (self.rgb.forward_maps(rgb), self.flow.forward_maps(flow))
        maps: torch.Tensor = self.pool(self.fusion(torch.cat(towers, 1)))
        return maps

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, averaged over places."""
        logits: torch.Tensor = self.logits(self.dropout(features))
        return logits.mean((2, 3, 4))

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the logits layer."""
        old = self.logits.conv3d
        self.logits = ConvLogits(old.in_channels, num_classes).to(old.weight)
        init_convs(self.logits)


class _Tower(InceptionTrunk):
    """Inception-V1 over each frame of (N, C, T, H, W), up to its last map."""

    def __init__(self, in_channels: int, width: float) -> None:
        super().__init__()
        self.build_trunk(in_channels, width, over_time=False)
