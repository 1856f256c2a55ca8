"""The lease: one driver at a time, on any storage, among machines whose clocks differ."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from flowprep import storage as storage_module
from flowprep.dataset import lease as lease_module
from flowprep.dataset.layout import LEASE_FILE
from flowprep.dataset.lease import Holder, held_lease, run_epoch
from flowprep.errors import StorageError
from flowprep.storage import Storage
from tests import object_store
from tests.object_store import FaultyProxy
from tests.run.faults import wait_until

SHORT = {"RENEW_SECONDS": 0.1, "LEASE_SECONDS": 1.0, "POLL_SECONDS": 0.05, "SETTLE_SECONDS": 0.2}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHORT.items():
        monkeypatch.setattr(lease_module, name, value)


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> Storage:
    if request.param == "s3":
        return Storage(f"s3://{request.getfixturevalue('bucket')}/out")
    return Storage(tmp_path / "out" if request.param == "local" else memory)


def stored(storage: Storage) -> Holder:
    holder = Holder.from_json(storage.read_bytes(LEASE_FILE))
    assert holder is not None
    return holder


def elsewhere(**values: object) -> Holder:
    """A driver on another machine, whose clock is 73 years ahead."""
    holder = msgspec.structs.replace(
        Holder.this_process(),
        host="node-7",
        machine="another boot",
        pid=1,
        started="2099-01-01T00:00:00Z",
    )
    return msgspec.structs.replace(holder, **values)  # type: ignore[arg-type]


@contextlib.contextmanager
def renewing(storage: Storage, holder: Holder) -> Iterator[None]:
    """Another machine's driver at work."""
    ended = threading.Event()

    def renew() -> None:
        number = 0
        while not ended.wait(SHORT["RENEW_SECONDS"]):
            number += 1
            renewed = msgspec.structs.replace(holder, renewed=number)
            storage.write_bytes(LEASE_FILE, renewed.to_json())

    storage.write_bytes(LEASE_FILE, holder.to_json())
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_lease_is_there_as_long_as_it_is_held_and_is_renewed(storage: Storage) -> None:
    with held_lease(storage) as lease:
        first = stored(storage)
        assert (first.pid, first.host) == (os.getpid(), os.uname().nodename)
        wait_until(lambda: stored(storage).renewed >= first.renewed + 2)
        assert stored(storage).id == first.id
        lease.check()
        lease.confirm()
        assert not stored(storage).released
    assert stored(storage).released
    with held_lease(storage):
        assert stored(storage).id != first.id
        assert stored(storage).epoch == first.epoch + 1 == 2


def test_a_second_driver_of_this_machine_is_refused_at_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1e6)  # watching would take for ever
    with held_lease(storage) as lease:
        expected = re.escape(
            f"another run is writing to {storage.location} (process {os.getpid()} on "
            f"{os.uname().nodename}, since "
        )
        with pytest.raises(StorageError, match=f"^{expected}.*; its process is alive"):
            held_lease(storage).__enter__()
        lease.confirm()


def test_a_second_driver_is_refused_by_one_that_renews_elsewhere(storage: Storage) -> None:
    with (
        renewing(storage, elsewhere()),
        pytest.raises(
            StorageError,
            match=r"\(process 1 on node-7, since 2099-01-01T00:00:00Z; it renewed its lease within "
            r"the [0-9]+ s that it was watched\); wait for it or end it$",
        ),
    ):
        held_lease(storage).__enter__()
    assert stored(storage).host == "node-7"


def test_what_another_machine_left_is_taken_after_watching_it(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.write_bytes(LEASE_FILE, elsewhere().to_json())
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), held_lease(storage):
        assert time.monotonic() - began >= SHORT["LEASE_SECONDS"]
        assert stored(storage).pid == os.getpid()
    assert "watching for up to 1 s whether it is alive" in caplog.text
    assert "took over from process 1 on node-7, since 2099" in caplog.text


def test_a_lease_that_is_given_back_while_it_is_watched_is_taken(storage: Storage) -> None:
    storage.write_bytes(LEASE_FILE, elsewhere().to_json())
    threading.Timer(0.3, lambda: storage.remove(LEASE_FILE)).start()
    with held_lease(storage):
        assert stored(storage).pid == os.getpid()


@pytest.mark.parametrize("content", [b"", b'{"holder": "of the future"}'])
def test_a_lease_that_cannot_be_read_is_watched_and_taken(tmp_path: Path, content: bytes) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes(LEASE_FILE, content)
    with held_lease(storage):
        assert stored(storage).pid == os.getpid()


