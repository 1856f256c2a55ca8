"""Whether Ray is still there: its processes on this machine, and what a cluster's head answers.

A driver whose Ray is gone must say so itself. Ray would wait for its head for a minute and then end
the driver's process without a word; and what becomes of tasks meanwhile looks like the doing of the
videos.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from logging import getLogger
from typing import Any

from flowprep.errors import ExecutorError
from flowprep.run.worker_process import how_it_ended

__all__ = ["LOOK_SECONDS", "RayWatch"]

log = getLogger("flowprep.run")

LOOK_SECONDS = 5.0
"""Between two looks at which nodes a cluster has."""
MAX_SILENT_SECONDS = 45.0
"""A head that answers nothing for so long is gone: Ray itself gives up after 60 s."""
SETTLE_SECONDS = 1.0
"""From the end of a worker to that of the Ray that took it along: `ray stop` ends one by one."""

_NEEDED = ("raylet", "gcs_server")
_GO_ON = "Finished videos are kept. Run the same command to go on"


class RayWatch:
    """Looks after the Ray that this process works with; `is_cluster` says that others started it.

    A cluster is asked for its nodes by a thread, which a dead head may stop for minutes.
    """

    def __init__(self, ray: Any, *, is_cluster: bool) -> None:
        self._ray = ray
        self._is_cluster = is_cluster
        self._node = getattr(getattr(ray._private, "worker", None), "_global_node", None)
        self._is_closed = threading.Event()
        self._wants_look = threading.Event()
        self._has_looked = threading.Condition()
        self._answered = time.monotonic()
        self._num_answers = 0
        self._alive: Mapping[str, Mapping[str, float]] = {}
        self._lost_at = float("-inf")
        self._own_node_id = ""
        self._thread: threading.Thread | None = None
        if is_cluster:
            with suppress(Exception):  # for a better message alone
                self._own_node_id = ray.get_runtime_context().get_node_id()
            self._thread = threading.Thread(target=self._follow, name="ray-watch", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raises ExecutorError where Ray is gone."""
        for kind, process in self._node.dead_processes() if self._node is not None else ():
            if kind in _NEEDED:
                raise self.ended(f"its process {kind} is gone ({how_it_ended(process.returncode)})")
        if not self._is_cluster:
            return
        silent_seconds = time.monotonic() - self._answered
        if silent_seconds > MAX_SILENT_SECONDS:
            raise ExecutorError(
                f"the head of the Ray cluster has not answered for {silent_seconds:.0f} s. "
                f"{_GO_ON}, once the cluster is there again, or on another one"
            )
        if self._num_answers and self._own_node_id and self._own_node_id not in self._alive:
            raise self.ended("the cluster counts it as dead")

    def ended(self, how: str) -> ExecutorError:
        """Returns the error for a Ray that has ended on this machine."""
        start = "Start Ray here again, and run" if self._is_cluster else "Run"
        return ExecutorError(
            f"Ray ended on this machine: {how}. `ray stop` ends it, and the system does where "
            f"memory runs out. Finished videos are kept. {start} the same command to go on"
        )

    def check_after_loss(self) -> None:
        """Raises ExecutorError where Ray is gone, or goes within the next moment."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            self.check()
            time.sleep(SETTLE_SECONDS / 10)
        self.check()

    def nodes(self) -> list[Mapping[str, float]]:
        """Returns the resources of each node of the cluster, as of the last look."""
        if not self._num_answers:
            self._look_again()
        return list(self._alive.values())

    def has_lost_node_since(self, began: float) -> bool:
        """Whether a node of the cluster has gone since `began`; asks the head first."""
        self._look_again()
        return self._lost_at >= began

    def close(self) -> None:
        """Ends the looking."""
        self._is_closed.set()
        self._wants_look.set()
        if self._thread is not None:
            # One that a dead head holds stays behind; it ends with the process.
            self._thread.join(1.0)

    def _look_again(self) -> None:
        """Waits for an answer that is asked for now; raises ExecutorError where none comes."""
        with self._has_looked:
            # One that is on its way was perhaps asked for before.
            wanted = self._num_answers + 2 if self._num_answers else 1
            while self._num_answers < wanted:
                self._wants_look.set()
                self._has_looked.wait(0.2)
                self.check()

    def _follow(self) -> None:
        while not self._is_closed.is_set():
            self._wants_look.clear()
            try:
                nodes = self._ray.nodes()
            except Exception as error:
                log.info("the Ray cluster did not say which nodes it has: %s", error)
                self._is_closed.wait(1.0)
                continue
            alive = {node["NodeID"]: dict(node["Resources"]) for node in nodes if node["Alive"]}
            with self._has_looked:
                self._answered = time.monotonic()
                if self._alive.keys() - alive.keys():
                    self._lost_at = self._answered
                self._alive = alive
                self._num_answers += 1
                self._has_looked.notify_all()
            self._wants_look.wait(LOOK_SECONDS)
