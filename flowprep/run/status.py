"""Tells how far a run is from the data set's files alone, on any machine that can read them.

The driver keeps `logs/progress.json` up to date while it works. The number of finished videos is
counted from the manifest, the shards and the parts themselves, which are always right.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Literal, get_args

import msgspec

from flowprep.dataset.foreign import foreign_notes
from flowprep.dataset.layout import (
    LOGS_FOLDER,
    MANIFEST_FILE,
    DatasetHeader,
    VideoRecord,
    read_failures,
    sidecar_name,
)
from flowprep.dataset.lease import run_epoch
from flowprep.dataset.parts import num_finished_parts, shards_with_parts
from flowprep.dataset.read import published_shards
from flowprep.errors import DatasetError, FailureFault, StorageError
from flowprep.printable import join_lines
from flowprep.run.progress import RunReport
from flowprep.storage import Storage
from flowprep.words import format_bytes, format_count, format_duration

__all__ = [
    "PROGRESS_FILE",
    "ProgressRecorder",
    "RunProgress",
    "RunState",
    "RunStatus",
    "read_status",
]

PROGRESS_FILE = f"{LOGS_FOLDER}/progress.json"

RunState = Literal["running", "complete", "incomplete", "interrupted", "failed"]

WRITE_SECONDS = 10.0
"""Time between two writes of the file: rare enough for an object store, often enough to watch."""
RATE_SECONDS = 600.0
"""The estimated finish follows from the rate of the last ten minutes."""
NUM_SLOWEST = 10
NUM_IN_FLIGHT = 20
SILENT_SECONDS = 60.0
"""A driver that has not written for this time is called silent."""


_Count = Annotated[int, msgspec.Meta(ge=0, lt=10**15)]
_Number = Annotated[float, msgspec.Meta(ge=0, lt=1e15)]


class NodeProgress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The work of the workers of one machine in this run."""

    num_videos: _Count = 0
    num_pairs: _Count = 0
    busy_seconds: _Number = 0.0
    """Working time, summed over the workers of this machine."""


class SlowVideo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the videos that took longest, or a video that is being worked on."""

    key: str
    seconds: _Number
    num_pairs: _Count = 0
    node: str = ""


class RunProgress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `logs/progress.json`: the driver's knowledge about its run."""

    run: str
    """The epoch of the run's lease and a random name, as in `12-0f3a...`."""
    driver: str
    """The driver's process and machine."""
    state: RunState
    num_updates: _Count
    """Grows with every write. If it stands still, the driver is gone."""
    began: str
    """Time in UTC by the driver's clock, as ISO 8601, like the other times here."""
    updated: str
    estimated_finish: str | None
    """Computed from the rate of the last minutes. None if there is no rate yet."""
    wall_seconds: _Number
    num_workers: _Count
    num_videos: _Count
    """Number of videos in the manifest."""
    num_remaining: _Count
    """Number of videos that are neither finished nor failed."""
    num_done_before: _Count
    num_complete: _Count
    num_partial: _Count
    num_failed: _Count
    """By a fault of their own."""
    num_lost_workers: _Count
    num_pairs: _Count
    num_bytes: _Count
    pairs_per_second: _Number
    """Rate of the last minutes, like `videos_per_second`."""
    videos_per_second: _Number
    stage_seconds: dict[str, _Number] = {}
    """Seconds by stage, over all workers of this run."""
    failures: dict[str, _Count] = {}
    """Failed videos by reason."""
    node_failures: dict[str, _Count] = {}
    """Videos that failed by the fault of a node, by reason; they are among the remaining."""
    nodes: dict[str, NodeProgress] = {}
    slowest: tuple[SlowVideo, ...] = ()
    in_flight: tuple[SlowVideo, ...] = ()
    """The videos that have been worked on for the longest time."""
    log_name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the progress as JSON values; `from_dict` is its inverse."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    @property
    def epoch(self) -> int:
        """Epoch of the run's lease, or 0 for an earlier version, which did not count."""
        number, dash, _ = self.run.partition("-")
        return int(number) if dash and number.isdecimal() and len(number) < 16 else 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunProgress:
        """Rebuilds a stored progress. Raises ValueError for anything else: anybody may write it."""
        progress = msgspec.convert(values, cls)
        if datetime.fromisoformat(progress.updated).tzinfo is None:
            raise ValueError("updated must be in UTC")
        return progress


