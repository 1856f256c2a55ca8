"""Where a run of the chaos takes place: its Ray, its data set, and the command that extracts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import fsspec

from tests import object_store
from tests.run.clusters import LocalCluster
from tests.run.faults import descendants, kill

__all__ = ["OPTIONS", "Command", "Place", "PlaceName", "processes_named"]

PlaceName = Literal["own", "cluster", "store"]
"""Ray started by the command itself; a cluster of three nodes; the first with OUT on S3."""

OPTIONS = (
    *("--algorithm", "farneback", "--resize", "short:128", "--shard-size", "4"),
    *("--executor", "ray", "--workers", "2"),
)
NODES = ("one", "two")
MAX_SECONDS = 400.0
"""A command that takes longer counts as one that hangs. An undisturbed one takes half a minute."""


class Command:
    """One extraction that was started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid = process.pid
        self.log = log
        self._process = process
        self._seen: set[int] = set()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def sleep(self, seconds: float) -> bool:
        """Waits; returns whether it still runs then."""
        deadline = time.monotonic() + seconds
        while self.is_running and time.monotonic() < deadline:
            self._seen.update(descendants(self.pid))
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
        return self.is_running

    def wait(self) -> int | None:
        """Returns its exit code; None for one that hangs, and is ended."""
        if self.sleep(MAX_SECONDS):
            self.end()
            return None
        return self._process.returncode

    def end(self) -> None:
        """Ends it, and all that it started."""
        # Of a driver that was killed before, Ray ends by itself, in its own time: the next command
        # meets that, as a user's would.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        kill([self.pid, *descendants(self.pid), *filter(_is_ours, self._seen)])
        self._process.wait()


@dataclass
class Place:
    """The surroundings of one run; use it as a context manager."""

    name: PlaceName
    folder: Path
    """For this run alone."""
    videos: Path
    out: str = ""
    """The data set: a path or a URL."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of the commands."""
    disk: Path | None = None
    """A small disk that holds OUT."""
    num_commands: int = 0
    cluster: LocalCluster | None = None
    nodes: list[str] = field(default_factory=list)
    """Of the cluster, those that are alive."""

    def __post_init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._commands: list[Command] = []

    def __enter__(self) -> Place:
        self.folder.mkdir(parents=True)
        if self.name == "store":
            endpoint = self._stack.enter_context(object_store.s3_server())
            self.variables |= object_store.variables(endpoint)
            os.environ.update(object_store.variables(endpoint))
            bucket = f"flowprep-{uuid.uuid4().hex[:12]}"
            object_store.client(endpoint).create_bucket(Bucket=bucket)
            self.out = f"s3://{bucket}/out"
        else:
            self.out = str(self.folder / "out")
        return self

    def __exit__(self, *exception: object) -> None:
        for command in self._commands:
            command.end()
        self.leave_cluster()
        if self.disk is not None:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        """What the last command wrote."""
        return self.folder / f"command-{self.num_commands}.log"

    def start(self, before: Sequence[str] = ()) -> Command:
        """Starts the command, which is the same each time; `before` is what starts it."""
        self.num_commands += 1
        command = [*before, sys.executable, "-m", "flowprep", "extract", str(self.videos), self.out]
        environment = os.environ | self.variables
        environment.pop("RAY_ADDRESS", None)
        options = list(OPTIONS)
        if self.name == "cluster":
            if self.cluster is None:
                self.cluster = LocalCluster(head_cpus=0)
            for name in NODES:
                if name not in self.nodes:
                    self.cluster.add(name)
                    self.nodes.append(name)
            environment = self.cluster.environment | self.variables
            options += ["--address", self.cluster.address]
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        self._commands.append(Command(process, self.log))
        return self._commands[-1]

    def ray_processes(self, driver: int, name: str) -> list[int]:
        """Returns the processes of the run's Ray whose program is called `name`."""
        return processes_named(descendants(self.cluster.pid if self.cluster else driver), name)

    def leave_cluster(self) -> None:
        """Ends the cluster, whatever is left of it; the next command gets a new one."""
        if self.cluster is not None:
            kill([*descendants(self.cluster.pid), self.cluster.pid])
            with contextlib.suppress(AssertionError, OSError):
                self.cluster.__exit__()
            self.cluster = None
            self.nodes.clear()

    def stored(self) -> Path:
        """Returns the data set as a folder on this machine."""
        if self.name != "store":
            return Path(self.out)
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        # Each place has a server of its own, and fsspec would give the connection to the last one.
        files = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        copy.mkdir()
        with contextlib.suppress(FileNotFoundError):
            files.get(self.out.partition("://")[2], str(copy / "out"), recursive=True)
        return copy / "out"


def processes_named(pids: Sequence[int], name: str) -> list[int]:
    """Returns those processes whose command begins with a program or a title of this name."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            command = Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")[0]
            if os.path.basename(command.decode(errors="replace")).startswith(name):
                found.append(pid)
    return found


def _is_ours(pid: int) -> bool:
    """Whether a process belongs to a run: its number may be another's by now."""
    with contextlib.suppress(OSError):
        command = Path("/proc", str(pid), "cmdline").read_bytes()
        return b"ray" in command or b"flowprep" in command
    return False
