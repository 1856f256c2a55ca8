"""How the maps of a spatial and a temporal tower become one: Feichtenhofer, Pinz and Zisserman,
"Convolutional Two-Stream Network Fusion for Video Action Recognition" (CVPR 2016), section 3.1.

Weights at the start are those of feichtenhofer/twostreamfusion (cnn_ucf101_fusion.m for conv3d,
network_surgery/insert_conv_layers.m for conv).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.network_options import FusionInit, StreamFusionKind

__all__ = ["StreamFusion", "bilinear", "fusion_kernel", "gaussian_3d"]

_SHARES: dict[FusionInit, tuple[float, float]] = {
    "weighted-sum": (0.25, 0.75),
    "sum": (1.0, 1.0),
    "spatial": (1.0, 0.0),
    "temporal": (0.0, 1.0),
}
"""What each tower's map is multiplied by at the start: the release's 2sumAB, sumAB, netA, netB."""
_SIGMA = 1.0
"""Of the Gaussian of conv3d at the start, in px and in frames (cnn_ucf101_fusion.m)."""
_LEAST = 1e-12
"""Keeps the gradient of a square root finite where a product of maps is 0."""


class StreamFusion(nn.Module):
    """Fuses a spatial map with a temporal one of the same shape, (N, C, T, H, W).

    `sum` and `max` go channel by channel. `concat` gives 2 C channels, the spatial ones first.
    `conv` and `conv3d` are a convolution of 1 x 1 x 1 or 3 x 3 x 3 over the concatenation, to C
    channels, and a ReLU. (The release also has a ReLU after a fusion of scores. With `is_scores`
    there is none here: scores may be negative.) `bilinear` is in `bilinear`.
    """

    def __init__(
        self,
        kind: StreamFusionKind,
        channels: int,
        init: FusionInit = "weighted-sum",
        *,
        is_scores: bool = False,
    ) -> None:
        super().__init__()
        self.kind: StreamFusionKind = kind
        self.init: FusionInit = init
        self.is_scores = is_scores
        if kind in ("conv", "conv3d"):
            size = 3 if kind == "conv3d" else 1
            self.conv = nn.Conv3d(2 * channels, channels, size, padding=size // 2)
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)
            if init == "random":
                # The release's xavierimproved.
                nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
            else:
                with torch.no_grad():
                    self.conv.weight.copy_(fusion_kernel(channels, size, init))

    def forward(self, spatial: torch.Tensor, temporal: torch.Tensor) -> torch.Tensor:
        """Returns (N, C, T, H, W), (N, 2 C, T, H, W) for concat, or (N, C C) for bilinear."""
        if self.kind == "sum":
            return spatial + temporal
        if self.kind == "max":
            return torch.maximum(spatial, temporal)
        if self.kind == "bilinear":
            return bilinear(spatial, temporal)
        both = torch.cat([spatial, temporal], 1)
        if self.kind == "concat":
            return both
        fused: torch.Tensor = self.conv(both)
        return fused if self.is_scores else F.relu(fused)

    def for_channels(self, channels: int) -> StreamFusion:
        """Returns a new fusion of the same kind for other channels, at the start."""
        new = StreamFusion(self.kind, channels, self.init, is_scores=self.is_scores)
        return new.to(next(self.parameters())) if self.kind in ("conv", "conv3d") else new

    def extra_repr(self) -> str:
        """Returns the kind."""
        return self.kind


def fusion_kernel(channels: int, size: int, init: FusionInit) -> torch.Tensor:
    """Returns the weights (C, 2 C, size, size, size) with which a fusion by convolution starts.

    Channel k of the result is the share of channel k of the spatial map plus the share of channel k
    of the temporal one, both blurred by a Gaussian if `size` is above 1.
    """
    mix = torch.cat([share * torch.eye(channels) for share in _SHARES[init]], 1)  # (C, 2 C)
    return mix[:, :, None, None, None] * gaussian_3d(size)


def gaussian_3d(size: int) -> torch.Tensor:
    """Returns a Gaussian of deviation 1 over time, height and width that sums to 1: (s, s, s)."""
    places = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-places.square() / (2 * _SIGMA**2))
    line = line / line.sum()
    return line[:, None, None] * line[:, None] * line


def bilinear(spatial: torch.Tensor, temporal: torch.Tensor) -> torch.Tensor:
    """Returns the outer product of two maps (N, C, ...), summed over all places, as (N, C C).

    Value i C + j belongs to channel i of the spatial map and channel j of the temporal one. As in
    Lin et al., "Bilinear CNN Models" (ICCV 2015), section 3, each value becomes its signed square
    root, and the vector gets the length 1.
    """
    products = torch.einsum("ncp,ndp->ncd", spatial.flatten(2), temporal.flatten(2)).flatten(1)
    roots = products.sign() * (products.abs() + _LEAST).sqrt()
    return F.normalize(roots, dim=1)
