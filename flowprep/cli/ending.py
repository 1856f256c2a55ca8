"""How a command ends: when its terminal is closed, when its output is full, in other trouble."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any

import click

from flowprep.storage_errors import explain

__all__ = ["follow_hangup", "say", "trouble"]


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
        click.echo(text, err=True)


def trouble(error: OSError) -> str | None:
    """Returns a sentence on an error of the system; None where there is nobody to tell.

    Where it is an output that takes no more, that is closed, so that Python does not try again.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    lost = [stream for stream in streams if not _is_flushed(stream)]
    for stream in lost:
        _close(stream)
    if isinstance(error, BrokenPipeError) and (lost or error.filename is None):
        # Who reads has seen enough, as `head` has.
        return None
    if sys.stdout in lost:
        return f"Cannot write to the standard output: {explain(error)[1]}"
    if lost:
        return None
    try:
        os.getcwd()
    except FileNotFoundError:
        return (
            "The working folder does not exist any more; change to one that does, and run the "
            "command again"
        )
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    place = f"{' and '.join(names)}: " if names else ""
    return f"{place}{explain(error)[1]}"


def _is_flushed(stream: Any) -> bool:
    try:
        # What could not be written is still there, and is tried again.
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _close(stream: Any) -> None:
    """Leads a stream nowhere, or Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