class ProgressRecorder:
    """Counts the work of a run, and publishes the counts every few seconds."""

    def __init__(self, storage: Storage, report: RunReport, num_remaining: int, epoch: int) -> None:
        self.num_workers = 0
        self._storage = storage
        self._report = report
        self._num_remaining = num_remaining
        self._run = f"{epoch}-{uuid.uuid4().hex[:12]}"
        self._began_at = datetime.now(timezone.utc)
        self._began = time.monotonic()
        self._written = -WRITE_SECONDS
        self._num_updates = 0
        self._nodes: dict[str, list[float]] = {}
        self._slowest: list[tuple[float, str, int, str]] = []
        self._in_flight: dict[str, float] = {}
        self._trail: deque[tuple[float, int, int]] = deque([(self._began, 0, 0)])
        self._num_finished = 0

    def submitted(self, key: str) -> None:
        """Notes that a video was handed to a worker."""
        self._in_flight[key] = time.monotonic()

    def lost(self, key: str) -> None:
        """Notes that a video's worker went away and that the video waits for another worker."""
        self._in_flight.pop(key, None)

    def finished(self, record: VideoRecord, node: str) -> None:
        """Notes that a video was finished, or has failed for good, on the machine `node`.

        `node` is empty if the worker went away and its machine is unknown. It is also empty for a
        video joined from segments, which several machines may have computed.
        """
        self._in_flight.pop(record.key, None)
        self._num_finished += 1
        self._num_remaining -= 1
        seconds = sum(record.seconds.values())
        self._count(node, 1, record)
        if seconds:
            item = (seconds, record.key, record.num_flows, node)
            if len(self._slowest) < NUM_SLOWEST:
                heapq.heappush(self._slowest, item)
            else:
                heapq.heappushpop(self._slowest, item)

    def segment_finished(self, record: VideoRecord, node: str) -> None:
        """Notes that a segment was finished on the machine `node`."""
        self._count(node, 0, record)

    def _count(self, node: str, num_videos: int, record: VideoRecord) -> None:
        if not node:
            return
        counts = self._nodes.setdefault(node, [0, 0, 0.0])
        counts[0] += num_videos
        counts[1] += record.num_flows
        counts[2] += sum(record.seconds.values())

    def write(self, state: RunState = "running") -> RunProgress | None:
        """Publishes the progress when it is due or the run has ended. Returns what it wrote.

        If this write fails, the old file stays and the run continues.
        """
        now = time.monotonic()
        if state == "running" and now - self._written < WRITE_SECONDS:
            return None
        self._written = now
        self._num_updates += 1
        progress = self._progress(state, now)
        try:
            content = json.dumps(progress.to_dict(), indent=2) + "\n"
            self._storage.write_bytes(PROGRESS_FILE, content.encode(), lasting=False)
        except StorageError:
            if state == "running":
                return None
        return progress

    def _progress(self, state: RunState, now: float) -> RunProgress:
        report = self._report
        self._trail.append((now, report.num_pairs, self._num_finished))
        while len(self._trail) > 2 and self._trail[1][0] <= now - RATE_SECONDS:
            self._trail.popleft()
        since, pairs, videos = self._trail[0]
        seconds = max(1e-9, now - since)
        pairs_per_second = (report.num_pairs - pairs) / seconds
        videos_per_second = (self._num_finished - videos) / seconds
        updated = datetime.now(timezone.utc)
        finish = None
        if state == "running" and videos_per_second:
            left = timedelta(seconds=self._num_remaining / videos_per_second)
            finish = (updated + left).isoformat(timespec="seconds")
        longest = sorted(self._in_flight.items(), key=lambda item: item[1])[:NUM_IN_FLIGHT]
        return RunProgress(
            run=self._run,
            driver=f"process {os.getpid()} on {socket.gethostname()}",
            state=state,
            num_updates=self._num_updates,
            began=self._began_at.isoformat(timespec="seconds"),
            updated=updated.isoformat(timespec="seconds"),
            estimated_finish=finish,
            wall_seconds=round(now - self._began, 3),
            num_workers=self.num_workers,
            num_videos=report.num_videos,
            num_remaining=self._num_remaining,
            num_done_before=report.num_done_before,
            num_complete=report.num_complete,
            num_partial=report.num_partial,
            num_failed=report.num_failed,
            num_lost_workers=report.num_lost_workers,
            num_pairs=report.num_pairs,
            num_bytes=report.num_bytes,
            pairs_per_second=round(pairs_per_second, 3),
            videos_per_second=round(videos_per_second, 4),
            stage_seconds={name: round(value, 3) for name, value in report.seconds.items()},
            failures=dict(report.failures.most_common()),
            node_failures=dict(report.node_failures.most_common()),
            nodes={
                name: NodeProgress(int(videos), int(pairs), round(busy, 3))
                for name, (videos, pairs, busy) in sorted(self._nodes.items())
            },
            slowest=tuple(
                SlowVideo(key, round(seconds, 3), pairs, node)
                for seconds, key, pairs, node in sorted(self._slowest, reverse=True)
            ),
            in_flight=tuple(SlowVideo(key, round(now - at, 1)) for key, at in longest),
            log_name=report.log_name,
        )


