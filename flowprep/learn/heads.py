"""Which heads of a checkpoint answer together, and the labels to measure them with."""

from __future__ import annotations

from collections.abc import Sequence

from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import Checkpoint
from flowprep.learn.evaluate import task_place

__all__ = ["head_labels", "heads_of"]


def heads_of(checkpoint: Checkpoint, name: str | None) -> list[int]:
    """Returns the indices of the heads that answer together for a video, as verb and noun do.

    `name` is that of a task, for one head, or that of a data set, for its heads. If the network was
    trained on one data set, `name` may be None. Raises ConfigError for another name.
    """
    tasks = checkpoint.tasks
    known = list(dict.fromkeys(task.data or task.name for task in tasks))
    if name is None and len(known) == 1:
        return list(range(len(tasks)))
    together = [place for place, task in enumerate(tasks) if task.data == name is not None]
    return together or [task_place(checkpoint, name)]


def head_labels(
    checkpoint: Checkpoint, places: Sequence[int], labels: Sequence[str] | None
) -> list[str | None]:
    """Returns the name of the labels to measure each head with, None for the data set's own.

    `labels` are the names that the user gave, one for each head. By default the heads of several
    label sets are measured with those of their training. Raises ConfigError for another number.
    """
    tasks = [checkpoint.tasks[place] for place in places]
    if labels is None:
        return [task.labels if task.data is not None else None for task in tasks]
    if len(labels) != len(tasks):
        heads = ", ".join(task.name for task in tasks)
        raise ConfigError(
            f"labels must be one name for each of the network's label sets ({heads}), got "
            f"{', '.join(labels)}; leave --labels out to test with those of the training, or name "
            "one of them with --task"
        )
    return list(labels)
