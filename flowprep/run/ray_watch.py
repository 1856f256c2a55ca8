"""Watches whether Ray is still there: its processes on this machine, and a cluster's head.

If Ray is gone, the driver must say so itself. Ray would wait for its head for a minute and then end
the driver's process without a word. Meanwhile the errors of tasks look like the fault of videos.
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
"""Time between two looks at the nodes of a cluster."""
MAX_SILENT_SECONDS = 45.0
"""A head that answers nothing for this long is gone. Ray itself gives up after 60 s."""
SETTLE_SECONDS = 1.0
"""Longest time from the end of a worker to the end of its Ray: `ray stop` ends one by one."""
MAX_BURST_SECONDS = 2.0
"""Losses within this time after the first one belong to the same event."""

_NEEDED = ("raylet", "gcs_server")
_GO_ON = "Finished videos are kept. Run the same command to go on"


class RayWatch:
    """Watches the Ray that this process works with. `is_cluster` says that others started it.

    A thread asks a cluster for its nodes, because a dead head may block the call for minutes.
    """

    def __init__(self, ray: Any, *, is_cluster: bool) -> None:
        self._ray = ray
        self._is_cluster = is_cluster
        self._node = getattr(getattr(ray._private, "worker", None), "_global_node", None)
        self._is_closed = threading.Event()
        self._wants_look = threading.Event()
        self._has_looked = threading.Condition()
        self._answered = self._checked = time.monotonic()
        self._num_answers = 0
        self._alive: Mapping[str, Mapping[str, float]] = {}
        self._lost_at = float("-inf")
        self._settled_at = float("-inf")
        self._own_node_id = ""
        self._thread: threading.Thread | None = None
        if is_cluster:
            with suppress(Exception):  # for a better message alone
                self._own_node_id = ray.get_runtime_context().get_node_id()
            self._thread = threading.Thread(target=self._follow, name="ray-watch", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raises ExecutorError if Ray is gone."""
        for kind, process in self._node.dead_processes() if self._node is not None else ():
            if kind in _NEEDED:
                raise self.ended(f"its process {kind} is gone ({how_it_ended(process.returncode)})")
        if not self._is_cluster:
            return
        now = time.monotonic()
        if now - self._checked > 2 * LOOK_SECONDS:
            # This process was stopped, and the thread that asks was stopped with it.
            self._answered = now
        self._checked = now
        silent_seconds = now - self._answered
        if silent_seconds > MAX_SILENT_SECONDS:
            raise ExecutorError(
                f"the head of the Ray cluster has not answered for {silent_seconds:.0f} s. "
                f"{_GO_ON}, once the cluster is there again, or on another one"
            )
        if self._num_answers and self._own_node_id and self._own_node_id not in self._alive:
            raise self.ended("the cluster counts it as dead")

    def ended(self, how: str) -> ExecutorError:
        """Returns the error for a Ray that has ended on this machine."""
        again = " once Ray is there again" if self._is_cluster else ""
        return ExecutorError(
            f"Ray ended on this machine: {how}. `ray stop` ends it, and so does a system whose "
            f"memory runs out. Finished videos are kept. Run the same command to go on{again}"
        )

    def check_after_loss(self) -> None:
        """Raises ExecutorError if Ray is gone, or goes within the next moment.

        A node may take tens of workers along. Only for the first of them it waits.
        """
        began = time.monotonic()
        if began - self._settled_at > MAX_BURST_SECONDS:
            while time.monotonic() - began < SETTLE_SECONDS:
                self.check()
                time.sleep(SETTLE_SECONDS / 10)
            self._settled_at = time.monotonic()
        self.check()

    def nodes(self) -> list[Mapping[str, float]]:
        """Returns the resources of each node of the cluster, as of the last look."""
        if not self._num_answers:
            self._look_again()
        return list(self._alive.values())

    def has_lost_node_since(self, began: float) -> bool:
        """Returns whether a node of the cluster has gone since `began`. Asks the head first."""
        self._look_again()
        return self._lost_at >= began

    def close(self) -> None:
        """Ends the watch."""
        self._is_closed.set()
        self._wants_look.set()
        if self._thread is not None:
            # A dead head may hold the thread. It then ends with the process.
            self._thread.join(1.0)

    def _look_again(self) -> None:
        """Waits for an answer that is asked for now. Raises ExecutorError if none comes."""
        with self._has_looked:
            # An answer that is on its way may have been asked for earlier.
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
