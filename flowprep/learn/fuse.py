"""Late fusion: joins the scores of several streams into one, with the published rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.config import FUSION_METHODS, FusionMethod
from flowprep.learn.scores import Scores, sigmoid, softmax

__all__ = ["align_scores", "default_weights", "fuse_scores"]

# Wang et al. 2016, section 4.1: 1 for RGB and 1.5 for flow, applied to the scores before softmax.
_TSN_WEIGHTS = {"rgb": 1.0, "flow": 1.5}

# The primal problem has one solution and uses no random numbers.
_SVM_OPTIONS = {"dual": False, "max_iter": 10000}

_NUM_NAMED = 5


def fuse_scores(
    streams: Sequence[Scores],
    method: FusionMethod = "mean",
    *,
    weights: Sequence[float] | None = None,
    train: Sequence[Scores] | None = None,
) -> Scores:
    """Joins the scores that several networks gave to the same videos.

    `mean` averages probabilities; with `weights` the average is weighted. `weighted` sums the
    logits times `weights`, and `logits` sums the logits unchanged. For both, the softmax of the sum
    gives the probabilities. `svm` trains a linear SVM (one against the rest, squared hinge, C = 1)
    on `train`: the scores of labeled training videos, from the same networks in the same order.
    The SVM's margins become the logits. Their softmax becomes the probabilities, which are useful
    only for ranking. Where videos may have several labels, the sigmoid takes the place of the
    softmax, and the SVM tells the videos of each class from all others.

    Videos are matched by key and keep the order of the first stream. Raises ConfigError for weights
    or training scores that do not fit, and DatasetError if the streams do not hold the same videos
    with the same labels and classes.
    """
    if method not in FUSION_METHODS:
        choices = ", ".join(get_args(FusionMethod))
        raise ConfigError(f"method must be one of {choices}, got {method!r}")
    streams = align_scores(streams)
    squash = sigmoid if streams[0].is_multilabel else softmax
    if weights is not None and method in ("logits", "svm"):
        raise ConfigError(f"weights are for methods mean and weighted, not for {method}")
    source = {
        "fusion": method,
        "streams": [{"stream": scores.stream, **scores.source} for scores in streams],
    }
    if method == "svm":
        logits = _svm_margins(streams, train)
        probabilities = squash(logits)
    elif method == "mean":
        shares = _checked_weights(weights or [1.0] * len(streams), len(streams))
        source["weights"] = shares.tolist()
        stacked = np.stack([scores.probabilities for scores in streams])
        probabilities = np.tensordot(shares / shares.sum(), stacked, 1)
        # Softmax, or the sigmoid, turns these back into the probabilities. A score that underflowed
        # stays finite.
        logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
        if streams[0].is_multilabel:
            logits -= np.log(np.maximum(1 - probabilities, np.finfo(np.float64).tiny))
    else:
        if method == "logits":
            weights = [1.0] * len(streams)
        factors = _checked_weights(weights or default_weights(streams), len(streams))
        source["weights"] = factors.tolist()
        logits = np.tensordot(factors, np.stack([scores.logits for scores in streams]), 1)
        probabilities = squash(logits)
    first = streams[0]
    return Scores(
        first.keys,
        first.labels,
        logits,
        probabilities,
        first.class_names,
        "+".join(scores.stream for scores in streams),
        source,
        first.targets,
    )


def align_scores(streams: Sequence[Scores]) -> list[Scores]:
    """Returns the streams with their videos in the order of the first stream.

    Raises ConfigError for fewer than two streams, and DatasetError if their videos, labels or
    classes differ.
    """
    if len(streams) < 2:
        raise ConfigError(f"a fusion needs the scores of two streams or more, got {len(streams)}")
    first = streams[0]
    aligned = [first]
    for other in streams[1:]:
        _check_classes(first, other)
        for lacking, having in ((other, first), (first, other)):
            if missing := sorted(set(having.keys) - set(lacking.keys)):
                raise DatasetError(
                    f"{_describe(lacking)} has no scores for {len(missing)} of the videos of "
                    f"{_describe(having)}: {_listed(missing)}; test both on the same videos"
                )
        place = {key: row for row, key in enumerate(other.keys)}
        other = other.select([place[key] for key in first.keys])
        if len(rows := _differing_rows(first, other)):
            row = int(rows[0])
            raise DatasetError(
                f"{_describe(first)} and {_describe(other)} differ in the labels of {len(rows)} "
                f"videos: {first.keys[row]} has {_label(first, row)} and {_label(other, row)}; "
                "test both on data sets with the same annotations"
            )
        aligned.append(other)
    return aligned


def _differing_rows(first: Scores, other: Scores) -> NDArray[np.int64]:
    """Returns the videos with other labels in one of the two."""
    if first.targets is None or other.targets is None:
        return np.flatnonzero(other.labels != first.labels)
    return np.flatnonzero((other.targets != first.targets).any(axis=1))


def default_weights(streams: Sequence[Scores]) -> list[float]:
    """Returns TSN's weights: 1 for rgb, 1.5 for flow. Raises ConfigError for other streams."""
    names = [scores.stream for scores in streams]
    if sorted(names) != ["flow", "rgb"]:
        raise ConfigError(
            f"weights must be given for the streams {', '.join(names)}; TSN's 1 and 1.5 are for "
            "one rgb and one flow stream"
        )
    return [_TSN_WEIGHTS[name] for name in names]


