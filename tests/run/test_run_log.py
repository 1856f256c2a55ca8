"""The log of a run, on a disk that fills."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flowprep.run.run_log import run_log
from flowprep.storage import Storage


def test_a_full_disk_is_told_once_and_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(Storage(tmp_path)) as name:
        handler = logging.getLogger("flowprep").handlers[-1]
        assert isinstance(handler, logging.FileHandler)
        handler.stream.close()
        handler.stream = open("/dev/full", "w")  # noqa: SIM115
        for _ in range(3):
            logging.getLogger("flowprep.run").info("a video")
    said = capsys.readouterr().err
    log = name.rpartition("/")[2]
    assert said == (
        f"note: cannot write the log {log}: the disk is full; free space and run the same command "
        "again\n"
    )
