"""Flow in px to 8-bit levels and back, and the statistics that are kept of what was quantised.

    quantizer   level of v px (v clipped to +-b)     centre    peers
    round       rint(255 (v + b) / 2b)               127.5     denseflow, dense_flow, gpu_flow
    floor       floor(255 (v + b) / 2b)              127       MediaPipe, mmaction2's fallback
    centered    rint(128 + 128 v / b), up to 255     128       agethen/dense-flow

Decoding is `(level - centre) * px_per_level` for all three, with the middle of `floor`'s interval,
so that no quantiser is biased: the error is at most half a level (a whole one at +b for `centered`,
which has no level 256). MediaPipe's own decoder, `(level / 255 - .5) * 2b`, leaves its bias of half
a level in.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec

__all__ = ["HISTOGRAM_BIN_PX", "HISTOGRAM_NUM_BINS", "FlowStatistics", "dequantize", "quantize"]

HISTOGRAM_BIN_PX = 0.25
"""Width of a bin of the magnitude histogram."""
HISTOGRAM_NUM_BINS = 256
"""Bins of the magnitude histogram; one more follows for all that is longer."""


def quantize(flow: NDArray[np.floating[Any]], spec: FlowSpec) -> NDArray[np.uint8]:
    """Returns the levels of `flow` under the spec's bound and quantiser.

    `flow` is any shape, float, px; the result has its shape, uint8. Values beyond the bound are
    clipped; NaN and infinities become `spec.zero_level`. Zero of `round` encodes as 128, which
    decodes to +0.078 px at bound 20 (source of `round`: denseflow, src/common.cpp, CAST).
    """
    bound = spec.bound_px
    levels: NDArray[np.float64] = np.asarray(np.clip(flow, -bound, bound, dtype=np.float64))
    if spec.quantizer == "centered":
        levels *= 128.0 / bound
        levels += 128.0
        np.minimum(levels, 255.0, out=levels)
    else:
        # In the order of the source, so that ties round alike.
        levels += bound
        levels *= 255.0
        levels /= 2.0 * bound
    if spec.quantizer == "floor":
        np.floor(levels, out=levels)
    else:
        np.rint(levels, out=levels)
    invalid = ~np.isfinite(flow)
    if invalid.any():
        levels[invalid] = spec.zero_level
    return levels.astype(np.uint8)


def dequantize(levels: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """Returns the flow in px that `levels` stand for: same shape, float32, in [-bound, bound]."""
    table = (np.arange(256, dtype=np.float64) - spec.center_level) * spec.px_per_level
    return np.clip(table, -spec.bound_px, spec.bound_px).astype(np.float32)[levels]


class FlowStatistics:
    """Sums up fields of one video: range, magnitude histogram, clipped, invalid and zero shares."""

    def __init__(self, spec: FlowSpec) -> None:
        self._bound_px = spec.bound_px
        self._min_px = np.inf
        self._max_px = -np.inf
        self._histogram = np.zeros(HISTOGRAM_NUM_BINS + 1, dtype=np.int64)
        self._num_values = 0
        self._num_clipped = 0
        self._num_invalid = 0
        self._num_fields = 0
        self._num_zero_fields = 0

    def add(self, flow: NDArray[np.float32]) -> None:
        """Adds one field, (H, W, 2) float32 px, before clipping."""
        low, high = float(flow.min()), float(flow.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            invalid = ~np.isfinite(flow)
            self._num_invalid += int(np.count_nonzero(invalid))
            flow = np.where(invalid, np.float32(0), flow)
            low, high = float(flow.min()), float(flow.max())
        self._min_px = min(self._min_px, low)
        self._max_px = max(self._max_px, high)
        self._num_values += flow.size
        self._num_fields += 1
        self._num_zero_fields += low == 0 == high
        if low < -self._bound_px or high > self._bound_px:
            self._num_clipped += int(np.count_nonzero(np.abs(flow) > self._bound_px))
        # Squared bin edges would save the root, but OpenCV bins uniform edges four times faster.
        magnitude = cv2.magnitude(flow[..., 0], flow[..., 1])
        counts = cv2.calcHist(
            [magnitude], [0], None, [HISTOGRAM_NUM_BINS], [0, HISTOGRAM_NUM_BINS * HISTOGRAM_BIN_PX]
        )
        inside = counts.ravel().astype(np.int64)
        self._histogram[:-1] += inside
        self._histogram[-1] += magnitude.size - int(inside.sum())

    @property
    def num_values(self) -> int:
        """Components seen: two per pixel and field."""
        return self._num_values

    @property
    def num_clipped(self) -> int:
        """Components beyond the bound."""
        return self._num_clipped

    def to_dict(self) -> dict[str, Any]:
        """Returns the statistics as JSON values; the histogram ends at its last non-zero bin."""
        empty = self._num_fields == 0
        last = int(np.flatnonzero(self._histogram)[-1]) + 1 if not empty else 0
        return {
            "min_px": None if empty else round(self._min_px, 4),
            "max_px": None if empty else round(self._max_px, 4),
            "magnitude_histogram": self._histogram[:last].tolist(),
            "histogram_bin_px": HISTOGRAM_BIN_PX,
            "num_values": self._num_values,
            "num_clipped": self._num_clipped,
            "num_invalid": self._num_invalid,
            "num_fields": self._num_fields,
            "num_zero_fields": self._num_zero_fields,
        }
