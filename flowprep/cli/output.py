"""What commands print: no name and no message of others steers the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import click

from flowprep.errors import FlowprepError
from flowprep.printable import PrintableStream, one_line

__all__ = ["echo_error", "echo_line", "echo_note", "echo_notes", "printable_output"]


@contextmanager
def printable_output() -> Iterator[None]:
    """Escapes control characters in all that is written to stdout and stderr meanwhile.

    So no command, warning or traceback can print one: neither does it have to think of it.
    """
    # What the terminal cannot show is escaped too.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with (
        redirect_stdout(PrintableStream(sys.stdout)),
        redirect_stderr(PrintableStream(sys.stderr)),
    ):
        yield


def echo_line(text: str, *, err: bool = False) -> None:
    """Prints one line, whatever the names in it hold."""
    click.echo(one_line(text), err=err)


def echo_note(note: str) -> None:
    """Prints a note on stderr, on one line."""
    echo_line(f"note: {note}", err=True)


def echo_notes(notes: Iterable[str]) -> None:
    """Prints notes on stderr, each on one line."""
    for note in notes:
        echo_note(note)


def echo_error(error: FlowprepError) -> None:
    """Prints an error on stderr, on one line unless it is one that has lines."""
    text = f"Error: {error}"
    if error.has_lines:
        click.echo(text, err=True)
    else:
        echo_line(text, err=True)
