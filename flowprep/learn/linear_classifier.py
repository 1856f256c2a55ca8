"""A linear classifier by scikit-learn: scaled vectors in, a score for each class out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax  # type: ignore[import-untyped]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]
from sklearn.model_selection import KFold, StratifiedGroupKFold  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler, normalize  # type: ignore[import-untyped]
from sklearn.svm import LinearSVC  # type: ignore[import-untyped]

from flowprep.errors import DatasetError
from flowprep.learn.probe_spec import ProbeSpec

__all__ = ["LinearClassifier", "average_precisions", "choose_c", "fit"]

Targets = NDArray[np.bool_]
"""(N, K) which classes each video has."""

C_GRID = tuple(10.0**power for power in range(-3, 4))
_NUM_FOLDS = 5
_MAX_ITERATIONS = 10_000

_LOWEST = {"svm": -1.0, "logistic": float(np.log(np.finfo(np.float64).tiny))}
"""The score of a class without a training video. An SVM would learn only the answer -1."""

# UCF101's names end in the recording and the part of it: v_Biking_g01_c02.
_PART = re.compile(r"(_g\d+)_c\d+$")


@dataclass(frozen=True)
class LinearClassifier:
    """A trained classifier. `score` gives (N, K) logits for streams of vectors."""

    spec: ProbeSpec
    num_classes: int
    classes: NDArray[np.int64]
    """The classes with a training video."""
    is_multilabel: bool
    models: tuple[LogisticRegression | LinearSVC, ...]
    """One model, or one for each of `classes` if videos may have several labels."""
    scaler: StandardScaler | None
    has_converged: bool

    def score(self, streams: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Returns (N, K) logits. For an SVM they are distances from the planes, times a norm.

        For softmax regression they are logarithms of probabilities.
        """
        x = _scaled(streams, self.spec, self.scaler)
        scores = np.full((len(x), self.num_classes), _LOWEST[self.spec.classifier])
        if self.is_multilabel:
            own = np.stack([model.decision_function(x) for model in self.models], axis=1)
        else:
            own = self.models[0].decision_function(x)
            if own.ndim == 1:
                # Two classes have one plane. Their softmax is the logistic function of its score.
                own = np.stack((-own, own), axis=1) / (2 - (self.spec.classifier == "svm"))
            if self.spec.classifier == "logistic":
                own = np.maximum(log_softmax(own, axis=1), _LOWEST["logistic"])
        scores[:, self.classes] = own
        return scores


def fit(
    streams: Sequence[NDArray[np.float64]],
    targets: Targets,
    spec: ProbeSpec,
    c: float,
    *,
    is_multilabel: bool,
) -> LinearClassifier:
    """Trains on the vectors of each stream, (N, C) each, and their classes (N, K).

    Raises DatasetError for fewer than two classes with videos.
    """
    classes = np.flatnonzero(targets.any(axis=0))
    if is_multilabel:
        # A class that every video has teaches nothing.
        classes = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
    if len(classes) < (1 if is_multilabel else 2):
        raise DatasetError(
            f"a classifier needs training videos of two classes or more, got {len(classes)}"
        )
    scaler = None
    if spec.scaling == "standard":
        scaler = StandardScaler().fit(np.concatenate(streams, axis=1))
    x = _scaled(streams, spec, scaler)
    columns: list[NDArray[np.int64]]
    if is_multilabel:
        columns = [targets[:, label].astype(np.int64) for label in classes]
    else:
        columns = [targets.argmax(axis=1)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        models = tuple(_new_model(spec, c).fit(x, y) for y in columns)
    has_converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
    return LinearClassifier(
        spec, targets.shape[1], classes, is_multilabel, models, scaler, has_converged
    )


def _new_model(spec: ProbeSpec, c: float) -> LogisticRegression | LinearSVC:
    if spec.classifier == "logistic":
        return LogisticRegression(C=c, max_iter=_MAX_ITERATIONS, random_state=spec.seed)
    # `auto` takes the dual problem if there are more numbers than videos, which is faster.
    return LinearSVC(C=c, dual="auto", max_iter=_MAX_ITERATIONS, random_state=spec.seed)


def _scaled(
    streams: Sequence[NDArray[np.float64]], spec: ProbeSpec, scaler: StandardScaler | None
) -> NDArray[np.float64]:
    if spec.scaling == "l2":
        # Each stream by itself, as C3D joins the vectors of several networks.
        streams = [normalize(x) for x in streams]
    x = np.concatenate(streams, axis=1)
    return x if scaler is None else np.asarray(scaler.transform(x), np.float64)


def choose_c(
    streams: Sequence[NDArray[np.float64]],
    targets: Targets,
    keys: Sequence[str],
    spec: ProbeSpec,
    *,
    is_multilabel: bool,
) -> dict[float, float]:
    """Returns the score of each C of the grid, the mean over the folds of a cross validation.

    The score is the share of correct videos, or the mean average precision if videos have several
    labels. Parts of one recording, by UCF101's names, are in one fold. Raises DatasetError if there
    are too few videos of a class.
    """
    found: dict[float, list[float]] = {c: [] for c in C_GRID}
    for train, test in _folds(targets, keys, spec.seed, is_multilabel):
        for c, scores in found.items():
            model = fit(
                [x[train] for x in streams], targets[train], spec, c, is_multilabel=is_multilabel
            )
            logits = model.score([x[test] for x in streams])
            if is_multilabel:
                precisions = average_precisions(logits, targets[test])
                scores.append(float(np.nanmean(precisions)))
            else:
                right = logits.argmax(axis=1) == targets[test].argmax(axis=1)
                scores.append(float(right.mean()))
    return {c: float(np.mean(scores)) for c, scores in found.items()}


def _folds(
    targets: Targets, keys: Sequence[str], seed: int, is_multilabel: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    if is_multilabel:
        if len(targets) < _NUM_FOLDS:
            raise DatasetError(
                f"a cross validation needs {_NUM_FOLDS} training videos or more, got "
                f"{len(targets)}; give c a number"
            )
        yield from KFold(_NUM_FOLDS, shuffle=True, random_state=seed).split(targets)
        return
    counts = targets.sum(axis=0)
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        raise DatasetError(
            "a cross validation needs two training videos of each class, got a class with one; "
            "give c a number"
        )
    groups = [_PART.sub(r"\1", key) for key in keys]
    labels = targets.argmax(axis=1)
    folds = StratifiedGroupKFold(min(_NUM_FOLDS, fewest), shuffle=True, random_state=seed)
    for train, test in folds.split(labels, labels, groups):
        # With few recordings, a fold may be empty, or hold all but one class.
        if len(test) and len(np.unique(labels[train])) > 1:
            yield train, test


def average_precisions(scores: NDArray[np.float64], targets: Targets) -> NDArray[np.float64]:
    """Returns (K,) the average precision of each class; NaN for a class that no video has."""
    precisions = np.full(targets.shape[1], np.nan)
    for label in np.flatnonzero(targets.any(axis=0)):
        precisions[label] = average_precision_score(targets[:, label], scores[:, label])
    return precisions