def _checked_weights(weights: Sequence[float], num_streams: int) -> NDArray[np.float64]:
    if len(weights) != num_streams:
        raise ConfigError(
            f"weights must be one for each of the {num_streams} streams, got {len(weights)}"
        )
    values = np.array(weights, np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.sum() > 0):
        raise ConfigError(f"weights must be >= 0 and not all 0, got {list(weights)}")
    return values


def _svm_margins(streams: Sequence[Scores], train: Sequence[Scores] | None) -> NDArray[np.float64]:
    """Returns (N, K) distances from the planes of a linear SVM, positive on the class's side."""
    # Imported late: the import is slow, and scikit-learn belongs to an extra.
    from sklearn.svm import LinearSVC  # type: ignore[import-untyped]

    if not train:
        raise ConfigError(
            "train-scores must be given for method svm, which is trained on them: run "
            "`flowprep evaluate --split train` for each stream"
        )
    if len(train) != len(streams):
        raise ConfigError(
            f"train-scores must be one for each of the {len(streams)} streams, got {len(train)}"
        )
    for scores, other in zip(streams, train, strict=True):
        _check_classes(scores, other)
        if scores.stream != other.stream:
            raise ConfigError(
                f"train-scores must come in the order of the streams, got {other.stream} for "
                f"{scores.stream}"
            )
        if both := sorted(set(scores.keys) & set(other.keys)):
            raise DatasetError(
                f"{len(both)} videos are in the training scores and in those to be fused: "
                f"{_listed(both)}; measure on other videos than the SVM is trained on"
            )
    train = align_scores(train)
    known = np.flatnonzero(train[0].is_labelled)
    if train[0].targets is not None:
        return _margins_of_each(train, train[0].targets[known], known, streams)
    labels = train[0].labels[known]
    present = np.unique(labels)
    if len(present) < 2:
        raise DatasetError(
            f"an SVM needs training scores of two classes or more, got {len(present)}"
        )
    svm = LinearSVC(**_SVM_OPTIONS)
    svm.fit(_svm_features(train)[known], labels)
    margins = svm.decision_function(_svm_features(streams))
    if margins.ndim == 1:
        margins = np.stack((-margins, margins), axis=1)
    # For a class without examples, an SVM would learn only the answer -1.
    scores_of_all = np.full((len(margins), streams[0].num_classes), -1.0)
    scores_of_all[:, present] = margins
    return scores_of_all


def _margins_of_each(
    train: Sequence[Scores],
    targets: NDArray[np.bool_],
    known: NDArray[np.int64],
    streams: Sequence[Scores],
) -> NDArray[np.float64]:
    """Returns (N, K) margins where a video may have several labels: an SVM for each class.

    A class that none or all of the training videos have gets -1 or 1. Raises DatasetError if that
    is so for every class.
    """
    from sklearn.svm import LinearSVC

    counts = targets.sum(axis=0)
    learnable = np.flatnonzero((counts > 0) & (counts < len(targets)))
    if not len(learnable):
        raise DatasetError(
            "an SVM needs training scores of a class that some videos have and others do not, "
            "got none"
        )
    margins = np.repeat(np.where(counts > 0, 1.0, -1.0)[None], len(streams[0].keys), axis=0)
    features, tested = _svm_features(train)[known], _svm_features(streams)
    for label in learnable.tolist():
        svm = LinearSVC(**_SVM_OPTIONS)
        margins[:, label] = svm.fit(features, targets[:, label]).decision_function(tested)
    return margins


def _svm_features(streams: Sequence[Scores]) -> NDArray[np.float64]:
    """Stacks each stream's probabilities, scaled to length 1: (N, streams * K)."""
    return np.concatenate(
        [
            scores.probabilities / np.linalg.norm(scores.probabilities, axis=1, keepdims=True)
            for scores in streams
        ],
        axis=1,
    )


def _check_classes(first: Scores, other: Scores) -> None:
    if first.is_multilabel != other.is_multilabel:
        one, several = (other, first) if first.is_multilabel else (first, other)
        raise DatasetError(
            f"{_describe(several)} is of a network of several classes a video (loss bce), "
            f"{_describe(one)} of one of one class a video; fuse networks of the same loss"
        )
    if first.num_classes != other.num_classes:
        raise DatasetError(
            f"{_describe(first)} has {first.num_classes} classes and {_describe(other)} "
            f"{other.num_classes}; fuse networks of the same classes"
        )
    for number, (name, given) in enumerate(zip(first.names, other.names, strict=True)):
        if name != given:
            raise DatasetError(
                f"class {number} is {name} in {_describe(first)} and {given} in "
                f"{_describe(other)}; fuse networks that were trained with the same class list"
            )


def _describe(scores: Scores) -> str:
    origin = scores.source.get("file") or scores.source.get("checkpoint")
    return f"{origin} ({scores.stream})" if origin else f"stream {scores.stream}"


def _label(scores: Scores, row: int) -> str:
    if scores.targets is not None:
        own = np.flatnonzero(scores.targets[row]).tolist()
        return " and ".join(scores.names[label] for label in own) or "none"
    label = int(scores.labels[row])
    return "none" if label < 0 else scores.names[label]


def _listed(keys: Sequence[str]) -> str:
    more = len(keys) - _NUM_NAMED
    return ", ".join(keys[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
