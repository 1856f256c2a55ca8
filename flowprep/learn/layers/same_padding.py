"""Convolution and pooling that pad as TensorFlow's SAME does."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.layers.inflated import TimePadding

__all__ = ["SameConv3d", "SameMaxPool3d"]


class SameConv3d(nn.Conv3d):
    """A convolution that pads as TensorFlow's SAME does: by the size at hand, more at the end."""

    time_padding: TimePadding = "zeros"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = _same_padding(x, self.kernel_size, self.stride)
        if self.time_padding == "replicate" and any(pads[0]):
            x = F.pad(x, (0, 0, 0, 0, *pads[0]), mode="replicate")
            pads[0] = (0, 0)
        x, padding = _pad_uneven(x, pads)
        return F.conv3d(x, self.weight, self.bias, self.stride, padding)


class SameMaxPool3d(nn.Module):
    """A max pooling that pads as TensorFlow's SAME does, for maps that are nowhere negative."""

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
    """Returns what comes (before, after) each of T, H, W so that the output is size / stride, up.

    The lesser half comes before: 7 at stride 2 over an even size pads (2, 3).
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
    """Returns `x` with zeros for what is uneven, and the even padding that is left to the layer."""
    even = [min(pad) for pad in pads]
    (t0, t1), (y0, y1), (x0, x1) = (
        (before - least, after - least) for (before, after), least in zip(pads, even, strict=True)
    )
    if any((t0, t1, y0, y1, x0, x1)):
        x = F.pad(x, (x0, x1, y0, y1, t0, t1))
    return x, (even[0], even[1], even[2])
