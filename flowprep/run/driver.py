"""A run: it makes a plan from a manifest, gives videos to workers, publishes shards and reports.

The driver holds names and counts, never frames. It can always read its state again from storage: a
finished video has a part and a record in `.parts`, and a finished shard has a sidecar. So the same
command continues after any crash. It computes again only the videos that were in flight.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter, deque
from collections.abc import Callable

import msgspec

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.failures import failure_of
from flowprep.dataset.foreign import foreign_notes
from flowprep.dataset.label_sets import publish_label_sets
from flowprep.dataset.layout import (
    Failure,
    ManifestEntry,
    VideoRecord,
    shard_name,
    write_failures,
)
from flowprep.dataset.lease import Lease, locked_dataset
from flowprep.dataset.parts import (
    find_part_record,
    remove_all_parts,
    remove_part_record,
    remove_parts,
    remove_temporary_files,
    write_part_record,
)
from flowprep.dataset.plan import write_plan
from flowprep.errors import ExecutorError, VideoError
from flowprep.inputs.manifest import Manifest
from flowprep.run.counters import counter_samples
from flowprep.run.executor import Executor
from flowprep.run.executors import start_executor
from flowprep.run.first_videos import FirstVideos
from flowprep.run.interrupts import interrupts_kept
from flowprep.run.job import (
    ExtractJob,
    Job,
    JobResult,
    JoinJob,
    PublishJob,
    WorkerLost,
    failed_record,
)
from flowprep.run.options import check_options, with_all_parameters
from flowprep.run.plan import make_plan
from flowprep.run.progress import Progress, RunReport
from flowprep.run.recovery import Recovered, recover
from flowprep.run.retries import Retries
from flowprep.run.run_log import run_log
from flowprep.run.segments import CutVideos, read_segment_record
from flowprep.run.status import ProgressRecorder, RunState
from flowprep.run.watchdog import why_lost
from flowprep.run.worker_process import WorkerProcess
from flowprep.storage import Storage
from flowprep.video.segments import Segment
from flowprep.words import format_count

__all__ = ["run_extract"]

log = logging.getLogger("flowprep.run")

_WAIT_SECONDS = 1.0
_HELD_SECONDS = 0.2
"""Time between two looks at the jobs if all of them wait to be tried again."""


def run_extract(
    manifest: Manifest,
    out: str,
    config: ExtractConfig,
    options: RunOptions | None = None,
    *,
    worker: WorkerProcess | None = None,
) -> RunReport:
    """Extracts the videos of `manifest` into the data set `out`, or continues an earlier run.

    `worker` is a worker that `early_worker` has already started, for a run that needs only one.
    Returns the report. Failed videos are listed in it and in `failures.jsonl`, and do not stop the
    run. Raises ConfigMismatchError if `out` was made with another configuration, InputError or
    DatasetError if the plan cannot be extended, StorageError if `out` cannot be written (published
    shards stay whole), ConfigError for a device that does not exist, ExecutorError if there are no
    workers, or if the first videos all fail with the same internal error.
    """
    options = options or RunOptions()
    config = with_all_parameters(config)
    check_options(options, config.flow.algorithm)
    storage = Storage(out)
    storage.make_folder()
    with (
        locked_dataset(storage, keeps_progress=True) as lease,
        # Each run has its own log, which may end with the loss of its lease.
        run_log(storage) as log_name,
    ):
        storage = lease.storage
        log.info("run with %s and %s", config, options)
        plan = make_plan(storage, manifest, config)
        for note in (*manifest.notes, *plan.notes):
            log.info("note: %s", note)
        write_plan(storage, plan)
        set_notes = publish_label_sets(storage, manifest.label_sets, plan.entries)
        run = _Run(storage, config, options, plan.entries, lease, worker)
        run.report.log_name = log_name
        run.report.notes[:0] = [*plan.notes, *set_notes, *foreign_notes(storage)]
        try:
            run.go()
        finally:
            log.info("%s", run.report.summary())
        return run.report


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
        self.waiting: deque[Job] = deque()
        self.retries = Retries(options.max_attempts)
        self.failures_of_nodes: dict[str, Failure] = {}
        """Failures of videos that this run could not finish, by no fault of theirs."""
        self.unfinished: Counter[int] = Counter()
        self.cuts = CutVideos(storage)
        self.report = RunReport(storage.location, len(entries))
        self.first_videos = FirstVideos()
        self.held_shards: list[int] = []
        """Finished shards that are not published until it is known that extraction works."""
        found = recover(storage, config, options, entries, self.cuts)
        self.entries = found.entries
        self.failures = found.failures
        self.indices = found.indices
        for shard, remaining in found.remaining.items():
            self.unfinished[shard] = len(remaining)
            for index in remaining:
                self.waiting.extend(self._jobs_of(index))
            if not remaining:
                self._queue_publication(shard)
        self._report_recovered(found)
        self.recorder = ProgressRecorder(storage, self.report, found.num_remaining, lease.epoch)

    def _report_recovered(self, found: Recovered) -> None:
        self.report.notes += found.notes
        if number := found.num_found_again:
            self.report.notes.append(
                f"tried {format_count(number, 'video')} again that failed as missing and "
                f"{'is' if number == 1 else 'are'} there now"
            )
        num_failed, num_open = len(found.failures), found.num_remaining
        self.report.num_failed = self.report.num_failed_before = num_failed
        self.report.failures.update(failure.reason for failure in found.failures.values())
        self.report.num_done_before = len(found.entries) - num_open - num_failed
        log.info(
            "%d videos: %d done, %d failed, %d to do",
            len(found.entries),
            self.report.num_done_before,
            num_failed,
            num_open,
        )

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
            # If another driver has taken over, it may need the parts.
            self.lease.confirm()
            if self.failures_of_nodes:
                # Their shards are not published. So the next run ends in the same shards as a run
                # that nothing happened to.
                every = self.failures | self.failures_of_nodes
                write_failures(self.storage, every.values())
            else:
                remove_all_parts(self.storage, self.indices)
            # These are left by workers that went away while they joined a shard.
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
        with interrupts_kept() as raise_if_interrupted:
            self._feed(executor, progress, raise_if_interrupted)

    def _feed(
        self, executor: Executor, progress: Progress, raise_if_interrupted: Callable[[], None]
    ) -> None:
        in_flight = 0
        while self.waiting or self.retries or in_flight:
            raise_if_interrupted()
            self.lease.check()
            self._take_back(executor.window)
            is_held = self.retries.holds(executor.is_short_of_memory)
            while self.waiting and not is_held and in_flight < executor.window:
                job = self.waiting.popleft()
                executor.submit(job)
                in_flight += 1
                if isinstance(job, ExtractJob):
                    self.recorder.submitted(job.name)
            if not in_flight:
                time.sleep(_HELD_SECONDS)
            for job, outcome in executor.wait(_WAIT_SECONDS):
                in_flight -= 1
                if isinstance(outcome, JobResult):
                    if outcome.error is not None:
                        raise outcome.error
                    self._note(outcome.note)
                    if outcome.record is None or outcome.record.status != "failed":
                        self.retries.note_success()
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
                    # For a joined video, its segments have already named their machines.
                    self.recorder.finished(record, "" if is_joined else outcome.node)
                    progress.advance()
            self._check_first_videos(is_end=not (self.waiting or self.retries or in_flight))
            self.recorder.num_workers = executor.num_workers
            if (written := self.recorder.write()) is not None:
                executor.show(counter_samples(written))

    def _note(self, note: str | None) -> None:
        """Logs and reports once what several workers say."""
        if note is not None and note not in self.report.notes:
            log.info("note: %s", note)
            self.report.notes.append(note)

    def _take_back(self, window: int) -> None:
        """Queues the jobs whose pause is over."""
        for job in self.retries.due():
            # Another video may need less memory. So as many others as are in hand come first.
            self.waiting.insert(0 if job.short_since is None else window, job)

    def _check_first_videos(self, *, is_end: bool) -> None:
        """Raises ExecutorError if extraction does not work here at all."""
        error = self.first_videos.error(self.report.log_name, is_end=is_end)
        if error is not None:
            failed = self.first_videos.failed
            log.error("%s", error)
            # The next run sees these videos as never tried. Other videos may still fail in the same
            # way in the meantime. The next run tries them again as well.
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
        """Returns the record of a finished video, or None if the video is to be tried again."""
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
        # The worker may have finished the video and gone before it could say so.
        if (record := find_part_record(self.storage, job.shard, job.index)) is not None:
            return record
        return self._try_again_or_fail(job, outcome, error)

    def _after_segment(
        self, job: ExtractJob, segment: Segment, outcome: JobResult | WorkerLost
    ) -> VideoRecord | None:
        """Returns the record of the video if it failed because of this segment, otherwise None."""
        record: VideoRecord | None
        if isinstance(outcome, JobResult):
            record = outcome.record
        else:
            error = self._note_loss(job, outcome)
            record = read_segment_record(self.storage, job.shard, job.index, segment)
        self.recorder.lost(job.name)
        if job.index not in self.cuts:
            # The driver gave up cutting the video while a worker computed this segment.
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
        """Returns the record of a joined video, or None if the video is to be tried again."""
        if isinstance(outcome, WorkerLost):
            self._after_lost_join(job, job.video.key, outcome)
            return None
        if outcome.record is None:
            self._extract_uncut(job, job.video.key, outcome)
            return None
        self.cuts.drop(job.shard, job.index)
        return outcome.record

    def _extract_uncut(self, job: ExtractJob | JoinJob, name: str, outcome: JobResult) -> None:
        """Gives up a video's segments. Reading the whole video will show what is wrong."""
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
        self.retries.drop(job.index)

    def _note_loss(self, job: ExtractJob, outcome: WorkerLost) -> VideoError:
        """Counts and logs a lost worker. Returns the error that its video would fail with."""
        self.report.num_lost_workers += 1
        error = why_lost(job, outcome)
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
        if self.retries.goes_again(job, outcome, others_wait=bool(self.waiting)):
            return None
        if outcome.is_short_of_memory or outcome.fault == "node":
            self._note_failure_of_node(job, error)
            return None
        record = failed_record(job, error)
        write_part_record(self.storage, job.shard, job.index, record)
        return record

    def _note_failure_of_node(self, job: ExtractJob, error: VideoError) -> None:
        """Leaves a video to the next run. Its shard waits for it."""
        key = job.video.key
        if key not in self.failures_of_nodes:
            record = msgspec.structs.replace(failed_record(job, error), fault="node")
            self.failures_of_nodes[key] = failure_of(record, job.video.source)
            self.report.node_failures[error.reason] += 1
            log.warning("%s: left to the next run: %s: %s", key, error.reason, error.message)

    def _after_publication(self, job: PublishJob, outcome: JobResult | WorkerLost) -> None:
        if isinstance(outcome, WorkerLost):
            self._after_lost_join(job, f"shard {job.shard}", outcome)
            return
        remove_parts(self.storage, job.shard)
        log.info("published %s", shard_name(job.shard))

    def _after_lost_join(self, job: JoinJob | PublishJob, name: str, outcome: WorkerLost) -> None:
        self.report.num_lost_workers += 1
        log.warning("%s lost the worker that joins it: %s", name, outcome.message)
        if not self.retries.goes_again(job, outcome):
            raise ExecutorError(
                f"{name} could not be joined in {job.attempt} attempts: {outcome.message}; run the "
                f"same command to try again"
            )

    def _finish(
        self, job: ExtractJob | JoinJob, record: VideoRecord, *, is_joined: bool = False
    ) -> None:
        self.report.add(record, is_joined=is_joined)
        if record.status == "failed":
            failure = failure_of(record, self.entries[job.index].video.source)
            self.failures[record.key] = failure
            log.warning("%s: failed: %s: %s", record.key, failure.reason, failure.message)
        else:
            log.info("%s: %s, %d flows", record.key, record.status, record.num_flows)
        self.first_videos.add(job.shard, job.index, record)
        self.unfinished[job.shard] -= 1
        if self.unfinished[job.shard] == 0:
            self.held_shards.append(job.shard)

    def _queue_publication(self, shard: int) -> None:
        # The failures are written before the sidecar makes the shard public, so that every failed
        # video is recorded at any time.
        keys = {self.entries[index].video.key for index in self.indices[shard]}
        if keys & self.failures.keys():
            write_failures(self.storage, self.failures.values())
        self.waiting.appendleft(PublishJob(self.storage, shard, tuple(self.indices[shard])))

    def _jobs_of(self, index: int) -> list[Job]:
        """Returns the jobs that an unfinished video still needs."""
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
            # The watchdog ends its whole process, so that process must belong to a worker alone.
            stall_timeout_seconds=(
                None if self.options.executor == "inline" else self.options.stall_timeout_seconds
            ),
            segment_frames=self.options.segment_frames,
            worker_memory=self.options.worker_memory,
            num_workers=self.options.num_workers,
        )
