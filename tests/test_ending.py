"""How a command ends in trouble: one sentence, exit code 1, and nothing that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowprep.ending import follow_hangup

COMMAND = [sys.executable, "-m", "flowprep"]
DISK_FULL = "cannot write to stdout: the disk is full; free space and run the same command again"


def ended(*arguments: str, stdout: object = subprocess.PIPE, **settings: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        stdout=stdout,  # type: ignore[call-overload]
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--version",), ("metrics", "--help")])
def test_an_output_that_is_full_is_told_in_one_sentence(
    arguments: tuple[str, ...], unbuffered: str
) -> None:
    with open("/dev/full", "w") as full:
        code, said = ended(*arguments, stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert (code, said) == (1, f"Error: {DISK_FULL}\n")


def test_who_has_read_enough_is_told_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert ended("--help", stdout=writer) == (1, "")
    finally:
        os.close(writer)


def test_a_working_folder_that_was_deleted(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, runpy; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
    code += "import sys; sys.argv = ['flowprep', 'info', 'flow']; "
    code += "from flowprep.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the working folder does not exist any more; change to one that does, and run the "
        "command again\n"
    )


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_closed_terminal_counts_unless_nohup_has_it_ignored(before: signal.Handlers) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    came = []
    terminate = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        follow_hangup()
        os.kill(os.getpid(), signal.SIGHUP)
        assert came == ([] if before is signal.SIG_IGN else [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGHUP, kept)
        signal.signal(signal.SIGTERM, terminate)
