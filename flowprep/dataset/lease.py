"""The lease on a data set says which driver may write. It works on any storage, without a common
clock.

The driver that writes keeps a small file (`LEASE_FILE`) and changes it every few seconds. If a
second driver finds this file, it

- takes over at once if the holder is certainly dead: a process of this machine that is gone;
- is refused if the holder is alive: its process exists, or the file changes while it is watched;
- takes over if the file has not changed for LEASE_SECONDS by the second driver's own clock.

The time stamps of two machines are never compared. If the file system has locks (`locked_file`),
they give the same answer sooner. NFS, Lustre and object stores may have none.

A driver that slept through LEASE_SECONDS (it was suspended, or cut off from storage) learns of its
successor when it reads the lease again. So it reads the lease before every single change, and so do
its workers on any machine. The `storage` of the lease does that: directly before a file gets its
name, is sent or is removed, it reads the lease, and refuses if the lease has another id or epoch.
The epoch grows by one with each holder. It stays in the file when the lease is given back.

A driver may be stopped again, for any time, between this check and the change:

- On a file system, the change gives a name to a temporary file, which was written before the check.
  The successor takes the lease, then removes all temporary files, and reads nothing else before
  that. So the change fails.
- On S3, the change has a condition (`storage_conditions`): the object is the same as before the
  check, or it is still missing.
- A removal loses nothing that cannot be made again. It is of parts of published shards, and of
  segments: a video that misses a segment is extracted uncut. The record of a part is emptied, not
  removed. A sidecar that `--redo-changed` removes is rebuilt from its tar.
- Two cases remain: stores that cannot compare, and files on S3 that the successor did not change.
  Shards and parts then have the same bytes. `progress.json` carries its epoch, and an old one is
  ignored. Parts of published shards are ignored. The sidecars overrule `failures.jsonl`.

These are all writers of a data set, and what protects each file:

    dataset.json, manifest.jsonl        driver, import      lease
    failures.jsonl                      driver, import      lease, and the sidecars overrule it
    shards/N.tar, shards/N.json         workers, import     lease, and the plan gives the same bytes
    shards/N.json, rebuilt              extract, verify     lease
    .parts/*                            driver, workers     lease
    logs/progress.json                  driver              lease, and its epoch
    logs/run-*.log                      driver              nothing: each run has its own file
    .parts/N/I.stall                    workers             nothing: each worker has its own file
    labels/NAME.jsonl                   label               created or replaced whole, without lease
    .lease.json                         any that takes it   compared with what was read
    .lock                               driver, import      the lock itself
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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from flowprep.dataset.layout import LEASE_FILE, LOCK_FILE
from flowprep.dataset.parts import remove_temporary_files
from flowprep.errors import StorageError
from flowprep.locks import locked_file
from flowprep.storage import Storage

__all__ = ["LEASE_SECONDS", "Holder", "Lease", "held_lease", "locked_dataset", "run_epoch"]

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
_JOIN_SECONDS = 10.0

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
    epoch: int = 0
    """Number of this holder. It grows by one with each holder; earlier versions did not count."""
    run_epoch: int = 0
    """Epoch of the last holder that keeps `logs/progress.json`."""
    released: bool = False
    """Whether the holder has given the lease back."""

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
        started = _started(self.pid)
        if started is not None:
            return started == self.pid_started
        # With `hidepid`, `/proc` does not show the processes of other users.
        return None if _is_there(self.pid) else False


@dataclass(frozen=True)
class _Guard:
    """The check that the driver and its workers make before each change. It pickles to workers."""

    storage: Storage
    id: str
    epoch: int

    def __call__(self) -> None:
        """Raises StorageError if another driver has the lease."""
        data = self.storage.read_if_there(LEASE_FILE)
        if not self.holds(data):
            raise _lost(self.storage, data)

    def holds(self, data: bytes | None) -> bool:
        """Whether the lease that was read is the guarded one."""
        holder = Holder.from_json(data) if data is not None else None
        return (
            holder is not None
            and (holder.id, holder.epoch) == (self.id, self.epoch)
            and not holder.released
        )


class Lease:
    """A lease that this process holds. `held_lease` makes it."""

    def __init__(self, storage: Storage, holder: Holder) -> None:
        self._guard = _Guard(storage, holder.id, holder.epoch)
        self.storage = Storage(storage.location, self._guard)
        """The data set. It refuses to write as soon as another driver has the lease. It pickles."""
        self.epoch = holder.epoch
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
        """Ends the renewals. Gives the lease back if it still belongs to this driver."""
        self._ended.set()
        # The thread may hang with the storage.
        self._thread.join(timeout=_JOIN_SECONDS)
        # A lease that is not given back is stale after a while, and at once for this machine.
        with suppress(StorageError):
            self._write(released=True)
        _held.discard(self._holder.id)

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
        if self._write():
            self._renewed_at = _now()
            return
        storage = self._guard.storage
        self._lost = _lost(storage, storage.read_if_there(LEASE_FILE), silence)
        log.error("%s", self._lost)

    def _write(self, *, released: bool = False) -> bool:
        """Writes the file again if it still belongs to this driver. Returns whether it does."""
        storage = self._guard.storage
        while self._guard.holds(found := storage.read_if_there(LEASE_FILE)):
            assert found is not None
            self._holder = msgspec.structs.replace(
                self._holder, renewed=self._holder.renewed + 1, released=released
            )
            if storage.replace(LEASE_FILE, self._holder.to_json(), found):
                return True
        return False


@contextmanager
def held_lease(storage: Storage, *, keeps_progress: bool = False) -> Iterator[Lease]:
    """Holds the lease on a data set during the block. A thread renews it.

    With `keeps_progress`, the `progress.json` of earlier holders is out of date from now on. Raises
    StorageError if another driver has the lease, with the name of that driver and how long it was
    watched.
    """
    lease = Lease(storage, _take(storage, keeps_progress))
    try:
        # After this, no file gets its name that an earlier holder began to write.
        remove_temporary_files(lease.storage)
        yield lease
    finally:
        lease.release()


def run_epoch(storage: Storage) -> int:
    """Returns the epoch of the last run that keeps `progress.json`, or 0 if nobody counted."""
    data = storage.read_if_there(LEASE_FILE)
    holder = Holder.from_json(data) if data is not None else None
    return holder.run_epoch if holder is not None else 0


@contextmanager
def locked_dataset(storage: Storage, *, keeps_progress: bool = False) -> Iterator[Lease]:
    """Holds a data set's lease, and the lock of its folder on this machine, during the block.

    A second run gets a StorageError that names the first run. See `held_lease`.
    """
    with ExitStack() as stack:
        if storage.is_local:
            taken = f"another run is writing to {storage.location}"
            path = storage.path(LOCK_FILE)
            stack.enter_context(locked_file(path, taken, "wait for it or end it"))
        yield stack.enter_context(held_lease(storage, keeps_progress=keeps_progress))


def _take(storage: Storage, keeps_progress: bool) -> Holder:
    holder = Holder.this_process()
    # The id is added before anybody can read the file. Otherwise another thread of this process
    # would take the holder for dead.
    _held.add(holder.id)
    try:
        return _taken_over(storage, holder, keeps_progress)
    except BaseException:
        _held.discard(holder.id)
        raise


def _taken_over(storage: Storage, holder: Holder, keeps_progress: bool) -> Holder:
    while True:
        found = storage.read_if_there(LEASE_FILE)
        before = Holder.from_json(found) if found is not None else None
        is_free = found is None or (before is not None and before.released)
        is_dead = False
        if found is not None and not is_free:
            state = _watched(storage, found)
            if state == "changed hands":
                continue
            is_dead = state == "dead"
        epoch = _epoch_of(found) + 1
        last_run = before.run_epoch if before is not None else 0
        mine = msgspec.structs.replace(
            holder, epoch=epoch, run_epoch=epoch if keeps_progress else last_run
        )
        if found is None:
            took = storage.create(LEASE_FILE, mine.to_json())
        else:
            took = storage.replace(LEASE_FILE, mine.to_json(), found)
        if took and not (is_free or storage.compares or (is_dead and storage.is_local)):
            # The file system's lock keeps the drivers of this machine apart.
            time.sleep(SETTLE_SECONDS)
        winner = storage.read_if_there(LEASE_FILE)
        if winner == mine.to_json():
            return mine
        other = Holder.from_json(winner) if winner is not None else None
        if winner is not None and winner != found and not (other is not None and other.released):
            raise _taken(storage, other, "it began at the same moment")


def _watched(storage: Storage, found: bytes) -> Literal["dead", "silent", "changed hands"]:
    """Watches another driver's lease until it is stale, unless the driver is surely dead.

    Raises StorageError if the driver is alive.
    """
    holder = Holder.from_json(found)
    alive = holder.is_alive() if holder is not None else None
    if alive:
        raise _taken(storage, holder, "its process is alive")
    if alive is False:
        log.info("took over from %s, which ended without a word", holder)
        return "dead"
    log.warning(
        "%s is leased to %s; watching for up to %g s whether it is alive",
        *(storage.location, holder or "an unknown run", LEASE_SECONDS),
    )
    began = _now()
    while (spent := _now() - began) < LEASE_SECONDS:
        time.sleep(POLL_SECONDS)
        now = storage.read_if_there(LEASE_FILE)
        other = Holder.from_json(now) if now is not None else None
        if now is None or (other is not None and other.released):
            return "changed hands"
        if now != found:
            seconds = _now() - began
            why = f"it renewed its lease within the {seconds:.0f} s that it was watched"
            raise _taken(storage, other, why)
    log.warning("took over from %s, which gave no sign of life for %.0f s", holder, spent)
    return "silent"


def _taken(storage: Storage, holder: Holder | None, why: str) -> StorageError:
    return StorageError(
        f"another run is writing to {storage.location} ({holder or 'of another version'}; {why}); "
        "wait for it or end it"
    )


def _epoch_of(data: bytes | None) -> int:
    """Returns the epoch in a lease file, also of a later version, or 0 if there is none."""
    try:
        epoch = json.loads(data or b"{}").get("epoch", 0)
    except (ValueError, RecursionError, AttributeError):
        return 0
    return epoch if type(epoch) is int else 0


def _lost(storage: Storage, data: bytes | None, silence: float | None = None) -> StorageError:
    # If the file is gone, a run of an earlier version took over and has finished, or somebody
    # removed it.
    other = (Holder.from_json(data) if data is not None else None) or "its lease is gone"
    after = f" for {silence:.0f} s" if silence is not None else ""
    return StorageError(
        f"another run took over {storage.location} ({other}) after this one had not renewed its "
        f"lease{after}: it was suspended, or cut off from the storage; this run writes nothing "
        "any more: let the other one finish, then run this command again"
    )


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
    """Returns the start of a process in ticks since boot, or None if `/proc` does not show it.

    Returns an empty text for a process that has ended and is still listed.
    """
    try:
        # "PID (NAME) STATE PPID ..."; NAME may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in ("Z", "X") else fields[19]


def _is_there(pid: int) -> bool:
    """Whether there is a process with this number, even if `/proc` does not show it."""
    if pid <= 0:  # names a group of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # This process may not send signals to it, so it is there.
        return True
    return True
