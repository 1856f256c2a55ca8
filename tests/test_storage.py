"""Storage: whole files or none, errors that say why, the same names on disk and on S3."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from flowprep import storage as storage_module
from flowprep.errors import ConfigError, StorageError
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage
from flowprep.storage_errors import may_pass, translated_errors
from tests import object_store
from tests.object_store import FaultyProxy


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> Storage:
    if request.param == "s3":
        location = f"s3://{request.getfixturevalue('bucket')}/data/out"
    else:
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


def test_of_two_that_create_a_file_the_first_one_does(storage: Storage) -> None:
    assert storage.create("shards/a", b"first")
    assert not storage.create("shards/a", b"second")
    assert storage.read_bytes("shards/a") == b"first"
    assert storage.list_names("shards") == ["a"]


def test_entries_say_what_they_are(storage: Storage) -> None:
    for name in ("videos/a.mp4", "videos/walk/b.mp4"):
        storage.write_bytes(name, b"12345")
    entries = {entry.name: entry.is_folder for entry in storage.list_entries("videos")}
    assert entries == {"a.mp4": False, "walk": True}
    info = storage.info("videos/a.mp4")
    assert info is not None
    assert (info.name, info.is_folder, info.size) == ("a.mp4", False, 5)
    assert info.mtime_ns is not None
    folder = storage.info("videos/walk")
    assert folder is not None
    assert folder.is_folder
    assert storage.info("videos/c.mp4") is None


def test_a_file_is_read_in_pieces_and_from_anywhere(storage: Storage) -> None:
    content = bytes(range(256)) * 40_000  # more than one piece of 4 MiB
    with storage.atomic_file("a") as file:
        file.write(content)
    with storage.open_read("a") as file:
        assert file.read(300) == content[:300]
        file.seek(9_000_000)
        assert file.read(700) == content[9_000_000:9_000_700]
        file.seek(-100, os.SEEK_END)
        assert file.read() == content[-100:]
        assert file.read() == b""
        file.seek(0)
        assert file.read() == content


def test_many_threads_share_one_storage(storage: Storage) -> None:
    def work(number: int) -> bytes:
        with storage.atomic_file(f"a/{number}") as file:
            file.write(b"%d " % number)
            # Another one in the middle of it, as a shard is joined while a part is written.
            with storage.atomic_file(f"b/{number}") as inner:
                inner.write(b"inner")
            file.write(b"%d" % number)
        return storage.read_bytes(f"a/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == [b"%d %d" % (n, n) for n in range(40)]
    assert len(storage.list_names("b")) == 40


def test_a_missing_file_is_a_storage_error(storage: Storage) -> None:
    for read in (
        lambda: storage.read_bytes("absent"),
        lambda: storage.read_range("absent", 0, 1),
        lambda: storage.open_read("absent"),
        lambda: storage.size("absent"),
    ):
        with pytest.raises(StorageError, match=r"^cannot read .*absent") as caught:
            read()
        assert caught.value.reason == "missing"
    assert storage.read_if_there("absent") is None
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
from flowprep.storage import Storage
with Storage(sys.argv[1]).atomic_file("a") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
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


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{object_store.KEY}:{object_store.SECRET}@bucket/out",
        f"s3://{object_store.KEY}:{object_store.SECRET}",
        f"https://{object_store.KEY}:{object_store.SECRET}@host:8080/out",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="a URL must not hold credentials, got ") as caught:
        Storage(url)
    assert "tOpSeCrEt" not in repr(caught.value)
    assert "0123456789" not in repr(caught.value)


def test_a_signed_folder_is_refused_and_the_signature_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"must have no query, got https://host/out\?\.\.\.$"):
        Storage("https://host/out?X-Amz-Signature=0a1b2c")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(
        StorageError, match=r"gs:// needs gcsfs, .*; run `pip install 'flowprep\[gcs\]'`"
    ):
        Storage("gs://bucket/out")


# ---- faults


def answered(status: int, code: str) -> OSError:
    """What s3fs makes of an error that S3 answered."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = translate_boto_error(ClientError(response, "GetObject"))
    assert isinstance(error, OSError)
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ESTALE, "stale"), True),
        (OSError(errno.EIO, "i/o"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (OSError(errno.EISDIR, "folder"), False),
        (OSError(errno.EROFS, "read only"), False),
        (TimeoutError(), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (ValueError("a mistake of ours"), False),
    ],
)
def test_what_may_pass_on_a_file_system(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (503, "SlowDown", True),
        (503, "ServiceUnavailable", True),
        (500, "InternalError", True),
        (502, "502", True),
        (429, "TooManyRequests", True),
        (400, "RequestTimeout", True),
        (404, "NoSuchUpload", True),
        (409, "ConditionalRequestConflict", True),
        (404, "NoSuchKey", False),
        (404, "NoSuchBucket", False),
        (403, "AccessDenied", False),
        (403, "InvalidAccessKeyId", False),
        (403, "RequestTimeTooSkewed", False),
        (412, "PreconditionFailed", False),
        (501, "NotImplemented", False),
    ],
)
def test_what_may_pass_on_s3(status: int, code: str, passes: bool) -> None:
    assert may_pass(answered(status, code)) is passes


