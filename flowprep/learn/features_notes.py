"""What a user must know of the features of a video, and the report of a run that made features."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from flowprep.dataset.layout import VideoRecord
from flowprep.errors import FAILURE_REASONS, NODE_FAILURES, VIDEO_NOTES, FailureReason
from flowprep.learn.clips.windows import Windows
from flowprep.printable import join_lines
from flowprep.run.progress import VideoNote
from flowprep.words import format_count, format_duration

__all__ = ["FeatureReport", "note_sentences", "video_notes"]

_KINDS = {
    "short": "shorter than a window, so the only window repeats the video from its beginning",
    "tail": "frames after the last whole window are in no window; --tail last gives them one",
    "partial": "damaged; the windows end before the damage",
}
"""What the notes mean that only features have."""


def video_notes(record: VideoRecord, windows: Windows) -> dict[str, str]:
    """Returns the notes on a video by kind: its own numbers, in words."""
    notes = {}
    if record.num_frames < windows.num_needed:
        notes["short"] = (
            f"the video has {format_count(record.num_frames, 'frame')}, and a window needs "
            f"{windows.num_needed:,}; the only window repeats the video from its beginning"
        )
    elif left := windows.num_left(record.num_frames):
        notes["tail"] = f"no window holds the last {format_count(left, 'frame')} of the video"
    if record.is_partial:
        notes["partial"] = (
            f"the video is damaged; the windows are those of the {record.num_frames:,} frames "
            "before the damage"
        )
    given: dict[str, str] = {str(code): text for code, text in record.notes.items()}
    if record.num_damaged:
        given.setdefault("concealed", f"{format_count(record.num_damaged, 'picture')} damaged")
    return notes | given


def note_sentences(record: VideoRecord, windows: Windows) -> tuple[str, ...]:
    """Returns the notes on a video as sentences that need no other words."""
    return tuple(
        text if kind in _KINDS else f"{VIDEO_NOTES[kind]} ({text})"  # type: ignore[index]
        for kind, text in video_notes(record, windows).items()
    )


@dataclass
class FeatureReport:
    """What a run did, and which videos have features after it."""

    location: str
    num_videos: int
    """Number of videos that were asked for."""
    num_done_before: int = 0
    """Videos that earlier runs had finished."""
    num_done: int = 0
    """Videos that this run finished."""
    num_windows: int = 0
    """Windows of this run."""
    num_failed: int = 0
    """Videos in failures.jsonl, from this run and from earlier runs."""
    num_failed_before: int = 0
    """The part of `num_failed` that earlier runs tried and this run did not."""
    failures: Counter[FailureReason] = field(default_factory=Counter)
    """Failed videos by reason."""
    node_failures: Counter[FailureReason] = field(default_factory=Counter)
    """Videos of this run that failed by no fault of theirs; the next run tries them."""
    num_lost_workers: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    """Seconds that workers spent by stage, for raw videos."""
    wall_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    """Sentences on the run."""
    video_notes: dict[str, VideoNote] = field(default_factory=dict)
    """Notes on this run's videos, by kind."""

    @property
    def is_complete(self) -> bool:
        """Whether every video has features."""
        return self.num_done_before + self.num_done == self.num_videos

    @property
    def exit_code(self) -> int:
        """0 when complete, 1 otherwise."""
        return 0 if self.is_complete else 1

    def add(self, record: VideoRecord, windows: Windows) -> None:
        """Adds a video that this run finished."""
        self.num_done += 1
        self.num_windows += len(windows.starts(record.num_frames))
        self.seconds.update(record.seconds)
        for kind, text in video_notes(record, windows).items():
            self.video_notes.setdefault(kind, VideoNote(record.key, text)).num_videos += 1

    def summary(self) -> str:
        """Returns the report as lines of text."""
        done = self.num_done_before + self.num_done
        lines = [
            f"{'complete' if self.is_complete else 'INCOMPLETE'}: features of {done:,} of "
            f"{format_count(self.num_videos, 'video')} in {self.location}"
        ]
        if self.num_done_before:
            lines.append(f"  done before   {format_count(self.num_done_before, 'video')}")
        lines.append(
            f"  this run      {format_count(self.num_done, 'video')}, "
            f"{format_count(self.num_windows, 'window')} in {format_duration(self.wall_seconds)}"
        )
        if self.seconds:
            spent = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
            lines.append(f"  workers spent {spent}")
        if self.num_lost_workers:
            lines.append(f"  lost workers  {self.num_lost_workers}, replaced")
        if self.num_failed:
            them = "it" if self.num_failed == 1 else "them"
            lines.append(
                f"  failed        {format_count(self.num_failed, 'video')}, listed in "
                f"failures.jsonl; --retry-failed tries {them} again:"
            )
            for reason, count in self.failures.most_common():
                lines.append(f"    {count:6d}  {reason}: {FAILURE_REASONS[reason]}")
        if self.num_failed_before:
            lines.append(
                f"  not tried     {format_count(self.num_failed_before, 'video')} that failed in "
                "an earlier run"
            )
        for reason, count in self.node_failures.most_common():
            lines.append(
                f"  node's fault  {format_count(count, 'video')}, tried again by the same command: "
                f"{reason}: {NODE_FAILURES.get(reason, '')}"
            )
        lines += [f"  note          {note}" for note in self.notes]
        lines += [
            f"  note          {format_count(note.num_videos, 'video')}: "
            f"{_KINDS.get(kind) or VIDEO_NOTES[kind]} (first {note.first_key}: {note.first_text})"  # type: ignore[index]
            for kind, note in sorted(self.video_notes.items())
        ]
        return join_lines(lines)
