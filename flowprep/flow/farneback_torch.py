"""Farneback in PyTorch, for any torch device: many fields at once, each equal to the native one.

The algorithm and its sources are those of `flowprep.flow.farneback_level`. The order of the five
numbers is the same too: for an expansion b_y, b_x, A_yy, A_xx, 2 A_xy; for the normal equations
G_yy, G_xy, G_xx, h_y, h_x. The control flow does not depend on results, so a batch is launched at
once.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from flowprep.flow.base_torch import TorchEstimator, upload
from flowprep.flow.farneback import Farneback
from flowprep.flow.farneback_level import (
    PRECISION,
    REGULARIZATION,
    averaging_window,
    border_trust,
    expansion_filters,
    level_scales,
    smoothing,
)
from flowprep.flow.parameters import FarnebackParameters
from flowprep.flow.pyramid_torch import Resize

__all__ = ["FarnebackTorch"]

NUM_COEFFICIENTS = 5
"""Numbers per pixel in an expansion, and in the normal equations."""


@dataclass
class _Level:
    """The parameters of a pyramid level, and the data that all its pairs share."""

    height: int
    width: int
    smoothing_taps: list[float]
    """Taps from the center on, for smoothing the full image."""
    shrink: Resize | None
    """Makes this level's image from the smoothed full image; None at the full size."""
    enlarge: Resize | None
    """Makes this level's flow from the next coarser level's, in its px; None at the coarsest."""
    trust: Tensor
    """Weight of each pixel by its position, (H, W)."""
    columns: Tensor
    rows: Tensor


