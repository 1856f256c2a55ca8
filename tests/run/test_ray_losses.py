"""Whose doing the errors of Ray are, in the words of its versions."""

from __future__ import annotations

import pytest
from ray import exceptions

from flowprep.run.job import WorkerLost
from flowprep.run.ray_losses import loss_of

# As Ray 2.60 words it.
TWO_KILLED = """2 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 192.0.2.2, ID: 7ecc) was 15.04GB used / 16.00GB limit (0.94)
Considered workers: [
Selected to kill: (Task: task name=run_job, pid=20396, actual memory used={}GB, worker ID=8cac)
Selected to kill: (Task: task name=run_job, pid=20397, actual memory used={}GB, worker ID=7715)
]
Top 10 memory users: PID	MEM(GB)	COMMAND
18560	10.33	python other.py
"""
# As Ray words it before version 2.56.
ONE_KILLED = """Task was killed due to the node running low on memory.
Memory on the node (IP: 192.0.2.2, ID: 6416) where the task (task ID: f8fb, name=run_job, pid=606, \
memory used={}GB) was running was 15.33GB / 16.00GB (0.95), which exceeds the memory usage \
threshold of 0.95. Top 10 memory users:
590	4.04	python other.py
"""


def lost(error: Exception, worker_memory: str = "auto") -> WorkerLost:
    return loss_of(exceptions, error, worker_memory=worker_memory, num_workers=4)


@pytest.mark.parametrize(
    ("text", "worker_memory", "is_blamed"),
    [
        # A worker of four may hold a quarter of 16 GiB.
        (ONE_KILLED.format("0.04"), "auto", False),
        (ONE_KILLED.format("3.90"), "auto", False),
        (ONE_KILLED.format("4.10"), "auto", True),
        (ONE_KILLED.format("4.10"), "none", True),
        (ONE_KILLED.format("4.10"), "6GB", False),
        (ONE_KILLED.format("0.60"), "500MB", True),
        # Whose error it is is not said: perhaps that of the small one.
        (TWO_KILLED.format("9.10", "0.04"), "auto", False),
        (TWO_KILLED.format("7.10", "6.04"), "auto", True),
        ("words of a version that is not known", "auto", False),
    ],
)
def test_a_video_is_blamed_for_memory_that_its_own_worker_held(
    text: str, worker_memory: str, is_blamed: bool
) -> None:
    loss = lost(exceptions.OutOfMemoryError(text), worker_memory)
    assert loss.reason == "out-of-memory"
    assert (loss.is_short_of_memory, loss.fault) == (
        (False, "video") if is_blamed else (True, "node")
    )


def test_the_message_says_what_the_worker_held() -> None:
    message = lost(exceptions.OutOfMemoryError(ONE_KILLED.format("0.50"))).message
    assert message.endswith("because memory ran out; it held 536.9 MB of 17.2 GB")


@pytest.mark.parametrize(
    ("error", "node_died", "fault"),
    [
        (exceptions.WorkerCrashedError(), False, "video"),
        (exceptions.ActorDiedError(), False, "video"),
        (exceptions.NodeDiedError("Task failed because the node is dead"), True, "video"),
        (exceptions.ActorUnavailableError("later", None), True, "node"),
        (exceptions.RaySystemError("the store is gone"), True, "node"),
        (exceptions.RpcError("unavailable"), True, "node"),
        (exceptions.OutOfDiskError("/tmp is full"), True, "node"),
        (exceptions.GetTimeoutError("60 s"), True, "node"),
    ],
)
def test_only_the_end_of_a_worker_counts_against_its_video(
    error: Exception, node_died: bool, fault: str
) -> None:
    loss = lost(error)
    assert (loss.reason, loss.node_died, loss.fault) == ("crashed", node_died, fault)
    assert not loss.is_short_of_memory
