"""Sums up the differences between the fields of two flows without keeping the fields."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DifferenceStatistics", "DifferenceSums"]

_BIN_PX = 0.01
_NUM_BINS = 20_000
"""Bins of 0.01 px for differences up to 200 px."""


@dataclass(frozen=True)
class DifferenceStatistics:
    """Endpoint differences of the fields of one video, or of all; quantiles to 0.01 px."""

    num_fields: int
    mean_px: float
    median_px: float
    p90_px: float
    p99_px: float
    max_px: float
    equal_share: float | None
    """Share of equal 8-bit values. None if the values of the two flows have different meanings."""
    within_one_share: float | None
    """Share of 8-bit values that differ by at most one level."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the statistics as JSON values."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }


class DifferenceSums:
    """Sums from which statistics are made. They are large, so at most two of them are kept."""

    def __init__(self) -> None:
        self.num_fields = 0
        self._num_px = 0
        self._sum_px = 0.0
        self._max_px = 0.0
        self._histogram = np.zeros(_NUM_BINS + 1, np.int64)
        self._num_levels = 0
        self._num_equal = 0
        self._num_within_one = 0

    def add(
        self,
        error: NDArray[np.float64],
        levels: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None,
    ) -> None:
        """Counts the differences of one field, (H, W) px, and of its levels if comparable."""
        self.num_fields += 1
        self._num_px += error.size
        self._sum_px += float(error.sum())
        self._max_px = max(self._max_px, float(error.max()))
        places = np.minimum(np.rint(error * (1 / _BIN_PX)), _NUM_BINS).astype(np.int64)
        self._histogram += np.bincount(places.ravel(), minlength=_NUM_BINS + 1)
        if levels is not None:
            difference = np.maximum(*levels) - np.minimum(*levels)
            self._num_levels += difference.size
            self._num_equal += int((difference == 0).sum())
            self._num_within_one += int((difference <= 1).sum())

    def statistics(self) -> DifferenceStatistics:
        """Returns the statistics of everything counted so far."""
        cumulated = np.cumsum(self._histogram)
        shares = np.array([0.5, 0.9, 0.99]) * self._num_px
        places = np.searchsorted(cumulated, shares) * _BIN_PX
        median_px, p90_px, p99_px = np.minimum(places, self._max_px).tolist()
        known = self._num_levels > 0
        return DifferenceStatistics(
            num_fields=self.num_fields,
            mean_px=self._sum_px / max(1, self._num_px),
            median_px=median_px,
            p90_px=p90_px,
            p99_px=p99_px,
            max_px=self._max_px,
            equal_share=self._num_equal / self._num_levels if known else None,
            within_one_share=self._num_within_one / self._num_levels if known else None,
        )
