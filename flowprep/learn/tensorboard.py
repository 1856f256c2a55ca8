"""TensorBoard's event files, written without delay.

torch's SummaryWriter writes in a thread, and a full disk ends that thread with a traceback.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowprep.storage_errors import translated_errors

__all__ = ["Events", "open_events"]


def open_events(folder: Path, *, purge_step: int) -> Events | None:
    """Begins an event file in `folder`. Returns None if TensorBoard is not installed.

    TensorBoard hides the numbers of earlier files from step `purge_step` on. Raises StorageError if
    the file cannot be written.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return None
    return Events(folder, purge_step)


class Events:
    """One event file. Every number is in the file when `add` returns."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard's own scheme. A second training in the same second is another process.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._path = folder / name
        with translated_errors("write", str(self._path)):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes numbers under their names; raises StorageError if that fails."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._write(step=step, summary=Summary(value=values))

    def close(self) -> None:
        """Closes the file."""
        # All numbers for which `add` succeeded are in the file. Closing it tries the others again.
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with translated_errors("write", str(self._path)):
            self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())
            self._file.flush()
