"""Fixtures that many tests share: the real data, an ffmpeg, and small videos."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests import object_store

REQUIRE_DATA = os.environ.get("FLOWPREP_REQUIRE_DATA") == "1"
DATA = Path(
    os.environ.get("FLOWPREP_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


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
