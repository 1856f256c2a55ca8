"""Recommends a bound for the motion of a data set from the stored histograms."""

from __future__ import annotations

import dataclasses
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
"""Bounds that may be recommended. They are round numbers, from 4 to 128 px in steps of at most an
eighth."""


@dataclass(frozen=True)
class BoundAdvice:
    """A recommended bound for the motion of a data set or a class."""

    current_px: float
    current_share: float
    """Share of the components that the current bound clips, as counted by extract."""
    requested_share: float
    recommended_px: float
    recommended_share: float
    """Upper limit of the share of components that the recommended bound clips."""
    shares: NDArray[np.float64]
    """The same upper limit for each of NICE_BOUNDS_PX."""

    def not_smaller(self) -> BoundAdvice:
        """Returns the advice for a data set with videos whose motion the current bound clips."""
        if self.recommended_px >= self.current_px:
            return self
        return dataclasses.replace(
            self, recommended_px=self.current_px, recommended_share=self.current_share
        )


def most_beyond(
    summary: FlowSummary, bound_px: float, bounds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns an upper limit of the components beyond each of `bounds`, (N,) float64, ascending.

    `summary` is the stored summary of one video and direction. A vector longer than b has at most
    one component beyond b, or two if it is longer than b * sqrt(2). A bin counts in full from its
    lower edge. Extract's own count at its bound, and the greatest component, make the limit
    tighter. So the true number is never above this limit.
    """
    histogram = np.asarray(summary.magnitude_histogram, np.float64)
    tail = np.concatenate((np.cumsum(histogram[::-1])[::-1], [0.0]))
    most = np.zeros(bounds.size)
    for factor in (1.0, np.sqrt(2.0)):
        bins = np.floor(factor * bounds / summary.histogram_bin_px)
        # The last bin has no upper end, so it may hold all longer vectors.
        place = np.minimum(bins, HISTOGRAM_NUM_BINS).astype(np.intp)
        most += tail[np.minimum(place, histogram.size)]
    most = np.where(bounds >= bound_px, np.minimum(most, summary.num_clipped), most)
    # The stored value was rounded to four digits.
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
    """Returns the smallest of NICE_BOUNDS_PX that clips at most the requested share.

    The current bound is the answer if it is enough and no smaller one is. `most` are sums of
    `most_beyond` over NICE_BOUNDS_PX.
    """
    shares = most / max(1, num_values)
    enough = np.flatnonzero(shares <= requested_share)
    place = int(enough[0]) if enough.size else len(NICE_BOUNDS_PX) - 1
    current_share = num_clipped / max(1, num_values)
    keeps = current_share <= requested_share and NICE_BOUNDS_PX[place] > bound_px
    return BoundAdvice(
        current_px=bound_px,
        current_share=current_share,
        requested_share=requested_share,
        recommended_px=bound_px if keeps else NICE_BOUNDS_PX[place],
        recommended_share=current_share if keeps else float(shares[place]),
        shares=shares,
    )
