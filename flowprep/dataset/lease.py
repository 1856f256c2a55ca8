"""The lease on a data set: which driver may write, on any storage, among machines without a clock.

The driver that writes keeps a small file (`LEASE_FILE`) and changes it every few seconds. Another
one that finds it

- takes over at once where the holder is provably dead: a process of this machine that is gone;
- is refused where the holder is alive: its process is there, or the file changes while it watches;
- takes over where the file has not changed for LEASE_SECONDS by its own clock.

No time stamp of one machine is ever compared with one of another. Locks of the file system, where
there are any (`locked_file`), say the same sooner; NFS, Lustre and object stores may have none.

A driver that slept through LEASE_SECONDS (suspended, or cut off from storage) learns of its
successor when it asks. So it asks before every single change, and so do its workers, wherever they
are: the holder's `storage` reads the lease directly before a file gets its name, is sent or is
removed, and refuses where the lease has another id or epoch. The epoch grows by one with each
holder, and stays in the file when the lease is given back.

Between that question and the change it may be stopped once more, for as long as one likes. Then

- on a file system its change is to give a name to a temporary file, written before it asked. Its
  successor removes all temporary files, after it took the lease and before it reads anything else:
  the change comes to nothing;
- on S3 the change is made on the condition that the object is what it was before the question, or
  not there (`storage_conditions`);
- what it may remove is of no use to anybody: parts of published shards, and segments, whose video
  is extracted uncut where one is missing. The record of a part is emptied, not removed;
- what is left are stores that compare nothing, and files of S3 whose bytes the successor left
  alone. Shards and parts have the same bytes then, `progress.json` carries its epoch and is ignored
  where that is old, and a line of `failures.jsonl` that a shard contradicts is dropped.

What writes into a data set, and what protects it:

    dataset.json, manifest.jsonl        driver, import      lease
    failures.jsonl                      driver, import      lease; what the sidecars say
    shards/N.tar, shards/N.json         workers, import     lease; the bytes follow from the plan
    shards/N.json, rebuilt              extract, verify     lease
    .parts/*, removing them             driver, workers     lease
    logs/progress.json                  driver              lease; its epoch
    logs/run-*.log                      driver              nothing: each run has its own
    .parts/N/I.stall                    workers             nothing: each lease has its own
    labels/NAME.jsonl                   label               created or replaced whole; no lease
    .lease.json                         whoever takes it    compared with what was read
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
"""Between two writes of the file: what a second driver waits, at most, to know that it is alive."""
LEASE_SECONDS = 60.0
"""Unchanged for so long, the holder counts as gone: six renewals, and longer than a store that
throttles makes a request wait."""
POLL_SECONDS = 1.0
"""Between two looks at another driver's lease."""
SETTLE_SECONDS = 1.0
"""After a lease was taken from another driver, before it is read back: of two that do so at the
same time the last one to write has it."""
_JOIN_SECONDS = 10.0

# The leases of this process, by id: what bears its number and is not here was left by a run whose
# end could not be written.
_held: set[str] = set()