KILLED = """
import os, signal, sys
from flowprep.dataset.lease import held_lease
from flowprep.storage import Storage
with held_lease(Storage(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_after_kill_9_the_same_machine_goes_on_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = str(tmp_path / "out")
    if kind == "s3":
        location = f"s3://{request.getfixturevalue('bucket')}/out"
    done = subprocess.run([sys.executable, "-c", KILLED, location], check=False)
    assert done.returncode == -signal.SIGKILL
    storage = Storage(location)
    assert stored(storage).pid != os.getpid()
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1e6)
    with held_lease(storage):
        assert stored(storage).pid == os.getpid()


@pytest.mark.parametrize(
    "values",
    [
        # Numbers of processes are used again: this one is alive, and is not the holder.
        {"pid": os.getppid(), "pid_started": "1"},
        # A run of this very process whose end could not be written.
        {"pid": os.getpid()},
    ],
)
def test_a_process_with_the_number_of_the_holder_is_not_the_holder(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1e6)
    storage = Storage(tmp_path)
    left = msgspec.structs.replace(Holder.this_process(), **values)  # type: ignore[arg-type]
    storage.write_bytes(LEASE_FILE, left.to_json())
    with held_lease(storage):
        assert stored(storage).id != left.id


def test_a_zombie_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 1e6)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    started = lease_module._started(child.pid)
    assert started is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    storage = Storage(tmp_path)
    left = msgspec.structs.replace(Holder.this_process(), pid=child.pid, pid_started=started)
    storage.write_bytes(LEASE_FILE, left.to_json())
    with held_lease(storage):
        assert stored(storage).id != left.id
    child.communicate()


def test_the_boot_and_the_container_tell_machines_apart() -> None:
    assert re.fullmatch(r"[0-9a-f-]{36} pid:\[\d+\]", Holder.this_process().machine)
    assert elsewhere().is_alive() is None
    assert msgspec.structs.replace(Holder.this_process(), machine="").is_alive() is None


def test_a_driver_that_was_taken_over_stops_and_leaves_the_other_ones_lease(
    storage: Storage,
) -> None:
    successor = elsewhere()
    with held_lease(storage) as lease:

        def is_lost() -> bool:
            # Again and again: a renewal that was under way may have come after the first.
            storage.write_bytes(LEASE_FILE, successor.to_json())
            try:
                lease.check()
            except StorageError as error:
                return str(error).startswith(f"another run took over {storage.location} (process 1")
            return False

        wait_until(is_lost)  # by the thread, at its next renewal
        with pytest.raises(StorageError, match="another run took"):
            lease.confirm()
    assert stored(storage) == successor


def test_a_lease_that_is_gone_was_taken_over(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with held_lease(storage) as lease:
        storage.remove(LEASE_FILE)
        with pytest.raises(StorageError, match=r"another run took over .* \(its lease is gone\)"):
            lease.confirm()
        with pytest.raises(StorageError, match=r"another run took over .* \(its lease is gone\)"):
            lease.storage.write_bytes("a", b"")
    assert storage.list_names() == []


def test_nothing_is_written_for_a_lease_that_was_taken_over(storage: Storage) -> None:
    """By the driver or by its workers, to whom its storage goes with their jobs."""
    with held_lease(storage) as lease:
        worker = pickle.loads(pickle.dumps(lease.storage))
        for own in (lease.storage, worker):
            own.write_bytes("a/b", b"mine")
            own.write_bytes("a/b", b"mine, again")
            with own.atomic_file("a/c") as file:
                file.write(b"mine")
            own.remove("a/c")
        storage.write_bytes(LEASE_FILE, elsewhere(epoch=2).to_json())
        for own in (lease.storage, worker):
            with pytest.raises(StorageError, match="another run took over"):
                own.write_bytes("a/b", b"too late")
            with (
                pytest.raises(
                    StorageError, match=r"another run took over .* \(process 1 on node-7"
                ),
                own.atomic_file("new/c") as file,
            ):
                file.write(b"too late")
            with pytest.raises(StorageError, match="another run took over"):
                own.remove("a")
            with pytest.raises(StorageError, match="another run took over"):
                own.confirm()
    assert storage.list_names("a") == ["b"]
    assert storage.read_bytes("a/b") == b"mine, again"
    assert storage.list_names() == [LEASE_FILE, "a"]
    assert stored(storage) == elsewhere(epoch=2, id=stored(storage).id)


def test_the_epoch_grows_with_each_holder(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with held_lease(storage, keeps_progress=True):
        assert (stored(storage).epoch, run_epoch(storage)) == (1, 1)
    with held_lease(storage):
        assert (stored(storage).epoch, run_epoch(storage)) == (2, 1)
    left = stored(storage).to_json()
    for content, epoch in (
        # Taken from one that is gone, of a version to come, and of one that did not count.
        (left.replace(b'"released": true', b'"released": false'), 3),
        (b'{"epoch": 7, "holder": "of the future"}', 8),
        (re.sub(rb',\s+"epoch".*true', b"", left, flags=re.DOTALL), 1),
    ):
        storage.write_bytes(LEASE_FILE, content)
        with held_lease(storage):
            assert stored(storage).epoch == epoch


def test_what_was_begun_for_another_lease_never_gets_its_name(tmp_path: Path) -> None:
    """All temporary files go when a lease is taken, wherever they are."""
    storage = Storage(tmp_path / "out")
    names = ("a.tmp-0123456789ab", "shards/b.tmp-1", ".parts/000003/c.tmp-2", "logs/d.tmp-3")
    for name in (*names, ".parts/000003/00000000.json", "shards/e.tar"):
        storage.write_bytes(name, b"x")
    with held_lease(storage):
        found = {str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("out/**/*.*")}
    assert found == {LEASE_FILE, ".parts", ".parts/000003/00000000.json", "shards/e.tar"}


HOLDING = """
import json, os, sys
from flowprep.dataset import lease
from flowprep.storage import Storage
storage = Storage(sys.argv[1])  # before, for the other user may not read this Python
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
for name, value in json.loads(sys.argv[2]).items():
    setattr(lease, name, value)
