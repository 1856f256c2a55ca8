"""Converts flow in px to 8-bit levels and back, and keeps statistics of the quantized flow.

    quantize, dequantize    the definition, for arrays of any shape
    FieldQuantizer          the same levels for the fields of a video, compiled, with statistics;
                            quantize_torch.py has it for fields on a GPU
    FlowStatistics          these statistics; the sum over a video's segments is the whole video's

    quantizer   level of v px (v clipped to +-b)     center    peers
    round       rint(255 (v + b) / 2b)               127.5     denseflow, dense_flow, gpu_flow
    floor       floor(255 (v + b) / 2b)              127       MediaPipe, mmaction2's fallback
    centered    rint(128 + 128 v / b), up to 255     128       agethen/dense-flow

All three are decoded by `(level - center) * px_per_level`. For `floor`, the center is the middle of
the interval, so that no quantizer is biased. The error is at most half a level. For `centered`,
which has no level 256, it is a whole level at +b. MediaPipe's own decoder,
`(level / 255 - .5) * 2b`, keeps its bias of half a level.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec

__all__ = [
    "HISTOGRAM_BIN_PX",
    "HISTOGRAM_NUM_BINS",
    "FieldQuantizer",
    "FlowStatistics",
    "dequantize",
    "quantize",
]

HISTOGRAM_BIN_PX = 0.25
"""Width of a bin of the magnitude histogram."""
HISTOGRAM_NUM_BINS = 256
"""Number of bins of the magnitude histogram. One more bin follows for all longer vectors."""

# The bins of so many pixels are found before they are counted.
_BINS_AT_ONCE = 1024


def quantize(flow: NDArray[np.floating[Any]], spec: FlowSpec) -> NDArray[np.uint8]:
    """Returns the levels of `flow` under the spec's bound and quantizer.

    `flow` is float px of any shape. The result is uint8 of the same shape. Values beyond the bound
    are clipped, and NaN and infinities become `spec.zero_level`. With `round`, zero encodes as 128,
    which decodes to +0.078 px at bound 20 (source of `round`: denseflow, src/common.cpp, CAST).
    """
    bound = spec.bound_px
    levels: NDArray[np.float64] = np.asarray(np.clip(flow, -bound, bound, dtype=np.float64))
    if spec.quantizer == "centered":
        levels *= 128.0 / bound
        levels += 128.0
        np.minimum(levels, 255.0, out=levels)
    else:
        # The operations have the same order as in the source, so that ties round alike.
        levels += bound
        levels *= 255.0
        levels /= 2.0 * bound
    if spec.quantizer == "floor":
        np.floor(levels, out=levels)
        # Rounding may leave a value at the bound just below level 255.
        levels[flow >= np.float64(bound)] = 255
    else:
        np.rint(levels, out=levels)
    invalid = ~np.isfinite(flow)
    if invalid.any():
        levels[invalid] = spec.zero_level
    return levels.astype(np.uint8)


def dequantize(levels: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """Returns the flow in px that `levels` mean: same shape, float32, in [-bound, bound]."""
    table = (np.arange(256, dtype=np.float64) - spec.center_level) * spec.px_per_level
    return np.clip(table, -spec.bound_px, spec.bound_px).astype(np.float32)[levels]


def _empty_histogram() -> NDArray[np.int64]:
    return np.zeros(HISTOGRAM_NUM_BINS + 1, dtype=np.int64)


@dataclass
class FlowStatistics:
    """Statistics of the fields of one direction before quantization.

    They are only counts and extremes, so that sums of parts are exact, however the parts are cut.
    """

    min_px: float = np.inf
    max_px: float = -np.inf
    histogram: NDArray[np.int64] = field(default_factory=_empty_histogram)
    """(HISTOGRAM_NUM_BINS + 1,) int64: magnitudes by HISTOGRAM_BIN_PX."""
    num_values: int = 0
    """Number of components: two per pixel and field."""
    num_clipped: int = 0
    """Number of components beyond the bound."""
    num_invalid: int = 0
    num_fields: int = 0
    num_zero_fields: int = 0

    def add_field(
        self, num_values: int, low_px: float, high_px: float, num_invalid: int, num_clipped: int
    ) -> None:
        """Counts one field. Its magnitudes, which are counted elsewhere, go to `histogram`."""
        self.min_px = min(self.min_px, low_px)
        self.max_px = max(self.max_px, high_px)
        self.num_values += num_values
        self.num_fields += 1
        self.num_zero_fields += low_px == 0 == high_px
        self.num_invalid += num_invalid
        self.num_clipped += num_clipped

    def __add__(self, later: FlowStatistics) -> FlowStatistics:
        """Returns the statistics of these fields and the `later` ones together."""
        # The order matters, because the first of 0.0 and -0.0 stays.
        return FlowStatistics(
            min_px=min(self.min_px, later.min_px),
            max_px=max(self.max_px, later.max_px),
            histogram=self.histogram + later.histogram,
            num_values=self.num_values + later.num_values,
            num_clipped=self.num_clipped + later.num_clipped,
            num_invalid=self.num_invalid + later.num_invalid,
            num_fields=self.num_fields + later.num_fields,
            num_zero_fields=self.num_zero_fields + later.num_zero_fields,
        )


class FieldQuantizer:
    """Quantizes the fields of one video and direction, and sums up their statistics."""

    def __init__(self, spec: FlowSpec) -> None:
        self._spec = spec
        self._quantize_field, self._count_magnitudes = _kernels()
        self.statistics = FlowStatistics()
        """Statistics of all fields so far."""
        # Buffers are kept between fields. New memory for each would cost as much as the arithmetic.
        self._components = np.empty((2, 0, 0), np.float32)
        self._magnitude = np.empty((0, 0), np.float32)

    def quantize(self, flow: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Returns the levels of one field, as the function `quantize` gives them; counts the field.

        `flow` is (H, W, 2) float32 px before clipping. The result is (2, H, W) uint8: the levels of
        x and of y, each C-contiguous.
        """
        spec = self._spec
        flow = np.ascontiguousarray(flow, np.float32)
        height, width = flow.shape[:2]
        if self._magnitude.shape != (height, width):
            self._components = np.empty((2, height, width), np.float32)
            self._magnitude = np.empty((height, width), np.float32)
        components, magnitude = self._components, self._magnitude
        levels = np.empty((2, height, width), np.uint8)
        num_invalid, num_clipped = self._quantize_field(
            flow.reshape(-1),
            float(spec.bound_px),
            spec.quantizer == "centered",
            spec.quantizer == "floor",
            spec.zero_level,
            components.reshape(2, -1),
            levels.reshape(2, -1),
        )
        valid = components if num_invalid else flow
        found = self.statistics
        found.add_field(flow.size, float(valid.min()), float(valid.max()), num_invalid, num_clipped)
        cv2.magnitude(components[0], components[1], magnitude)
        self._count_magnitudes(magnitude.reshape(-1), found.histogram)
        return levels

    def add(
        self,
        levels: NDArray[np.uint8],
        extremes_px: NDArray[np.float32],
        counts: NDArray[np.int32],
    ) -> NDArray[np.uint8]:
        """Counts a field that a `DeviceQuantizer` has quantized, and returns its levels.

        The arrays are the entries of that field in the quantizer's results.
        """
        low, high = extremes_px.tolist()
        num_invalid, num_clipped = counts[:2].tolist()
        self.statistics.add_field(levels.size, low, high, num_invalid, num_clipped)
        self.statistics.histogram += counts[2:]
        return levels


