"""Locks of local files, in folders where anybody may have put anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowprep.errors import StorageError
from flowprep.locks import locked_file, open_lock_file

TIMEOUT_SECONDS = 60
"""What hangs, hangs for ever: this only ends the test."""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    target = path.with_name("precious")
    target.write_text("precious")
    path.symlink_to(target)


def device(path: Path) -> None:
    path.symlink_to("/dev/full")


FOREIGN = (pipe, link, device, Path.mkdir)


def test_a_lock_names_its_holder_and_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    expected = rf"^somebody works \(process {os.getpid()} on .*\); wait$"
    with (
        locked_file(path, "somebody works", "wait"),
        pytest.raises(StorageError, match=expected),
        locked_file(path, "somebody works", "wait"),
    ):
        pass
    # A longer one was there.
    path.write_text("process 123456789 on a machine with a long name, and more" * 9)
    with locked_file(path, "somebody works", "wait"):
        assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}"


@pytest.mark.parametrize("make", FOREIGN)
def test_what_is_no_file_is_no_lock_and_is_left_as_it_is(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    make(path)
    expected = f"cannot write {path}: it is no ordinary file, as a lock must be; remove it"
    with pytest.raises(StorageError, match=f"^{expected}$"), locked_file(path, "taken", "wait"):
        pass
    with pytest.raises(OSError, match="no ordinary file"):
        open_lock_file(path, create=False)
    if make is link:
        assert (tmp_path / "precious").read_text() == "precious"


LEFT = """
import sys
from flowprep.locks import remove_unlocked_folders
from flowprep.video import fetch
with fetch._scratch_folder() as folder:
    remove_unlocked_folders(sys.argv[1], "flowprep-ray-", ".lock")
    print("done")
"""


def test_what_lies_in_the_shared_folder_for_temporary_files_hangs_nobody(tmp_path: Path) -> None:
    """A pipe in place of a lock, as anybody may put it there; what a killed process left goes."""
    names = {"flowprep-source-": "lock", "flowprep-ray-": ".lock"}
    for prefix, lock in names.items():
        for kind in ("pipe", "left"):
            (tmp_path / f"{prefix}{kind}").mkdir()
        os.mkfifo(tmp_path / f"{prefix}pipe" / lock)
        (tmp_path / f"{prefix}left" / lock).touch()
    (tmp_path / "flowprep-ray-link").symlink_to(tmp_path / "flowprep-ray-pipe")
    done = subprocess.run(
        [sys.executable, "-c", LEFT, str(tmp_path)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["flowprep-ray-link", "flowprep-ray-pipe", "flowprep-source-pipe"]
