"""The lease on a data set says which driver may write. It works on any storage, without a common
clock.

The driver that writes keeps a small file (`LEASE_FILE`) and changes it every few seconds. If a
second driver finds this file, it

- takes over at once if the holder is certainly dead: a process of this machine that is gone;
- is refused if the holder is alive: its process exists, or the file changes while it is watched;
- takes over if the file has not changed for LEASE_SECONDS by the second driver's own clock.

The time stamps of two machines are never compared. If the file system has locks (`locked_file`),
they give the same answer sooner. NFS, Lustre and object stores may have none.

Without a server that counts, one case remains. A driver that slept through LEASE_SECONDS (because
it was suspended, or cut off from storage) learns of its successor only when it reads the lease
again. Until then, its workers may still publish. That does no harm, because the published bytes
follow from the plan alone: both drivers write the same bytes under the same names. Changing the
plan and removing parts would do harm. So the driver reads the lease again before it does that.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from flowprep.dataset.layout import LEASE_FILE, LOCK_FILE
from flowprep.errors import StorageError
from flowprep.locks import locked_file
from flowprep.storage import Storage

__all__ = ["LEASE_SECONDS", "Holder", "Lease", "held_lease", "locked_dataset"]

log = logging.getLogger("flowprep.lease")

RENEW_SECONDS = 10.0
"""Time between two writes of the file. After at most this time, a second driver knows that the
holder is alive."""
LEASE_SECONDS = 60.0
"""If the file does not change for this time, the holder counts as gone. It is the time of six
renewals, and longer than a store that throttles makes a request wait."""
POLL_SECONDS = 1.0
"""Time between two looks at another driver's lease."""
SETTLE_SECONDS = 1.0
"""Time between taking a lease from another driver and reading it back. If two drivers take it at
the same time, the last one to write has it."""

# The ids of the leases that this process holds. A lease with this process's number but another id
# was left by a run whose end could not be written.
_held: set[str] = set()


