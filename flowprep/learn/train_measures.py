"""What a test during the training measures: a loss and a quality for every head.

    one class a video                  top-1
    several classes a video            mAP
    several heads of one class each    top-1 of each, and of the action: all heads are right (the
                                       verb and the noun in EPIC-Kitchens)

The best checkpoint has the highest of these; over several data sets, the highest mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowprep.learn.checkpoint import Task
from flowprep.learn.head_scores import joint_accuracy
from flowprep.learn.losses import mean_loss
from flowprep.learn.scores import Scores

__all__ = ["Measured", "measure", "measure_name", "quality"]


@dataclass(frozen=True)
class Measured:
    """The result of a test on one label set, or of several together."""

    name: str
    """Name of the data set or of the head; names joined by `+` for several heads together."""
    loss: float
    top1: float | None = None
    mean_average_precision: float | None = None


def measure(tasks: Sequence[Task], scores: Sequence[Scores]) -> list[Measured]:
    """Measures the scores of the heads of the same videos; the last line may be of all together."""
    found = []
    for task, own in zip(tasks, scores, strict=True):
        measures = own.metrics()
        found.append(
            Measured(
                task.name,
                mean_loss(own),
                measures.get("top1"),
                measures.get("mean_average_precision"),
            )
        )
    if _has_action(tasks):
        name = "+".join(task.name for task in tasks)
        found.append(Measured(name, sum(one.loss for one in found), joint_accuracy(scores)))
    return found


def quality(tasks: Sequence[Task], measured: Sequence[Measured]) -> float:
    """Returns the quality of the heads of the same videos, from the result of `measure`, 0 to 1."""
    if _has_action(tasks):
        assert measured[-1].top1 is not None
        return measured[-1].top1
    values = [
        one.top1 if one.mean_average_precision is None else one.mean_average_precision
        for one in measured
    ]
    return sum(value for value in values if value is not None) / len(values)


def measure_name(groups: Sequence[Sequence[Task]]) -> str:
    """Returns what `quality` is for these heads: `top-1`, `mAP`, ... or a mean of them."""
    names: dict[str, None] = {}
    for tasks in groups:
        if _has_action(tasks):
            names[f"top-1 of {' and '.join(task.name for task in tasks)}"] = None
            continue
        names |= {"mAP" if task.is_multilabel else "top-1": None for task in tasks}
    return next(iter(names)) if len(names) == 1 else f"mean of {' and '.join(names)}"


def _has_action(tasks: Sequence[Task]) -> bool:
    return len(tasks) > 1 and not any(task.is_multilabel for task in tasks)
