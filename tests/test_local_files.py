"""Files appear whole or not at all, and leave nothing beside them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from flowprep.local_files import TEMPORARY_MARK, create_file, partial_file, published_file
from flowprep.storage import Storage


class _StoppedError(Exception):
    pass


def _opened(path: Path, writer: str) -> AbstractContextManager[Any]:
    return published_file(str(path)) if writer == "published" else partial_file(path)


def _write(to: Any, data: bytes) -> None:
    if isinstance(to, Path):
        to.write_bytes(data)
    else:
        to.write(data)


@pytest.mark.parametrize("writer", ["published", "partial"])
def test_a_file_takes_its_place_when_all_went_well(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a.mp4"
    for data in (b"first", b"second"):
        with _opened(path, writer) as to:
            _write(to, data)
            assert not path.exists() or path.read_bytes() == b"first"
        assert path.read_bytes() == data
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", ["published", "partial"])
def test_what_breaks_off_leaves_the_file_that_was_there(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    with suppress(_StoppedError), _opened(path, writer) as to:
        _write(to, b"half")
        raise _StoppedError
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"before", [path])


def test_a_partial_file_ends_as_the_whole_one(tmp_path: Path) -> None:
    # FFmpeg and Pillow choose the format by it.
    with pytest.raises(FileNotFoundError), partial_file(tmp_path / "a.webp") as partial:
        assert partial.suffix == ".webp"


def test_a_file_is_created_once(tmp_path: Path) -> None:
    create_file(str(tmp_path / "new/a"), b"first")
    with pytest.raises(FileExistsError):
        create_file(str(tmp_path / "new/a"), b"second")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"first"]


def test_a_published_file_is_on_the_disk_and_so_are_the_folders_that_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: a power cut takes back what comes after it."""
    happened: list[str] = []
    sync, replace = os.fsync, os.replace

    def name_of(path: str) -> str:
        return os.path.relpath(path, tmp_path).partition(TEMPORARY_MARK)[0]

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        happened.append(f"synced {name_of(os.readlink(f'/proc/self/fd/{descriptor}'))}")

    def replaced(source: str, target: str) -> None:
        replace(source, target)
        happened.append(f"named {name_of(target)}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replaced)
    storage = Storage(tmp_path)
    storage.make_folder("new")
    storage.write_bytes("shards/more/a", b"1")
    with storage.atomic_file("shards/more/b", lasting=False) as file:
        file.write(b"2")
    storage.create("shards/c", b"3")
    assert happened == [
        "synced .",
        # Folders that are new, into those above them.
        *("synced .", "synced shards"),
        *("synced shards/more/a", "named shards/more/a", "synced shards/more"),
        *("synced shards/more/b", "named shards/more/b"),
        *("synced shards/c", "synced shards"),
    ]


def test_a_file_that_was_refused_leaves_no_folder(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ValueError("no")

    (tmp_path / "a").mkdir()
    with (
        pytest.raises(ValueError, match="no"),
        published_file(f"{tmp_path}/a/b/c/d", confirm=refuse) as file,
    ):
        file.write(b"1")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a"]
