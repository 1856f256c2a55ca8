"""Every error that flowprep raises on purpose.

FlowprepError
|-- ConfigError            an option breaks a rule                         (exit code 2)
|-- InputError             the inputs cannot be planned                    (exit code 2)
|-- DatasetError           a data set on disk is damaged or not understood (exit code 1)
|   `-- ConfigMismatchError  a run and the data set have different configurations
|-- StorageError           the output cannot be read or written            (exit code 1)
|-- ExecutorError          workers cannot be started or kept               (exit code 1)
|-- MissingExtraError      a package of an extra is not installed          (exit code 1)
|-- TrainingError          a training cannot continue                      (exit code 1)
|-- WeightsError           weights cannot be read or fit another model     (exit code 1)
`-- VideoError             one video cannot be extracted; the run continues
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flowprep.printable import join_lines
from flowprep.urls import redacted

__all__ = [
    "FAILURE_REASONS",
    "NODE_FAILURES",
    "VIDEO_NOTES",
    "ConfigError",
    "ConfigMismatchError",
    "DatasetError",
    "ExecutorError",
    "FailureFault",
    "FailureReason",
    "FlowprepError",
    "InputError",
    "MissingExtraError",
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
    "estimator-error",
    "internal-error",
    "record-lost",
]

FailureFault = Literal["video", "node"]
"""Whose fault a failure is. The video's stays; the next run tries a node's again."""

StorageReason = Literal["missing", "forbidden", "credentials", "full", "unavailable", "other"]
"""`forbidden`: the user is known, but has no permission. `unavailable`: every attempt failed."""

FAILURE_REASONS: dict[FailureReason, str] = {
    "missing": "the file or folder does not exist or cannot be read; put it there and run again",
    "unreadable": "the file is empty or not a video that the decoder knows; replace or convert it",
    "no-video-stream": "the file has no video stream, or not the stream that --video-stream "
    "names; choose another stream, or leave the file out",
    "no-frames": "the file, folder or range gives no frame; play the file, and check the range",
    "too-few-frames": "the video has no pair of frames at this step; leave it out, or extract to "
    "a new OUT with a smaller --step",
    "too-small": "the frames are smaller than the algorithm or --crop allows; leave the video out, "
    "or extract to a new OUT with --upscale",
    "too-large": "the pictures have more pixels than flowprep decodes; convert to a smaller size",
    "damaged": "decoding stopped at damage; replace the file, or run extract with --on-damage cut "
    "to keep the part before the damage",
    "size-change": "the picture size changes in the middle; convert the video to one size",
    "irregular-clock": "the range cannot be found, because the time stamps are not in order; "
    "leave out the range, or convert the file",
    "gaps": "the image numbers have gaps; add the missing images, or run extract with --on-gaps "
    "ignore",
    "no-clock": "a range in seconds and --fps need the frame rate of the images; extract to a new "
    "OUT with --image-fps",
    "incomplete": "images are missing from an imported tree, or a list gives another number of "
    "images; copy the images, or correct the list",
    "crashed": "the video crashed its worker process every time; convert the file, or leave it out",
    "stalled": "no frame was finished for --stall-timeout seconds; give more seconds, or leave "
    "the video out",
    "out-of-memory": "the video needs more memory than a worker may hold; give more "
    "--worker-memory, or leave the video out",
    "estimator-error": "the class that --estimator names failed, or gave no usable flow; correct "
    "the class, and extract to a new OUT, because OUT holds the version of the class",
    "internal-error": "an error in flowprep itself; report it with the traceback in the log",
    "record-lost": "why the video failed was lost with two files of the data set; run the same "
    "command again, which tries the video again",
}
"""What each reason code in `failures.jsonl` means, and what to do before `--retry-failed`."""

NODE_FAILURES: dict[FailureReason, str] = {
    "crashed": "a GPU failed, or Ray did; run flowprep doctor there, or take --device cpu",
    "out-of-memory": "memory was short for minutes, and others held it; free memory, or give fewer "
    "--workers or --workers-per-gpu",
}
"""What the reasons mean where the fault is the node's."""


