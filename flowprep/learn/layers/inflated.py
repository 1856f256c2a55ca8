"""Convolutions over time, inflated from convolutions over images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["InflatedConv3d", "TimePadding"]

TimePadding = Literal["zeros", "replicate"]
"""The padding before the first frame and after the last: zeros, or copies of these frames."""


class InflatedConv3d(nn.Conv3d):
    """A convolution without bias. Its padding keeps T, H and W, apart from the stride."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        stride: int | tuple[int, int, int],
        time_padding: TimePadding = "zeros",
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.time_padding = time_padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = self.kernel_size[0] // 2
        if self.time_padding == "zeros" or frames == 0:
            return super().forward(x)
        x = F.pad(x, (0, 0, 0, 0, frames, frames), mode="replicate")
        padding = (0, self.kernel_size[1] // 2, self.kernel_size[2] // 2)
        return F.conv3d(x, self.weight, None, self.stride, padding)
