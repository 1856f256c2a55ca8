"""Ray clusters of several nodes on this machine, whose nodes tests add and kill."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["LocalCluster"]


class LocalCluster:
    """A head and nodes, each with processes of its own, in a program that this process talks to.

    Use it as a context manager. `environment` is what a process needs to reach the cluster.
    """

    def __init__(
        self, *, head_cpus: int, python: str | Path = sys.executable, metrics_port: int = 0
    ) -> None:
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.environment.pop("RAY_ADDRESS", None)
        self._process = subprocess.Popen(
            [
                str(python),
                str(Path(__file__).with_name("cluster_host.py")),
                str(head_cpus),
                str(metrics_port),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
            env=self.environment,
        )
        self.address: str = self._answer()

    @property
    def pid(self) -> int:
        """Of the program whose descendants are the cluster's processes."""
        return self._process.pid

    def add(self, name: str, *, num_cpus: int = 1) -> None:
        """Adds a node, and returns when it is there."""
        self._say(f"add {name} {num_cpus}")

    def kill(self, name: str) -> None:
        """Kills all processes of a node at one blow."""
        self._say(f"kill {name}")

    def terminate(self, name: str) -> None:
        """Ends a node in good order."""
        self._say(f"terminate {name}")

    def pause(self, name: str) -> int:
        """Stops a node's workers in the middle of their jobs; returns how many there were."""
        return int(self._say(f"pause {name}"))

    def resume(self, name: str) -> None:
        """Lets a node's workers go on."""
        self._say(f"resume {name}")

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _say(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the cluster's process ended with {self._process.wait(10)}"
        return json.loads(line)
