"""Weights of classes in the loss, for data sets whose classes have unlike numbers of videos.

    w_c = N / (K n_c)    `inverse`: N videos in K classes, n_c of them in class c

This is scikit-learn's `class_weight="balanced"` (compute_class_weight), after King and Zeng,
Logistic Regression in Rare Events Data (2001). The mean weight of a training video is 1, so the
loss keeps its scale, and with it the learning rate its meaning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from flowprep.errors import ConfigError
from flowprep.inputs.text_files import read_table
from flowprep.learn.checkpoint import Task
from flowprep.learn.weights.offers import listed

__all__ = ["INVERSE", "class_weights", "inverse_weights"]

INVERSE = "inverse"


def class_weights(
    wanted: str | None,
    tasks: Sequence[Task],
    labels: Sequence[tuple[int, int]],
    device: torch.device,
) -> list[torch.Tensor] | None:
    """Returns (K,) float32 weights of the classes of every task; None if all classes count alike.

    `wanted` is `inverse`, or the path of a CSV file with the columns `class` and `weight`. `labels`
    are the task and the label of each training video. Raises ConfigError for a file that leaves out
    a class, names an unknown one or one twice, or has a weight that is not a number above 0.
    """
    if wanted is None:
        return None
    if wanted == INVERSE:
        weights = [
            inverse_weights([label for owner, label in labels if owner == number], len(names))
            for number, names in enumerate(task.class_names for task in tasks)
        ]
    else:
        weights = _weights_of_file(wanted, tasks)
    return [torch.tensor(own, device=device) for own in weights]


def _weights_of_file(path: str, tasks: Sequence[Task]) -> list[list[float]]:
    weights = _read_weights(path)
    known = {name for task in tasks for name in task.class_names}
    if missing := sorted(known - weights.keys()):
        raise ConfigError(
            f"class_weights {path} has no weight for {listed(missing)}; give every class one"
        )
    if unknown := sorted(weights.keys() - known):
        raise ConfigError(
            f"class_weights {path} names {listed(unknown)}, which the data does not have; "
            "take the names of `flowprep dataset`"
        )
    return [[weights[name] for name in task.class_names] for task in tasks]


def inverse_weights(labels: Sequence[int], num_classes: int) -> list[float]:
    """Returns N / (K n_c) for each class; K counts the classes that have videos. Others get 1."""
    counts = Counter(labels)
    return [
        len(labels) / (len(counts) * counts[label]) if counts[label] else 1.0
        for label in range(num_classes)
    ]


def _read_weights(path: str) -> Mapping[str, float]:
    table = read_table(path)
    if not {"class", "weight"} <= set(table.columns):
        raise ConfigError(
            f"class_weights must be {INVERSE} or a CSV file with the columns class and weight, and "
            f"{path} has {listed(table.columns)}; write `class,weight` as its first line"
        )
    weights: dict[str, float] = {}
    for row in table.rows:
        name, text = row.get("class"), row.get("weight")
        if name in weights:
            raise ConfigError(
                f"class_weights {path} names {name} twice, the second time in line {row.number}; "
                "remove one of them"
            )
        weights[name] = _number(text)
        if not 0 < weights[name] < math.inf:
            raise ConfigError(
                f"class_weights {path} must have numbers above 0 as weights, got {text!r} for "
                f"{name} in line {row.number}"
            )
    return weights


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
