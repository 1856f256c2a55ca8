"""The folder of a training.

    RUN/
      config.json     the whole configuration, the data sets, library versions
      metrics.csv     a line every `log_every` steps, and one for each test
      last.pt         the checkpoint from which the same command continues
      best.pt         the weights with the best top-1 or mAP on the test split
      tensorboard/    the numbers of metrics.csv for TensorBoard

A checkpoint is written after the lines of its step. A training that continues from the checkpoint
removes all later lines, so metrics.csv reads as if there had been no interruption.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowprep.differences import find_differences, flatten, mismatch
from flowprep.errors import ConfigError, StorageError, WeightsError
from flowprep.learn.checkpoint import Checkpoint, Task, library_versions, load_checkpoint
from flowprep.learn.config import TrainConfig
from flowprep.learn.csv_tables import csv_text
from flowprep.learn.tensorboard import Events, open_events
from flowprep.local_files import TEMPORARY_MARK
from flowprep.locks import locked_file
from flowprep.storage import Storage
from flowprep.storage_errors import translated_errors
from flowprep.urls import as_path, is_url, redacted

__all__ = ["BEST_FILE", "CONFIG_FILE", "LAST_FILE", "METRICS_FILE", "MetricsRow", "RunFolder"]

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.csv"
LAST_FILE = "last.pt"
BEST_FILE = "best.pt"
TENSORBOARD_FOLDER = "tensorboard"
_LOCK_FILE = ".lock"
_FORMAT = "flowprep-training"


@dataclass(frozen=True)
class MetricsRow:
    """A line of metrics.csv."""

    step: int
    """Number of steps done."""
    epoch: float
    """How often the network has seen every training video."""
    split: str
    """`train` for means over the steps since the last such line, otherwise the tested split."""
    data: str
    """Names of the data sets or heads, joined by `+` for several together."""
    loss: float
    top1: float | None
    """Share of samples, or of tested videos, that are classified correctly. None for videos of
    several labels."""
    learning_rate: float | None = None
    """Learning rate of the last step."""
    clips_per_second: float | None = None
    """Training samples times their segments, per second."""
    seconds: float | None = None
    """Time spent training since step 0, over all runs together."""
    mean_average_precision: float | None = None
    """mAP of the tested videos, of which some have several labels."""


_MEAN_AVERAGE_PRECISION = "mAP"
_COLUMNS = [item.name for item in dataclasses.fields(MetricsRow)][:-1]


class RunFolder:
    """The files of one training. Only the main process makes a RunFolder."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """Takes the folder, which need not exist yet. Raises ConfigError for a URL."""
        if is_url(os.fspath(location)):
            raise ConfigError(
                "run must be a folder of this machine, got "
                f"{redacted(os.fspath(location))}; data sets may be read from a URL"
            )
        self.path = Path(as_path(os.fspath(location)))
        self._events: Events | None = None
        self._num_tasks = 1
        self._columns = _COLUMNS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder's lock, so that two trainings never write into it.

        Raises StorageError if another process holds the lock, or if nothing can be written.
        """
        Storage(self.path).make_folder()
        taken = f"another training is writing to {self.path}"
        remedy = "wait for it, end it, or choose another --run"
        with locked_file(self.path / _LOCK_FILE, taken, remedy):
            try:
                yield
            finally:
                if self._events is not None:
                    self._events.close()

    def last(self, config: TrainConfig) -> Checkpoint | None:
        """Returns the checkpoint to continue from; None if there is none.

        Raises ConfigMismatchError, with both values, if it was trained with another configuration,
        and WeightsError if it cannot be read.
        """
        path = self.path / LAST_FILE
        if not path.exists():
            return None
        try:
            checkpoint = load_checkpoint(path)
        except WeightsError as error:
            raise WeightsError(
                f"{error}; remove it to start afresh, or choose another --run"
            ) from error
        if checkpoint.training is None:
            raise WeightsError(
                f"{path} holds weights and nothing to go on from, as {BEST_FILE} does; remove it "
                "to start afresh, or choose another --run"
            )
        differences = find_differences(
            flatten(checkpoint.config.to_dict()), flatten(config.to_dict())
        )
        if differences:
            raise mismatch(
                f"{self.path} was trained with another configuration",
                differences,
                ("so far", "now"),
                "Go on with the same options, or choose another --run; to train further with "
                f"others, start a new run with --weights {path}.",
            )
        return checkpoint

    def begin(
        self, config: TrainConfig, tasks: Sequence[Task], step: int, *, tensorboard: bool
    ) -> None:
        """Writes config.json, and cuts metrics.csv back to the lines of the first `step` steps."""
        storage = Storage(self.path)
        self._check_own(storage)
        # Unfinished files of a killed run. They go first, because they may have filled the disk.
        for name in storage.list_names():
            if TEMPORARY_MARK in name:
                storage.remove(name)
        values = {
            "format": _FORMAT,
            "config": config.to_dict(),
            "tasks": [task.to_dict() for task in tasks],
            "versions": library_versions(),
        }
        storage.write_bytes(CONFIG_FILE, (json.dumps(values, indent=2) + "\n").encode())
        if any(task.is_multilabel for task in tasks):
            self._columns = [*_COLUMNS, _MEAN_AVERAGE_PRECISION]
        kept = self._rows_until(step) if step else []
        storage.write_bytes(METRICS_FILE, csv_text([self._columns, *kept]).encode())
        self._num_tasks = len(tasks)
        if tensorboard:
            # Hides what a killed run wrote after its last checkpoint.
            self._events = open_events(self.path / TENSORBOARD_FOLDER, purge_step=step + 1)

    def add(self, row: MetricsRow) -> None:
        """Appends a line to metrics.csv, and the same numbers for TensorBoard."""
        # Names of data sets are those of folders, which need not be UTF-8.
        shown = row.data.encode("utf-8", "backslashreplace").decode()
        values = {**dataclasses.asdict(row), "data": shown}
        values[_MEAN_AVERAGE_PRECISION] = values.pop("mean_average_precision")
        with (
            translated_errors("write", METRICS_FILE),
            open(self.path / METRICS_FILE, "a", encoding="utf-8", newline="") as file,
        ):
            file.write(csv_text([[_format(values[name]) for name in self._columns]]))
        if self._events is None:
            return
        place = row.split
        if row.split != "train" and self._num_tasks > 1:
            place = f"{row.split}/{shown}"
        names = ("loss", "top1", "mAP", "learning_rate", "clips_per_second")
        numbers = {f"{place}/{name}": values[name] for name in names if values[name] is not None}
        self._events.add(row.step, numbers)

    def _check_own(self, storage: Storage) -> None:
        if not storage.exists(CONFIG_FILE):
            return
        try:
            is_own = json.loads(storage.read_bytes(CONFIG_FILE))["format"] == _FORMAT
        except (ValueError, KeyError, TypeError, RecursionError):
            is_own = False
        if not is_own:
            raise StorageError(
                f"{self.path} is not the folder of a training: its {CONFIG_FILE} is another "
                "program's; choose another --run"
            )

    def _rows_until(self, step: int) -> list[list[str]]:
        content = Storage(self.path).read_if_there(METRICS_FILE) or b""
        text = content.decode(errors="replace")
        rows = []
        # What stands behind damage is not to be told from it.
        with contextlib.suppress(csv.Error):
            for row in csv.reader(io.StringIO(text, newline="")):
                if len(row) == len(self._columns) and _is_step(row[0]) and int(row[0]) <= step:
                    rows.append(row)
        return rows


def _is_step(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _format(value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
