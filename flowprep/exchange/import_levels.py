"""The levels of imported flow: floats become levels and JPEGs, and their statistics are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, FlowSpec
from flowprep.dataset.layout import FLOW_STREAMS
from flowprep.dataset.quantize import (
    HISTOGRAM_BIN_PX,
    HISTOGRAM_NUM_BINS,
    FieldQuantizer,
    FlowStatistics,
    dequantize,
)
from flowprep.dataset.video_list import size_problem
from flowprep.dataset.write import JpegStream
from flowprep.errors import NoteCode, VideoError
from flowprep.exchange.exact_jpeg import encode_exactly
from flowprep.exchange.import_fields import Fields
from flowprep.exchange.import_plan import ImportPlan

__all__ = ["LevelStatistics", "StoredFlow", "encode_fields"]


@dataclass
class StoredFlow:
    """What became of the flow of a video."""

    num_flows: int
    size: tuple[int, int]
    """Width and height in px."""
    statistics: Mapping[Direction, FlowStatistics]
    notes: dict[NoteCode, str]


def encode_fields(
    plan: ImportPlan, fields: Fields, streams: Mapping[str, JpegStream]
) -> StoredFlow:
    """Stores arrays of flow as JPEGs. Raises VideoError for arrays that cannot be flow."""
    spec, encode = plan.flow_spec, plan.config.encode
    (direction,) = encode.directions
    width, height = fields.size
    if size_problem(width, height) is not None:
        raise VideoError("unreadable", f"the array says that it is {width}x{height}")
    names = FLOW_STREAMS[direction]
    counted, quantizer = LevelStatistics(), FieldQuantizer(spec)
    scale = np.float32(spec.bound_px if plan.unit == "bound" else 1)
    num_changed, largest = 0, 0.0
    for chunk in fields.chunks():
        for one in chunk:
            if fields.are_levels:
                levels = np.ascontiguousarray(np.moveaxis(one, 2, 0))
                counted.add(levels[0], levels[1], spec.zero_level)
            else:
                with np.errstate(invalid="ignore", over="ignore"):
                    levels = quantizer.quantize(one * scale)
                valid = np.abs(one[np.isfinite(one)])
                largest = max(largest, float(valid.max()) if valid.size else 0.0)
            for name, plane in zip(names, levels, strict=True):
                if plan.comes_from_jpegs:
                    jpeg, changed = encode_exactly(plane, encode.jpeg_quality)
                    streams[name].append_jpeg(jpeg)
                    num_changed += changed
                else:
                    streams[name].append(plane)
    statistics = counted.flow_statistics(spec) if fields.are_levels else quantizer.statistics
    notes: dict[NoteCode, str] = {}
    if num_changed:
        notes["levels-changed"] = f"{num_changed} of {statistics.num_values} levels changed"
    if not fields.are_levels and statistics.num_clipped:
        notes["flow-clipped"] = (
            f"{_percent(statistics.num_clipped, statistics.num_values)} of the values are beyond "
            f"{spec.bound_px:g} px, up to {max(-statistics.min_px, statistics.max_px):.4g} px"
        )
    if statistics.num_invalid:
        share = _percent(statistics.num_invalid, statistics.num_values)
        notes["flow-unknown"] = f"{share} of the values"
    if plan.unit == "px" and not plan.comes_from_jpegs and 0 < largest <= 1 < spec.bound_px:
        notes["flow-small"] = f"the largest value is {largest:.3g}"
    return StoredFlow(fields.num_flows, fields.size, {direction: statistics}, notes)


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.1f} %" if share >= 0.1 else f"{share:.{1 - math.floor(math.log10(share))}f} %"


@dataclass
class LevelStatistics:
    """The statistics of `FieldQuantizer`, as far as the stored levels give them.

    Levels 0 and 255 count as clipped. They include all values beyond the bound, and the values
    within half a level of the bound. The levels do not show whether a value was invalid.
    """

    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    """How often each pair of levels (x, y) occurs, at element 256 x + y."""
    num_fields: int = 0
    num_zero_fields: int = 0

    def add(self, x: NDArray[np.uint8], y: NDArray[np.uint8], zero_level: int) -> None:
        """Counts one field: (H, W) uint8 levels of x and of y."""
        pairs = (x.astype(np.uint16) << 8) | y
        self.pairs += np.bincount(pairs.reshape(-1), minlength=1 << 16)
        self.num_fields += 1
        zero = zero_level << 8 | zero_level
        self.num_zero_fields += bool((pairs == zero).all())

    def flow_statistics(self, spec: FlowSpec) -> FlowStatistics:
        """Returns the statistics of the flow that the levels decode to."""
        if not self.num_fields:
            return FlowStatistics()
        levels = dequantize(np.arange(256, dtype=np.uint8), spec)
        table = self.pairs.reshape(256, 256)
        counts = table.sum(axis=1) + table.sum(axis=0)
        present = levels[counts > 0]
        magnitude = np.hypot(levels[:, None], levels[None, :])
        bins = np.minimum(magnitude / HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS).astype(np.int64)
        found = FlowStatistics(
            min_px=float(present.min()),
            max_px=float(present.max()),
            num_values=int(counts.sum()),
            num_clipped=int(counts[0] + counts[255]),
            num_fields=self.num_fields,
            num_zero_fields=self.num_zero_fields,
        )
        np.add.at(found.histogram, bins, table)
        return found
