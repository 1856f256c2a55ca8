"""Printed text: whatever a name holds, it steers no terminal and writes no line of its own."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.printable import PrintableStream, bar_stream, join_lines, one_line, printable

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ärger mit Umlauten, 日本語, 🎬 and a no-break\u00a0space", None),
        ("a\tb\n", None),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("10 %\rcomplete", r"10 %\rcomplete"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("gp4.\u202e4pm", r"gp4.\u202e4pm"),
        ("one\u2028two", r"one\u2028two"),
        ("caf\udce9.mp4", r"caf\xe9.mp4"),
        ("\ud83c", r"\ud83c"),
    ],
)
def test_what_steers_a_terminal_is_shown(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


@given(st.text(st.characters() | st.sampled_from("\x1b\r\n\t\x9b\udc80" + BIDI)))
def test_no_control_character_is_left(text: str) -> None:
    def harmful(character: str) -> bool:
        return ord(character) < 32 or 127 <= ord(character) < 160 or character in BIDI

    assert not any(map(harmful, one_line(text)))
    assert not any(map(harmful, printable(text).replace("\n", "").replace("\t", "")))
    one_line(text).encode()
    # What was printable stays, and is not escaped a second time.
    assert one_line(one_line(text)) == one_line(text)
    assert len(join_lines([text, text]).split("\n")) == 2


def test_a_stream_escapes_all_that_is_written_and_hides_its_bytes() -> None:
    under = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = PrintableStream(under)
    assert stream.write("a\x1b[31m\n") == 7
    stream.writelines(["b\r", "\n"])
    print("c\u202e", file=stream)  # type: ignore[call-overload]
    stream.flush()
    under.seek(0)
    assert under.read() == "a\\x1b[31m\nb\\r\nc\\u202e\n"
    assert not hasattr(stream, "buffer")
    assert stream.encoding == "utf-8"


def test_progress_bars_go_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    under = io.StringIO()
    monkeypatch.setattr("sys.stderr", under)
    assert bar_stream() is under
    monkeypatch.setattr("sys.stderr", PrintableStream(under))
    assert bar_stream() is under