class Holder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the lease file."""

    id: str
    """A random name for each run."""
    host: str
    machine: str
    """This machine, its boot and its container. Each of them numbers its processes anew."""
    pid: int
    pid_started: str
    """Start of the process, in the kernel's ticks, because process numbers are used again."""
    started: str
    """When the run began, by its own clock, for people to read."""
    renewed: int = 0
    """Number of renewals of the lease. It changes with every write."""

    @classmethod
    def this_process(cls) -> Holder:
        """Returns a new holder for this process."""
        return cls(
            id=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            pid_started=_started(os.getpid()) or "",
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def to_json(self) -> bytes:
        """Returns the file's content."""
        return (json.dumps(msgspec.structs.asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Holder | None:
        """Reads the file's content. Returns None for an unknown format, as of a later version."""
        try:
            return msgspec.convert(json.loads(data), cls)
        except (ValueError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"

    def is_alive(self) -> bool | None:
        """Whether the process exists. None if this machine cannot know."""
        if not self.machine or self.machine != _machine():
            return None
        if self.pid == os.getpid():
            return self.id in _held
        return _started(self.pid) == self.pid_started


class Lease:
    """A lease that this process holds. `held_lease` makes it."""

    def __init__(self, storage: Storage, holder: Holder) -> None:
        self._storage = storage
        self._holder = holder
        self._renewed_at = _now()
        self._lost: StorageError | None = None
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="flowprep-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StorageError if another driver has the lease; reads it only if long unrenewed."""
        if self._lost is None and _now() - self._renewed_at > LEASE_SECONDS / 2:
            self.confirm()
        if self._lost is not None:
            raise self._lost

    def confirm(self) -> None:
        """Renews the lease now. Raises StorageError if another driver has the lease."""
        with self._mutex:
            self._renew()
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Ends the renewals. Removes the file if it still belongs to this driver."""
        self._ended.set()
        self._thread.join(timeout=RENEW_SECONDS)
        _held.discard(self._holder.id)
        # A file that is left behind is stale after a while, and at once for this machine.
        with suppress(StorageError):
            if _holder_of(self._storage.read_if_there(LEASE_FILE)) == self._holder.id:
                self._storage.remove(LEASE_FILE)

    def _keep(self) -> None:
        while self._lost is None and not self._ended.wait(RENEW_SECONDS):
            try:
                with self._mutex:
                    self._renew()
            except StorageError as error:
                # A driver that would take over needs the same storage. `check` reads it again.
                log.warning("the lease was not renewed: %s", error)

    def _renew(self) -> None:
        if self._lost is not None or self._ended.is_set():
            return
        silence = _now() - self._renewed_at
        data = self._storage.read_if_there(LEASE_FILE)
        if data is None or _holder_of(data) != self._holder.id:
            # If the file is gone, the driver that took over has finished, or somebody removed it.
            other = (Holder.from_json(data) if data is not None else None) or "it is gone again"
            self._lost = StorageError(
                f"another run took over {self._storage.location} ({other}) after this one had not "
                f"renewed its lease for {silence:.0f} s: it was suspended, or cut off from the "
                "storage; nothing is lost: let the other one finish, then run this command again"
            )
            log.error("%s", self._lost)
            return
        self._holder = msgspec.structs.replace(self._holder, renewed=self._holder.renewed + 1)
        self._storage.write_bytes(LEASE_FILE, self._holder.to_json())
        self._renewed_at = _now()


@contextmanager
def held_lease(storage: Storage) -> Iterator[Lease]:
    """Holds the lease on a data set during the block. A thread renews it.

    Raises StorageError if another driver has the lease, with the name of that driver and how long
    it was watched.
    """
    lease = Lease(storage, _take(storage))
    try:
        yield lease
    finally:
        lease.release()


@contextmanager
def locked_dataset(storage: Storage) -> Iterator[Lease]:
    """Holds a data set's lease, and the lock of its folder on this machine, during the block.

    A second run gets a StorageError that names the first run.
    """
    with ExitStack() as stack:
        if storage.is_local:
            taken = f"another run is writing to {storage.location}"
            path = storage.path(LOCK_FILE)
            stack.enter_context(locked_file(path, taken, "wait for it or end it"))
        yield stack.enter_context(held_lease(storage))


def _take(storage: Storage) -> Holder:
    holder = Holder.this_process()
    # The id is added before anybody can read the file. Otherwise another thread of this process
    # would take the holder for dead.
    _held.add(holder.id)
    try:
        return _taken_over(storage, holder)
    except BaseException:
        _held.discard(holder.id)
        raise


def _taken_over(storage: Storage, holder: Holder) -> Holder:
    while True:
        if storage.create(LEASE_FILE, holder.to_json()):
            pause = 0.0
        else:
            found = storage.read_if_there(LEASE_FILE)
            if found is None:
                continue
            is_dead = _is_gone(storage, found)
            storage.write_bytes(LEASE_FILE, holder.to_json())
            # The file system's lock keeps the drivers of this machine apart.
            pause = 0.0 if is_dead and storage.is_local else SETTLE_SECONDS
        time.sleep(pause)
        winner = storage.read_if_there(LEASE_FILE)
        if _holder_of(winner) == holder.id:
            return holder
        if winner is not None:
            raise _taken(storage, Holder.from_json(winner), "it began at the same moment")


def _is_gone(storage: Storage, found: bytes) -> bool:
    """Watches another driver's lease until it is stale. Returns whether the driver is surely dead.

    Raises StorageError if the driver is alive.
    """
    holder = Holder.from_json(found)
    alive = holder.is_alive() if holder is not None else None
    if alive:
        raise _taken(storage, holder, "its process is alive")
    if alive is False:
        log.info("took over from %s, which ended without a word", holder)
        return True
    log.warning(
        "%s is leased to %s; watching for up to %g s whether it is alive",
        *(storage.location, holder or "an unknown run", LEASE_SECONDS),
    )
    began = _now()
    while (spent := _now() - began) < LEASE_SECONDS:
        time.sleep(POLL_SECONDS)
        now = storage.read_if_there(LEASE_FILE)
        if now is None:
            return False
        if now != found:
            seconds = _now() - began
            raise _taken(
                storage,
                Holder.from_json(now),
                f"it renewed its lease within the {seconds:.0f} s that it was watched",
            )
    log.warning("took over from %s, which gave no sign of life for %.0f s", holder, spent)
    return False


def _taken(storage: Storage, holder: Holder | None, why: str) -> StorageError:
    return StorageError(
        f"another run is writing to {storage.location} ({holder or 'of another version'}; {why}); "
        "wait for it or end it"
    )


def _holder_of(data: bytes | None) -> str | None:
    holder = Holder.from_json(data) if data is not None else None
    return holder.id if holder is not None else None


def _now() -> float:
    # This clock runs on while the machine sleeps, like the clock of a driver that watches.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """Returns a name that is unique to this machine, boot and container; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Returns the start of a process in ticks since boot, or None if the process is gone."""
    try:
        # "PID (NAME) STATE PPID ..."; NAME may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