try:
    with lease.held_lease(storage):
        print("held", flush=True)
        sys.stdin.read()
except lease.StorageError as error:
    print(error, flush=True)
"""


def test_the_living_driver_of_another_user_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Where `/proc` hides it: mounted with hidepid=2, as on machines that many share."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount /proc anew and become two other users")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        hold = [sys.executable, "-c", HOLDING, folder, json.dumps(SHORT)]
        mounted = f"mount -t proc -o hidepid=2 proc /proc && exec {shlex.join([*hold, '4002'])}"
        try:
            tried = ["unshare", "--mount", "sh", "-c", "mount -t proc -o hidepid=2 proc /proc"]
            ran = subprocess.run(tried, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no unshare")
        if ran.returncode != 0:
            pytest.skip(f"no mounts of one's own here: {ran.stderr}")
        with subprocess.Popen([*hold, "4001"], stdin=-1, stdout=-1, text=True) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            second = subprocess.run(
                ["unshare", "--mount", "sh", "-c", mounted],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            holder.stdin.close()
        assert second.stdout.startswith(f"another run is writing to {folder} (process"), second
        assert "; it renewed its lease within the" in second.stdout


SUSPENDED = """
import json, os, sys, time
from flowprep.dataset import lease
from flowprep.storage import Storage
from flowprep.errors import StorageError
for name, value in json.loads(sys.argv[2]).items():
    setattr(lease, name, value)
lease._machine = lambda: "another machine"
with lease.held_lease(Storage(sys.argv[1])) as held:
    print("held", flush=True)
    try:
        while True:
            held.check()
            time.sleep(0.01)
    except StorageError as error:
        print(error, flush=True)
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_suspended_driver_wakes_up_and_gives_way(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    location = str(tmp_path / "out")
    if kind == "s3":
        location = f"s3://{request.getfixturevalue('bucket')}/out"
    command = [sys.executable, "-c", SUSPENDED, location, json.dumps(SHORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "held\n"
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            with held_lease(Storage(location)) as lease:
                os.kill(sleeper.pid, signal.SIGCONT)
                said, _ = sleeper.communicate()
                lease.confirm()
        finally:
            sleeper.kill()
    assert said.startswith(f"another run took over {location} (process {os.getpid()} on ")


def test_of_drivers_that_begin_together_one_holds(storage: Storage) -> None:
    if storage.location.startswith("memory:"):
        pytest.skip("a process's own memory has no others")
    barrier = threading.Barrier(4)
    held: list[str] = []
    refused: list[str] = []

    def drive() -> None:
        mine = Storage(storage.location)
        barrier.wait()
        try:
            with held_lease(mine):
                held.append(stored(mine).id)
                barrier.wait(30)
        except StorageError as error:
            refused.append(str(error))
            barrier.wait(30)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert len(refused) == 3
    assert all("another run is writing to" in message for message in refused)


def test_a_lease_is_kept_over_faults(
    bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "RETRY_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(storage_module, "RETRY_LONGEST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(storage_module, "_S3_REQUEST_ATTEMPTS", 1)
    with FaultyProxy(s3_endpoint, share=0.1, seed=5) as proxy:
        object_store.use_endpoint(monkeypatch, proxy.endpoint)
        storage = Storage(f"s3://{bucket}/out")
        with held_lease(storage) as lease:
            wait_until(lambda: stored(storage).renewed >= 8)
            lease.confirm()
            # A store that is away for a moment costs no lease.
            proxy.refuses = lambda method, path: (503, "SlowDown")
            wait_until(lambda: proxy.num_refused >= 2 * storage_module.RETRY_ATTEMPTS)
            proxy.refuses = lambda method, path: None
            lease.confirm()
        assert stored(storage).released


def test_a_driver_counts_as_alive_before_its_lease_can_be_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    create = storage.create

    def create_and_look(name: str, data: bytes) -> bool:
        created = create(name, data)
        # Another thread of this process may look at this very moment.
        seen.append(stored(storage).is_alive())
        return created

    monkeypatch.setattr(storage, "create", create_and_look)
    with held_lease(storage):
        pass
    assert seen == [True]
