"""Records Ctrl-C and SIGTERM while a network is trained. The training loop decides what to do."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowprep.run.interrupts import ENDING_SIGNALS, endings_heard

__all__ = ["Signals", "watched_signals"]

# torchrun passes Ctrl-C on, and its processes may already have got it from the terminal.
_TORCHRUN_SECONDS = 2.0
# Python handles a signal between two computations, and one computation may take minutes.
_AT_ONCE_SECONDS = 2.0
# No signal has this number.
_END = b"\0"


class Signals:
    """Whether a signal asked the training to end. The loop checks this after every step.

    Outside of a block `kept`, a signal raises KeyboardInterrupt. In it, the second Ctrl-C does.
    """

    def __init__(self, on_interrupt: Callable[[int], None]) -> None:
        self.is_raised = False
        self._on_interrupt = on_interrupt
        self._is_kept = False
        self._is_final = False
        self._has_ended = threading.Event()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """In the block the first signal is only noted."""
        if self.is_raised:
            raise KeyboardInterrupt
        self._is_kept = True
        try:
            yield
        finally:
            self._is_kept = False

    def handle(self, number: int) -> None:
        self.is_raised = True
        if self._is_final or not self._is_kept:
            raise KeyboardInterrupt

    def listen(self, descriptor: int) -> None:
        """Reads the numbers of signals as they come, in its own thread, until the end mark.

        The main thread handles them only after its current computation.
        """
        pause = _TORCHRUN_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
        first: float | None = None
        while (data := os.read(descriptor, 1)) != _END:
            if data[0] not in ENDING_SIGNALS or not self._is_kept:
                continue
            if first is None:
                first = time.monotonic()
                self._on_interrupt(1)
            elif data[0] == signal.SIGINT and time.monotonic() - first >= pause:
                self._is_final = True
                _thread.interrupt_main(signal.SIGINT)
                if not self._has_ended.wait(_AT_ONCE_SECONDS):
                    self._on_interrupt(2)
                return

    def end(self) -> None:
        self._has_ended.set()


@contextmanager
def watched_signals(on_interrupt: Callable[[int], None] = lambda count: None) -> Iterator[Signals]:
    """Watches for signals in a `with` block, in the main thread only.

    `on_interrupt` is called from another thread: with 1 as soon as a signal has come and the
    training finishes the current step; with 2 if Ctrl-C was pressed again and the main thread is
    still in its computation two seconds later.
    """
    signals = Signals(on_interrupt)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(
        target=signals.listen, args=(reader,), name="flowprep-signals", daemon=True
    )
    thread.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        with endings_heard(signals.handle):
            yield signals
    finally:
        signal.set_wakeup_fd(before)
        signals.end()
        os.write(writer, _END)
        thread.join()
        os.close(reader)
        os.close(writer)
