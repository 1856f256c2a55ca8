"""Makes the features of many videos: of a data set in this process, of raw videos by workers.

A video that fails is listed and stops nothing. What is finished is in its place, so that the same
command goes on after any end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.failures import failure_of
from flowprep.dataset.layout import Failure, VideoRecord
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.rebuild import record_from_metadata
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError, DatasetError, FailureReason, VideoError
from flowprep.inputs.video import Video
from flowprep.learn.clips.loader import Loader
from flowprep.learn.clips.windows import WindowClips
from flowprep.learn.features_network import FeatureNetwork, WindowFeatures
from flowprep.learn.features_notes import FeatureReport
from flowprep.learn.features_work import FeatureWork, features_of, windows_of
from flowprep.learn.features_write import write_video
from flowprep.printable import bar_stream
from flowprep.run.executor import Executor
from flowprep.run.executors import start_executor
from flowprep.run.first_videos import FirstVideos
from flowprep.run.interrupts import interrupts_kept
from flowprep.run.job import ExtractJob, JobResult, WorkerLost, failed_record
from flowprep.run.retries import Retries
from flowprep.run.watchdog import why_lost
from flowprep.storage import Storage

__all__ = ["DatasetRun", "RawRun"]

log = logging.getLogger("flowprep.learn")

_WAIT_SECONDS = 1.0


class _Run:
    """What both kinds of run share: the report, the failures, the bar."""

    def __init__(
        self, storage: Storage, report: FeatureReport, failures: dict[str, Failure]
    ) -> None:
        self.storage = storage
        self.report = report
        self.failures = failures
        """Failed videos by key, to be written at the end."""

    def _bar(self, num_videos: int, progress: bool | None) -> Any:
        return tqdm(
            total=num_videos,
            unit="video",
            dynamic_ncols=True,
            file=bar_stream(),
            disable=None if progress is None else not progress,
        )

    def _fail(self, record: VideoRecord, source: str) -> None:
        """Lists a failed video."""
        failure = self.failures[record.key] = failure_of(record, source)
        log.warning("%s: failed: %s: %s", record.key, failure.reason, failure.message)
        if failure.fault == "node":
            self.report.node_failures[failure.reason] += 1
        else:
            self.report.num_failed += 1
            self.report.failures[failure.reason] += 1


# ---- from a data set


class _WindowReader:
    """Reads the clips of windows, also in processes of a loader."""

    def __init__(self, dataset: FlowDataset, clips: WindowClips) -> None:
        self.dataset = dataset
        self.clips = clips

    def read(
        self, item: tuple[str, int], out: Mapping[str, NDArray[np.float32]] | None = None
    ) -> dict[str, Any]:
        """Returns the clips of the window of a video (its key) that begins at a frame."""
        key, start = item
        views = self.clips.read(self.dataset, self.dataset.videos[key], start, out)
        return {"views": views, "key": key} if out is None else {"key": key}


class DatasetRun(_Run):
    """The features of videos of a data set. Loader processes read, and this process computes."""

    def __init__(
        self,
        storage: Storage,
        report: FeatureReport,
        failures: dict[str, Failure],
        *,
        content: Mapping[str, Any],
        networks: Sequence[FeatureNetwork],
        clips: WindowClips,
        num_loaders: int,
    ) -> None:
        """`content` is the configuration in features.json."""
        super().__init__(storage, report, failures)
        self._content = content
        self._networks = networks
        self._clips = clips
        self._num_loaders = num_loaders

    def go(self, dataset: FlowDataset, keys: Sequence[str], progress: bool | None) -> None:
        """Makes and writes the features of the videos `keys`, one after the other."""
        with self._bar(len(keys), progress) as bar:
            todo: deque[str] = deque()
            for key in keys:
                video = dataset.videos[key]
                try:
                    self._clips.check(video.width, video.height)
                except ConfigError as error:
                    self._fail(_failed(video, "too-small", error), dataset.location)
                    bar.update()
                else:
                    todo.append(key)
            while todo:
                try:
                    self._work(dataset, todo, bar)
                except DatasetError as error:
                    video = dataset.videos[todo.popleft()]
                    self._fail(_failed(video, "damaged", error), dataset.location)
                    bar.update()

    def _work(self, dataset: FlowDataset, todo: deque[str], bar: Any) -> None:
        """Takes finished videos out of `todo`. Raises what is wrong with the first one of it."""
        windows = self._clips.windows
        items = [
            (key, start)
            for key in todo
            for start in windows.starts(dataset.videos[key].num_frames).tolist()
        ]
        reader = _WindowReader(dataset, self._clips)
        record: VideoRecord | None = None
        loader = Loader(reader.read, items, "views", self._clips.shapes, self._num_loaders)
        for item in loader:
            if record is None:
                record = record_from_metadata(dataset.metadata(todo[0]), {})
                left = len(windows.starts(record.num_frames))
                features = WindowFeatures(self._networks, self._content["streams"], self._clips)
            assert item["key"] == todo[0]
            features.add(item["views"])
            left -= 1
            if left == 0:
                found = features_of(record, features.finish(), windows, dataset.location)
                write_video(self.storage, found, self._content["config"])
                self.report.add(record, windows)
                todo.popleft()
                record = None
                bar.update()


def _failed(video: StoredVideo, reason: FailureReason, error: Exception) -> VideoRecord:
    return VideoRecord(
        key=video.key,
        status="failed",
        labels=video.labels,
        split=video.split,
        reason=reason,
        message=str(error),
        fault="video",
    )


# ---- from raw videos


class RawRun(_Run):
    """The features of raw videos, each of which one worker takes from its file to its features."""

    def __init__(
        self,
        storage: Storage,
        report: FeatureReport,
        failures: dict[str, Failure],
        *,
        work: FeatureWork,
        config: ExtractConfig,
        options: RunOptions,
        log_name: str,
    ) -> None:
        super().__init__(storage, report, failures)
        self._work = work
        self._config = config
        self._options = options
        self._log_name = log_name
        self._windows = windows_of(work.sources, work.spec, config).windows
        self._retries = Retries(options.max_attempts)
        self._first_videos = FirstVideos()
        self._waiting: deque[ExtractJob] = deque()

    def go(self, videos: Sequence[Video]) -> None:
        """Gives the videos to workers, until each is finished or has failed.

        Raises ExecutorError if there are no workers, and if the first videos all fail with the same
        internal error.
        """
        self._waiting.extend(self._job(index, video) for index, video in enumerate(videos))
        executor = start_executor(self._options, self._config.flow, len(videos))
        bar = self._bar(len(videos), self._options.progress)
        try:
            with interrupts_kept() as raise_if_interrupted:
                in_flight = 0
                while self._waiting or self._retries or in_flight:
                    raise_if_interrupted()
                    in_flight += self._hand_out(executor, in_flight)
                    for job, outcome in executor.wait(_WAIT_SECONDS):
                        in_flight -= 1
                        assert isinstance(job, ExtractJob)
                        bar.update(self._after(job, outcome))
                    is_end = not (self._waiting or self._retries or in_flight)
                    error = self._first_videos.error(self._log_name, is_end=is_end)
                    if error is not None:
                        raise error
        finally:
            executor.close()
            bar.close()

    def _job(self, index: int, video: Video) -> ExtractJob:
        options = self._options
        is_inline = options.executor == "inline"
        return ExtractJob(
            storage=self.storage,
            config=self._config,
            video=video,
            shard=0,
            index=index,
            attempt=1,
            stall_timeout_seconds=None if is_inline else options.stall_timeout_seconds,
            worker_memory=options.worker_memory,
            num_workers=options.num_workers,
            work=self._work,
        )

    def _hand_out(self, executor: Executor, in_flight: int) -> int:
        """Gives jobs to free workers. Returns how many."""
        for job in self._retries.due():
            assert isinstance(job, ExtractJob)
            place = 0 if job.short_since is None else executor.window
            self._waiting.insert(place, job)
        if self._retries.holds(executor.is_short_of_memory):
            return 0
        number = min(len(self._waiting), max(0, executor.window - in_flight))
        for _ in range(number):
            executor.submit(self._waiting.popleft())
        return number

    def _after(self, job: ExtractJob, outcome: JobResult | WorkerLost) -> int:
        """Takes the result of a job. Returns how many videos ended with it: one or none."""
        if isinstance(outcome, WorkerLost):
            return self._after_loss(job, outcome)
        if outcome.error is not None:
            raise outcome.error
        if outcome.note is not None and outcome.note not in self.report.notes:
            self.report.notes.append(outcome.note)
        record = outcome.record
        assert record is not None
        if outcome.traceback is not None:
            log.error("%s: %s\n%s", record.key, record.reason, outcome.traceback)
        self._first_videos.add(0, job.index, record)
        if record.status == "failed":
            self._fail(record, job.video.source)
            return 1
        self._retries.note_success()
        self.report.add(record, self._windows)
        log.info("%s: %s, %d frames", record.key, record.status, record.num_frames)
        return 1

    def _after_loss(self, job: ExtractJob, lost: WorkerLost) -> int:
        self.report.num_lost_workers += 1
        error: VideoError = why_lost(job, lost)
        log.warning("%s: attempt %d lost its worker: %s", job.name, job.attempt, error)
        if self._retries.goes_again(job, lost, others_wait=bool(self._waiting)):
            return 0
        record = failed_record(job, error)
        if lost.is_short_of_memory or lost.fault == "node":
            record = msgspec.structs.replace(record, fault="node")
        self._fail(record, job.video.source)
        return 1
