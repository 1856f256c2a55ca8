"""Scores of several heads of one network: how many videos are right in all, and the files.

The action of EPIC-Kitchens is a verb and a noun. Its top-1 counts the videos whose verb and noun
are both right (Damen et al., Scaling Egocentric Vision, ECCV 2018, section 4).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from flowprep.errors import DatasetError
from flowprep.learn.csv_tables import csv_text
from flowprep.learn.scores import Scores, write_scores
from flowprep.printable import join_lines
from flowprep.storage import Storage

__all__ = ["joint_accuracy", "write_heads"]

JOINT_FILE = "all.csv"


def joint_accuracy(heads: Sequence[Scores]) -> float:
    """Returns the share of videos for which every head is right: the action, of verb and noun.

    Only videos with a label for each head count. All scores must be of the same videos.
    Raises DatasetError if there is none.
    """
    is_known = np.all([scores.is_labelled for scores in heads], axis=0)
    if not is_known.any():
        raise DatasetError(
            f"no video has a label for each of the {len(heads)} heads, so that nothing can be "
            "measured; choose one of them with --task"
        )
    is_right = np.all([scores.predictions == scores.labels for scores in heads], axis=0)
    return float(np.mean(is_right[is_known]))


def write_heads(heads: Mapping[str, Scores], folder: str | os.PathLike[str]) -> str:
    """Writes the scores of each head into a folder of its name. Returns how many are right in all.

    all.csv has the labels and the predictions of all heads of one class a video, a line per video,
    and whether all of them are right. It is left out, and the text empty, unless there are two such
    heads. Raises StorageError if a file cannot be written.
    """
    for name, scores in heads.items():
        write_scores(scores, os.path.join(os.fspath(folder), name))
    single = {name: scores for name, scores in heads.items() if not scores.is_multilabel}
    if len(single) < 2:
        return ""
    text = _joint_csv(single)
    Storage(folder).write_bytes(JOINT_FILE, text.encode("utf-8", "backslashreplace"))
    columns = list(single.values())
    if not np.all([scores.is_labelled for scores in columns], axis=0).any():
        return ""
    share = f"{100 * joint_accuracy(columns):.1f} %"
    return join_lines([" and ".join(single), f"  all right            {share}"])


def _joint_csv(heads: Mapping[str, Scores]) -> str:
    keys = next(iter(heads.values())).keys
    header = [column for name in heads for column in (f"{name} label", f"{name} prediction")]
    rows: list[list[object]] = [["key", *header, "right"]]
    predictions = [scores.predictions.tolist() for scores in heads.values()]
    for place, key in enumerate(keys):
        row: list[object] = [key]
        is_right, is_known = True, True
        for scores, predicted in zip(heads.values(), predictions, strict=True):
            label = int(scores.labels[place])
            is_known &= label >= 0
            is_right &= label == predicted[place]
            known = scores.names[label] if label >= 0 else ""
            row += [known, scores.names[predicted[place]]]
        rows.append([*row, ("yes" if is_right else "no") if is_known else ""])
    return csv_text(rows)
