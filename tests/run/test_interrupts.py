"""Ctrl-C is kept until the run looks for it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from flowprep.run.interrupts import interrupts_kept


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


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_sigterm_ends_the_run_as_ctrl_c_does_unless_it_is_ignored(before: signal.Handlers) -> None:
    own = signal.signal(signal.SIGTERM, before)
    try:
        with interrupts_kept() as raise_if_interrupted:
            if before is signal.SIG_DFL:
                with pytest.raises(KeyboardInterrupt):
                    os.kill(os.getpid(), signal.SIGTERM)
                with pytest.raises(KeyboardInterrupt):
                    raise_if_interrupted()
            else:
                os.kill(os.getpid(), signal.SIGTERM)
                raise_if_interrupted()
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, own)
