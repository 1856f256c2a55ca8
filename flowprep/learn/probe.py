"""A linear classifier on features: how much of the classes they hold.

    features -> one vector for each video -> linear SVM or softmax regression -> Scores, files

The protocol of C3D (Tran et al. 2015, section 3.3): the features of a video's clips are averaged,
the mean is scaled to length 1, and a linear SVM is trained. That of I3D for fixed features
(Carreira and Zisserman 2017, section 4): a softmax classifier is trained on a frozen network.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn  # type: ignore[import-untyped]
from numpy.typing import NDArray

from flowprep._version import __version__
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.features_files import FeatureSet, VideoFeatures, open_features
from flowprep.learn.linear_classifier import (
    LinearClassifier,
    Targets,
    average_precisions,
    choose_c,
    fit,
)
from flowprep.learn.probe_spec import CLASSIFIERS, ProbeSpec
from flowprep.learn.scores import Scores, softmax, write_scores
from flowprep.printable import join_lines
from flowprep.storage import Storage
from flowprep.words import format_count

__all__ = ["ProbeResult", "default_probe_folder", "probe", "write_probe"]

RESULTS_FILE = "results.json"
_MAX_LABELS_NAMED = 5


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """How good a linear classifier is on the videos of the test split."""

    scores: Scores
    """The scores of the test videos. `Scores.source` says how they came about."""
    precisions: NDArray[np.float64] | None
    """(K,) the average precision of each class, NaN without a test video. None if no video has
    several labels."""
    c: float
    cross_validation: Mapping[float, float] | None
    """C -> its score in the cross validation. None if there was none."""
    num_train: int
    train_accuracy: float
    """The share of training videos that are classified right; their mean average precision if
    videos have several labels."""
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """The measures of the test, from 0 to 1: `mean_average_precision`, or those of Scores."""
        if self.precisions is not None:
            return {"mean_average_precision": float(np.nanmean(self.precisions))}
        return self.scores.metrics()

    def summary(self) -> str:
        """Returns the measures as text."""
        source = self.scores.source
        lines = [
            f"  classifier           {CLASSIFIERS[source['classifier']]}",
            f"  features             {source['features']}, {source['streams']}, "
            f"{source['num_numbers']:,} numbers",
            f"  C                    {self.c:g}",
        ]
        if self.cross_validation is not None:
            best = 100 * self.cross_validation[self.c]
            lines[-1] += f", the best of {len(self.cross_validation)} ({best:.1f} % in other folds)"
        measure = "mAP" if self.precisions is not None else "right"
        lines.append(
            f"  training             {format_count(self.num_train, 'video')} of "
            f"{source['train_split']}, {100 * self.train_accuracy:.1f} % {measure}"
        )
        if self.precisions is None:
            return f"{join_lines(lines)}\n{self.scores.summary()}"
        count = format_count(len(self.scores.keys), "video")
        lines += [
            f"  videos               {count}, some of the data with several labels",
            f"  mAP                  {100 * self.metrics['mean_average_precision']:.1f} % over "
            f"{np.count_nonzero(~np.isnan(self.precisions))} classes",
        ]
        return join_lines(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON values."""
        values: dict[str, Any] = {
            **self.scores.source,
            "cross_validation": None
            if self.cross_validation is None
            else {f"{c:g}": score for c, score in self.cross_validation.items()},
            "num_train": self.num_train,
            "num_test": len(self.scores.keys),
            "num_classes": self.scores.num_classes,
            "train_accuracy": self.train_accuracy,
            "metrics": self.metrics,
            "notes": list(self.notes),
        }
        if self.precisions is not None:
            values["average_precision"] = {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(self.scores.names, self.precisions, strict=True)
            }
        return values


