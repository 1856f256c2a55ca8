"""The log of a run, which is kept with the data set."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flowprep.dataset.layout import LOGS_FOLDER
from flowprep.printable import printable
from flowprep.storage import Storage
from flowprep.storage_errors import translated_errors

__all__ = ["run_log"]


@contextmanager
def run_log(storage: Storage) -> Iterator[str]:
    """Writes flowprep's log to `logs/run-TIME.log`. Yields the name of that file."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{LOGS_FOLDER}/run-{stamp}-{os.getpid()}.log"
    storage.make_folder(LOGS_FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        path = storage.path(name) if storage.is_local else f"{folder}/log"
        with translated_errors("write", name):
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
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
            handler.close()
            if not storage.is_local:
                with open(path, "rb") as file:
                    storage.write_bytes(name, file.read())


class _Formatter(logging.Formatter):
    """Escapes control characters, and indents further lines, so that no name forges a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines of a record."""
        return printable(super().format(record)).replace("\n", "\n  ")
