"""The work of a worker: extract a video or a segment, join segments, join a shard. Uses no Ray."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import socket
import time
import traceback
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec
from flowprep.dataset.layout import VideoRecord
from flowprep.dataset.metadata import SegmentMetadata
from flowprep.dataset.parts import part_name, read_part_record, write_part_record
from flowprep.dataset.quantize import FieldQuantizer
from flowprep.dataset.rebuild import record_from_metadata
from flowprep.dataset.write import publish_shard, write_sample
from flowprep.errors import (
    ConfigError,
    ExecutorError,
    FlowprepError,
    MissingExtraError,
    StorageError,
    VideoError,
    WeightsError,
)
from flowprep.flow import FlowEstimator, build_estimator
from flowprep.flow.devices import is_device_failure
from flowprep.flow.weight_files import hold, is_held
from flowprep.machine import one_torch_thread
from flowprep.run.extract import extract_video
from flowprep.run.flow_streams import no_progress
from flowprep.run.job import (
    ExtractJob,
    Job,
    JobResult,
    JoinJob,
    PreparedWorker,
    PublishJob,
    WorkerLost,
    failed_record,
)
from flowprep.run.options import weights_of
from flowprep.run.segments import join_segments, write_segment
from flowprep.run.versions import Environment, compare, environment, some_are_files, version_note
from flowprep.run.watchdog import time_limit, watchdog
from flowprep.video.contents import source_sha256
from flowprep.video.cut import is_long, plan_cut
from flowprep.video.decode import open_video
from flowprep.video.fetch import FetchedVideo, fetched
from flowprep.video.segments import VideoCut

__all__ = ["DeviceWorker", "prepare", "run_job"]

START_SECONDS = 600.0
"""Longest time for a worker to get ready on its device. PyTorch's start and the trial of a kernel
take a minute, and several where a network file system is slow or the kernel hangs."""


def run_job(
    job: Job,
    device: str = "cpu",
    driver: Environment | None = None,
    weights: NDArray[np.uint8] | None = None,
) -> JobResult | WorkerLost:
    """Carries out a job and computes flow on `device`. Returns every error as a value.

    `driver` is what the driver would compute with. A worker that would give other numbers refuses
    the job. `weights` are the bytes of the estimator's weights, for a machine that may lack them.
    """
    try:
        # Of a driver that has lost its lease nothing is begun any more.
        job.storage.confirm()
        if isinstance(job, PublishJob):
            records = [read_part_record(job.storage, job.shard, index) for index in job.indices]
            publish_shard(job.storage, job.shard, job.indices, records)
            return JobResult()
        if isinstance(job, JoinJob):
            return _join(job)
        _take_weights(job.config.flow, weights)
        note = None if driver is None else _check_versions(job, driver)
        outcome = _extract(job, device)
        if note is not None and isinstance(outcome, JobResult):
            return dataclasses.replace(outcome, note=note)
        return outcome
    except FlowprepError as error:
        return JobResult(error=error)


def prepare(flow: FlowSpec, device: str = "cpu") -> None:
    """Makes the estimator that every video needs before the first video comes, as it takes long."""
    _estimator(flow, device)


class DeviceWorker:
    """A lasting worker that keeps its device and the estimator on it from job to job.

    It lives in a process of its own, which is ended if its device hangs.
    """

    def __init__(
        self, flow: FlowSpec, device: str, weights: NDArray[np.uint8] | None = None
    ) -> None:
        self._flow = flow
        self._device = device
        self._weights = weights

    def prepare(self) -> PreparedWorker:
        """Makes the estimator and computes a first field, so that everything is compiled."""
        with time_limit(START_SECONDS):
            return self._prepare()

    def _prepare(self) -> PreparedWorker:
        notes: list[str] = []
        handler = _NoteHandler(notes)
        logger = logging.getLogger("flowprep")
        logger.addHandler(handler)
        try:
            _take_weights(self._flow, self._weights)
            self._weights = None
            estimator = _estimator(self._flow, self._device)
            # PyTorch's work on the CPU uses one thread, like OpenCV's.
            importlib.import_module("torch").set_num_threads(1)
            side, colors = 4 * estimator.min_side_px, (3,) if estimator.frames == "rgb" else ()
            blank = np.zeros((side, side, *colors), np.uint8)
            estimator(blank, blank)
        except FlowprepError as error:
            return PreparedWorker(error=error, notes=tuple(notes))
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return PreparedWorker(error=ExecutorError(message), notes=tuple(notes))
        finally:
            logger.removeHandler(handler)
        name = f"{type(estimator).__name__} on {estimator.device_name}"
        return PreparedWorker(name, notes=tuple(notes))

    def run_job(self, job: Job, driver: Environment | None = None) -> JobResult | WorkerLost:
        """Carries out a job as the function `run_job` does."""
        return run_job(job, self._device, driver)


def _take_weights(flow: FlowSpec, weights: NDArray[np.uint8] | None) -> None:
    weights_id = weights_of(flow)
    if weights is not None and weights_id is not None and not is_held(weights_id):
        hold(weights_id, weights.tobytes())


def _check_versions(job: ExtractJob, driver: Environment) -> str | None:
    """Raises ExecutorError where this worker would give other numbers than the driver's machine.

    Returns a note where its versions differ in what changes none.
    """
    conflict, differing = compare(
        driver,
        environment(job.config),
        job.config.flow.algorithm,
        lambda: some_are_files([job.video.source]),
    )
    if conflict is not None:
        what = f"Install '{conflict.install}'" if conflict.install else "Have the same"
        raise ExecutorError(
            f"a worker on {socket.gethostname()} has {conflict.now}, the driver has "
            f"{conflict.then}, and {conflict.why}. {what} on all nodes."
        )
    notes = version_note(differing, ("in the driver", "in workers on other nodes"))
    return notes[0] if notes else None


class _NoteHandler(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(record.getMessage())


def _extract(job: ExtractJob, device: str) -> JobResult | WorkerLost:
    # A worker owns one core. Without this call, OpenCV in every worker would use all cores.
    cv2.setNumThreads(1)
    trace: str | None = None
    try:
        # The estimator is made before the watchdog starts, because compiling gives no sign of life.
        needs_flow = job.work is None or job.work.needs_flow
        estimator = _estimator(job.config.flow, device) if needs_flow else None
        began = time.perf_counter()
        with fetched(job.video) as source:
            if job.work is not None:
                with watchdog(job) as on_progress:
                    tick = on_progress or no_progress
                    return JobResult(job.work.carry_out(job, source.video, estimator, device, tick))
            assert estimator is not None
            with one_torch_thread():
                extracted = _extract_part(job, source, estimator, began)
            if isinstance(extracted, VideoCut):
                sha256 = source_sha256(source.video)
                return JobResult(cut=dataclasses.replace(extracted, source_sha256=sha256))
        record = extracted
    except VideoError as error:
        if device != "cpu" and error.reason == "out-of-memory":
            # Others share the GPU's memory. There may be enough at another time or place.
            return WorkerLost("out-of-memory", error.message, fault="node")
        if error.reason == "estimator-error":
            trace = traceback.format_exc()
        record = failed_record(job, error)
    except (ConfigError, StorageError, WeightsError, MissingExtraError):
        # They are no fault of this video, so they stop the run.
        raise
    except MemoryError:
        record = failed_record(job, VideoError("out-of-memory", "the worker ran out of memory"))
    except OSError as error:
        raise StorageError(
            f"cannot write temporary files: {error}; free space, or set TMPDIR to another folder"
        ) from error
    except Exception as error:
        if device != "cpu" and is_device_failure(error):
            return _device_lost(error)
        trace = traceback.format_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        message = f"{type(error).__name__} at {place}: {error}"
        record = failed_record(job, VideoError("internal-error", message))
    if job.segment is not None:
        if record.status == "failed":
            refusal = f"{record.reason}: {record.message}"
            return JobResult(refusal=refusal, traceback=trace)
        return JobResult(record=record)
    if job.work is None:
        write_part_record(job.storage, job.shard, job.index, record)
    return JobResult(record=record, traceback=trace)


def _join(job: JoinJob) -> JobResult:
    try:
        record = join_segments(job.storage, shard=job.shard, index=job.index, cut=job.cut)
    except VideoError as error:
        return JobResult(refusal=error.message)
    except StorageError as error:
        if error.reason != "missing":
            raise
        # A driver that was taken over may have removed it, as one that it needed no more.
        return JobResult(refusal=f"a segment is gone: {error}")
    write_part_record(job.storage, job.shard, job.index, record)
    return JobResult(record=record)


def _device_lost(error: Exception) -> WorkerLost:
    message = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if "out of memory" in str(error).lower():
        hint = "take fewer --workers-per-gpu, or --device cpu for this video"
        words = f"the GPU's memory ran out ({message}); {hint}"
        return WorkerLost("out-of-memory", words, fault="node")
    return WorkerLost("crashed", f"the GPU failed ({message})", fault="node")


def _extract_part(
    job: ExtractJob, source: FetchedVideo, estimator: FlowEstimator, began: float
) -> VideoRecord | VideoCut:
    # If storage makes a worker wait, its video is not to blame. So the watchdog watches neither
    # fetching nor writing.
    with watchdog(job) as on_progress:
        reader = open_video(source.video, job.config.decode)
        is_whole = job.segment is None
        if is_whole and job.segment_frames and is_long(reader, job.segment_frames):
            with reader:
                cut = plan_cut(
                    reader,
                    segment_frames=job.segment_frames,
                    step=job.config.flow.step,
                    on_progress=on_progress or no_progress,
                )
            if cut is not None:
                return cut
            reader = open_video(source.video, job.config.decode)
        open_seconds = time.perf_counter() - began
        extracted = extract_video(
            source.video,
            job.config,
            estimator,
            segment=job.segment,
            reader=reader,
            on_progress=on_progress,
        )
    with extracted:
        metadata = extracted.metadata
        if source.provenance is not None:
            metadata = metadata.fetched_from(source.provenance)
        extracted.seconds["decode"] += open_seconds
        if job.segment is not None:
            assert extracted.edges is not None
            return write_segment(
                *(job.storage, job.shard, job.index, job.segment),
                SegmentMetadata.of(metadata, extracted.statistics, extracted.edges),
                extracted.streams,
                extracted.seconds,
                job.attempt,
            )
        metadata = metadata.with_source_sha256(source_sha256(source.video))
        began = time.perf_counter()
        with job.storage.atomic_file(part_name(job.shard, job.index, "tar"), lasting=False) as file:
            members = write_sample(file, metadata, extracted.streams)
        seconds = extracted.seconds | {"write": time.perf_counter() - began}
        seconds = {name: round(value, 4) for name, value in seconds.items()}
        return record_from_metadata(metadata, members, seconds, job.attempt)


@functools.lru_cache(maxsize=2)
def _estimator(spec: FlowSpec, device: str) -> FlowEstimator:
    """Returns the estimator that serves all videos of a worker, with everything compiled."""
    # Whoever asks what a worker does, such as the driver, need not wait for numba.
    from flowprep.dataset.jpeg import encode

    estimator = build_estimator(spec.algorithm, spec.parameters, device)
    FieldQuantizer(spec)
    encode.prepare()
    if spec.camera_motion == "homography":
        from flowprep.flow.stabilized import prepare

        prepare()
    return estimator
