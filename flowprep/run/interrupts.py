"""Signals that ask a command to end: Ctrl-C, and the SIGTERM of batch systems and clusters.

A handler that somebody else has set stays. Only the main thread may set a handler.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ENDING_SIGNALS", "endings_heard", "endings_raised", "interrupts_kept"]

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Handler:
    """The handler that this module sets. A nested block recognizes it and may replace it."""

    def __init__(self, handle: Callable[[int], None], heard: set[int]) -> None:
        self.handle = handle
        self.heard = heard

    def __call__(self, number: int, frame: object) -> None:
        is_repeated = number in self.heard
        self.heard.add(number)
        # A user presses Ctrl-C again to end faster. A repeated SIGTERM must not disturb the
        # ending: batch systems repeat it to be sure, and srun and torchrun each pass it on.
        if number == signal.SIGINT or not is_repeated:
            self.handle(number)


@contextmanager
def endings_heard(handle: Callable[[int], None], *, even_ignored: bool = False) -> Iterator[None]:
    """Calls `handle` with the number of each signal that asks to end, for a `with` block.

    Only the first SIGTERM counts. `even_ignored` also takes SIGINT if it is ignored: a shell
    without job control starts its background jobs so.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    taken = {
        number: handler
        for number, handler in before.items()
        if _is_free(number, handler, even_ignored)
    }
    heard = next((one.heard for one in taken.values() if isinstance(one, _Handler)), set())
    own = _Handler(handle, heard)
    try:
        for number in taken:
            signal.signal(number, own)
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _is_free(number: int, handler: object, even_ignored: bool) -> bool:
    if isinstance(handler, _Handler):
        return True
    if number == signal.SIGINT:
        return handler is signal.default_int_handler or (even_ignored and handler is signal.SIG_IGN)
    # Ray's handler of SIGTERM ends the driver at once.
    is_rays = str(getattr(handler, "__module__", "")).startswith("ray.")
    return handler is signal.SIG_DFL or is_rays


@contextmanager
def endings_raised() -> Iterator[None]:
    """Raises KeyboardInterrupt in a `with` block for each signal that asks a command to end."""

    def end(number: int) -> None:
        raise KeyboardInterrupt

    with endings_heard(end, even_ignored=True):
        yield


@contextmanager
def interrupts_kept() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if a signal asked to end.

    Python raises KeyboardInterrupt in whatever code is running. If that is a destructor, Python
    drops the exception, and Ray has many destructors.
    """
    is_asked = False

    def keep(number: int) -> None:
        nonlocal is_asked
        is_asked = True
        raise KeyboardInterrupt

    def raise_if_asked() -> None:
        if is_asked:
            raise KeyboardInterrupt

    with endings_heard(keep):
        yield raise_if_asked
