"""Ctrl-C and SIGTERM while a run works: they are never lost, whoever was at work then."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupts_kept"]


@contextmanager
def interrupts_kept() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if Ctrl-C was pressed, or SIGTERM came.

    Python raises it wherever it happens to be, and drops it in a destructor: Ray has many.
    """
    pressed = False

    def keep(signal_number: int, frame: object) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def raise_if_pressed() -> None:
        if pressed:
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    # Only the main thread may ask for them.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if _is_default(handler):
                before[number] = handler
                signal.signal(number, keep)
    try:
        yield raise_if_pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_default(handler: Any) -> bool:
    """Whether nobody else handles a signal, who would go on doing so; Ray only ends the process."""
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    return str(getattr(handler, "__module__", "")).partition(".")[0] == "ray"