def test_what_may_pass_of_the_connection() -> None:
    from aiohttp import ClientPayloadError, ServerDisconnectedError
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    assert may_pass(ClientPayloadError("cut"))
    assert may_pass(ServerDisconnectedError())
    assert may_pass(EndpointConnectionError(endpoint_url="http://host"))
    assert not may_pass(NoCredentialsError())
    # fsspec's HTTP says that a file is missing, whatever went wrong.
    error = FileNotFoundError("http://host/a")
    error.__cause__ = ServerDisconnectedError()
    assert may_pass(error)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts that no test need wait for."""
    monkeypatch.setattr(storage_module, "RETRY_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(storage_module, "RETRY_LONGEST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(storage_module, "_S3_REQUEST_ATTEMPTS", 1)


@pytest.fixture
def proxy(
    bucket: str, s3_endpoint: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_endpoint) as proxy:
        object_store.use_endpoint(monkeypatch, proxy.endpoint)
        yield proxy


def test_a_third_of_all_requests_may_fail(proxy: FaultyProxy, bucket: str) -> None:
    storage = Storage(f"s3://{bucket}/out")
    proxy.share = 0.33
    content = os.urandom(40 << 20)  # three parts
    with storage.atomic_file("shards/000000.tar") as file:
        file.write(content)
    for number in range(20):
        storage.write_bytes(f"small/{number:02d}", b"%d" % number)
    assert storage.create("lease", b"mine")
    assert not storage.create("lease", b"yours")
    assert storage.list_names("small") == [f"{number:02d}" for number in range(20)]
    assert [storage.read_bytes(f"small/{n:02d}") for n in range(20)] == [
        b"%d" % n for n in range(20)
    ]
    with storage.open_read("shards/000000.tar") as file:
        assert file.read() == content
    storage.remove("small")
    assert storage.list_names() == ["lease", "shards"]
    assert len(proxy.done) == 7  # each kind of fault, and none


def test_a_file_that_fails_in_the_middle_leaves_nothing(
    proxy: FaultyProxy, bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This server fails to abort an upload while other parts of it still arrive.
    monkeypatch.setattr(storage_module, "_PARTS_AT_ONCE", 1)
    storage = Storage(f"s3://{bucket}/out")
    proxy.refuses = lambda method, path: (500, "InternalError") if "partNumber=3" in path else None
    with pytest.raises(StorageError) as caught, storage.atomic_file("shards/000000.tar") as file:
        file.write(b"x" * (40 << 20))
    assert caught.value.reason == "unavailable"
    message = str(caught.value)
    assert message.startswith(f"cannot write s3://{bucket}/out/shards/000000.tar: InternalError")
    assert f"given up after {storage_module.RETRY_ATTEMPTS} attempts in " in message
    assert proxy.num_refused == storage_module.RETRY_ATTEMPTS
    assert sum("partNumber=1" in path for _, path in proxy.requests) == proxy.num_refused
    client = object_store.client(s3_endpoint)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_a_store_that_is_down_is_given_up(proxy: FaultyProxy, bucket: str) -> None:
    storage = Storage(f"s3://{bucket}/out")
    proxy.refuses = lambda method, path: (503, "SlowDown")
    for use in (
        lambda: storage.read_bytes("a"),
        lambda: storage.exists("a"),
        lambda: storage.list_names(),
        lambda: storage.write_bytes("a", b""),
        lambda: storage.remove("a"),
        lambda: storage.create("a", b""),
    ):
        proxy.num_refused = 0
        with pytest.raises(StorageError, match=r"given up after 8 attempts .*run the same command"):
            use()
        assert proxy.num_refused == storage_module.RETRY_ATTEMPTS


def test_attempts_end_when_their_time_is_over(
    proxy: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "RETRY_TOTAL_SECONDS", 0.0)
    proxy.refuses = lambda method, path: (503, "SlowDown")
    with pytest.raises(StorageError, match="given up after 1 attempts"):
        Storage(f"s3://{bucket}/out").read_bytes("a")
    assert proxy.num_refused == 1


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (403, "AccessDenied", "forbidden", "must allow reading, writing, listing and deleting"),
        (403, "InvalidAccessKeyId", "credentials", "missing, wrong or expired"),
        (400, "ExpiredToken", "credentials", "missing, wrong or expired"),
        (403, "RequestTimeTooSkewed", "credentials", "this machine's clock is wrong"),
    ],
)
def test_what_does_not_pass_is_asked_once(
    status: int, code: str, reason: str, words: str, proxy: FaultyProxy, bucket: str
) -> None:
    storage = Storage(f"s3://{bucket}/out")
    proxy.refuses = lambda method, path: (status, code)
    with pytest.raises(StorageError, match=words) as caught:
        storage.write_bytes("a", b"x")
    assert caught.value.reason == reason
    assert proxy.num_refused == 1


def test_reading_and_writing_cost_one_request_each(proxy: FaultyProxy, bucket: str) -> None:
    storage = Storage(f"s3://{bucket}/out")
    for use, method in (
        (lambda: storage.write_bytes("a", b"0123456789"), "PUT"),
        (lambda: storage.read_bytes("a"), "GET"),
        (lambda: storage.read_range("a", 2, 4), "GET"),
        (lambda: storage.exists("a"), "HEAD"),
        (lambda: storage.create("b", b"1"), "PUT"),
    ):
        del proxy.requests[:]
        use()
        assert [m for m, _ in proxy.requests] == [method]


def test_a_range_that_comes_short_is_asked_for_again(bucket: str, quick: None) -> None:
    storage = Storage(f"s3://{bucket}/out")
    storage.write_bytes("a", b"0123456789")
    whole, sent = storage._fs.cat_file, []

    def short(path: str, **options: int) -> bytes:
        sent.append(options)
        data = bytes(whole(path, **options))
        return data[:-1] if len(sent) < 3 else data

    storage._fs.cat_file = short
    try:
        assert storage.read_range("a", 2, 4) == b"2345"
    finally:
        del storage._fs.cat_file
    assert len(sent) == 3


def test_a_stale_handle_of_nfs_is_opened_again(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes("a", b"0123456789")
    errors = [OSError(errno.ESTALE, os.strerror(errno.ESTALE)) for _ in range(3)]
    pread = os.pread

    def stale(*arguments: int) -> bytes:
        if errors:
            raise errors.pop()
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", stale)
    assert storage.read_range("a", 2, 4) == b"2345"


def test_waiting_for_storage_draws_no_random_number_of_the_user(
    proxy: FaultyProxy, bucket: str
) -> None:
    storage = Storage(f"s3://{bucket}/out")
    proxy.share = 1.0
    before = random.getstate()
    with contextlib.suppress(StorageError):
        storage.read_bytes("a")
    assert random.getstate() == before


@pytest.mark.parametrize("url", ["zip://", "zip://a", "tar://a", "reference://a", "dir://a/b"])
def test_an_address_that_its_file_system_does_not_understand(url: str) -> None:
    with pytest.raises(StorageError, match=r"cannot open .*; check the address"):
        Storage(url)
