"""Text for terminals and pages: characters that do something are shown, and not done.

    printable(text)      of several lines: ESC is `\\x1b`, a right-to-left override is `\\u202e`
    one_line(text)       of a name: its line feeds and tabs too
    join_lines(lines)    of a report whose lines hold names
    PrintableStream      what is written to it is printable: the stdout and stderr of every command

The names of files and classes, and the messages of others, may hold any character. Written as they
are, they could rename a terminal, paint over a line, or write a line of their own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

__all__ = ["PrintableStream", "bar_stream", "join_lines", "one_line", "printable"]

# C0 and C1 controls, DEL, the marks that turn the direction of text (UAX 9), Unicode's line ends,
# and surrogates, which stand for bytes that are no UTF-8.
_CLASS = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"
    "\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff"
)
_CONTROLS = re.compile(f"[{_CLASS}]")
_CONTROLS_AND_LINE_ENDS = re.compile(f"[{_CLASS}\\t\\n]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Returns text with its control characters escaped, but for line feeds and tabs."""
    return text if text.isprintable() else _CONTROLS.sub(_escaped, text)


def one_line(text: str) -> str:
    """Returns text with all of its control characters escaped."""
    return text if text.isprintable() else _CONTROLS_AND_LINE_ENDS.sub(_escaped, text)


def join_lines(lines: Iterable[str]) -> str:
    """Returns a text of lines, none of which can hold a line feed of its own."""
    return "\n".join(map(one_line, lines))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= number <= 0xDCFF:  # os.fsdecode's stand-in for a byte
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


class PrintableStream:
    """A text stream that escapes what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text; returns its length before it was escaped."""
        self._stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes lines, which have their own ends."""
        for line in lines:
            self.write(line)

    @property
    def unescaped(self) -> TextIO:
        """The stream itself."""
        return self._stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            # Nobody is to write past this.
            raise AttributeError(name)
        return getattr(self._stream, name)


def bar_stream() -> TextIO:
    """Returns stderr for progress bars, which steer the terminal and hold no names."""
    stream = sys.stderr
    return stream.unescaped if isinstance(stream, PrintableStream) else stream
