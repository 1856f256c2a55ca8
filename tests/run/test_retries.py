"""When a job that lost its worker is tried again."""

from __future__ import annotations

import pytest

from flowprep.errors import ExecutorError
from flowprep.run import retries as retries_module
from flowprep.run.job import PublishJob, WorkerLost
from flowprep.run.retries import MAX_LOST_NODES, Retries
from flowprep.storage import Storage

JOB = PublishJob(Storage("/nowhere"), 0, (0,))
CRASHED = WorkerLost("crashed", "it ended")
NODE_DIED = WorkerLost("crashed", "its node went away", node_died=True)
SHORT = WorkerLost("out-of-memory", "it held little", is_short_of_memory=True, fault="node")


class Clock:
    """Goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retries_module, "time", clock)
    return clock


def pauses(retries: Retries, clock: Clock, lost: WorkerLost) -> list[float]:
    """The pause before each further attempt of a job that is always lost in the same way."""
    job, found = JOB, []
    while retries.goes_again(job, lost):
        began = clock.now
        while not (due := retries.due()):
            clock.now += 0.5
        (job,) = due  # type: ignore[assignment]
        found.append(clock.now - began)
    assert len(retries) == 0
    return found


def test_attempts_have_pauses_between_them(clock: Clock) -> None:
    assert pauses(Retries(3), clock, CRASHED) == [1.0, 2.0]
    assert pauses(Retries(1), clock, CRASHED) == []


def test_lost_nodes_take_no_attempt_and_are_bounded(clock: Clock) -> None:
    found = pauses(Retries(1), clock, NODE_DIED)
    assert len(found) == MAX_LOST_NODES - 1
    assert found[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


def test_memory_is_waited_for_by_everyone_and_takes_no_attempt(clock: Clock) -> None:
    retries = Retries(1)
    assert retries.goes_again(JOB, SHORT)
    assert retries.goes_again(JOB, SHORT)  # another one, lost at the same time
    assert retries.holds(lambda: False)
    clock.now += 5.0
    assert not retries.holds(lambda: False)
    assert retries.holds(lambda: True)  # the machine still lacks memory
    clock.now += 2.0
    assert not retries.holds(lambda: False)
    assert len(retries.due()) == 2
    # The next pause is longer, until something ends well.
    retries.goes_again(JOB, SHORT)
    clock.now += 9.5
    assert retries.holds(lambda: False)
    retries.note_success()
    assert not retries.holds(lambda: True)


def test_memory_is_not_waited_for_without_end(clock: Clock) -> None:
    retries = Retries(1)
    began = clock.now
    assert len(pauses(retries, clock, SHORT)) > 5
    assert 300.0 <= clock.now - began < 420.0
    # Others would fare no better.
    retries = Retries(1)
    retries.goes_again(JOB, SHORT)
    (job,) = pauses_over(retries, clock)
    clock.now += 300.0
    with pytest.raises(ExecutorError, match=r"memory has been short for 5 minutes, .* it held lit"):
        retries.goes_again(job, SHORT, others_wait=True)
    assert not retries.holds(lambda: True)
    # Unless some have ended well meanwhile.
    retries.note_success()
    assert not retries.goes_again(job, SHORT, others_wait=True)


def pauses_over(retries: Retries, clock: Clock) -> list[PublishJob]:
    clock.now += 5.0
    return retries.due()  # type: ignore[return-value]