NoteCode = Literal[
    "already-trimmed",
    "camera-unknown",
    "concealed",
    "edit-list",
    "first-flow-dropped",
    "flow-clipped",
    "flow-small",
    "flow-unknown",
    "gaps-ignored",
    "irregular-stamps",
    "levels-changed",
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
    "already-trimmed": "the file is as long as its range, so the whole file was used; correct the "
    "range if the file was not cut to it",
    "camera-unknown": "the camera's motion could not be found in some pairs of frames, so their "
    "flow still has it; leave the video out if that matters, or look at it with flowprep view",
    "concealed": "damaged pictures were kept, and the decoder made up what was damaged; replace "
    "the file, or extract to a new OUT with --on-damage cut",
    "edit-list": "the file's edit list hides frames, and players hide them too; convert the file "
    "with ffmpeg's -ignore_editlist to use them",
    "first-flow-dropped": "there are as many frames as flows, as dense_flow writes them, so the "
    "flow before the first frame was left out; import with --no-rgb to keep all flow",
    "flow-clipped": "flow beyond the bound was clipped to it; import with a larger --bound if fast "
    "motion matters",
    "flow-small": "no value is beyond 1, so they may be shares of the bound; if they are, import "
    "to a new OUT with --unit bound",
    "flow-unknown": "values that are unknown or not finite were stored as 0 px; leave the video "
    "out if they matter",
    "gaps-ignored": "image numbers are missing, and the images were used as if there were no "
    "gaps; add the missing images if flow must not jump",
    "irregular-stamps": "time stamps go back, repeat, jump or are missing, so all frames were "
    "used in the decoder's order; convert the file if times matter",
    "levels-changed": "levels changed by one or so where they were stored as JPEG again; export as "
    "jpg to keep all of them",
    "long-still": "one picture is repeated for more than 10 s, because the time stamps jump "
    "ahead; leave out --fps to take each picture once",
    "not-square": "pixels are not square; give --square-pixels to show them as players do",
    "numbers-differ": "frames and flow begin at different numbers, and were paired in their "
    "order; check that the first frame belongs to the first flow",
    "numbers-step": "image numbers rise by more than one each time, and the images were used one "
    "after the other; add the images between if they are missing",
    "odd-angle": "the file asks for a rotation that is not a quarter turn, so the nearest quarter "
    "turn was used; convert the file if it must be exact",
    "odd-pixels": "the header gives pixels of an impossible shape, so square pixels were assumed; "
    "convert the file if it looks stretched",
    "past-the-end": "the range ends after the end of the video, so the frames up to the end were "
    "used; correct the range, or replace the file if it was cut",
    "rate-drops": "--fps is not below the video's frame rate, but leaves out more than 5 % of the "
    "frames; leave out --fps to keep every frame",
    "other-streams": "the file has several video streams; give --video-stream to take another one",
}
"""What each note on a stored video means. Nothing failed, but somebody should look at it."""


class FlowprepError(Exception):
    """The root of all errors that flowprep raises on purpose. No message shows secrets of a URL."""

    exit_code = 1

    def __init__(self, message: str | Sequence[str]) -> None:
        """A message of several lines is given as a list; a line feed in a text came with a name."""
        self.has_lines = not isinstance(message, str)
        super().__init__(redacted(message if isinstance(message, str) else join_lines(message)))


class ConfigError(FlowprepError, ValueError):
    """An option or a configuration value breaks a rule."""

    exit_code = 2


class InputError(FlowprepError):
    """The inputs cannot be turned into a list of videos."""

    exit_code = 2


class DatasetError(FlowprepError):
    """A data set on disk is damaged, incomplete, or of a version that this flowprep cannot read."""


class ConfigMismatchError(DatasetError):
    """A run has another configuration than the data set. `differences` has both values by field."""

    def __init__(
        self, message: str | Sequence[str], differences: Mapping[str, tuple[Any, Any]]
    ) -> None:
        super().__init__(message)
        self.differences = dict(differences)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ConfigMismatchError, (*self.args, self.differences))


class StorageError(FlowprepError):
    """A location cannot be read or written. `reason` is one of `StorageReason`."""

    def __init__(self, message: str, reason: StorageReason = "other") -> None:
        super().__init__(message)
        self.reason: StorageReason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (*self.args, self.reason))


class ExecutorError(FlowprepError):
    """Workers cannot be started, a cluster lacks what the run needs, or no worker can extract."""


class MissingExtraError(FlowprepError):
    """A package that an extra of flowprep installs is missing."""


class TrainingError(FlowprepError):
    """A training cannot continue: its loss is not a number any more, or a process has ended."""


class WeightsError(FlowprepError):
    """A file of weights is damaged, has an unknown format, or is not for this model."""


class VideoError(FlowprepError):
    """One video cannot be extracted.

    `reason` is one of `FAILURE_REASONS`. `num_frames` is the number of good frames before the
    error.
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
