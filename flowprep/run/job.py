"""What is given to a worker, and what comes back."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Literal

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import VideoRecord
from flowprep.dataset.parts import part_name
from flowprep.errors import FlowprepError, VideoError
from flowprep.inputs.video import Video
from flowprep.run.segments import segment_name
from flowprep.storage import Storage
from flowprep.video.segments import Segment, VideoCut

__all__ = [
    "ExtractJob",
    "Job",
    "JobResult",
    "JoinJob",
    "PreparedWorker",
    "PublishJob",
    "WorkerLost",
    "failed_record",
    "internal_error_site",
]


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
    stall_timeout_seconds: float | None
    """None leaves the watchdog off: it ends the process, which must then not be the user's own."""
    num_lost_nodes: int = 0
    """Machines that went away while they worked on it."""
    segment_frames: int = 0
    """A video of more than twice so many frames is not extracted: the result says how to cut it."""
    segment: Segment | None = None
    """The part of the video to extract; None is all of it."""

    @property
    def name(self) -> str:
        """Of the video, and of its segment, for people."""
        if self.segment is None:
            return self.video.key
        return f"{self.video.key} (flows {self.segment.start} to {self.segment.stop - 1})"

    @property
    def stall_name(self) -> str:
        """Name of the file that says where a worker stalled."""
        if self.segment is None:
            return part_name(self.shard, self.index, "stall")
        return segment_name(self.shard, self.index, self.segment, "stall")


@dataclass(frozen=True, slots=True)
class JoinJob:
    """One video to join from its segments."""

    storage: Storage
    video: Video
    shard: int
    index: int
    cut: VideoCut
    attempt: int = 1
    num_lost_nodes: int = 0


@dataclass(frozen=True, slots=True)
class PublishJob:
    """One shard to join from its parts."""

    storage: Storage
    shard: int
    indices: tuple[int, ...]
    """The manifest's lines in this shard, in order."""
    attempt: int = 1
    num_lost_nodes: int = 0


Job = ExtractJob | JoinJob | PublishJob


@dataclass(frozen=True)
class JobResult:
    """What a worker sends back: small, for the bytes went to storage."""

    record: VideoRecord | None = None
    """Of an ExtractJob or a JoinJob; of a segment as if it were a video."""
    cut: VideoCut | None = None
    """How to cut a video that was too long to be extracted at once."""
    refusal: str | None = None
    """Why a segment, or the join, gave nothing: the video is to be extracted uncut."""
    error: FlowprepError | None = None
    """What stops the whole run: storage that fails. A video's own failure is in its record."""
    traceback: str | None = None
    """Of an internal error, for the log."""
    note: str | None = None
    """On the worker's library versions, where they are not the driver's."""
    node: str = field(default_factory=socket.gethostname)
    """The machine that the worker is on."""


@dataclass(frozen=True)
class WorkerLost:
    """A worker went away with its job, or its GPU can do no more."""

    reason: Literal["crashed", "out-of-memory"]
    message: str
    node_died: bool = False
    """Its whole machine went away, which is hardly the job's doing."""
    node: str = ""
    """Not known: what could have said it is gone."""


@dataclass(frozen=True)
class PreparedWorker:
    """What a worker with a device of its own says before it takes jobs."""

    estimator: str = ""
    """Its class and device."""
    error: FlowprepError | None = None
    """Why it cannot work."""
    notes: tuple[str, ...] = ()
    """Warnings, for the log."""
    node: str = field(default_factory=socket.gethostname)


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


def internal_error_site(record: VideoRecord) -> str | None:
    """Returns what failed and where, such as `TypeError at reader.py:12`; None for other failures.

    An error of a user's own estimator counts as one: it is no fault of the video either.

    Of one fault it is the same for each video, while the rest of the message may name the video.
    """
    if record.status != "failed" or record.reason not in ("internal-error", "estimator-error"):
        return None
    return (record.message or "").partition(": ")[0]
