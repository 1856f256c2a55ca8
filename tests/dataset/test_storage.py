"""Storage: whole files or none, errors that say why, the same names on disk and on a store."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from flowprep.dataset.storage import TEMPORARY_MARK, Storage, translated_errors
from flowprep.errors import StorageError


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> Storage:
    location = str(tmp_path / "out") if request.param == "local" else memory
    storage = Storage(location)
    storage.make_folder()
    return storage


class DeliberateError(Exception):
    pass


def break_off(storage: Storage, name: str, error: BaseException | type[BaseException]) -> None:
    with storage.atomic_file(name) as file:
        file.write(b"half")
        raise error


# ---- both


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write_bytes("shards/000001.tar", b"0123456789")
    assert storage.read_bytes("shards/000001.tar") == b"0123456789"
    assert storage.size("shards/000001.tar") == 10
    assert storage.exists("shards/000001.tar")
    with storage.open_read("shards/000001.tar") as file:
        assert file.read(4) == b"0123"
        assert file.read() == b"456789"


def test_writing_again_replaces(storage: Storage) -> None:
    storage.write_bytes("a", b"a long first content")
    storage.write_bytes("a", b"second")
    assert storage.read_bytes("a") == b"second"
    assert storage.list_names() == ["a"]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 3, b"012"), (4, 2, b"45"), (7, 3, b"789"), (8, 9, b"89"), (3, 0, b"")],
)
def test_a_range_is_read(storage: Storage, offset: int, length: int, expected: bytes) -> None:
    storage.write_bytes("a", b"0123456789")
    assert storage.read_range("a", offset, length) == expected


def test_an_atomic_file_appears_whole(storage: Storage) -> None:
    with storage.atomic_file("shards/000000.tar") as file:
        file.write(b"first ")
        file.write(b"second")
    assert storage.read_bytes("shards/000000.tar") == b"first second"
    assert storage.list_names("shards") == ["000000.tar"]


@pytest.mark.parametrize("error", [DeliberateError, KeyboardInterrupt, SystemExit])
def test_an_error_inside_an_atomic_file_leaves_nothing(
    storage: Storage, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        break_off(storage, "shards/000000.tar", error)
    assert not storage.exists("shards/000000.tar")
    assert storage.list_names("shards") == []
    # And the next one works.
    with storage.atomic_file("shards/000000.tar") as file:
        file.write(b"whole")
    assert storage.read_bytes("shards/000000.tar") == b"whole"


def test_an_error_inside_an_atomic_file_keeps_the_old_one(storage: Storage) -> None:
    storage.write_bytes("a", b"old")
    with pytest.raises(DeliberateError):
        break_off(storage, "a", DeliberateError)
    assert storage.read_bytes("a") == b"old"
    assert storage.list_names() == ["a"]


def test_a_folder_is_listed_by_name_in_order(storage: Storage) -> None:
    for name in ("shards/b.tar", "shards/a.json", "shards/sub/c", "top"):
        storage.write_bytes(name, b"x")
    assert storage.list_names("shards") == ["a.json", "b.tar", "sub"]
    assert storage.list_names() == ["shards", "top"]
    assert storage.list_names("nowhere") == []


def test_files_and_folders_are_removed(storage: Storage) -> None:
    for name in (".parts/000000/a", ".parts/000000/b", ".parts/000001/a", "kept"):
        storage.write_bytes(name, b"x")
    storage.remove(".parts/000000/a")
    assert storage.list_names(".parts/000000") == ["b"]
    storage.remove(".parts")
    assert storage.list_names() == ["kept"]
    assert not storage.exists(".parts/000001/a")
    storage.remove(".parts")
    storage.remove("never/was")


def test_a_storage_travels_to_another_process(storage: Storage) -> None:
    storage.write_bytes("a", b"content")
    again = pickle.loads(pickle.dumps(storage))
    assert again.location == storage.location
    assert again.is_local == storage.is_local
    assert again.read_bytes("a") == b"content"


def test_a_missing_file_is_a_storage_error(storage: Storage) -> None:
    for read in (
        lambda: storage.read_bytes("absent"),
        lambda: storage.read_range("absent", 0, 1),
        lambda: storage.open_read("absent"),
        lambda: storage.size("absent"),
    ):
        with pytest.raises(StorageError, match=r"^cannot read .*absent"):
            read()
    assert not storage.exists("absent")


# ---- local


def test_an_unfinished_file_carries_the_mark(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.atomic_file("a") as file:
        file.write(b"x")
        (name,) = storage.list_names()
        assert name.startswith(f"a{TEMPORARY_MARK}")
    assert storage.list_names() == ["a"]


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.atomic_file("a") as first:
        first.write(b"first")
        with storage.atomic_file("a") as second:
            second.write(b"second")
        assert storage.read_bytes("a") == b"second"
    assert storage.read_bytes("a") == b"first"
    assert storage.list_names() == ["a"]


def test_a_killed_writer_leaves_only_a_marked_file(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from flowprep.dataset.storage import Storage
with Storage(sys.argv[1]).atomic_file("a") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    (name,) = Storage(tmp_path).list_names()
    assert TEMPORARY_MARK in name


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_paths_and_file_urls_are_local(tmp_path: Path, prefix: str) -> None:
    storage = Storage(f"{prefix}{tmp_path}/out/")
    storage.write_bytes("a", b"x")
    assert storage.is_local
    assert storage.local_root == tmp_path / "out"
    assert (tmp_path / "out" / "a").read_bytes() == b"x"


def test_a_folder_in_the_place_of_a_file_is_a_storage_error(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match=r"^cannot write .*/a.*: Is a directory$"):
        storage.write_bytes("a", b"x")
    assert storage.list_names() == ["a"]


def test_a_file_in_the_place_of_the_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    storage = Storage(tmp_path / "out")
    with pytest.raises(StorageError, match=r"^cannot create .*/out: File exists$"):
        storage.make_folder()
    with pytest.raises(StorageError, match=r"^cannot write .*/out.*"):
        storage.write_bytes("shards/000000.tar", b"x")


def test_a_full_disk_is_named() -> None:
    # The kernel's own full disk: every write to it fails with ENOSPC.
    with (
        pytest.raises(StorageError) as caught,
        translated_errors("write", "shards/000000.tar"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert str(caught.value) == (
        "cannot write shards/000000.tar: the disk is full; free space and run the same command "
        "again"
    )
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with pytest.raises(StorageError, match="the disk is full"):
        break_off(storage, "a", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert storage.list_names() == []


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full; free space and run the same command again"),
        (errno.EDQUOT, "the disk is full; free space and run the same command again"),
        (errno.EACCES, "no permission; choose a folder that you may write to"),
        (errno.EPERM, "no permission; choose a folder that you may write to"),
        (errno.EROFS, "no permission; choose a folder that you may write to"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_errors_of_the_system_become_storage_errors(number: int, why: str) -> None:
    with pytest.raises(StorageError) as caught, translated_errors("write", "a"):
        raise OSError(number, os.strerror(number), "/data/out/a")
    assert str(caught.value) == f"cannot write /data/out/a: {why}"


def test_an_error_without_a_number_keeps_its_words() -> None:
    with pytest.raises(StorageError) as caught, translated_errors("read", "a"):
        raise OSError("connection reset by the store")
    assert str(caught.value) == "cannot read a: connection reset by the store"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="no permission; choose a folder that you may write to"):
        Storage(tmp_path).write_bytes("a", b"x")
    assert list(tmp_path.iterdir()) == []


# ---- stores


def test_an_unknown_protocol_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"^cannot open nonsense://x: "):
        Storage("nonsense://x")


def test_a_store_has_no_local_folder(memory: str) -> None:
    storage = Storage(memory)
    assert not storage.is_local
    storage.write_bytes("shards/a", b"x")
    assert fsspec.filesystem("memory").cat_file(f"{storage.path('shards/a')}") == b"x"
