"""Fetches videos from an object store to this machine while they are decoded.

    with fetched(video) as local:
        open_video(local.video, spec)

A decoder seeks, and a store takes tens of milliseconds to answer each seek. So each video is copied
whole, one video at a time. A piece that fails is requested again.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowprep.errors import StorageError, VideoError
from flowprep.file_info import FileInfo
from flowprep.inputs.places import storage_of
from flowprep.inputs.tree import extension_of, is_frame_image
from flowprep.inputs.video import Video
from flowprep.locks import remove_unlocked_folders
from flowprep.storage import Storage
from flowprep.storage_errors import translated_errors
from flowprep.urls import is_url, parent_url, redacted, without_query
from flowprep.video.types import Provenance

__all__ = ["FetchedVideo", "fetched", "fetched_sample"]

_PIECE_BYTES = 8 << 20
# The frames of a folder are small, so most of their time is waiting for the store.
_FRAMES_AT_ONCE = 8
# Number of videos that are fetched for a probe.
_SAMPLE = 3
_PREFIX = "flowprep-source-"
_LOCK = "lock"


@dataclass(frozen=True)
class FetchedVideo:
    """A video whose source is on this machine."""

    video: Video
    provenance: Provenance | None = None
    """The store's information about the video. None for a video that was already here."""


@contextmanager
def fetched(video: Video) -> Iterator[FetchedVideo]:
    """Yields a video with a source that decoders can read. A copy is removed after the block.

    Raises VideoError `missing` if the source does not exist or may not be read, and StorageError if
    the store cannot be reached or does not accept the credentials, or if the temporary folder has
    no space for the copy.
    """
    if not is_url(video.source):
        yield FetchedVideo(video)
        return
    folder, name = parent_url(video.source)
    storage = storage_of(folder)
    info = _look_up(storage, name)
    with _scratch_folder() as scratch:
        if info.is_folder:
            source = _fetch_frames(storage_of(video.source), f"{scratch}/frames")
        else:
            source = f"{scratch}/video{extension_of(without_query(name))}"
            _fetch_file(storage, name, info.size, source)
        yield FetchedVideo(
            dataclasses.replace(video, source=source),
            Provenance(
                source=redacted(video.source),
                source_bytes=None if info.is_folder else os.path.getsize(source),
                source_mtime_ns=info.mtime_ns,
                source_etag=info.etag,
            ),
        )


@contextmanager
def fetched_sample(videos: Sequence[Video], failures: list[str]) -> Iterator[list[Video]]:
    """Yields videos to probe: all videos on this machine, or a few that are fetched from a store.

    Adds a sentence to `failures` for each video that cannot be fetched. Raises the StorageError of
    `fetched`.
    """
    if any(is_url(video.source) for video in videos):
        videos = [videos[(2 * i + 1) * len(videos) // (2 * _SAMPLE)] for i in range(_SAMPLE)]
        videos = list(dict.fromkeys(videos))
    with ExitStack() as stack:
        here = []
        for video in videos:
            try:
                here.append(stack.enter_context(fetched(video)).video)
            except VideoError as error:
                failures.append(f"{video.key}: {error.message}")
        yield here


def _look_up(storage: Storage, name: str) -> FileInfo:
    try:
        info = storage.info(name)
        if info is not None:
            return info
    except StorageError as error:
        if error.reason != "forbidden":
            raise
        # The store gives no reason. Wrong credentials are not the fault of this one video.
        with _missing_if_forbidden():
            storage.read_range(name, 0, 1)
        raise VideoError("missing", "the object may not be read") from error
    raise VideoError("missing", "the object does not exist")


@contextmanager
def _missing_if_forbidden() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        if error.reason not in ("missing", "forbidden"):
            raise
        raise VideoError("missing", "the object does not exist or may not be read") from error


def _fetch_file(storage: Storage, name: str, size: int | None, path: str) -> None:
    if size is None:
        raise VideoError("unreadable", "the server does not say how long the file is")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise StorageError(
            f"cannot fetch {storage.full_name(name)}: it has {size:,} bytes, but {folder} has "
            f"only {free:,} free; free space, or set TMPDIR to a larger folder",
            "full",
        )
    with translated_errors("write", path), open(path, "wb") as file:
        for offset in range(0, size, _PIECE_BYTES):
            length = min(_PIECE_BYTES, size - offset)
            with _missing_if_forbidden():
                piece = storage.read_range(name, offset, length)
            if len(piece) != length:
                raise VideoError("missing", "the object became shorter while it was read")
            file.write(piece)


def _fetch_frames(storage: Storage, path: str) -> str:
    os.mkdir(path)
    names = [name for name in storage.list_names() if is_frame_image(name)]

    def fetch(name: str) -> None:
        data = storage.read_bytes(name)
        with translated_errors("write", path):
            Path(path, name).write_bytes(data)

    with ThreadPoolExecutor(_FRAMES_AT_ONCE) as pool, _missing_if_forbidden():
        for _ in pool.map(fetch, names):
            pass
    return path


# ---- temporary folders


@contextmanager
def _scratch_folder() -> Iterator[str]:
    """Yields a temporary folder. A folder of a killed process is removed by the next process."""
    _remove_leftovers()
    with translated_errors("write", tempfile.gettempdir()):
        new = tempfile.mkdtemp(prefix=f".new-{_PREFIX}")
        lock = open(f"{new}/{_LOCK}", "w")  # noqa: SIM115
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A folder gets its final name only after it is locked, so that nobody removes it before.
        folder = os.path.join(os.path.dirname(new), os.path.basename(new).removeprefix(".new-"))
        os.rename(new, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _remove_leftovers() -> None:
    remove_unlocked_folders(tempfile.gettempdir(), _PREFIX, _LOCK)