@dataclass(frozen=True)
class RunStatus:
    """The state of a data set: how far its extraction is."""

    location: str
    num_videos: int
    """Number of videos in the manifest."""
    num_published: int
    """Videos in published shards, including failed ones."""
    num_waiting: int
    """Finished or failed videos whose shard is not published yet."""
    num_failed: int
    """Videos in `failures.jsonl` that failed by a fault of their own. The file is written when
    shards are published."""
    num_failed_by_node: int
    """Videos in `failures.jsonl` that failed by the fault of a node. The next run tries them."""
    num_shards: int
    num_published_shards: int
    failures: dict[str, int]
    """Videos that failed by a fault of their own, by reason."""
    node_failures: dict[str, int]
    """Videos that failed by the fault of a node, by reason."""
    num_concealed: int | None
    """Published videos with damaged pictures that the decoder concealed. None on an object store,
    where counting them would take one request for each shard."""
    progress: RunProgress | None
    """Progress of the last run. None if there was no run, or if its file is damaged or older."""
    silent_seconds: float | None
    """Seconds since the driver's last write, by this machine's clock. None if no run is working."""
    notes: tuple[str, ...] = ()
    """One sentence for what else lies among shards and parts."""

    @property
    def num_done(self) -> int:
        """Number of videos that need no more work."""
        return self.num_published + self.num_waiting

    @property
    def state(self) -> str:
        """`running`, `silent`, `complete`, `incomplete`, `interrupted` or `failed`."""
        if self.progress is not None and self.progress.state == "running":
            silent = self.silent_seconds is not None and self.silent_seconds > SILENT_SECONDS
            return "silent" if silent else "running"
        if self.num_published == self.num_videos:
            has_failed = self.num_failed or self.num_failed_by_node
            return "incomplete" if has_failed else "complete"
        return "incomplete" if self.progress is None else self.progress.state

    def to_dict(self) -> dict[str, Any]:
        """Returns the status as JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return {"state": self.state, "num_done": self.num_done} | values

    def summary(self) -> str:
        """Returns the status as lines of text."""
        share = 100 * self.num_done / max(1, self.num_videos)
        lines = [
            f"{self.state}: {self.num_done} of {format_count(self.num_videos, 'video')} done "
            f"({share:.1f} %) in {self.location}",
            f"  shards        {self.num_published_shards} of {self.num_shards} published, "
            f"{format_count(self.num_waiting, 'video')} finished in others",
        ]
        if self.num_failed:
            lines.append(
                f"  failed        {format_count(self.num_failed, 'video')}: "
                f"{_reasons(self.failures)}"
            )
        if self.num_failed_by_node:
            them = "it" if self.num_failed_by_node == 1 else "them"
            lines.append(
                f"  node's fault  {format_count(self.num_failed_by_node, 'video')}: "
                f"{_reasons(self.node_failures)}; the same extract tries {them} again"
            )
        if self.num_concealed:
            count = format_count(self.num_concealed, "video")
            lines.append(
                f"  concealed     {count} with damaged pictures; `flowprep report` shows them"
            )
        if self.progress is not None:
            lines += self._run_lines(self.progress)
        return join_lines(lines)

    def _run_lines(self, run: RunProgress) -> list[str]:
        works = run.state == "running"
        wall = format_duration(run.wall_seconds)
        lines = [
            f"  run           {run.driver}, began {run.began}, "
            + (f"at work for {wall}" if works else f"{run.state} after {wall}"),
        ]
        if self.state == "silent":
            assert self.silent_seconds is not None
            lines.append(
                f"  silent        the driver has not written for "
                f"{format_duration(self.silent_seconds)}; if it is gone, run the same command again"
            )
        lost = format_count(run.num_lost_workers, "worker")
        lines.append(
            f"  this run      {format_count(run.num_complete + run.num_partial, 'video')}, "
            f"{format_count(run.num_pairs, 'frame pair')}, {format_bytes(run.num_bytes)}"
            + (f", lost {lost}" if run.num_lost_workers else "")
        )
        if works:
            lines.append(
                f"  rate          {run.pairs_per_second:.1f} pairs/s, {run.videos_per_second:.2f} "
                f"videos/s with {format_count(run.num_workers, 'worker')}"
            )
        if works and run.estimated_finish:
            lines.append(f"  finish        about {run.estimated_finish} by the driver's clock")
        for name, node in run.nodes.items():
            rate = node.num_pairs / node.busy_seconds if node.busy_seconds else 0.0
            lines.append(
                f"  node          {name}: {format_count(node.num_videos, 'video')}, "
                f"{format_count(node.num_pairs, 'pair')}, {rate:.1f} pairs/s per worker"
            )
        for video in run.slowest[:3]:
            lines.append(
                f"  slowest       {video.key}: {format_duration(video.seconds)}, "
                f"{format_count(video.num_pairs, 'pair')}"
            )
        for video in run.in_flight[:3] if works else ():
            lines.append(f"  in flight     {video.key}: for {format_duration(video.seconds)}")
        return lines


def read_status(out: str | os.PathLike[str]) -> RunStatus:
    """Returns how far the data set `out` is. Reads names and counts, and parses no shard.

    Raises DatasetError if `out` is not a flowprep data set.
    """
    storage = Storage(out)
    DatasetHeader.read(storage)
    # Each line of the plan ends with its shard. Parsing a million whole lines would take ten times
    # as long.
    planned: Counter[int] = Counter()
    if storage.exists(MANIFEST_FILE):
        manifest = storage.read_bytes(MANIFEST_FILE)
        planned.update(map(int, re.findall(rb'"shard":(\d+)\}$', manifest, re.MULTILINE)))
        if sum(planned.values()) != manifest.count(b"\n"):
            raise DatasetError(
                f"{storage.location}: {MANIFEST_FILE} is damaged; run `flowprep verify`"
            )
    published = set(published_shards(storage)) & planned.keys()
    num_waiting = 0
    for shard in shards_with_parts(storage) - published:
        num_waiting += num_finished_parts(storage, shard)
    failures = read_failures(storage).values()
    by_fault = {
        fault: Counter(one.reason for one in failures if one.fault == fault)
        for fault in get_args(FailureFault)
    }
    progress = _read_progress(storage)
    silent = None
    if progress is not None and progress.state == "running":
        passed = datetime.now(timezone.utc) - datetime.fromisoformat(progress.updated)
        silent = max(0.0, passed.total_seconds())
    return RunStatus(
        location=storage.location,
        num_videos=sum(planned.values()),
        num_published=sum(planned[shard] for shard in published),
        num_waiting=num_waiting,
        num_failed=by_fault["video"].total(),
        num_failed_by_node=by_fault["node"].total(),
        num_shards=len(planned),
        num_published_shards=len(published),
        failures=dict(by_fault["video"].most_common()),
        node_failures=dict(by_fault["node"].most_common()),
        num_concealed=_num_concealed(storage, published) if storage.is_local else None,
        progress=progress,
        silent_seconds=silent,
        notes=tuple(foreign_notes(storage)),
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _num_concealed(storage: Storage, shards: Iterable[int]) -> int:
    """Counts the records with damaged pictures without parsing them: there may be a million."""
    return sum(storage.read_bytes(sidecar_name(shard)).count(b'"num_damaged":') for shard in shards)


def _read_progress(storage: Storage) -> RunProgress | None:
    if not storage.exists(PROGRESS_FILE):
        return None
    try:
        progress = RunProgress.from_dict(json.loads(storage.read_bytes(PROGRESS_FILE)))
    except (ValueError, OverflowError, RecursionError):
        # This file only says how a run went. The data set does not depend on it.
        return None
    # A run that was taken over may have written it after its successor.
    return progress if progress.epoch >= run_epoch(storage) else None
