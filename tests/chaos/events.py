"""What befalls a run: each event is one function, which says in a few words what it did.

A function that returns an empty text found nothing to do: the command had ended, or what it aims at
was not there yet.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowprep.dataset.lease import LEASE_SECONDS
from flowprep.machine import memory_in_use, usable_memory_bytes
from tests.chaos.places import Command, Place, PlaceName
from tests.run.faults import descendants, kill, workers_of

__all__ = ["EVENTS", "Event", "Scene"]

HOG_BYTES = 3 << 30
"""What another program takes of the memory for a while."""
HEADROOM_BYTES = 1 << 30
"""From what is in use before to the threshold above which Ray ends workers."""


@dataclass
class Scene:
    """The run that an event happens to."""

    place: Place
    rng: random.Random
    seconds: float
    """What an undisturbed run takes."""
    num_bytes: int
    """The size of the undisturbed data set."""

    def moment(self) -> float:
        """Returns a time by chance, in seconds after the start of a command."""
        return self.rng.uniform(0.1, 0.95) * self.seconds


@dataclass(frozen=True)
class Event:
    """One kind of event."""

    happen: Callable[[Scene, Command], str]
    places: tuple[PlaceName, ...] = ("own", "cluster")
    prepare: Callable[[Scene], None] = lambda scene: None
    """Called before the command starts."""
    needs_root: bool = False


# ---- processes


def kill_worker(scene: Scene, command: Command) -> str:
    """Kills a worker in the middle of a video."""
    host = scene.place.cluster.pid if scene.place.cluster is not None else command.pid
    workers = workers_of(host)
    if not workers:
        return ""
    kill([scene.rng.choice(workers)])
    return "killed a worker"


def kill_driver(scene: Scene, command: Command) -> str:
    """Kills the driver alone; its Ray notices."""
    if not command.is_running:
        return ""
    kill([command.pid])
    return "killed the driver"


def kill_all(scene: Scene, command: Command) -> str:
    """Kills the driver and all that it started at one blow, as a power failure does."""
    if not command.is_running:
        return ""
    kill([command.pid, *descendants(command.pid)])
    return "killed the driver and its Ray"


def kill_raylet(scene: Scene, command: Command) -> str:
    """Kills Ray's own process of a machine."""
    raylets = scene.place.ray_processes(command.pid, "raylet")
    if not raylets:
        return ""
    kill([scene.rng.choice(raylets)])
    return f"killed 1 of {len(raylets)} raylets"


def kill_gcs(scene: Scene, command: Command) -> str:
    """Kills the process that keeps a cluster together."""
    servers = scene.place.ray_processes(command.pid, "gcs_server")
    kill(servers)
    return "killed the GCS server" if servers else ""


def kill_node(scene: Scene, command: Command) -> str:
    """Kills a whole machine of the cluster."""
    if scene.place.cluster is None or not scene.place.nodes:
        return ""
    name = scene.rng.choice(scene.place.nodes)
    scene.place.nodes.remove(name)
    scene.place.cluster.kill(name)
    return "killed a node"


def stop_driver(scene: Scene, command: Command) -> str:
    """Stops the driver for longer than its lease lasts, and lets it go on."""
    if not command.is_running:
        return ""
    os.kill(command.pid, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 5)
    os.kill(command.pid, signal.SIGCONT)
    return f"stopped the driver for {LEASE_SECONDS + 5:.0f} s"


def take_over(scene: Scene, command: Command) -> str:
    """Stops the driver; another machine's takes over and finishes; then the first one goes on."""
    if not command.is_running:
        return ""
    os.kill(command.pid, signal.SIGSTOP)
    # In a namespace of its own the first driver's process cannot be seen, as from elsewhere.
    other = scene.place.start(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    if scene.rng.random() < 0.5:
        code = other.wait()
        os.kill(command.pid, signal.SIGCONT)
        return f"another driver took over and ended with {code}; the first one went on then"
    other.sleep(LEASE_SECONDS + scene.moment())
    os.kill(command.pid, signal.SIGCONT)
    code = other.wait()
    return f"another driver took over; the first one went on meanwhile; the other ended with {code}"


# ---- what a machine lacks


def lower_threshold(scene: Scene) -> None:
    """Lets Ray end workers as soon as the machine holds a little more than now."""
    total = usable_memory_bytes()
    assert total is not None
    threshold = memory_in_use() + HEADROOM_BYTES / total
    scene.place.variables["RAY_memory_usage_threshold"] = f"{threshold:.4f}"


def fill_memory(scene: Scene, command: Command) -> str:
    """Another program takes more memory than Ray allows, for some seconds."""
    hog = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; held = bytearray(b'x') * {HOG_BYTES}; print(); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert hog.stdout is not None
    hog.stdout.readline()
    seconds = scene.rng.uniform(3, 15)
    command.sleep(seconds)
    hog.kill()
    hog.communicate()
    return f"another program held {HOG_BYTES >> 30} GiB for {seconds:.0f} s"


def use_small_disk(scene: Scene) -> None:
    """Puts the data set on a disk that is too small for it."""
    place = scene.place
    if place.disk is not None:
        return
    place.disk = place.folder / "disk"
    place.disk.mkdir()
    size = round(scene.num_bytes * scene.rng.uniform(0.2, 1.5))
    # Parts and their shard are there together for a moment, so that 1.5 may be too little as well.
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place.disk)], check=True
    )
    place.out = str(place.disk / "out")


def fill_disk(scene: Scene, command: Command) -> str:
    """The disk is full at some time; when the command has ended, there is room again."""
    assert scene.place.disk is not None
    command.wait()
    disk = os.statvfs(scene.place.disk)
    size = f"{disk.f_blocks * disk.f_frsize / 1e6:.1f} MB"
    subprocess.run(["mount", "-o", "remount,size=1g", str(scene.place.disk)], check=True)
    return f"a disk of {size}, then a larger one"


def delete_file(scene: Scene, command: Command) -> str:
    """Kills the driver and its Ray, and deletes a file that is not a tar."""
    kill([command.pid, *descendants(command.pid)])
    out = Path(scene.place.out)
    files = sorted(
        path for path in out.rglob("*") if path.is_file() and path.suffix not in (".tar", ".log")
    )
    if not files:
        return ""
    chosen = scene.rng.choice(files)
    # A worker that is just ending may have removed it.
    with contextlib.suppress(FileNotFoundError):
        chosen.unlink()
    return f"deleted {chosen.relative_to(out)}"


EVENTS: dict[str, Event] = {
    "worker": Event(kill_worker, ("own", "cluster", "store")),
    "driver": Event(kill_driver, ("own", "cluster", "store")),
    "everything": Event(kill_all, ("own", "store")),
    "raylet": Event(kill_raylet),
    "gcs": Event(kill_gcs),
    "node": Event(kill_node, ("cluster",)),
    "stop": Event(stop_driver),
    "takeover": Event(take_over, ("store",), needs_root=True),
    "memory": Event(fill_memory, ("own",), lower_threshold),
    "disk": Event(fill_disk, ("own", "cluster"), use_small_disk, needs_root=True),
    "file": Event(delete_file),
}
"""Each kind of event; a run draws one to three."""