class Holder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the lease file."""

    id: str
    """By chance, one for each run."""
    host: str
    machine: str
    """This boot of this machine, and the container: processes are numbered anew in each."""
    pid: int
    pid_started: str
    """When the process was started, in the kernel's ticks: numbers are used again."""
    started: str
    """When the run began, by its own clock; to be read by people."""
    renewed: int = 0
    """How often the lease was renewed; changes with every write."""
    epoch: int = 0
    """Grows by one with each holder; 0 of a version that did not count."""
    run_epoch: int = 0
    """The last epoch whose holder keeps `logs/progress.json`."""
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
        """Reads the file's content; None where it is none, as of a version to come."""
        try:
            return msgspec.convert(json.loads(data), cls)
        except (ValueError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"

    def is_alive(self) -> bool | None:
        """Whether the process is there; None where this machine cannot know."""
        if not self.machine or self.machine != _machine():
            return None
        if self.pid == os.getpid():
            return self.id in _held
        started = _started(self.pid)
        if started is not None:
            return started == self.pid_started
        # Under `hidepid` others' processes are not to be seen, which is not to be gone.
        return None if _is_there(self.pid) else False


@dataclass(frozen=True)
class _Guard:
    """What the driver and its workers ask before each change; pickles to them."""

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
    """A lease that is held; made by `held_lease`."""

    def __init__(self, storage: Storage, holder: Holder) -> None:
        self._guard = _Guard(storage, holder.id, holder.epoch)
        self.storage = Storage(storage.location, self._guard)
        """The data set; writes nothing any more once another driver has it. Pickles to workers."""
        self.epoch = holder.epoch
        self._holder = holder
        self._renewed_at = _now()
        self._lost: StorageError | None = None
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="flowprep-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StorageError if another driver has the lease; asks only after a long silence."""
        if self._lost is None and _now() - self._renewed_at > LEASE_SECONDS / 2:
            self.confirm()
        if self._lost is not None:
            raise self._lost

    def confirm(self) -> None:
        """Renews the lease now; raises StorageError if another driver has it."""
        with self._mutex:
            self._renew()
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Ends the renewals, and gives the lease back if it is still this driver's."""
        self._ended.set()
        # No longer where the storage hangs.
        self._thread.join(timeout=_JOIN_SECONDS)
        # What is left is stale after a while, and at once for this machine.
        with suppress(StorageError):
            self._write(released=True)
        _held.discard(self._holder.id)

    def _keep(self) -> None:
        while self._lost is None and not self._ended.wait(RENEW_SECONDS):
            try:
                with self._mutex:
                    self._renew()
            except StorageError as error:
                # Whoever would take over needs the same storage; `check` asks again.
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
        """Writes the file anew if it is still this driver's; returns whether it is."""
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
    """Holds the lease on a data set, renewed in a thread, for the block.

    With `keeps_progress` the `progress.json` of earlier holders is out of date from now on. Raises
    StorageError where another driver has it, with its name and how long it was watched.
    """
    lease = Lease(storage, _take(storage, keeps_progress))
    try:
        # Nothing that an earlier holder began to write gets its name after this.
        remove_temporary_files(lease.storage)
        yield lease
    finally:
        lease.release()


def run_epoch(storage: Storage) -> int:
    """Returns the epoch of the last run that keeps `progress.json`; 0 where nobody counted."""
    data = storage.read_if_there(LEASE_FILE)
    holder = Holder.from_json(data) if data is not None else None
    return holder.run_epoch if holder is not None else 0


@contextmanager
def locked_dataset(storage: Storage, *, keeps_progress: bool = False) -> Iterator[Lease]:
    """Holds a data set's lease, and its folder's lock on this machine, for the block.

    Of two runs the second gets StorageError, which names the first. See `held_lease`.
    """
    with ExitStack() as stack:
        if storage.is_local:
            taken = f"another run is writing to {storage.location}"
            path = storage.path(LOCK_FILE)
            stack.enter_context(locked_file(path, taken, "wait for it or end it"))
        yield stack.enter_context(held_lease(storage, keeps_progress=keeps_progress))


def _take(storage: Storage, keeps_progress: bool) -> Holder:
    holder = Holder.this_process()
    # Before anybody can read the file: whoever did not find the number here would call it dead.
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
            # Those of this machine are kept apart by the lock of the file system.
            time.sleep(SETTLE_SECONDS)
        winner = storage.read_if_there(LEASE_FILE)
        if winner == mine.to_json():
            return mine
        other = Holder.from_json(winner) if winner is not None else None
        if winner is not None and winner != found and not (other is not None and other.released):
            raise _taken(storage, other, "it began at the same moment")


def _watched(storage: Storage, found: bytes) -> Literal["dead", "silent", "changed hands"]:
    """Watches another driver's lease until it is stale, unless it is known to be dead.

    Raises StorageError where the driver is alive.
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
    """Returns the epoch in a lease file, of a version to come as well; 0 where there is none."""
    try:
        epoch = json.loads(data or b"{}").get("epoch", 0)
    except (ValueError, RecursionError, AttributeError):
        return 0
    return epoch if type(epoch) is int else 0


def _lost(storage: Storage, data: bytes | None, silence: float | None = None) -> StorageError:
    # Without the file: a run of an earlier version took over and has finished, or somebody removed
    # it.
    other = (Holder.from_json(data) if data is not None else None) or "its lease is gone"
    after = f" for {silence:.0f} s" if silence is not None else ""
    return StorageError(
        f"another run took over {storage.location} ({other}) after this one had not renewed its "
        f"lease{after}: it was suspended, or cut off from the storage; this run writes nothing "
        "any more: let the other one finish, then run this command again"
    )


def _now() -> float:
    # Goes on while the machine sleeps, as the clock of whoever watches does.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """Returns what no other machine, boot or container has; empty where it cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Returns when a process was started, in ticks since boot; None where nothing is to be seen.

    Of one that has ended and is still listed it is empty.
    """
    try:
        # "PID (NAME) STATE PPID ..."; NAME may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in ("Z", "X") else fields[19]


def _is_there(pid: int) -> bool:
    """Whether a process has this number, seen or not."""
    if pid <= 0:  # no process, but a group of them
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # It may not be asked, so it is there.
        return True
    return True
