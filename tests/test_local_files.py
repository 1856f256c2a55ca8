"""Files appear whole or not at all, and leave nothing beside them."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from flowprep.local_files import create_file, partial_file, published_file


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
