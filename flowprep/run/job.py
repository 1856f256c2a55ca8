"""What a worker does: extract one video into its part, or join a shard's parts. It knows no Ray."""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import cv2

from flowprep.config import ExtractConfig, FlowSpec
from flowprep.dataset.index import record_from_metadata
from flowprep.dataset.layout import VideoRecord, part_name
from flowprep.dataset.storage import Storage
from flowprep.dataset.write import publish_shard, write_sample
from flowprep.errors import FlowprepError, StorageError, VideoError
from flowprep.flow import FlowEstimator, build_estimator
from flowprep.flow.quantize import FieldQuantizer
from flowprep.run.extract import extract_video
from flowprep.video.types import Video

__all__ = [
    "ExtractJob",
    "Job",
    "JobResult",
    "PublishJob",
    "failed_record",
    "read_part_record",
    "run_job",
    "write_part_record",
]

# The watchdog is set anew at most so often; setting it starts a thread.
_REARM_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ExtractJob:
    """One video to extract into `.parts`."""

    storage: Storage
    config: ExtractConfig
    video: Video
    shard: int
    index: int
    """The video's line in the manifest."""
    attempt: int
    keep_partial: bool
    stall_timeout_seconds: float | None
    """None leaves the watchdog off: it ends the process, which must then not be the user's own."""


@dataclass(frozen=True, slots=True)
class PublishJob:
    """One shard to join from its parts."""

    storage: Storage
    shard: int
    indices: tuple[int, ...]
    """The manifest's lines in this shard, in order."""
    attempt: int = 1


Job = ExtractJob | PublishJob


@dataclass(frozen=True)
class JobResult:
    """What a worker sends back: small, for the bytes went to storage."""

    record: VideoRecord | None = None
    """Of an ExtractJob."""
    error: FlowprepError | None = None
    """What stops the whole run: storage that fails. A video's own failure is in its record."""
    traceback: str | None = None
    """Of an internal error, for the log."""
    node: str = field(default_factory=socket.gethostname)
    """The machine that the worker is on."""


def run_job(job: Job) -> JobResult:
    """Carries a job out; every error comes back as a value."""
    try:
        if isinstance(job, PublishJob):
            records = [read_part_record(job.storage, job.shard, index) for index in job.indices]
            publish_shard(job.storage, job.shard, job.indices, records)
            return JobResult()
        return _extract(job)
    except FlowprepError as error:
        return JobResult(error=error)


def read_part_record(storage: Storage, shard: int, index: int) -> VideoRecord:
    """Reads the record of a finished video of a shard that is not published yet."""
    return VideoRecord.from_dict(json.loads(storage.read_bytes(part_name(shard, index, "json"))))


def write_part_record(storage: Storage, shard: int, index: int, record: VideoRecord) -> None:
    """Publishes a part's record, which says that the part is whole."""
    storage.write_bytes(part_name(shard, index, "json"), json.dumps(record.to_dict()).encode())


def _extract(job: ExtractJob) -> JobResult:
    # A worker owns one core; without this OpenCV takes them all, in every worker.
    cv2.setNumThreads(1)
    trace: str | None = None
    try:
        # Before the watchdog starts: what is compiled here gives no sign of life meanwhile.
        estimator = _estimator(job.config.flow)
        with _watchdog(job) as on_progress:
            record = _extract_part(job, estimator, on_progress)
    except VideoError as error:
        record = failed_record(job, error)
    except StorageError:
        raise
    except MemoryError:
        record = failed_record(job, VideoError("out-of-memory", "the worker ran out of memory"))
    except OSError as error:
        raise StorageError(f"cannot write temporary files: {error}") from error
    except Exception as error:
        trace = traceback.format_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        message = f"{type(error).__name__} at {place}: {error}"
        record = failed_record(job, VideoError("internal-error", message))
    write_part_record(job.storage, job.shard, job.index, record)
    return JobResult(record=record, traceback=trace)


def _extract_part(
    job: ExtractJob, estimator: FlowEstimator, on_progress: _Watch | None
) -> VideoRecord:
    with extract_video(
        job.video,
        job.config,
        estimator,
        keep_partial=job.keep_partial,
        on_progress=on_progress,
    ) as extracted:
        began = time.perf_counter()
        with job.storage.atomic_file(part_name(job.shard, job.index, "tar")) as file:
            members = write_sample(file, job.video.key, extracted.metadata, extracted.streams)
        seconds = extracted.seconds | {"write": time.perf_counter() - began}
        seconds = {name: round(value, 4) for name, value in seconds.items()}
        return record_from_metadata(extracted.metadata, members, seconds, job.attempt)


def failed_record(job: ExtractJob, error: VideoError) -> VideoRecord:
    """Returns the record of a video that gave nothing."""
    return VideoRecord(
        key=job.video.key,
        status="failed",
        labels=job.video.labels,
        split=job.video.split,
        reason=error.reason,
        message=error.message,
        attempts=job.attempt,
    )


@functools.lru_cache(maxsize=2)
def _estimator(spec: FlowSpec) -> FlowEstimator:
    """One estimator serves all the videos of a worker; all that it needs is compiled."""
    estimator = build_estimator(spec.algorithm, spec.parameters)
    FieldQuantizer(spec)
    return estimator


class _Watch:
    """Ends this process when it is not called for a while.

    The thread that does so is faulthandler's own, in C: it also ends native code that hangs with
    the GIL held, as decord does on some damaged files. Its traceback, in a file, says where it
    hung.
    """

    def __init__(self, timeout_seconds: float, file: IO[str]) -> None:
        self._timeout_seconds = timeout_seconds
        self._file = file
        self._armed_at = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._armed_at >= min(_REARM_SECONDS, self._timeout_seconds / 4):
            faulthandler.dump_traceback_later(self._timeout_seconds, file=self._file, exit=True)
            self._armed_at = now


@contextmanager
def _watchdog(job: ExtractJob) -> Iterator[_Watch | None]:
    if job.stall_timeout_seconds is None:
        yield None
        return
    # On shared storage the driver reads there why the worker went; elsewhere it stays unknown.
    if job.storage.is_local:
        path = job.storage.path(part_name(job.shard, job.index, "stall"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file: IO[str] = open(path, "w")  # noqa: SIM115
    else:
        file = tempfile.TemporaryFile("w")  # noqa: SIM115
    try:
        watch = _Watch(job.stall_timeout_seconds, file)
        watch()
        yield watch
    finally:
        faulthandler.cancel_dump_traceback_later()
        file.close()
        if job.storage.is_local:
            # A worker of a driver that was killed may have ended the same video a moment ago.
            with suppress(FileNotFoundError):
                os.unlink(path)
