"""Quantizes fields where they are, on a torch device, so that only levels and counts are copied.

A field of float32 has 8 bytes per pixel. Its levels have 2, and its counts are 1 kB.

**Levels** are those of `quantize`, bit for bit, on every device. A value is compared with the least
float32 of each level, which `quantize` itself finds once. So no level depends on how a device
divides. (PyTorch's division by a number is a product with the reciprocal on CUDA, and its square
root on the CPU is not always the nearest number.)

**Counts and extremes** are those of `FieldQuantizer`, except for magnitudes. Here they are
sqrt(x^2 + y^2), each operation rounded to the nearest float32. OpenCV's, which `FieldQuantizer`
counts, are up to two roundings away, depending on the processor. So a magnitude that is the edge of
a bin but for two roundings may be counted on either side of it.

Importing this module imports torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowprep.config import FlowSpec
from flowprep.dataset.quantize import HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS, quantize
from flowprep.flow.base_torch import upload

__all__ = ["DeviceQuantizer"]

_NUM_HISTOGRAMS = 32
"""Histograms of a field that are summed at the end. Neighbors often share a bin and would wait for
each other. The threads of a warp, which are neighbors, have one histogram each."""

_FLOAT32_INF = 0x7F800000
"""The bits of infinity. The bits of positive float32 numbers are in the order of the numbers."""


class DeviceQuantizer:
    """Quantizes batches of fields on the device where they are.

    It is a `Reduction` for `FlowEstimator.reduced_pairs`. `FieldQuantizer.add` takes the results.
    """

    def __init__(self, spec: FlowSpec) -> None:
        self._spec = spec
        self._starts: tuple[Tensor, Tensor] | None = None

    def __call__(self, fields: Tensor) -> list[Tensor]:
        """Returns the levels, extremes and counts of B fields, (B, H, W, 2) float32 px.

        They are on the device of the fields, which is not waited for:

        - levels, (B, 2, H, W) uint8: x and y;
        - extremes, (B, 2) float32 px: the least and the greatest component, 0 for one that is
          invalid, and +0 for both zeros;
        - counts, (B, 2 + HISTOGRAM_NUM_BINS + 1) int32: invalid and clipped components, and the
          magnitudes by HISTOGRAM_BIN_PX.

        It takes up to 50 bytes per pixel of each field.
        """
        if self._starts is None or self._starts[0].device != fields.device:
            level_starts, bin_starts = _level_starts(self._spec), _bin_starts()
            self._starts = upload(level_starts, fields.device), upload(bin_starts, fields.device)
        level_starts_px, bin_starts_px2 = self._starts
        planes = fields.movedim(-1, 1).contiguous()
        # NaN is not less than infinity.
        invalid = (planes.abs() < math.inf).logical_not_()
        values = planes.masked_fill(invalid, 0.0)
        levels = torch.empty_like(values, dtype=torch.uint8)
        levels.copy_(_num_starts(values, level_starts_px))
        levels.masked_fill_(invalid, self._spec.zero_level)
        clipped = values.abs() > float(np.float32(self._spec.bound_px))
        totals = [
            mask.sum((1, 2, 3), dtype=torch.int32).unsqueeze(1) for mask in (invalid, clipped)
        ]
        # Which of 0 and -0 is the least depends on the order. Their sum with 0 is always 0.
        extremes = torch.stack(values.flatten(1).aminmax(dim=1), dim=1).add_(0.0)
        histograms = _histograms(values, bin_starts_px2)
        return [levels, extremes, torch.cat([*totals, histograms], dim=1)]


def _num_starts(values: Tensor, starts: Tensor) -> Tensor:
    """Returns the number of starts that are not greater than each value, int32."""
    return torch.bucketize(values, starts, out_int32=True, right=True)


def _histograms(values: Tensor, bin_starts_px2: Tensor) -> Tensor:
    """Returns (B, HISTOGRAM_NUM_BINS + 1) int32: the magnitudes of (B, 2, H, W) float32 px."""
    num_fields, num_bins = len(values), len(bin_starts_px2) + 1
    x, y = values[:, 0].flatten(1), values[:, 1].flatten(1)
    # One operation at a time: a fused multiply-add would round otherwise.
    bins = _num_starts((x * x).add_(y * y), bin_starts_px2).to(torch.int64)
    pixels = torch.arange(bins.shape[1], device=values.device)
    fields = torch.arange(num_fields, device=values.device).unsqueeze(1)
    bins += pixels.remainder_(_NUM_HISTOGRAMS).mul_(num_bins)
    bins += fields.mul_(_NUM_HISTOGRAMS * num_bins)
    histograms = torch.zeros(
        num_fields * _NUM_HISTOGRAMS * num_bins, dtype=torch.int32, device=values.device
    )
    one = torch.ones(1, dtype=torch.int32, device=values.device)
    histograms.scatter_add_(0, bins.flatten(), one.expand(bins.numel()))
    return histograms.view(num_fields, _NUM_HISTOGRAMS, num_bins).sum(1, dtype=torch.int32)


@functools.lru_cache(maxsize=8)
def _level_starts(spec: FlowSpec) -> NDArray[np.float32]:
    """Returns (255,) float32 px: the least value of level 1 or more, of level 2 or more, and so on.

    A start is infinite if no finite value has such a level. The level of a value is the number of
    starts that are not greater than the value, because levels never fall as values rise.
    """
    return _starts(lambda values: quantize(values, spec), 255)


@functools.cache
def _bin_starts() -> NDArray[np.float32]:
    """Returns (HISTOGRAM_NUM_BINS,) float32 px^2: the least x^2 + y^2 of bin 1 or more, and so on.

    NumPy's square root is the nearest float32, as IEEE 754 wants it.
    """
    return _starts(
        lambda px2: np.sqrt(np.maximum(px2, 0)) / np.float32(HISTOGRAM_BIN_PX), HISTOGRAM_NUM_BINS
    )


def _starts(
    number_of: Callable[[NDArray[np.float32]], NDArray[Any]], count: int
) -> NDArray[np.float32]:
    """Returns the least float32 value that is given number 1 or more, 2 or more, ..., `count`."""
    wanted = np.arange(1, count + 1)
    # Places in the order of the float32 values, found by bisection. The ends are not looked at.
    below, reached = np.full(count, -_FLOAT32_INF), np.full(count, _FLOAT32_INF)
    while (reached - below > 1).any():
        middle = (below + reached) // 2
        is_reached = number_of(_float32_at(middle)) >= wanted
        reached = np.where(is_reached, middle, reached)
        below = np.where(is_reached, below, middle)
    return _float32_at(reached)


def _float32_at(places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the float32 values at some places in their order; 0 is at place 0."""
    bits = np.abs(places).astype(np.uint32)
    return np.copysign(bits.view(np.float32), places).astype(np.float32)
