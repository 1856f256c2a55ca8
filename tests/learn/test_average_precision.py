"""Average precision is scikit-learn's, ties included; a class that no video has does not count."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]

from flowprep.learn.average_precision import (
    average_precision_csv,
    average_precisions,
    weighted_mean,
)


def draw(seed: int, *, levels: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Random targets, of which class 2 has none, and scores with so many levels."""
    rng = np.random.default_rng(seed)
    targets = rng.random((40, 6)) < rng.uniform(0.05, 0.9, 6)
    targets[0] = True
    targets[:, 2] = False
    return targets, rng.integers(levels, size=(40, 6)) / levels


@pytest.mark.parametrize("levels", [1, 3, 1 << 40])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_scikit_learn(seed: int, levels: int) -> None:
    targets, scores = draw(seed, levels=levels)
    found = average_precisions(targets, scores)
    assert np.isnan(found).tolist() == [False, False, True, False, False, False]
    held = [0, 1, 3, 4, 5]
    for k in held:
        assert found[k] == pytest.approx(average_precision_score(targets[:, k], scores[:, k]))
    expected = {
        kind: average_precision_score(targets[:, held], scores[:, held], average=kind)
        for kind in ("macro", "weighted")
    }
    assert float(np.nanmean(found)) == pytest.approx(expected["macro"])
    assert weighted_mean(targets, found) == pytest.approx(expected["weighted"])


def test_without_ties_it_is_that_of_charades() -> None:
    targets, scores = draw(9, levels=1 << 40)
    for k, found in enumerate(average_precisions(targets, scores)):
        # Charades_v1_classify.m: the mean over the positives of the precision at each of them.
        labels = targets[np.argsort(-scores[:, k]), k]
        precisions = np.cumsum(labels) / np.arange(1, 41)
        if labels.any():
            assert found == pytest.approx(float(precisions[labels].mean()))


def test_a_video_ranked_behind_all_others_changes_nothing() -> None:
    # What the script of Charades does with a video without a label.
    targets, scores = draw(3, levels=7)
    more = np.vstack([targets, np.zeros(6, np.bool_)]), np.vstack([scores, np.full(6, -np.inf)])
    found = average_precisions(*more)
    np.testing.assert_allclose(found, average_precisions(targets, scores), rtol=1e-12)


def test_the_table_leaves_a_class_without_a_video_empty() -> None:
    targets = np.array([[True, False], [True, False]])
    table = average_precision_csv(targets, np.array([1.0, np.nan]), ("run", "=jump"))
    lines = ["class,videos,average_precision", "run,2,1.000000", "'=jump,0,"]
    assert table.splitlines() == lines