# ---- kernels


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """Returns `_quantize_field` and `_count_magnitudes`, ready to run."""
    # numba is imported here, because it takes half a second and readers do not need it.
    from flowprep.flow.kernel import kernel

    quantize_field, count_magnitudes = kernel(_quantize_field), kernel(_count_magnitudes)
    # The first call compiles a kernel or reads it from the disk. It comes before fields are timed.
    components, levels = np.zeros((2, 1), np.float32), np.zeros((2, 1), np.uint8)
    quantize_field(components.reshape(-1), 1.0, False, False, 0, components, levels)
    count_magnitudes(components[0], np.zeros(HISTOGRAM_NUM_BINS + 1, np.int64))
    return quantize_field, count_magnitudes


def _quantize_field(
    flow: NDArray[np.float32],
    bound: float,
    centered: bool,
    floors: bool,
    zero_level: int,
    components: NDArray[np.float32],
    levels: NDArray[np.uint8],
) -> tuple[int, int]:
    """Writes the levels of a field, and its components with 0 for NaN and infinities.

    `flow` is (2 N,) float32 px, with x and y in turn. `components` is (2, N) float32, and `levels`
    is (2, N) uint8. Returns the number of invalid values and of values beyond the bound.
    """
    num_invalid = 0
    num_clipped = 0
    for pixel in range(components.shape[1]):
        for axis in range(2):
            value = flow[2 * pixel + axis]
            valid = abs(value) < np.inf
            value = value if valid else np.float32(0)
            # The same float64 operations as in `quantize`, in the same order.
            level = min(max(np.float64(value), -bound), bound)
            if centered:
                level = min(level * (128.0 / bound) + 128.0, 255.0)
            else:
                level = (level + bound) * 255.0 / (2.0 * bound)
            level = np.floor(level) if floors else np.rint(level)
            if floors and np.float64(value) >= bound:
                level = 255.0
            components[axis, pixel] = value
            levels[axis, pixel] = np.int32(level) if valid else zero_level
            num_invalid += not valid
            num_clipped += abs(value) > np.float32(bound)
    return num_invalid, num_clipped


def _count_magnitudes(magnitudes: NDArray[np.float32], histogram: NDArray[np.int64]) -> None:
    """Adds (N,) float32 magnitudes in px to a histogram whose last bin has no upper end."""
    # Neighbors often share a bin and would wait for each other's sum. So four sums take turns.
    first, second = np.zeros(histogram.size, np.int64), np.zeros(histogram.size, np.int64)
    third, fourth = np.zeros(histogram.size, np.int64), np.zeros(histogram.size, np.int64)
    bins = np.empty(_BINS_AT_ONCE, np.uint32)
    per_px = np.float32(1 / HISTOGRAM_BIN_PX)
    for start in range(0, magnitudes.size, _BINS_AT_ONCE):
        count = min(_BINS_AT_ONCE, magnitudes.size - start)
        # Apart from the counting, this runs on vectors.
        for i in range(count):
            place = magnitudes[start + i] * per_px
            # If the squares overflow, OpenCV's magnitude is NaN on some processors: it is long.
            within = place < np.float32(HISTOGRAM_NUM_BINS)
            bins[i] = np.int32(place if within else np.float32(HISTOGRAM_NUM_BINS))
        whole = count // 4 * 4
        for i in range(0, whole, 4):
            first[bins[i]] += 1
            second[bins[i + 1]] += 1
            third[bins[i + 2]] += 1
            fourth[bins[i + 3]] += 1
        for i in range(whole, count):
            first[bins[i]] += 1
    for place in range(histogram.size):
        histogram[place] += first[place] + second[place] + third[place] + fourth[place]
