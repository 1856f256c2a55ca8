"""The result of a test: scores of every video, measures of quality, and the files."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import DatasetError
from flowprep.learn.average_precision import (
    average_precision_csv,
    average_precisions,
    weighted_mean,
)
from flowprep.learn.confusion import confusion_csv, confusion_png
from flowprep.learn.csv_tables import csv_text
from flowprep.printable import join_lines
from flowprep.storage import Storage
from flowprep.words import format_count

__all__ = ["SCORES_FILE", "Scores", "sigmoid", "softmax", "write_scores"]

SCORES_FILE = "scores.npz"
_FORMAT = "flowprep-scores"
_FORMAT_VERSION = 1

_NUM_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of N videos for K classes."""

    keys: tuple[str, ...]
    """Keys of the videos, each once."""
    labels: NDArray[np.int64]
    """(N,) class numbers, 0-based; -1 for a video without a label or with several."""
    logits: NDArray[np.float64]
    """(N, K) scores before softmax or sigmoid, averaged over a video's views."""
    probabilities: NDArray[np.float64]
    """(N, K) softmax of each view's logits, averaged over the views. Measures use these. Where
    videos may have several labels: the sigmoid of each logit."""
    class_names: tuple[str, ...]
    """The index is the class number. Empty if the classes have no names."""
    stream: str
    """`flow`, `rgb`, `rgb-difference`, `both` for a network that sees flow and RGB, or a fusion's
    streams: `flow+rgb`."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the scores come from, as JSON values: checkpoint, views, split, versions, ..."""
    targets: NDArray[np.bool_] | None = None
    """(N, K) which classes each video has. None if each video has one class at most."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("labels", np.int64),
            ("logits", np.float64),
            ("probabilities", np.float64),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
        num_videos = len(self.keys)
        if self.logits.ndim != 2 or len(self.logits) != num_videos:
            raise DatasetError(f"logits must be ({num_videos}, classes), got {self.logits.shape}")
        if self.probabilities.shape != self.logits.shape or self.labels.shape != (num_videos,):
            raise DatasetError(
                f"labels, logits and probabilities must be of the same videos and classes, got "
                f"{self.labels.shape}, {self.logits.shape} and {self.probabilities.shape}"
            )
        if self.targets is not None:
            object.__setattr__(self, "targets", np.asarray(self.targets, np.bool_))
            if self.targets.shape != self.logits.shape:
                raise DatasetError(
                    f"targets must be {self.logits.shape} as the logits, got {self.targets.shape}"
                )
        if len(set(self.keys)) != num_videos:
            raise DatasetError("keys must differ from one another, got one twice")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise DatasetError(
                f"scores must be for the {len(self.class_names)} named classes, got "
                f"{self.num_classes}"
            )
        if num_videos and self.labels.max() >= self.num_classes:
            key = self.keys[int(self.labels.argmax())]
            raise DatasetError(
                f"labels must be < {self.num_classes}, the number of classes that were scored, got "
                f"{self.labels.max()} for {key}"
            )

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return int(self.logits.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class; its number if the class has no name."""
        return self.class_names or tuple(map(str, range(self.num_classes)))

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(N,) bool: the videos that have a label and can be measured."""
        if self.targets is not None:
            return np.asarray(self.targets.any(axis=1))
        return self.labels >= 0

    @property
    def is_multilabel(self) -> bool:
        """Whether a video may have several classes."""
        return self.targets is not None

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(N,) the most probable class of each video; the lower number if two are equal."""
        return np.asarray(np.argmax(self.probabilities, axis=1), np.int64)

    def metrics(self) -> dict[str, float]:
        """Returns `top1`, `top5` and `mean_class_accuracy` of the labeled videos, from 0 to 1.

        The mean class accuracy is the mean over classes of the share of correctly classified
        videos, so small classes count as much as large ones. Classes without a video do not count.
        Where videos may have several labels, the measures are `mean_average_precision` and
        `weighted_average_precision`, as `average_precision` defines them. Raises DatasetError if no
        video has a label.
        """
        if self.targets is not None:
            precisions = self.average_precisions()
            known = self.is_labelled
            return {
                "mean_average_precision": float(np.nanmean(precisions)),
                "weighted_average_precision": weighted_mean(self.targets[known], precisions),
            }
        ranks = self._ranks()
        accuracies = self._class_accuracies()
        return {
            "top1": float(np.mean(ranks < 1)),
            "top5": float(np.mean(ranks < 5)),
            "mean_class_accuracy": float(np.nanmean(accuracies)),
        }

    def average_precisions(self) -> NDArray[np.float64]:
        """Returns the average precision of each class over labeled videos, (K,), NaN without any.

        Raises DatasetError if videos have one label only, or if none has any.
        """
        if self.targets is None:
            raise DatasetError(
                "average precision is for videos with several labels, and these scores are of "
                f"{len(self.keys)} videos with one; take `predictions`"
            )
        known = self._known()
        return average_precisions(self.targets[known], self.probabilities[known])

    def confusion(self) -> NDArray[np.int64]:
        """Returns (K, K) counts of labeled videos: rows are labels, columns are predictions."""
        counts = np.zeros((self.num_classes, self.num_classes), np.int64)
        known = self.is_labelled
        np.add.at(counts, (self.labels[known], self.predictions[known]), 1)
        return counts

    def summary(self) -> str:
        """Returns the measures, the worst classes and the most frequent confusions as text."""
        num_videos, num_known = len(self.keys), int(self.is_labelled.sum())
        lines = [f"  videos               {num_videos}"]
        if num_known < num_videos:
            lines[0] += f", {num_known} of them with a label and measured"
        if num_known == 0:
            return join_lines(lines)
        if self.targets is not None:
            return join_lines(lines + self._multilabel_summary())
        measures = self.metrics()
        lines += [
            f"  top-1                {100 * measures['top1']:.1f} %",
            f"  top-5                {100 * measures['top5']:.1f} %",
            f"  mean class accuracy  {100 * measures['mean_class_accuracy']:.1f} %",
        ]
        counts = self.confusion()
        accuracies, totals = self._class_accuracies(), counts.sum(axis=1)
        imperfect = [k for k in np.argsort(accuracies, kind="stable") if accuracies[k] < 1]
        if imperfect:
            lines.append("  worst classes")
        for k in imperfect[:_NUM_SHOWN]:
            lines.append(
                f"    {100 * accuracies[k]:5.1f} %  {self.names[k]} ({counts[k, k]} of {totals[k]})"
            )
        wrong = counts * (1 - np.eye(self.num_classes, dtype=np.int64))
        order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_SHOWN]
        pairs = [divmod(int(place), self.num_classes) for place in order if wrong.flat[place]]
        if pairs:
            lines.append("  most frequent confusions")
        for label, prediction in pairs:
            lines.append(
                f"    {wrong[label, prediction]:5d}    {self.names[label]} taken for "
                f"{self.names[prediction]}"
            )
        return join_lines(lines)

    def select(self, places: Sequence[int] | NDArray[np.int64]) -> Scores:
        """Returns the scores of the videos at the indices `places`, in that order."""
        rows = np.asarray(places, np.int64)
        return Scores(
            tuple(self.keys[place] for place in rows),
            self.labels[rows],
            self.logits[rows],
            self.probabilities[rows],
            self.class_names,
            self.stream,
            self.source,
            None if self.targets is None else self.targets[rows],
        )

    @classmethod
    def interleave(cls, parts: Sequence[Scores]) -> Scores:
        """Joins the scores of processes that each took every n-th video, in the videos' order."""
        full = [part for part in parts if part.keys] or list(parts[:1])
        places = [rank + len(full) * np.arange(len(part.keys)) for rank, part in enumerate(full)]
        joined = cls(
            tuple(key for part in full for key in part.keys),
            np.concatenate([part.labels for part in full]),
            np.concatenate([part.logits for part in full]),
            np.concatenate([part.probabilities for part in full]),
            full[0].class_names,
            full[0].stream,
            full[0].source,
            joined_targets([part.targets for part in full]),
        )
        return joined.select(np.argsort(np.concatenate(places)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz file atomically: keys, labels, logits, probabilities, a JSON header.

        Scores of videos with several labels hold `targets` too.
        Raises StorageError if the file cannot be written.
        """
        header = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "class_names": list(self.class_names),
            "stream": self.stream,
            "source": dict(self.source),
        }
        arrays: dict[str, Any] = {
            "header": np.array(json.dumps(header)),
            "keys": np.array(self.keys, dtype=np.str_),
            "labels": self.labels,
            "logits": self.logits,
            "probabilities": self.probabilities,
        }
        if self.targets is not None:
            arrays["targets"] = self.targets
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        folder, name = os.path.split(os.fspath(path))
        Storage(folder or ".").write_bytes(name, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scores:
        """Reads a file that `save` wrote; a folder stands for the `scores.npz` in it.

        Raises DatasetError if the file is missing, damaged, or was not written by `save`.
        """
        path = os.fspath(path)
        folder, name = os.path.split(path)
        if not name.endswith(".npz"):
            folder, name = path, SCORES_FILE
        storage = Storage(folder or ".")
        if not storage.exists(name):
            raise DatasetError(
                f"no scores at {path}; name a folder that `flowprep evaluate` wrote, or its "
                f"{SCORES_FILE}"
            )
        data = storage.read_bytes(name)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].item())
                if header["format"] != _FORMAT:
                    raise ValueError("it is not of flowprep")
                if header["format_version"] != _FORMAT_VERSION:
                    raise DatasetError(
                        f"{path} has format version {header['format_version']}, this flowprep "
                        f"reads version {_FORMAT_VERSION}; install a newer flowprep"
                    )
                return cls(
                    tuple(arrays["keys"].tolist()),
                    arrays["labels"],
                    arrays["logits"],
                    arrays["probabilities"],
                    tuple(header["class_names"]),
                    header["stream"],
                    header["source"],
                    arrays.get("targets"),
                )
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            MemoryError,
            EOFError,
            OSError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise DatasetError(
                f"{path} is damaged, or not scores of flowprep: {type(error).__name__}: {error}; "
                "run `flowprep evaluate` again"
            ) from error

    def _ranks(self) -> NDArray[np.int64]:
        """Returns how many classes rank above the label, for each labeled video."""
        known = self._known()
        order = np.argsort(-self.probabilities[known], axis=1, kind="stable")
        return np.asarray(np.argmax(order == self.labels[known, None], axis=1), np.int64)

    def _known(self) -> NDArray[np.bool_]:
        known = self.is_labelled
        if not known.any():
            raise DatasetError(
                "no video has a label, so that nothing can be measured; give the videos labels"
            )
        return known

    def _multilabel_summary(self) -> list[str]:
        assert self.targets is not None
        measures, precisions = self.metrics(), self.average_precisions()
        counts = self.targets.sum(axis=0)
        lines = [
            f"  mAP                  {100 * measures['mean_average_precision']:.1f} %",
            f"  weighted mAP         {100 * measures['weighted_average_precision']:.1f} %",
        ]
        if num_empty := int((counts == 0).sum()):
            classes = "class" if num_empty == 1 else "classes"
            lines[0] += f", without {num_empty:,} {classes} that no video has"
        imperfect = [k for k in np.argsort(precisions, kind="stable") if precisions[k] < 1]
        if imperfect:
            lines.append("  worst classes, by average precision")
        for k in imperfect[:_NUM_SHOWN]:
            videos = format_count(int(counts[k]), "video")
            lines.append(f"    {100 * precisions[k]:5.1f} %  {self.names[k]} ({videos})")
        return lines

    def _class_accuracies(self) -> NDArray[np.float64]:
        """Returns (K,) the share of each class's videos that is correct; NaN without videos."""
        counts = self.confusion()
        totals = counts.sum(axis=1)
        return np.where(totals > 0, counts.diagonal() / np.maximum(totals, 1), np.nan)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns softmax over the last axis, float64."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the sigmoid of each number, float64."""
    # exp of numbers below 0 alone, which cannot overflow.
    powers = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, powers) / (1 + powers), np.float64)


