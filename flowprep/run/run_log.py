"""The log of a run, which is kept with the data set."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flowprep.dataset.layout import LOGS_FOLDER
from flowprep.ending import say
from flowprep.printable import printable
from flowprep.storage import Storage
from flowprep.storage_errors import explain, translated_errors

__all__ = ["run_log"]


class _LogFile(logging.FileHandler):
    """A log that a full disk does not turn into tracebacks: what it lacks is said once."""

    _is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._is_told:
            self._is_told = True
            name = os.path.basename(self.baseFilename)
            say(f"note: cannot write the log {name}: {explain(error)[1]}")


@contextmanager
def run_log(storage: Storage) -> Iterator[str]:
    """Writes flowprep's log to `logs/run-TIME.log`. Yields the name of that file."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{LOGS_FOLDER}/run-{stamp}-{os.getpid()}.log"
    storage.make_folder(LOGS_FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        path = storage.path(name) if storage.is_local else f"{folder}/log"
        with translated_errors("write", name):
            handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("flowprep")
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield name
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)
            with suppress(OSError):
                handler.close()
            if not storage.is_local:
                with open(path, "rb") as file:
                    storage.write_bytes(name, file.read())


class _Formatter(logging.Formatter):
    """Escapes control characters, and indents further lines, so that no name forges a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines of a record."""
        return printable(super().format(record)).replace("\n", "\n  ")
