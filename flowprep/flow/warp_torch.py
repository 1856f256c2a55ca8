"""Warps frames and their gradients by flow fields on a torch device, like `flowprep.flow.warp`.

Brightness and gradient of a pixel are in four neighboring numbers. Around the image is 0, which is
OpenCV's value outside (BORDER_CONSTANT). So the 4 x 4 taps of a position are four runs of 16
numbers, and each run is one read. grid_sample also does a bicubic warp, but not on every device,
and its positions are relative to the frame's size, which rounds them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pack_frames", "read_at"]

MARGIN = 4
"""Pixels of 0 on each side of a packed frame: as many as the taps of one position."""
CUBIC_A = -0.75
"""The cubic's free parameter (OpenCV, modules/imgproc: interpolateCubic)."""


def pack_frames(images: Tensor, taps: Tensor | None = None) -> Tensor:
    """Returns brightness, d/dx, d/dy and 0 of each pixel of (N, H, W) float32 images.

    The result is (N, H + 8, W + 8, 4), with margins of 0. The gradient is half the difference of
    the two neighbors, with a replicated border (OpenCV, tvl1flow.cpp: CentralGradientBody). With
    `taps`, (2, 3), it is these taps along x and along y.
    """
    num_frames, height, width = images.shape
    packed = images.new_zeros((num_frames, height + 2 * MARGIN, width + 2 * MARGIN, 4))
    inside = packed[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    inside[..., 0] = images
    padded = torch.nn.functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    lines = padded[:, 1:-1], padded[..., 1:-1].transpose(1, 2)
    for number, line in enumerate(lines):
        before, after = line[..., :-2], line[..., 2:]
        if taps is None:
            slope = (after - before) * 0.5
        else:
            one, two, three = taps[number]
            slope = before * one + line[..., 1:-1] * two + after * three
        inside[..., 1 + number] = slope if number == 0 else slope.transpose(1, 2)
    return packed


def read_at(packed: Tensor, flow: Tensor, frame: Tensor) -> Tensor:
    """Returns brightness, d/dx and d/dy of frames at the places to which flow fields point.

    `packed` is the result of `pack_frames` for N frames. `flow` is (B, 2, H, W) float32 px.
    `frame`, (B,) int64, is the index of the frame into which each field points. The result is
    (B, 3, H, W). Positions may be anywhere: from two pixels outside the image on, all three are 0.
    """
    num_fields, _, height, width = flow.shape
    row_length = width + 2 * MARGIN
    columns = torch.arange(width, dtype=torch.float32, device=flow.device)
    rows = torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    x = (flow[:, 0] + columns).clamp_(1 - MARGIN, width + 1)
    y = (flow[:, 1] + rows).clamp_(1 - MARGIN, height + 1)
    left, top = x.floor(), y.floor()
    x_weights = _cubic_weights(x.sub_(left))  # (B, H, W, 4)
    y_weights = _cubic_weights(y.sub_(top))
    # The pixel, counted over all frames, in the upper left corner of the taps. An integer, because
    # float32 cannot count the pixels of large frames.
    start = top.to(torch.int64).mul_(row_length).add_(left.to(torch.int64))
    start += (frame * ((height + 2 * MARGIN) * row_length)).view(-1, 1, 1)
    start += (MARGIN - 1) * (row_length + 1)
    num_pixels = packed.numel() // 4
    # NaN, from extreme parameters, must not point outside of the frame.
    start = start.clamp_(0, num_pixels - 3 * row_length - 4).view(-1)
    # Row i is pixel i and the three pixels to its right.
    taps = packed.as_strided((num_pixels - 3, 16), (4, 1))
    line = None
    for row in range(4):
        part = taps.index_select(0, start)
        weight = y_weights[..., row].reshape(-1, 1)
        line = part.mul_(weight) if line is None else line.addcmul_(part, weight)
        # Not in place: a gradient needs the places of each row.
        start = start + row_length
    assert line is not None
    values = line.view(-1, 4, 4).mul_(x_weights.view(-1, 4, 1)).sum(dim=1)
    return values.view(num_fields, height, width, 4)[..., :3].permute(0, 3, 1, 2).contiguous()


def _cubic_weights(fraction: Tensor) -> Tensor:
    """Returns the weights, (..., 4), of the pixels at -1 ... 2 for fractional positions."""
    a = CUBIC_A
    rest = 1 - fraction
    weights = fraction.new_empty((*fraction.shape, 4))
    weights[..., 0] = a * fraction * rest * rest
    weights[..., 1] = ((a + 2) * fraction - (a + 3)) * fraction * fraction + 1
    weights[..., 2] = ((a + 2) * rest - (a + 3)) * rest * rest + 1
    weights[..., 3] = 1 - weights[..., 0] - weights[..., 1] - weights[..., 2]
    return weights
