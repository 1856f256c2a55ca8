"""What Ray's errors say about a worker that went away, and whose fault that was.

Only the end of the worker's own process may be the fault of its video. Errors of Ray's nodes, of
its storage and of Ray itself never are.
"""

from __future__ import annotations

import os
import re
from typing import Any

from flowprep.run.job import WorkerLost
from flowprep.run.worker_memory import blamed_bytes
from flowprep.words import format_bytes

__all__ = ["loss_of", "summary"]

# "pid=606, memory used=3.33GB", since Ray 2.56 "pid=606, actual memory used=3.33GB"; and "was
# 51.33GB / 54.00GB", now "was 51.33GB used / 54.00GB limit". Its GB are powers of 1024.
_HELD = re.compile(r"pid=\d+, (?:actual )?memory used=([0-9.]+)GB")
_TOTAL = re.compile(r"was [0-9.]+GB (?:used )?/ ([0-9.]+)GB")
_GIB = 1 << 30
_THRESHOLD_VARIABLE = "RAY_memory_usage_threshold"


def loss_of(errors: Any, error: Exception, *, worker_memory: str, num_workers: int) -> WorkerLost:
    """Returns the loss that one of Ray's errors means; `errors` is the module `ray.exceptions`.

    `worker_memory` is the option of this name. `num_workers` share each machine.
    """
    if isinstance(error, errors.OutOfMemoryError) or "running low on memory" in str(error):
        return _out_of_memory(str(error), worker_memory, num_workers)
    if isinstance(error, errors.NodeDiedError) or "its node has died" in str(error):
        # Ray gives the cause of an actor's end only in words.
        return WorkerLost("crashed", summary("its node went away", error), node_died=True)
    is_worker = isinstance(error, (errors.WorkerCrashedError, errors.RayActorError))
    if is_worker and not isinstance(error, errors.ActorUnavailableError):
        return WorkerLost("crashed", summary("the worker process ended", error))
    return WorkerLost("crashed", summary("Ray failed", error), node_died=True, fault="node")


def memory_threshold() -> float:
    """Returns the share of a machine's memory in use above which Ray ends workers on it."""
    try:
        return float(os.environ.get(_THRESHOLD_VARIABLE, "0.95"))
    except ValueError:
        return 0.95


def summary(what: str, error: Exception) -> str:
    """Returns what happened, with the first line of what Ray says of it."""
    first_line = str(error).strip().partition("\n")[0]
    return f"{what} ({type(error).__name__}: {first_line})"


def _out_of_memory(text: str, worker_memory: str, num_workers: int) -> WorkerLost:
    # Ray may end several workers at a time. The error lists all of them, and does not say which of
    # them it is about. So a video is only blamed if even the smallest of them held too much.
    held = [float(number) for number in _HELD.findall(text)]
    total = _TOTAL.search(text)
    if not held or total is None:
        message = "Ray ended the worker because memory ran out"
        return WorkerLost("out-of-memory", message, is_short_of_memory=True, fault="node")
    held_bytes = min(held) * _GIB
    total_bytes = int(float(total[1]) * _GIB)
    message = (
        f"Ray ended the worker because memory ran out; it held {format_bytes(held_bytes)} of "
        f"{format_bytes(total_bytes)}"
    )
    if held_bytes > blamed_bytes(worker_memory, total_bytes, num_workers):
        return WorkerLost("out-of-memory", message)
    return WorkerLost("out-of-memory", message, is_short_of_memory=True, fault="node")
