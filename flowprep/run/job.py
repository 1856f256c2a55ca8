"""The jobs that workers get, and the results that they send back."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import VideoRecord
from flowprep.dataset.parts import part_name
from flowprep.errors import FailureFault, FlowprepError, VideoError
from flowprep.flow.base import FlowEstimator
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
    "VideoWork",
    "WorkerLost",
    "failed_record",
    "internal_error_site",
]


class VideoWork(Protocol):
    """What a worker does with a video if it stores no data set. It can be pickled, and is small."""

    @property
    def needs_flow(self) -> bool:
        """Whether the work needs an estimator."""

    def carry_out(
        self,
        job: ExtractJob,
        video: Video,
        estimator: FlowEstimator | None,
        device: str,
        on_progress: Callable[[], None],
    ) -> VideoRecord:
        """Reads `video`, whose source is on this machine, and returns a record without members.

        `device` is the worker's. `on_progress` must be called at every step, because the watchdog
        ends a worker that gives no sign of life. Raises VideoError if the video gives nothing.
        """


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
    """None leaves the watchdog off. The watchdog ends its process, so the user's own has none."""
    num_lost_nodes: int = 0
    """Number of machines that went away while they worked on this job."""
    short_since: float | None = None
    """When other programs first left no memory for this job, by the driver's clock."""
    segment_frames: int = 0
    """For a video with more than twice this many frames, the result only says how to cut it."""
    segment: Segment | None = None
    """The part of the video to extract. None means the whole video."""
    worker_memory: str = "none"
    """How much memory its worker may hold, as in the option of this name."""
    num_workers: int | None = None
    """Number of workers of the run. None means the number of cores."""
    work: VideoWork | None = None
    """What to do with the video in place of storing it in `.parts`."""

    @property
    def name(self) -> str:
        """The name of the video and its segment, for people to read."""
        if self.segment is None:
            return self.video.key
        return f"{self.video.key} (flows {self.segment.start} to {self.segment.stop - 1})"

    @property
    def stall_name(self) -> str:
        """The name of the file that says where a worker stalled."""
        if self.segment is None:
            return part_name(self.shard, self.index, "stall")
        return segment_name(self.shard, self.index, self.segment, "stall")


@dataclass(frozen=True, slots=True)
class JoinJob:
    """One video to be joined from its segments."""

    storage: Storage
    video: Video
    shard: int
    index: int
    cut: VideoCut
    attempt: int = 1
    num_lost_nodes: int = 0
    short_since: float | None = None


@dataclass(frozen=True, slots=True)
class PublishJob:
    """One shard to be joined from its parts."""

    storage: Storage
    shard: int
    indices: tuple[int, ...]
    """The manifest's lines that belong to this shard, in order."""
    attempt: int = 1
    num_lost_nodes: int = 0
    short_since: float | None = None


Job = ExtractJob | JoinJob | PublishJob


@dataclass(frozen=True)
class JobResult:
    """The result that a worker sends back. It is small, because the frames went to storage."""

    record: VideoRecord | None = None
    """The record of the video of an ExtractJob or JoinJob. A segment's record looks the same."""
    cut: VideoCut | None = None
    """How to cut a video that is too long to be extracted at once."""
    refusal: str | None = None
    """Why a segment or the join gave nothing. The video is then extracted uncut."""
    error: FlowprepError | None = None
    """An error that stops the whole run, such as failing storage. A video's own is in `record`."""
    traceback: str | None = None
    """The traceback of an internal error, for the log."""
    note: str | None = None
    """A note on the worker's library versions, if the driver has other ones."""
    node: str = field(default_factory=socket.gethostname)
    """The machine on which the worker runs."""


@dataclass(frozen=True)
class WorkerLost:
    """The worker went away with its job, or its GPU cannot compute any more."""

    reason: Literal["crashed", "out-of-memory"]
    message: str
    node_died: bool = False
    """Whether its whole machine went away, which is hardly the fault of the job."""
    is_short_of_memory: bool = False
    """Whether its machine's memory ran out while the worker held no more than it may."""
    fault: FailureFault = "video"
    """Whose fault it is if it happens in every attempt."""
    node: str = ""
    """Always empty: the machine is not known, because the worker can no longer name it."""


@dataclass(frozen=True)
class PreparedWorker:
    """The first message of a worker with its own device, before it takes jobs."""

    estimator: str = ""
    """The class and the device of the estimator."""
    error: FlowprepError | None = None
    """Why the worker cannot work."""
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
        fault="video",
    )


def internal_error_site(record: VideoRecord) -> str | None:
    """Returns the error and its place, such as `TypeError at reader.py:12`, of an internal error.

    Returns None for other failures. An error of a user's own estimator counts as an internal error,
    because the video is not to blame either. One fault gives the same text for each video. Only the
    rest of the message may name the video.
    """
    if record.status != "failed" or record.reason not in ("internal-error", "estimator-error"):
        return None
    return (record.message or "").partition(": ")[0]