class FarnebackTorch(TorchEstimator[list[_Level]]):
    """Farneback on a torch device: the fields of `flowprep.flow.farneback.Farneback`, up to
    rounding."""

    implementation = Farneback.implementation
    bytes_per_pixel = 300

    def __init__(
        self,
        parameters: FarnebackParameters,
        *,
        device: str = "cpu",
        batch_pairs: int | None = None,
    ) -> None:
        super().__init__(device=device, batch_pairs=batch_pairs)
        self._parameters = parameters
        filters = expansion_filters(parameters.poly_n, parameters.poly_sigma)
        self._filters: list[list[float]] = filters.reshape(3, -1).tolist()
        window = averaging_window(parameters.winsize, parameters.gaussian)
        self._window: list[float] = window.tolist()

    def _make_plan(self, height: int, width: int) -> list[_Level]:
        scales = level_scales(height, width, self._parameters)
        sizes = [(round(height * scale), round(width * scale)) for scale in scales]
        levels = []
        for number, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
            side, sigma = smoothing(scale)
            taps = cv2.getGaussianKernel(side, sigma, cv2.CV_32F)[side // 2 :, 0]
            shrink = enlarge = None
            if number > 0:
                shrink = Resize((height, width), size, self._device)
            if number + 1 < len(sizes):
                enlarge = Resize(sizes[number + 1], size, self._device)
            trust = border_trust(size[0])[:, None] * border_trust(size[1])
            rows, columns = (np.arange(length, dtype=np.float32) for length in size)
            arrays = (upload(x, self._device) for x in (trust, columns, rows[:, None]))
            levels.append(_Level(*size, taps.tolist(), shrink, enlarge, *arrays))
        return levels

    def _prepare(self, plan: list[_Level], frames: Tensor) -> list[Tensor]:
        """Returns the expansion of each level in two forms, the full image first.

        One layout is (N, 5, H, W), for the first frame of a pair. The other is (N, H, W, 5), for
        the second frame: all numbers of a displaced position are together.
        """
        full = frames.to(torch.float32)[:, None]
        prepared = []
        for level in plan:
            # Each level comes from the full image, not from the level before it.
            reach = len(level.smoothing_taps) - 1
            image = pad(full, (reach,) * 4, mode="reflect")
            for axis in (-1, -2):
                image = _even(image, level.smoothing_taps, axis)
            if level.shrink is not None:
                image = level.shrink(image)
            expansion = expand(image, self._filters)
            prepared += [expansion, expansion.permute(0, 2, 3, 1).contiguous()]
        return prepared

    def _estimate(
        self, plan: list[_Level], prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        """Works from coarse to fine."""
        p = self._parameters
        size = plan[-1].height, plan[-1].width
        flow = torch.zeros((len(first), 2, *size), device=self._device)
        for number in reversed(range(len(plan))):
            level = plan[number]
            if level.enlarge is not None:
                flow = level.enlarge(flow).mul_(1 / p.pyr_scale)
            planes, packed = prepared[2 * number : 2 * number + 2]
            own = planes.index_select(0, first)
            for _ in range(p.iterations):
                equations = _normal_equations(level, own, packed, second, flow)
                flow = _solve(self._average(equations))
        return flow.permute(0, 2, 3, 1).contiguous()

    def _average(self, equations: Tensor) -> Tensor:
        """Returns the means of (B, 5, H, W) equations over the window, with replicated borders."""
        reach = len(self._window) - 1
        mean = pad(equations, (reach,) * 4, mode="replicate")
        for axis in (-2, -1):
            if self._parameters.gaussian:
                mean = _even(mean, self._window, axis)
            else:
                mean = _box_sum(mean, 2 * reach + 1, axis).mul_(self._window[0])
        return mean


def expand(image: Tensor, filters: list[list[float]]) -> Tensor:
    """Returns the polynomial expansion (FarnebackPolyExp) of images, with replicated borders.

    `image` is (N, 1, H, W) float32, and the result is (N, 5, H, W). `filters` are the taps, from
    the center on, of three filters: smooth, differentiate once, differentiate twice.
    """
    smoothing_taps, slope_taps, curvature_taps = filters
    reach = len(smoothing_taps) - 1
    padded = pad(image, (reach,) * 4, mode="replicate")
    smooth = _even(padded, smoothing_taps, -2)
    slope = _odd(padded, slope_taps, -2)
    curvature = _curvature(padded, curvature_taps, -2)
    return torch.cat(
        [
            _even(slope, smoothing_taps, -1),
            _odd(smooth, slope_taps, -1),
            _even(curvature, smoothing_taps, -1),
            _curvature(smooth, curvature_taps, -1),
            _odd(slope, slope_taps, -1),
        ],
        dim=1,
    )


def _even(padded: Tensor, taps: list[float], axis: int) -> Tensor:
    """Filters with symmetric taps, given from the center on; the result has no padding."""
    reach, length = len(taps) - 1, padded.shape[axis] - 2 * (len(taps) - 1)
    result = padded.narrow(axis, reach, length) * taps[0]
    for k in range(1, reach + 1):
        after = padded.narrow(axis, reach + k, length)
        result.add_(padded.narrow(axis, reach - k, length) + after, alpha=taps[k])
    return result


def _odd(padded: Tensor, taps: list[float], axis: int) -> Tensor:
    """Filters with antisymmetric taps, positive after the center."""
    reach, length = len(taps) - 1, padded.shape[axis] - 2 * (len(taps) - 1)
    result = torch.zeros_like(padded.narrow(axis, reach, length))
    for k in range(1, reach + 1):
        after = padded.narrow(axis, reach + k, length)
        result.add_(after - padded.narrow(axis, reach - k, length), alpha=taps[k])
    return result


def _curvature(padded: Tensor, taps: list[float], axis: int) -> Tensor:
    """Filters with symmetric taps that sum to 0. In this form, blank images give exactly 0."""
    reach, length = len(taps) - 1, padded.shape[axis] - 2 * (len(taps) - 1)
    center = padded.narrow(axis, reach, length)
    twice = center + center
    result = torch.zeros_like(center)
    for k in range(1, reach + 1):
        both = padded.narrow(axis, reach - k, length) + padded.narrow(axis, reach + k, length)
        result.add_(both.sub_(twice), alpha=taps[k])
    return result


def _box_sum(padded: Tensor, side: int, axis: int) -> Tensor:
    """Sums over `side` neighbors, in blocks of 1, 2, 4, ... according to the bits of `side`."""
    length = padded.shape[axis] - side + 1
    block, size, done = padded, 1, 0
    total = None
    while True:
        if side & size:
            part = block.narrow(axis, done, length)
            total = part.clone() if total is None else total.add_(part)
            done += size
        if 2 * size > side:
            assert total is not None
            return total
        num_blocks = block.shape[axis] - size
        block = block.narrow(axis, 0, num_blocks) + block.narrow(axis, size, num_blocks)
        size *= 2


def _normal_equations(
    level: _Level, own: Tensor, packed: Tensor, second: Tensor, flow: Tensor
) -> Tensor:
    """Returns G = A'A and h = A'(A d + db / 2), (B, 5, H, W), for displacements d = `flow`.

    A is the mean of both frames' A. db is the first frame's b minus the second frame's b, which is
    sampled bilinearly at the place to which d points. If that place is outside, the second frame
    counts as b = 0 with the first frame's A (FarnebackUpdateMatrices). `own` is (B, 5, H, W),
    `packed` (N, H, W, 5), `flow` (B, 2, H, W).
    """
    height, width = level.height, level.width
    u, v = flow[:, 0], flow[:, 1]
    x, y = u + level.columns, v + level.rows
    left, top = x.floor(), y.floor()
    inside = (left >= 0) & (left <= width - 2) & (top >= 0) & (top <= height - 2)
    x.sub_(left)
    y.sub_(top)
    # For every displacement, all reads are within the frame.
    left.clamp_(0, width - 2)
    top.clamp_(0, height - 2)
    start = top.to(torch.int64).mul_(width).add_(left.to(torch.int64))
    start += (second * (height * width)).view(-1, 1, 1)
    num_pixels = packed.numel() // NUM_COEFFICIENTS
    # NaN must not point outside of the frame.
    start = start.clamp_(0, num_pixels - width - 2).view(-1)
    # Row i is pixel i and its right neighbor.
    pairs = packed.as_strided((num_pixels - 1, 2 * NUM_COEFFICIENTS), (NUM_COEFFICIENTS, 1))
    upper = pairs.index_select(0, start)
    lower = pairs.index_select(0, start + width).sub_(upper)
    sides = upper.addcmul_(lower, y.view(-1, 1)).view(-1, 2, NUM_COEFFICIENTS)
    between = torch.addcmul(sides[:, 0], sides[:, 1] - sides[:, 0], x.view(-1, 1))
    other = between.view(-1, height, width, NUM_COEFFICIENTS).permute(0, 3, 1, 2)
    inside = inside[:, None]
    b = own[:, :2] - other[:, :2] * inside
    a = own[:, 2:] + torch.where(inside, other[:, 2:], own[:, 2:])
    half_trust = level.trust * 0.5
    db_y, db_x = b.mul_(half_trust).unbind(1)
    a_yy, a_xx, a_xy = a.mul_(half_trust).unbind(1)
    # The expansion holds twice the off-diagonal element of A.
    a_xy.mul_(0.5)
    moved_y = db_y.addcmul_(a_yy, v).addcmul_(a_xy, u)
    moved_x = db_x.addcmul_(a_xx, u).addcmul_(a_xy, v)
    equations = torch.empty_like(own)
    squared = a_xy * a_xy
    torch.addcmul(squared, a_yy, a_yy, out=equations[:, 0])
    torch.mul(a_xy, a_yy + a_xx, out=equations[:, 1])
    torch.addcmul(squared, a_xx, a_xx, out=equations[:, 2])
    torch.addcmul(a_yy * moved_y, a_xy, moved_x, out=equations[:, 3])
    torch.addcmul(a_xx * moved_x, a_xy, moved_y, out=equations[:, 4])
    return equations


def _solve(equations: Tensor) -> Tensor:
    """Returns d of G d = h, (B, 2, H, W) px, for (B, 5, H, W) equations."""
    g_yy, g_xy, g_xx, h_y, h_x = equations.unbind(1)
    product = g_yy * g_xx
    determinant = (product - g_xy * g_xy).clamp_(min=0)
    determinant.add_(product, alpha=float(PRECISION)).add_(float(REGULARIZATION))
    flow = torch.stack([g_yy * h_x - g_xy * h_y, g_xx * h_y - g_xy * h_x], dim=1)
    return flow.div_(determinant[:, None])
