"""Every error that flowprep raises on purpose.

FlowprepError
|-- ConfigError            an option breaks a rule                         (exit code 2)
|-- InputError             the inputs cannot be planned                    (exit code 2)
|-- DatasetError           a data set on disk is damaged or not understood (exit code 1)
|   `-- ConfigMismatchError  a run's configuration is not the data set's
|-- StorageError           the output cannot be read or written            (exit code 1)
|-- ExecutorError          workers cannot be had                           (exit code 1)
|-- TrainingError          a training cannot go on                          (exit code 1)
|-- WeightsError           weights cannot be read, or are another model's  (exit code 1)
`-- VideoError             one video cannot be extracted; costs that video alone
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from flowprep.urls import redacted

__all__ = [
    "FAILURE_REASONS",
    "VIDEO_NOTES",
    "ConfigError",
    "ConfigMismatchError",
    "DatasetError",
    "ExecutorError",
    "FailureReason",
    "FlowprepError",
    "InputError",
    "NoteCode",
    "StorageError",
    "StorageReason",
    "TrainingError",
    "VideoError",
    "WeightsError",
]

FailureReason = Literal[
    "missing",
    "unreadable",
    "no-video-stream",
    "no-frames",
    "too-few-frames",
    "damaged",
    "too-small",
    "too-large",
    "size-change",
    "irregular-clock",
    "gaps",
    "no-clock",
    "incomplete",
    "crashed",
    "stalled",
    "out-of-memory",
    "internal-error",
]

StorageReason = Literal["missing", "forbidden", "credentials", "full", "unavailable", "other"]
"""`forbidden`: known, but not allowed; `unavailable`: tried again and again, in vain."""

FAILURE_REASONS: dict[FailureReason, str] = {
    "missing": "the source file or folder does not exist or may not be read",
    "unreadable": "the file is empty or not a video that the decoder knows",
    "no-video-stream": "the file has no video, or not the stream that --video-stream names",
    "no-frames": "the file has a video stream that decodes to no frame",
    "too-few-frames": "the video has no pair of frames at this step",
    "too-small": "the frames are smaller than the algorithm's least side",
    "too-large": "the pictures have more pixels than flowprep decodes",
    "damaged": "decoding broke off in the middle",
    "size-change": "the picture size changes in mid-stream",
    "irregular-clock": "a range was asked for, and the time stamps are not in order",
    "gaps": "the folder of images lacks numbers; --on-gaps ignore takes what is there",
    "no-clock": "a range or a rate was asked for, and images have no clock without --image-fps",
    "incomplete": "an imported tree lacks images of it, or a list counts others than there are",
    "crashed": "the video ended its worker process, every time it was tried",
    "stalled": "no frame came for the time limit, and the worker was ended",
    "out-of-memory": "the worker ran out of memory, every time it was tried",
    "internal-error": "an error in flowprep itself; the log has the traceback",
}
"""What each reason code in `failures.jsonl` means."""


NoteCode = Literal[
    "already-trimmed",
    "concealed",
    "edit-list",
    "gaps-ignored",
    "irregular-stamps",
    "long-still",
    "not-square",
    "numbers-differ",
    "numbers-step",
    "odd-angle",
    "odd-pixels",
    "past-the-end",
    "rate-drops",
    "other-streams",
]

VIDEO_NOTES: dict[NoteCode, str] = {
    "already-trimmed": "the file is as long as its range, so it was taken whole",
    "concealed": "damaged pictures were kept as the decoder concealed them",
    "edit-list": "the file's edit list hides frames, which players do not show either",
    "gaps-ignored": "image numbers are missing; the images were taken one after the other",
    "irregular-stamps": "time stamps go back, repeat, jump or are missing; no frame was left out",
    "long-still": "one picture is repeated for more than 10 s, as the time stamps jump ahead",
    "not-square": "pixels are not square; --square-pixels resamples them as players do",
    "numbers-differ": "frames and flow begin at different numbers; they were paired in order",
    "numbers-step": "image numbers rise by more than one each time; the images follow one another",
    "odd-angle": "the picture is to be turned by no quarter turn; the nearest one was taken",
    "odd-pixels": "the header states pixels of an impossible shape; square ones were assumed",
    "past-the-end": "the range ends after the video; the frames up to its end were taken",
    "rate-drops": "more than 5 % of the frames fall out at --fps, which is not below their rate",
    "other-streams": "the file has several video streams; --video-stream chooses another one",
}
"""What each note on a stored video means: nothing failed, but somebody should look."""


class FlowprepError(Exception):
    """The root of all errors that flowprep raises on purpose; no message holds a URL's secrets."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class ConfigError(FlowprepError, ValueError):
    """An option or a configuration value breaks a rule."""

    exit_code = 2


class InputError(FlowprepError):
    """The inputs cannot be turned into a list of videos."""

    exit_code = 2


class DatasetError(FlowprepError):
    """A data set on disk is damaged, incomplete or of a version that this one does not know."""


class ConfigMismatchError(DatasetError):
    """A run's configuration is not the stored one; `differences` maps fields to both values."""

    def __init__(self, message: str, differences: Mapping[str, tuple[Any, Any]]) -> None:
        super().__init__(message)
        self.differences = dict(differences)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ConfigMismatchError, (*self.args, self.differences))


class StorageError(FlowprepError):
    """A location cannot be read or written; `reason` is one of `StorageReason`."""

    def __init__(self, message: str, reason: StorageReason = "other") -> None:
        super().__init__(message)
        self.reason: StorageReason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (*self.args, self.reason))


class ExecutorError(FlowprepError):
    """Workers cannot be started, a cluster lacks what the run needs, or no worker can extract."""


class TrainingError(FlowprepError):
    """A training cannot go on: its loss is no number any more, or its processes went away."""


class WeightsError(FlowprepError):
    """A file of weights is damaged, of a format that is not read, or not for this model."""


class VideoError(FlowprepError):
    """One video cannot be extracted.

    `reason` is one of `FAILURE_REASONS`; `num_frames` counts the good frames that came before.
    """

    def __init__(self, reason: FailureReason, message: str, *, num_frames: int = 0) -> None:
        super().__init__(message)
        self.reason: FailureReason = reason
        self.message = redacted(message)
        self.num_frames = num_frames

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_video_error, (self.reason, self.message, self.num_frames))


def _rebuild_video_error(reason: FailureReason, message: str, num_frames: int) -> VideoError:
    return VideoError(reason, message, num_frames=num_frames)
