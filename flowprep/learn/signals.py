"""Records Ctrl-C and SIGTERM while a network is trained. The training loop decides what to do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Signals", "watched_signals"]


class Signals:
    """Whether Ctrl-C was pressed or SIGTERM came. The loop checks this after every step."""

    def __init__(self) -> None:
        self.is_raised = False
        self._raised_at = 0.0
        self._is_at_once = False

    def handle(self, number: int, frame: object) -> None:
        # torchrun sends a second signal right after the terminal's. A user presses again later.
        is_again = self.is_raised and time.monotonic() - self._raised_at > 2
        if not self.is_raised:
            self._raised_at = time.monotonic()
        self.is_raised = True
        if self._is_at_once or is_again:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal raise KeyboardInterrupt anywhere in the block."""
        if self.is_raised:
            raise KeyboardInterrupt
        self._is_at_once = True
        try:
            yield
        finally:
            self._is_at_once = False


@contextmanager
def watched_signals() -> Iterator[Signals]:
    signals = Signals()
    # Other handlers of Ctrl-C stay in place, and only the main thread may set handlers.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield signals
        return
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signals.handle)
    signal.signal(signal.SIGTERM, signals.handle)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)
