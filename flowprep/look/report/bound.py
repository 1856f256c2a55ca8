"""Which bound suits the motion of a data set, told from the stored histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.metadata import FlowSummary
from flowprep.dataset.quantize import HISTOGRAM_NUM_BINS

__all__ = ["NICE_BOUNDS_PX", "BoundAdvice", "most_beyond", "recommend_bound"]


def _nice_bounds() -> tuple[float, ...]:
    bounds: list[float] = []
    for end, step in ((4, 0.5), (16, 1), (32, 2), (64, 4), (128, 8), (512, 32), (10000, 500)):
        first = bounds[-1] + step if bounds else step
        if end == 10000:
            first = 1000
        bounds += np.arange(first, end + step / 2, step).tolist()
    return tuple(bounds)


NICE_BOUNDS_PX = _nice_bounds()
"""Bounds that may be recommended: round, and at most an eighth apart from 4 to 128 px."""


@dataclass(frozen=True)
class BoundAdvice:
    """Which bound suits the motion of a data set, or of a class."""

    current_px: float
    current_share: float
    """Of the components that the current bound clips, counted by extract."""
    requested_share: float
    recommended_px: float
    recommended_share: float
    """At most so many components are clipped there."""
    shares: NDArray[np.float64]
    """The same for each of NICE_BOUNDS_PX."""


def most_beyond(
    summary: FlowSummary, bound_px: float, bounds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the most components that can be beyond each of `bounds`, (N,) float64, from below.

    `summary` is that of one video and direction, as stored. A vector longer than b has one
    component beyond b at most, unless it is longer than b * sqrt(2), then two; a bin counts in full
    from its lower edge. What extract counted at its own bound, and the greatest component, say more
    and are used too. So the true number is never above this one.
    """
    histogram = np.asarray(summary.magnitude_histogram, np.float64)
    tail = np.concatenate((np.cumsum(histogram[::-1])[::-1], [0.0]))
    most = np.zeros(bounds.size)
    for factor in (1.0, np.sqrt(2.0)):
        bins = np.floor(factor * bounds / summary.histogram_bin_px)
        # The last bin has no upper end, so all beyond it may be there.
        place = np.minimum(bins, HISTOGRAM_NUM_BINS).astype(np.intp)
        most += tail[np.minimum(place, histogram.size)]
    most = np.where(bounds >= bound_px, np.minimum(most, summary.num_clipped), most)
    # Rounded to four digits when it was stored.
    greatest = max(abs(summary.min_px or 0.0), abs(summary.max_px or 0.0)) + 5e-5
    return np.where(bounds >= greatest, 0.0, most)


def recommend_bound(
    most: NDArray[np.float64],
    num_values: int,
    num_clipped: int,
    *,
    bound_px: float,
    requested_share: float,
) -> BoundAdvice:
    """Returns the least of NICE_BOUNDS_PX beyond which is at most the requested share.

    `most` are sums of `most_beyond` over NICE_BOUNDS_PX.
    """
    shares = most / max(1, num_values)
    enough = np.flatnonzero(shares <= requested_share)
    place = int(enough[0]) if enough.size else len(NICE_BOUNDS_PX) - 1
    return BoundAdvice(
        current_px=bound_px,
        current_share=num_clipped / max(1, num_values),
        requested_share=requested_share,
        recommended_px=NICE_BOUNDS_PX[place],
        recommended_share=float(shares[place]),
        shares=shares,
    )
