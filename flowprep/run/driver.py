"""A run: a manifest becomes a plan, videos go to workers, shards are published, a report is made.

The driver holds names and counts, never frames. What it knows it can always read again: a finished
video is a part with a record in `.parts`, a finished shard has a sidecar. So the same command goes
on after any crash, and computes again only what was in flight.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.layout import (
    FAILURES_FILE,
    LOGS_FOLDER,
    Failure,
    ManifestEntry,
    VideoRecord,
    read_failures,
    read_sidecar,
    shard_name,
    sidecar_name,
    write_failures,
    write_manifest,
)
from flowprep.dataset.lease import Lease, locked_dataset
from flowprep.dataset.parts import (
    list_parts,
    part_name,
    read_part_record,
    recorded_parts,
    remove_part_record,
    remove_parts,
    remove_temporary_files,
    shards_with_parts,
    write_part_record,
)
from flowprep.dataset.plan import move_to_new_shards, write_plan
from flowprep.dataset.read import published_shards
from flowprep.dataset.rebuild import rebuild_lost_sidecars
from flowprep.errors import DatasetError, ExecutorError, VideoError
from flowprep.inputs.manifest import Manifest
from flowprep.run.counters import metric_samples
from flowprep.run.executor import Executor
from flowprep.run.executors import start_executor
from flowprep.run.first_videos import FirstVideos
from flowprep.run.found_again import FolderNames, found_again, with_new_sources
from flowprep.run.job import (
    ExtractJob,
    Job,
    JobResult,
    JoinJob,
    PublishJob,
    WorkerLost,
    failed_record,
    internal_error_site,
)
from flowprep.run.options import check_options
from flowprep.run.plan import make_plan, with_all_parameters
from flowprep.run.progress import Progress, RunReport
from flowprep.run.segments import CutVideos, read_segment_record
from flowprep.run.status import ProgressRecorder, RunState
from flowprep.run.worker_process import WorkerProcess
from flowprep.storage import Storage
from flowprep.storage_errors import translated_errors
from flowprep.urls import redacted
from flowprep.video.segments import Segment
from flowprep.words import format_count

__all__ = ["run_extract"]

log = logging.getLogger("flowprep.run")

_WAIT_SECONDS = 1.0
MAX_LOST_NODES = 10
"""So many machines may go away under one video before it counts as what brings them down."""


def run_extract(
    manifest: Manifest,
    out: str,
    config: ExtractConfig,
    options: RunOptions | None = None,
    *,
    worker: WorkerProcess | None = None,
) -> RunReport:
    """Extracts the videos of `manifest` into the data set `out`, and goes on where a run left off.

    `worker` has been started already, by `early_worker`, for a run that needs no more than one.
    Returns the report; videos that failed are in it and in `failures.jsonl`, and stop nothing.
    Raises ConfigMismatchError where `out` was made with another configuration, InputError or
    DatasetError where the plan cannot be extended, StorageError where `out` cannot be written (what
    is published stays whole), ConfigError for a device that is not there, ExecutorError where there
    are no workers, or where the first videos all fail with the same internal error.
    """
    options = options or RunOptions()
    config = with_all_parameters(config)
    check_options(options, config.flow.algorithm)
    storage = Storage(out)
    storage.make_folder()
    with locked_dataset(storage) as lease, _run_log(storage) as log_name:
        log.info("run with %s and %s", config, options)
        plan = make_plan(storage, manifest, config)
        for note in (*manifest.notes, *plan.notes):
            log.info("note: %s", note)
        write_plan(storage, plan)
        remove_temporary_files(storage)
        run = _Run(storage, config, options, plan.entries, lease, worker)
        run.report.log_name = log_name
        run.report.notes[:0] = plan.notes
        try:
            run.go()
        finally:
            log.info("%s", run.report.summary())
        return run.report


@contextmanager
def _interrupts_kept() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if Ctrl-C was pressed.

    Python raises it wherever it happens to be, and drops it in a destructor: Ray has many.
    """
    pressed = False

    def keep(signal_number: int, frame: object) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def raise_if_pressed() -> None:
        if pressed:
            raise KeyboardInterrupt

    # Whoever handles it otherwise goes on doing so, and only the main thread may ask for it.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield raise_if_pressed
        return
    signal.signal(signal.SIGINT, keep)
    try:
        yield raise_if_pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Run:
    def __init__(
        self,
        storage: Storage,
        config: ExtractConfig,
        options: RunOptions,
        entries: list[ManifestEntry],
        lease: Lease,
        worker: WorkerProcess | None,
    ) -> None:
        self.storage = storage
        self.lease = lease
        self.config = config
        self.options = options
        self.worker = worker
        self.entries = entries
        self.waiting: deque[Job] = deque()
        self.unfinished: Counter[int] = Counter()
        self.cuts = CutVideos(storage)
        self.folder_names = FolderNames()
        self.num_found_again = 0
        self.report = RunReport(storage.location, len(entries))
        self.first_videos = FirstVideos()
        self.held_shards: list[int] = []
        """Finished, but not to be published before it is known that extraction works."""
        num_to_do = self._recover()
        self.recorder = ProgressRecorder(storage, self.report, num_to_do)

    def _recover(self) -> int:
        """Finds out what earlier runs have done, and queues the rest; returns how many videos."""
        stored_failures = read_failures(self.storage)
        published = set(published_shards(self.storage))
        published |= rebuild_lost_sidecars(
            self.storage, self.entries, self.config, published, stored_failures
        )
        self.failures = {
            entry.video.key: stored_failures[entry.video.key]
            for entry in self.entries
            if entry.shard in published and entry.video.key in stored_failures
        }
        retried = set(self.failures)
        if not self.options.retry_failed:
            retried = found_again(self.failures, self.entries)
            self.num_found_again += len(retried)
        if retried:
            log.info("trying %d failed videos again", len(retried))
            self.entries = move_to_new_shards(
                self.entries, retried, self.config.encode.videos_per_shard
            )
            write_manifest(self.storage, self.entries)
        kept = {key: failure for key, failure in self.failures.items() if key not in retried}
        self.failures = with_new_sources(kept, self.entries)
        self._remove_emptied_shards(published)
        self.indices: dict[int, list[int]] = {}
        for index, entry in enumerate(self.entries):
            if entry.shard not in published:
                self.indices.setdefault(entry.shard, []).append(index)
        num_open = 0
        for shard, indices in self.indices.items():
            finished = self._finished_parts(shard)
            remaining = [index for index in indices if index not in finished]
            num_open += len(remaining)
            self.unfinished[shard] = len(remaining)
            for index in remaining:
                self.waiting.extend(self._jobs_of(index))
            if not remaining:
                self._queue_publication(shard)
        for shard in shards_with_parts(self.storage) & published:
            remove_parts(self.storage, shard)
        if self.failures != stored_failures or not self.storage.exists(FAILURES_FILE):
            write_failures(self.storage, self.failures.values())
        if number := self.num_found_again:
            self.report.notes.append(
                f"tried {format_count(number, 'video')} again that failed as missing and "
                f"{'is' if number == 1 else 'are'} there now"
            )
        self.report.num_failed = self.report.num_failed_before = len(self.failures)
        self.report.failures.update(failure.reason for failure in self.failures.values())
        self.report.num_done_before = len(self.entries) - num_open - len(self.failures)
        log.info(
            "%d videos: %d done, %d failed, %d to do",
            len(self.entries),
            self.report.num_done_before,
            len(self.failures),
            num_open,
        )
        return num_open

    def _remove_emptied_shards(self, published: set[int]) -> None:
        """Removes shards that hold nothing and whose failed videos have all moved to new ones."""
        for shard in sorted(published - {entry.shard for entry in self.entries}):
            try:
                videos = read_sidecar(self.storage, shard).videos
            except DatasetError:  # whatever it is, `verify` names it
                continue
            if all(video.status == "failed" for video in videos):
                log.info("removing %s: its videos all failed and moved", shard_name(shard))
                # The sidecar goes last: without it the tar would count as one that lost its own.
                self.storage.remove(shard_name(shard))
                self.storage.remove(sidecar_name(shard))
                published.remove(shard)

    def _finished_parts(self, shard: int) -> set[int]:
        finished = set()
        names = list_parts(self.storage, shard)
        for index, record in recorded_parts(self.storage, shard, names):
            if isinstance(record, DatasetError):
                log.warning("%s; its video is extracted again", record)
                remove_part_record(self.storage, shard, index)
                continue
            # An internal error counts once its shard is public, so not in a run that was stopped.
            is_internal = internal_error_site(record) is not None
            is_there_now = record.reason == "missing" and self.folder_names.holds(
                self.entries[index].video.source
            )
            tries_again = self.options.retry_failed or is_internal or is_there_now
            if record.status == "failed" and tries_again:
                self.num_found_again += is_there_now
                remove_part_record(self.storage, shard, index)
                continue
            if record.status == "failed":
                self.failures[record.key] = self._failure(index, record)
            finished.add(index)
        self.cuts.recover(shard, names, finished)
        return finished

    def go(self) -> None:
        """Works until every shard is published."""
        began = time.monotonic()
        progress = Progress(self.report, enabled=self.options.progress)
        executor: Executor | None = None
        state: RunState = "failed"
        try:
            if self.waiting:
                executor = start_executor(
                    self.options, self.config.flow, len(self.waiting), self.worker
                )
                log.info("%s with %d workers", type(executor).__name__, executor.num_workers)
                self.recorder.num_workers = executor.num_workers
                self._work(executor, progress)
            # Another driver that took over may need the parts.
            self.lease.confirm()
            remove_parts(self.storage)
            # Of workers that went away while they joined a shard.
            remove_temporary_files(self.storage)
            state = "complete" if self.report.is_complete else "incomplete"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        finally:
            self.recorder.write(state)
            if executor is not None:
                executor.close()
            progress.close()
            self.report.wall_seconds = time.monotonic() - began

    def _work(self, executor: Executor, progress: Progress) -> None:
        with _interrupts_kept() as raise_if_interrupted:
            self._feed(executor, progress, raise_if_interrupted)

    def _feed(
        self, executor: Executor, progress: Progress, raise_if_interrupted: Callable[[], None]
    ) -> None:
        in_flight = 0
        while self.waiting or in_flight:
            raise_if_interrupted()
            self.lease.check()
            while self.waiting and in_flight < executor.window:
                job = self.waiting.popleft()
                executor.submit(job)
                in_flight += 1
                if isinstance(job, ExtractJob):
                    self.recorder.submitted(job.name)
            for job, outcome in executor.wait(_WAIT_SECONDS):
                in_flight -= 1
                if isinstance(outcome, JobResult) and outcome.error is not None:
                    raise outcome.error
                if isinstance(job, PublishJob):
                    self._after_publication(job, outcome)
                    continue
                if isinstance(job, JoinJob):
                    record = self._after_join(job, outcome)
                elif job.segment is not None:
                    record = self._after_segment(job, job.segment, outcome)
                    progress.refresh()
                else:
                    record = self._after_extraction(job, outcome)
                if record is not None:
                    is_joined = isinstance(job, JoinJob)
                    self._finish(job, record, is_joined=is_joined)
                    # Where a joined video was computed, its segments have said.
                    self.recorder.finished(record, "" if is_joined else outcome.node)
                    progress.advance()
            self._check_first_videos(is_end=not (self.waiting or in_flight))
            self.recorder.num_workers = executor.num_workers
            if (written := self.recorder.write()) is not None:
                executor.show(metric_samples(written))

    def _check_first_videos(self, *, is_end: bool) -> None:
        """Raises ExecutorError where extraction does not work here at all."""
        error = self.first_videos.error(self.report.log_name, is_end=is_end)
        if error is not None:
            failed = self.first_videos.failed
            log.error("%s", error)
            # As if they had never been tried. Others may still fail in the same way meanwhile, and
            # are tried again as well.
            for shard, index in failed:
                remove_part_record(self.storage, shard, index)
                del self.failures[self.entries[index].video.key]
            self.report.num_failed -= len(failed)
            self.report.failures = Counter(one.reason for one in self.failures.values())
            raise error
        if is_end or not self.first_videos.is_open:
            for shard in self.held_shards:
                self._queue_publication(shard)
            self.held_shards.clear()

    def _after_extraction(
        self, job: ExtractJob, outcome: JobResult | WorkerLost
    ) -> VideoRecord | None:
        """Returns the record of a video that is finished, or None where it is to be tried again."""
        if isinstance(outcome, JobResult):
            if outcome.traceback is not None:
                reason = outcome.record and outcome.record.reason
                words = (reason or "internal-error").replace("-", " ")
                log.error("%s: %s\n%s", job.video.key, words, outcome.traceback)
            if outcome.cut is not None:
                log.info("%s: cut into %d segments", job.name, len(outcome.cut.segments))
                self.recorder.lost(job.name)
                self.cuts.add(job.shard, job.index, outcome.cut)
                self.waiting.extendleft(reversed(self._jobs_of(job.index)))
            return outcome.record
        error = self._note_loss(job, outcome)
        if self.storage.exists(part_name(job.shard, job.index, "json")):
            # The worker had finished the video and went before it could say so.
            return read_part_record(self.storage, job.shard, job.index)
        return self._try_again_or_fail(job, outcome, error)

    def _after_segment(
        self, job: ExtractJob, segment: Segment, outcome: JobResult | WorkerLost
    ) -> VideoRecord | None:
        """Returns the record of a video that has failed with its segment, and None otherwise."""
        record: VideoRecord | None
        if isinstance(outcome, JobResult):
            record = outcome.record
        else:
            error = self._note_loss(job, outcome)
            record = read_segment_record(self.storage, job.shard, job.index, segment)
        self.recorder.lost(job.name)
        if job.index not in self.cuts:
            # Its video was taken back while it was at work.
            self.cuts.remove_files(job.shard, job.index, segment)
            return None
        if record is not None:
            self.first_videos.give_up_watching()
            self.report.add_work(record)
            self.recorder.segment_finished(record, outcome.node)
            log.info("%s: finished", job.name)
            if self.cuts.finish(job.index, segment):
                self.waiting.extendleft(self._jobs_of(job.index))
            return None
        if isinstance(outcome, JobResult):
            self._extract_uncut(job, job.name, outcome)
            return None
        record = self._try_again_or_fail(job, outcome, error)
        if record is not None:
            self._drop_segments(job)
        return record

    def _after_join(self, job: JoinJob, outcome: JobResult | WorkerLost) -> VideoRecord | None:
        """Returns the record of a video that is joined, or None where it is to be tried again."""
        if isinstance(outcome, WorkerLost):
            self._after_lost_join(job, job.video.key, outcome)
            return None
        if outcome.record is None:
            self._extract_uncut(job, job.video.key, outcome)
            return None
        self.cuts.drop(job.shard, job.index)
        return outcome.record

    def _extract_uncut(self, job: ExtractJob | JoinJob, name: str, outcome: JobResult) -> None:
        """Gives up a video's segments: whatever is wrong, reading it whole says what it is."""
        log.warning("%s: %s; the video is extracted uncut", name, outcome.refusal)
        if outcome.traceback is not None:
            log.error("%s: internal error\n%s", name, outcome.traceback)
        self._drop_segments(job)
        whole = dataclasses.replace(self._extract_job(job.index), segment_frames=0)
        self.waiting.appendleft(whole)

    def _drop_segments(self, job: ExtractJob | JoinJob) -> None:
        self.cuts.drop(job.shard, job.index)
        self.waiting = deque(
            other
            for other in self.waiting
            if not (isinstance(other, ExtractJob) and other.index == job.index)
        )

    def _note_loss(self, job: ExtractJob, outcome: WorkerLost) -> VideoError:
        """Counts and logs a lost worker; returns what its video's failure would be."""
        self.report.num_lost_workers += 1
        error = self._why_lost(job, outcome)
        log.warning(
            "%s: attempt %d of %d lost its worker: %s: %s",
            job.name,
            job.attempt,
            self.options.max_attempts,
            error.reason,
            error.message,
        )
        return error

    def _try_again_or_fail(
        self, job: ExtractJob, outcome: WorkerLost, error: VideoError
    ) -> VideoRecord | None:
        self.recorder.lost(job.name)
        if self._goes_again(job, outcome):
            return None
        record = failed_record(job, error)
        write_part_record(self.storage, job.shard, job.index, record)
        return record

    def _goes_again(self, job: Job, lost: WorkerLost) -> bool:
        """Queues a job that lost its worker, unless that has happened too often."""
        if lost.node_died:
            # A machine that is taken away says nothing about its videos.
            if job.num_lost_nodes + 1 >= MAX_LOST_NODES:
                return False
            job = dataclasses.replace(job, num_lost_nodes=job.num_lost_nodes + 1)
        else:
            if job.attempt >= self.options.max_attempts:
                return False
            job = dataclasses.replace(job, attempt=job.attempt + 1)
        self.waiting.appendleft(job)
        return True

    def _why_lost(self, job: ExtractJob, lost: WorkerLost) -> VideoError:
        if self.storage.exists(job.stall_name):
            trace = self.storage.read_bytes(job.stall_name).decode(errors="replace")
            self.storage.remove(job.stall_name)
            if trace:
                log.warning("%s: stalled\n%s", job.name, trace)
                seconds = job.stall_timeout_seconds or 0
                return VideoError("stalled", f"no progress for {seconds:g} s; the worker was ended")
        return VideoError(lost.reason, lost.message)

    def _after_publication(self, job: PublishJob, outcome: JobResult | WorkerLost) -> None:
        if isinstance(outcome, WorkerLost):
            self._after_lost_join(job, f"shard {job.shard}", outcome)
            return
        remove_parts(self.storage, job.shard)
        log.info("published %s", shard_name(job.shard))

    def _after_lost_join(self, job: JoinJob | PublishJob, name: str, outcome: WorkerLost) -> None:
        self.report.num_lost_workers += 1
        log.warning("%s lost the worker that joins it: %s", name, outcome.message)
        if not self._goes_again(job, outcome):
            raise ExecutorError(
                f"{name} could not be joined in {job.attempt} attempts: {outcome.message}; run the "
                f"same command to try again"
            )

    def _finish(
        self, job: ExtractJob | JoinJob, record: VideoRecord, *, is_joined: bool = False
    ) -> None:
        self.report.add(record, is_joined=is_joined)
        if record.status == "failed":
            failure = self._failure(job.index, record)
            self.failures[record.key] = failure
            log.warning("%s: failed: %s: %s", record.key, failure.reason, failure.message)
        else:
            log.info("%s: %s, %d flows", record.key, record.status, record.num_flows)
        self.first_videos.add(job.shard, job.index, record)
        self.unfinished[job.shard] -= 1
        if self.unfinished[job.shard] == 0:
            self.held_shards.append(job.shard)

    def _queue_publication(self, shard: int) -> None:
        # Before the sidecar says that the shard is public, so that no failed video is ever in
        # neither.
        keys = {self.entries[index].video.key for index in self.indices[shard]}
        if keys & self.failures.keys():
            write_failures(self.storage, self.failures.values())
        self.waiting.appendleft(PublishJob(self.storage, shard, tuple(self.indices[shard])))

    def _failure(self, index: int, record: VideoRecord) -> Failure:
        assert record.reason is not None
        source = redacted(self.entries[index].video.source)
        return Failure(record.key, source, record.reason, record.message or "", record.attempts)

    def _jobs_of(self, index: int) -> list[Job]:
        """Returns what is to do for a video that is not finished."""
        whole = self._extract_job(index)
        if index not in self.cuts:
            return [whole]
        remaining = self.cuts.remaining(index)
        if not remaining:
            return [JoinJob(self.storage, whole.video, whole.shard, index, self.cuts[index])]
        return [dataclasses.replace(whole, segment=segment) for segment in remaining]

    def _extract_job(self, index: int) -> ExtractJob:
        entry = self.entries[index]
        return ExtractJob(
            storage=self.storage,
            config=self.config,
            video=entry.video,
            shard=entry.shard,
            index=index,
            attempt=1,
            # The watchdog ends the process, which must then be a worker's own.
            stall_timeout_seconds=(
                None if self.options.executor == "inline" else self.options.stall_timeout_seconds
            ),
            segment_frames=self.options.segment_frames,
        )


@contextmanager
def _run_log(storage: Storage) -> Iterator[str]:
    """Writes what flowprep logs to `logs/run-TIME.log`, whose name it yields."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{LOGS_FOLDER}/run-{stamp}-{os.getpid()}.log"
    storage.make_folder(LOGS_FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        path = storage.path(name) if storage.is_local else f"{folder}/log"
        with translated_errors("write", name):
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("flowprep")
        before = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield name
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)
            handler.close()
            if not storage.is_local:
                with open(path, "rb") as file:
                    storage.write_bytes(name, file.read())