def probe(
    features: str | os.PathLike[str] | FeatureSet,
    spec: ProbeSpec | None = None,
    *,
    stream: str | None = None,
    dataset: str | os.PathLike[str] | FlowDataset | None = None,
    labels: str | None = None,
) -> ProbeResult:
    """Trains a linear classifier on features, and tests it.

    `features` are those that `extract_features` wrote. `stream` names one of their streams; several
    are joined by `+`, and their vectors are concatenated. `both` and None take all of them. Labels,
    splits and class names are those stored with the features. With `dataset` they are those of this
    data set, and with `labels` those that `flowprep label` gave it under this name; its place is
    known if the features were made from it.

    A video's vector is the mean over its windows (and over the places of a map). If any video has
    several labels, there is one classifier for each class, and the measure is the mean average
    precision. Raises ConfigError for options that do not fit, and DatasetError if videos lack
    labels or a split.
    """
    spec = spec or ProbeSpec()
    opened = features if isinstance(features, FeatureSet) else open_features(features)
    streams = _chosen_streams(opened, stream)
    table = _read_table(opened, streams)
    notes: list[str] = []
    where = opened.location
    named = _label_source(opened, dataset, labels)
    class_names = opened.class_names
    if named is not None:
        class_names = named.class_names
        table = _relabelled(table, named, where, notes)
        where = named.location if labels is None else f"{named.location}, labels {labels}"
    train, test = _split(table, spec, where)
    train = _labelled(table, train, spec.train_split, where, notes)
    if not any(table.labels[row] for row in test):
        raise DatasetError(
            f"none of the {format_count(len(test), 'video')} of split {spec.test_split} has a "
            f"label in {where}; {_REMEDY}"
        )
    is_multilabel = any(len(table.labels[row]) > 1 for row in (*train, *test))
    num_classes = len(class_names) or 1 + max(max(own, default=-1) for own in table.labels)
    targets = np.zeros((len(table.keys), num_classes), np.bool_)
    for row, own in enumerate(table.labels):
        targets[row, list(own)] = True
    trained = [x[train] for x in table.vectors]
    tried = None
    c = spec.c
    if c is None:
        keys = [table.keys[row] for row in train]
        tried = choose_c(trained, targets[train], keys, spec, is_multilabel=is_multilabel)
        # Of equal ones, the strongest regularization.
        c = max(tried, key=lambda one: (tried[one], -one))
    model = fit(trained, targets[train], spec, c, is_multilabel=is_multilabel)
    notes += _fit_notes(model, targets[test], class_names)
    source = {
        "classifier": spec.classifier,
        "c": c,
        "normalize": spec.scaling,
        "seed": spec.seed,
        "features": opened.location,
        "streams": "+".join(streams),
        "num_numbers": sum(x.shape[1] for x in table.vectors),
        "dataset": None if named is None else named.location,
        "labels": labels,
        "train_split": spec.train_split,
        "test_split": spec.test_split,
        "features_config": opened.config,
        "versions": {
            "flowprep": __version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }
    scores = _test_scores(table, test, model, class_names, source)
    # A video without a label is scored, and measured by nothing.
    known = targets[test].any(axis=1)
    return ProbeResult(
        scores,
        average_precisions(scores.logits[known], targets[test][known]) if is_multilabel else None,
        c,
        tried,
        len(train),
        _train_accuracy(model, trained, targets[train]),
        tuple(notes),
    )


def write_probe(result: ProbeResult, folder: str | os.PathLike[str]) -> None:
    """Writes results.json, and the files of `write_scores`, which `flowprep fuse` takes.

    Raises StorageError if the files cannot be written.
    """
    write_scores(result.scores, folder)
    content = json.dumps(result.to_dict(), indent=2) + "\n"
    Storage(folder).write_bytes(RESULTS_FILE, content.encode())


def default_probe_folder(result: ProbeResult) -> str:
    """Returns the default folder for a result: in that of the features, `probe-svm-flow`."""
    source = result.scores.source
    parts = ["probe", source["classifier"], source["streams"]]
    if source["labels"] is not None:
        parts.append(source["labels"])
    return os.path.join(source["features"], "-".join(parts))


# ---- which videos, which labels


_REMEDY = (
    "name a data set with labels by --dataset, and by --labels if `flowprep label` gave them, or "
    "choose another split"
)


@dataclass(frozen=True)
class _Table:
    """The vectors and the labels of all videos, in one order."""

    keys: list[str]
    vectors: list[NDArray[np.float64]]
    """For each stream, (N, C)."""
    labels: list[tuple[int, ...]]
    splits: list[str | None]


def _chosen_streams(features: FeatureSet, stream: str | None) -> tuple[str, ...]:
    known = features.streams
    if stream is None or (stream == "both" and stream not in known):
        return known
    chosen = tuple(dict.fromkeys(stream.split("+")))
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"stream must be of {', '.join(known)}, which {features.location} holds, got "
                f"{stream!r}"
            )
    return chosen


def _read_table(features: FeatureSet, streams: Sequence[str]) -> _Table:
    """Reads one video after the other. Only its mean over the windows is kept."""
    keys: list[str] = []
    rows: list[list[NDArray[np.float64]]] = [[] for _ in streams]
    labels: list[tuple[int, ...]] = []
    splits: list[str | None] = []
    for video in features:
        keys.append(video.key)
        labels.append(video.labels)
        splits.append(video.split)
        for name, own in zip(streams, rows, strict=True):
            own.append(_vector(video, name))
    if not keys:
        raise DatasetError(
            f"{features.location} holds no video; run `flowprep features` again, which goes on"
        )
    return _Table(keys, [np.stack(own) for own in rows], labels, splits)


def _vector(video: VideoFeatures, stream: str) -> NDArray[np.float64]:
    """Returns (C,) the mean over the windows, and over time and place of a map."""
    array = video.features[stream]
    others = tuple(axis for axis in range(array.ndim) if axis != 1)
    mean = np.asarray(array.mean(axis=others, dtype=np.float64))
    if not np.isfinite(mean).all():
        raise DatasetError(
            f"the {stream} features of {video.key} are not finite numbers; remove them, and run "
            "`flowprep features` again, perhaps with another --precision"
        )
    return mean


