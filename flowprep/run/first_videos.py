"""Tells from the first videos of a run whether extraction works here at all.

An error in flowprep itself, or in an unknown version of a library, may make every video fail in the
same way. Then the videos are not to blame, and the run stops before all of them have failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.dataset.layout import VideoRecord
from flowprep.errors import ExecutorError, FailureReason
from flowprep.run.job import internal_error_site

__all__ = ["MAX_SAME_ERRORS", "FirstVideos"]

MAX_SAME_ERRORS = 8
"""The run stops if this many videos fail with the same internal error before any gives flow."""


@dataclass(frozen=True)
class _Fault:
    """An internal error, and the shard and index of each video that failed with it."""

    site: str
    reason: FailureReason | None
    message: str
    videos: tuple[tuple[int, int], ...]


class FirstVideos:
    """Watches a run until a video gives flow, or two videos fail with different internal errors.

    A video that fails by its own fault, such as a file that is no video, does not count.
    """

    def __init__(self) -> None:
        self.is_open = True
        """Whether it is still unknown that extraction works."""
        self._fault: _Fault | None = None

    def give_up_watching(self) -> None:
        """Notes that something was computed, which shows that extraction works."""
        self.is_open = False
        self._fault = None

    def add(self, shard: int, index: int, record: VideoRecord) -> None:
        """Notes the record of a finished or failed video."""
        if not self.is_open:
            return
        site = internal_error_site(record)
        if record.status != "failed" or (
            site is not None and self._fault is not None and site != self._fault.site
        ):
            self.give_up_watching()
        elif site is not None:
            videos = () if self._fault is None else self._fault.videos
            self._fault = _Fault(
                site, record.reason, record.message or "", (*videos, (shard, index))
            )

    @property
    def failed(self) -> tuple[tuple[int, int], ...]:
        """Shard and index of each video that failed with the same internal error."""
        return () if self._fault is None else self._fault.videos

    def error(self, log_name: str, *, is_end: bool) -> ExecutorError | None:
        """Returns why the run must stop, if it must; `is_end` means no video is left to try."""
        if self._fault is None or (len(self.failed) < MAX_SAME_ERRORS and not is_end):
            return None
        count = len(self.failed)
        what = "1 video" if count == 1 else f"{count} videos"
        same = "an" if count == 1 else "the same"
        if self._fault.reason == "estimator-error":
            return ExecutorError(
                f"the run stopped: {what} failed with {same} error of the estimator, and no video "
                f"gave flow: {self._fault.message}. The cause is in the class that --estimator "
                f"names, not in the videos: {log_name} has the traceback. Correct the class, and "
                "choose a new OUT, because this one holds the version of the class"
            )
        return ExecutorError(
            f"the run stopped: {what} failed with {same} internal error, and no video gave flow: "
            f"{self._fault.message}. The cause is in the installation or in flowprep, not in the "
            f"videos: `flowprep doctor` looks for it, and {log_name} has the traceback. Once the "
            "cause is gone, the same command tries these videos again"
        )