def joined_targets(parts: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """Returns the rows of all parts, or None if the videos have one class at most."""
    rows = [part for part in parts if part is not None]
    return np.concatenate(rows) if rows else None


def write_scores(scores: Scores, folder: str | os.PathLike[str]) -> None:
    """Writes scores.npz, scores.csv, confusion.csv and confusion.png into `folder`.

    The confusion files are written only if videos have labels. Where videos may have several,
    average_precision.csv takes their place. Raises StorageError if the files
    cannot be written.
    """
    storage = Storage(folder)
    storage.make_folder()
    scores.save(os.path.join(os.fspath(folder), SCORES_FILE))
    storage.write_bytes("scores.csv", _as_utf8(_scores_csv(scores)))
    if not scores.is_labelled.any():
        return
    if scores.targets is not None:
        table = average_precision_csv(
            scores.targets[scores.is_labelled], scores.average_precisions(), scores.names
        )
        storage.write_bytes("average_precision.csv", _as_utf8(table))
        return
    counts = scores.confusion()
    top1 = scores.metrics()["top1"]
    title = f"{scores.stream}: top-1 {100 * top1:.1f} % of {counts.sum()} videos"
    storage.write_bytes("confusion.csv", _as_utf8(confusion_csv(counts, scores.names)))
    names = [_as_utf8(name).decode() for name in scores.names]
    storage.write_bytes("confusion.png", confusion_png(counts, names, title))


def _as_utf8(text: str) -> bytes:
    """Returns text in which names of classes, those of folders, need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace")


def _scores_csv(scores: Scores) -> str:
    """Returns a line per video: its label, the most probable class, and both probabilities.

    Several labels are joined by `; `, and so are their probabilities.
    """
    rows = [("key", "label", "prediction", "probability", "label_probability")]
    predictions = scores.predictions
    for place, key in enumerate(scores.keys):
        label, prediction = scores.labels[place], predictions[place]
        row = scores.probabilities[place]
        own = [label] if label >= 0 else []
        if scores.targets is not None:
            own = np.flatnonzero(scores.targets[place]).tolist()
        known = [
            "; ".join(texts)
            for texts in ([scores.names[k] for k in own], [f"{row[k]:.6f}" for k in own])
        ]
        rows.append((key, known[0], scores.names[prediction], f"{row[prediction]:.6f}", known[1]))
    return csv_text(rows)
