"""How a command ends: when its terminal is closed, when its output is full, in other trouble."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from typing import Literal

from click import echo

from flowprep.errors import StorageError
from flowprep.printable import printable
from flowprep.storage_errors import explain

__all__ = ["check_working_folder", "follow_hangup", "say", "trouble"]

_Output = Literal["stdout", "stderr"]


def check_working_folder() -> None:
    """Raises StorageError where the folder that relative paths begin at was deleted.

    Libraries stumble over it in ways of their own: Intel's MKL ends the process.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise StorageError(
            "the working folder does not exist any more; change to one that does, and run the "
            "command again",
            "missing",
        ) from error


def follow_hangup() -> None:
    """Lets a closed terminal (SIGHUP) end this process as SIGTERM does, however that is.

    What works in the background ends with it then: Ray, loader processes, a server. Under `nohup`,
    which lets a command ignore SIGHUP, it goes on.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, frame: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def say(text: str) -> None:
    """Writes a line to stderr, if anybody can still read it."""
    with contextlib.suppress(OSError, ValueError):
        echo(text, err=True)


def trouble(error: OSError) -> str | None:
    """Returns a sentence on an error of the system; None where there is nobody to tell.

    An output that takes no more is closed, so that Python does not try again.
    """
    name = _failed_output(error)
    if name is not None:
        _close(name)
    if isinstance(error, BrokenPipeError) and error.filename is None:
        # Who reads has seen enough, as `head` has.
        return None
    if name is not None:
        return f"cannot write to {name}: {explain(error)[1]}" if name == "stdout" else None
    try:
        check_working_folder()
    except StorageError as gone:
        return str(gone)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    place = f"{' and '.join(names)}: " if names else ""
    return f"{place}{explain(error)[1]}"


def _failed_output(error: OSError) -> _Output | None:
    """Returns the output that could not be written to; None where it was something else."""
    # An error of a write names no file: who wrote is all that there is to go by.
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__", "")) for frame in frames]
    # Below the writer there is only what escapes control characters.
    while modules and modules[-1] == printable.__module__:
        modules.pop()
    if not modules:
        return None
    if modules[-1] == echo.__module__:
        return "stderr" if frames[len(modules) - 1].f_locals.get("err") else "stdout"
    return "stderr" if modules[-1].partition(".")[0] == "tqdm" else None


def _close(name: _Output) -> None:
    """Leads an output nowhere, or Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, getattr(sys, name).fileno())
        finally:
            os.close(nowhere)
