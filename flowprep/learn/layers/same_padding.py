"""Convolution and pooling with TensorFlow's SAME padding."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.layers.inflated import TimePadding

__all__ = ["SameConv3d", "SameMaxPool3d"]


class SameConv3d(nn.Conv3d):
    """A convolution with SAME padding: it depends on the input size, and is larger at the end."""

    time_padding: TimePadding = "zeros"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = _same_padding(x, self.kernel_size, self.stride)
        if self.time_padding == "replicate" and any(pads[0]):
            x = F.pad(x, (0, 0, 0, 0, *pads[0]), mode="replicate")
            pads[0] = (0, 0)
        x, padding = _pad_uneven(x, pads)
        return F.conv3d(x, self.weight, self.bias, self.stride, padding)


class SameMaxPool3d(nn.Module):
    """A max pooling with TensorFlow's SAME padding, for maps without negative values."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, padding = _pad_uneven(x, _same_padding(x, self.kernel, self.stride))
        return F.max_pool3d(x, self.kernel, self.stride, padding)


def _same_padding(
    x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Returns the padding (before, after) of T, H, W for an output of size / stride, rounded up.

    The smaller half comes before: kernel 7 with stride 2 over an even size pads (2, 3).
    """
    pads = []
    for size, window, step in zip(x.shape[2:], kernel, stride, strict=True):
        outputs = -(-size // step)
        total = max((outputs - 1) * step + window - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def _pad_uneven(
    x: torch.Tensor, pads: list[tuple[int, int]]
) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Returns `x` with the uneven part padded by zeros, and the even padding for the layer."""
    even = [min(pad) for pad in pads]
    (t0, t1), (y0, y1), (x0, x1) = (
        (before - least, after - least) for (before, after), least in zip(pads, even, strict=True)
    )
    if any((t0, t1, y0, y1, x0, x1)):
        x = F.pad(x, (x0, x1, y0, y1, t0, t1))
    return x, (even[0], even[1], even[2])
