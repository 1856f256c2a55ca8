"""Average precision: how well scores rank the videos of a class before all others.

    AP   = sum over the thresholds n of (R_n - R_(n-1)) P_n    P: precision, R: recall
    mAP  = mean of AP over the classes that a tested video has
    wAP  = mean of AP, weighted by the number of videos of each class

AP is scikit-learn's `average_precision_score`: the sum over thresholds, where videos of one score
come at once. Charades_v1_classify.m, the script of the Charades challenge (Sigurdsson et al.,
Hollywood in Homes, ECCV 2016), sums the precision at each positive instead, which is the same
without ties, and prints both means. It ranks a video without a label behind all others, where it
changes nothing: so such videos are left out here. A class without a video has no AP (0 / 0), and is
left out of the means.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.learn.csv_tables import csv_text

__all__ = ["average_precision_csv", "average_precisions", "weighted_mean"]


def average_precisions(
    targets: NDArray[np.bool_], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the average precision of each class, (K,), NaN for a class without a video.

    `targets` (N, K) says which classes a video has, `scores` (N, K) how sure the network is.
    """
    num_classes = targets.shape[1]
    return np.array([_of_class(targets[:, k], scores[:, k]) for k in range(num_classes)])


def _of_class(is_positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    num_positive = int(is_positive.sum())
    if num_positive == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    # The last video of each score: those of one score are above a threshold together.
    lasts = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    num_found = np.cumsum(is_positive[order])[lasts]
    precisions = num_found / (lasts + 1)
    return float(np.sum(np.diff(num_found, prepend=0) * precisions) / num_positive)


def weighted_mean(targets: NDArray[np.bool_], precisions: NDArray[np.float64]) -> float:
    """Returns the mean of average precisions, (K,), weighted by the videos of each class."""
    counts = targets.sum(axis=0)
    return float(np.sum(np.where(counts > 0, precisions, 0.0) * counts) / counts.sum())


def average_precision_csv(
    targets: NDArray[np.bool_], precisions: NDArray[np.float64], names: tuple[str, ...]
) -> str:
    """Returns a line for each class: its name, its videos and its AP, empty without a video."""
    counts = targets.sum(axis=0).tolist()
    rows = [
        (name, count, f"{value:.6f}" if count else "")
        for name, count, value in zip(names, counts, precisions.tolist(), strict=True)
    ]
    return csv_text([("class", "videos", "average_precision"), *rows])
