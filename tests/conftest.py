"""Fixtures that many tests share: the real data, an ffmpeg, and small videos."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import imageio_ffmpeg
import pytest

from tests import object_store

REQUIRE_DATA = os.environ.get("FLOWPREP_REQUIRE_DATA") == "1"
DATA = Path(
    os.environ.get("FLOWPREP_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


QUICK = (
    "cli/test_help.py",
    "cli/test_status.py",
    "dataset/test_layout.py",
    "dataset/test_verify.py",
    "dataset/test_write.py",
    "test_config.py",
    "test_duplicates.py",
    "test_errors.py",
    "test_house.py",
    "test_sizes.py",
    "test_version_1.py",
    "video/test_containers.py",
    "video/test_images.py",
    "inputs/test_keys.py",
    "inputs/test_manifest.py",
)
"""What `-m quick` runs, in under a minute and without PyTorch: a taste of each part."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out what `-m quick` would not run before it is imported, which PyTorch may miss."""
    folder = Path(__file__).parent
    if config.getoption("markexpr") != "quick" or folder not in collection_path.parents:
        return None
    name = collection_path.relative_to(folder).as_posix()
    if collection_path.is_dir():
        return True if not any(one.startswith(f"{name}/") for one in QUICK) else None
    return True if name.rpartition("/")[2].startswith("test_") and name not in QUICK else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the quick tests, and those that are skipped without a GPU."""
    for item in items:
        reasons = {mark.kwargs.get("reason") for mark in item.iter_markers("skipif")}
        if reasons & {"no GPU", "no NVIDIA GPU"}:
            item.add_marker("gpu")
        if item.path.relative_to(Path(__file__).parent).as_posix() in QUICK:
            item.add_marker("quick")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real videos; without it a test skips, or fails if FLOWPREP_REQUIRE_DATA=1."""
    if not DATA.is_dir():
        message = f"no test data at {DATA}; set FLOWPREP_TEST_DATA"
        if REQUIRE_DATA:
            pytest.fail(message)
        pytest.skip(message)
    return DATA


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """Path of an ffmpeg executable."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of a real S3 server on loopback."""
    with object_store.s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a new bucket on the server, which `s3://` URLs reach."""
    object_store.use_endpoint(monkeypatch, s3_endpoint)
    name = f"flowprep-{uuid.uuid4().hex[:12]}"
    object_store.client(s3_endpoint).create_bucket(Bucket=name)
    return name


@pytest.fixture
def memory() -> Iterator[str]:
    """URL of a folder in fsspec's memory, which behaves as an object store does."""
    yield "memory://flowprep-test/out"
    files = fsspec.filesystem("memory")
    if files.exists("/flowprep-test"):
        files.rm("/flowprep-test", recursive=True)