def _label_source(
    features: FeatureSet,
    dataset: str | os.PathLike[str] | FlowDataset | None,
    labels: str | None,
) -> FlowDataset | None:
    if isinstance(dataset, FlowDataset):
        return dataset if labels is None else open_dataset(dataset.location, labels=labels)
    if dataset is None:
        if labels is None:
            return None
        dataset = features.content.get("data")
        if dataset is None:
            raise ConfigError(
                f"labels {labels} are of a data set, but {features.location} was made from raw "
                "videos; add --dataset OUT"
            )
    return open_dataset(os.fspath(dataset), labels=labels)


def _relabelled(table: _Table, dataset: FlowDataset, where: str, notes: list[str]) -> _Table:
    """Returns the videos of the table that the data set holds, with its labels and splits."""
    notes += dataset.notes
    places = dataset.videos.find_positions(table.keys)
    rows = np.flatnonzero(places >= 0)
    if not len(rows):
        raise DatasetError(
            f"{dataset.location} holds none of the videos of {where}: keys such as {table.keys[0]} "
            "are missing; name the data set that the features were made from"
        )
    if len(rows) < len(table.keys):
        missing = len(table.keys) - len(rows)
        notes.append(
            f"{format_count(missing, 'video')} of {where} left out, because {dataset.location} "
            "does not hold them; name the data set that the features were made from"
        )
    videos = [dataset.videos[int(place)] for place in places[rows].tolist()]
    return _Table(
        [table.keys[row] for row in rows.tolist()],
        [x[rows] for x in table.vectors],
        [video.labels for video in videos],
        [video.split for video in videos],
    )


def _split(table: _Table, spec: ProbeSpec, where: str) -> tuple[list[int], list[int]]:
    """Returns the rows to train on and to test on."""
    chosen = []
    for wanted, option in ((spec.train_split, "--train-split"), (spec.test_split, "--test-split")):
        rows = [row for row, split in enumerate(table.splits) if wanted in ("all", split)]
        if not rows:
            counts = Counter(table.splits)
            held = ", ".join(f"{count} of {name or 'no split'}" for name, count in counts.items())
            raise DatasetError(
                f"{where} has no video of split {wanted}, it has {held}; choose another split by "
                f"{option}, or name a data set with splits by --dataset, and by --labels if "
                "`flowprep label` gave them"
            )
        chosen.append(rows)
    train, test = chosen
    if both := len(set(train) & set(test)):
        raise ConfigError(
            f"test_split must hold other videos than the classifier is trained on, got "
            f"{format_count(both, 'video')} of {spec.train_split} in {spec.test_split}"
        )
    return train, test


def _labelled(
    table: _Table, rows: Sequence[int], split: str, where: str, notes: list[str]
) -> list[int]:
    kept = [row for row in rows if table.labels[row]]
    if not kept:
        raise DatasetError(
            f"none of the {format_count(len(rows), 'video')} of split {split} has a label in "
            f"{where}; {_REMEDY}"
        )
    if left := len(rows) - len(kept):
        notes.append(
            f"{format_count(left, 'video')} of split {split} left out: no label; give them one by "
            "`flowprep label`"
        )
    return kept


# ---- what comes out


def _test_scores(
    table: _Table,
    rows: Sequence[int],
    model: LinearClassifier,
    class_names: tuple[str, ...],
    source: Mapping[str, Any],
) -> Scores:
    logits = model.score([x[list(rows)] for x in table.vectors])
    apart = 1 / (1 + np.exp(-logits.clip(-500)))
    probabilities = apart if model.is_multilabel else softmax(logits)
    own = [table.labels[row] for row in rows]
    return Scores(
        tuple(table.keys[row] for row in rows),
        np.array([labels[0] if len(labels) == 1 else -1 for labels in own], np.int64),
        logits,
        probabilities,
        class_names,
        str(source["streams"]),
        source,
    )


def _train_accuracy(
    model: LinearClassifier, streams: Sequence[NDArray[np.float64]], targets: Targets
) -> float:
    logits = model.score(streams)
    if model.is_multilabel:
        return float(np.nanmean(average_precisions(logits, targets)))
    return float(np.mean(logits.argmax(axis=1) == targets.argmax(axis=1)))


def _fit_notes(model: LinearClassifier, tested: Targets, class_names: Sequence[str]) -> list[str]:
    notes = []
    if not model.has_converged:
        notes.append(
            f"the {model.spec.classifier} did not converge; try a smaller --c, or another "
            "--normalize"
        )
    unknown = sorted(set(np.flatnonzero(tested.any(axis=0)).tolist()) - set(model.classes.tolist()))
    if unknown:
        names = [class_names[label] if class_names else str(label) for label in unknown]
        listed = ", ".join(names[:_MAX_LABELS_NAMED])
        rest = len(names) - _MAX_LABELS_NAMED
        notes.append(
            "no training video shows "
            + (f"{listed} and {rest} more classes" if rest > 0 else listed)
            + "; test videos of it cannot be told"
        )
    return notes
