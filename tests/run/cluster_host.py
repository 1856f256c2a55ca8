"""A Ray cluster of several nodes on this machine, told on stdin what to do; see `clusters.py`.

It is a program of its own, so that any Python can be its nodes'. It needs Ray and nothing of
flowprep's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from faults import descendants, kill, workers_of
from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 80 << 20


def main() -> None:
    # The driver's own lines go to stdout; what Ray prints does not.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": int(sys.argv[1]),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "metrics_export_port": int(sys.argv[2]) or None,
            # A node that is silent for 3 s is dead; Ray's own 50 s would make the tests long.
            "_system_config": {
                "health_check_initial_delay_ms": 0,
                "health_check_period_ms": 500,
                "health_check_timeout_ms": 1500,
                "health_check_failure_threshold": 5,
                "metrics_report_interval_ms": 1000,
            },
        },
    )
    nodes: dict[str, Any] = {}

    def answer(value: object) -> None:
        print(json.dumps(value), file=out, flush=True)

    answer(cluster.address)
    for line in sys.stdin:
        command, name, *rest = line.split()
        if command == "add":
            nodes[name] = cluster.add_node(
                num_cpus=int(rest[0]), object_store_memory=OBJECT_STORE_BYTES
            )
            answer(True)
        elif command == "pause":
            workers = workers_of(raylet(nodes[name]))
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            answer(len(workers))
        elif command == "resume":
            for pid in workers_of(raylet(nodes[name])):
                os.kill(pid, signal.SIGCONT)
            answer(True)
        elif command == "kill":
            # As when the power fails: the raylet, its workers and agents at one blow.
            node = nodes.pop(name)
            pid = raylet(node)
            os.kill(pid, signal.SIGSTOP)
            kill([*descendants(pid), pid])
            cluster.remove_node(node, allow_graceful=False)
            answer(True)
        elif command == "terminate":
            # As when a machine is shut down in good order.
            node = nodes.pop(name)
            cluster.remove_node(node, allow_graceful=True)
            answer(True)
    with suppress(Exception):
        cluster.shutdown()


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


main()
