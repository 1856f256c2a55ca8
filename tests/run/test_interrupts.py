"""Ctrl-C is kept until the run looks for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from flowprep.run.interrupts import endings_heard, endings_raised, interrupts_kept


def test_ctrl_c_in_a_destructor_is_not_lost() -> None:
    class Rays:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    # What was started in the background may have been told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupts_kept() as raise_if_interrupted:
            raise_if_interrupted()
            Rays()
            with pytest.raises(KeyboardInterrupt):
                raise_if_interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def as_in_the_background() -> Iterator[None]:
    """What a shell without job control starts, and later a Ray that ends the process on SIGTERM."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_background_job_is_told_by_either_signal(
    as_in_the_background: None, number: signal.Signals
) -> None:
    with endings_raised(), interrupts_kept() as raise_if_asked:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            raise_if_asked()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_repeated_sigterm_does_not_disturb_the_end(as_in_the_background: None) -> None:
    heard: list[int] = []
    with endings_raised():
        with endings_heard(heard.append):
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
                os.kill(os.getpid(), number)
        assert heard == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
        # What comes while the command cleans up.
        os.kill(os.getpid(), signal.SIGTERM)


def test_who_handles_a_signal_goes_on_doing_so(as_in_the_background: None) -> None:
    own: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: own.append(number))
    with interrupts_kept() as raise_if_asked:
        os.kill(os.getpid(), signal.SIGTERM)
        # In a library's user a Ctrl-C that is ignored stays so.
        os.kill(os.getpid(), signal.SIGINT)
        raise_if_asked()
    assert own == [signal.SIGTERM]
