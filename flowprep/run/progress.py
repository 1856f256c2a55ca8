"""The progress bar that a run shows while it works, and the report at its end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tqdm import tqdm

from flowprep.dataset.layout import VideoRecord
from flowprep.errors import (
    FAILURE_REASONS,
    NODE_FAILURES,
    VIDEO_NOTES,
    FailureReason,
    NoteCode,
)
from flowprep.words import format_bytes, format_count, format_duration

__all__ = ["Progress", "RunReport", "VideoNote"]


@dataclass
class VideoNote:
    """A note of one kind: the number of its videos, and its text for the first of them."""

    first_key: str
    first_text: str
    num_videos: int = 0


@dataclass
class RunReport:
    """What a run did, and what the data set holds after it."""

    location: str
    num_videos: int
    """Number of videos in the data set's manifest."""
    num_done_before: int = 0
    """Videos that earlier runs had finished."""
    num_complete: int = 0
    """Videos that this run extracted whole."""
    num_partial: int = 0
    """Damaged videos for which this run kept the part before the damage."""
    num_failed: int = 0
    """Videos in failures.jsonl, from this run and from earlier runs."""
    num_failed_before: int = 0
    """The part of `num_failed` that earlier runs tried and this run did not."""
    num_pairs: int = 0
    """Frame pairs that this run computed (one for both directions)."""
    num_bytes: int = 0
    """Bytes of the JPEGs and metadata that this run stored."""
    num_values: int = 0
    num_clipped: int = 0
    """Number of flow components of this run that exceed the bound, out of `num_values`."""
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("decode", "flow", "encode", "write"), 0.0)
    )
    """Seconds that this run's workers spent by stage, summed over workers."""
    wall_seconds: float = 0.0
    failures: Counter[FailureReason] = field(default_factory=Counter)
    """Failed videos by reason."""
    node_failures: Counter[FailureReason] = field(default_factory=Counter)
    """Videos of this run that failed by no fault of theirs, by reason; the next run tries them."""
    num_concealed: int = 0
    """Stored videos of this run with damaged pictures that the decoder concealed."""
    video_notes: dict[NoteCode, VideoNote] = field(default_factory=dict)
    """Notes on this run's videos that somebody should look at."""
    num_lost_workers: int = 0
    log_name: str = ""
    notes: list[str] = field(default_factory=list)
    """Sentences on decisions of the run that its inputs alone do not explain."""

    @property
    def is_complete(self) -> bool:
        """Whether every video of the manifest gave flow."""
        return self.num_done_before + self.num_complete + self.num_partial == self.num_videos

    @property
    def exit_code(self) -> int:
        """0 when complete, 1 otherwise."""
        return 0 if self.is_complete else 1

    def add_work(self, record: VideoRecord) -> None:
        """Adds the work on a video, or on a segment of an unfinished video."""
        self.num_pairs += record.num_flows
        for stage, seconds in record.seconds.items():
            self.seconds[stage] += seconds

    def add(self, record: VideoRecord, *, is_joined: bool = False) -> None:
        """Adds a video that this run finished. For a joined video, the work is not added again."""
        if record.status == "failed":
            assert record.reason is not None
            self.num_failed += 1
            self.failures[record.reason] += 1
            return
        self.num_complete += record.status == "complete"
        self.num_partial += record.status == "partial"
        self.num_values += record.num_values
        self.num_clipped += record.num_clipped
        self.num_concealed += record.num_damaged > 0
        for code, text in record.notes.items():
            note = self.video_notes.setdefault(code, VideoNote(record.key, text))
            note.num_videos += 1
        self.num_bytes += sum(size for _, size in record.members.values())
        if not is_joined:
            self.add_work(record)

    def note_lines(self, width: int) -> list[str]:
        """Returns one line for each kind of note. Its first word takes `width` columns."""
        return [
            f"  {'note':{width}}{format_count(note.num_videos, 'video')}: {VIDEO_NOTES[code]} "
            f"(first {note.first_key}: {note.first_text})"
            for code, note in sorted(self.video_notes.items())
        ]

    def summary(self) -> str:
        """Returns the report as lines of text."""
        done = self.num_done_before + self.num_complete + self.num_partial
        has_rate = self.num_pairs > 0 and self.wall_seconds > 0
        lines = [
            f"{'complete' if self.is_complete else 'INCOMPLETE'}: "
            f"{done} of {self.num_videos} videos in {self.location}"
        ]
        if self.num_done_before:
            lines.append(f"  done before   {format_count(self.num_done_before, 'video')}")
        lines.append(
            f"  this run      {format_count(self.num_complete + self.num_partial, 'video')}, "
            f"{format_count(self.num_pairs, 'frame pair')} in {format_duration(self.wall_seconds)}"
            + (f" ({self.num_pairs / self.wall_seconds:.1f} pairs/s)" if has_rate else "")
        )
        if self.num_partial:
            lines.append(
                f"  partial       {format_count(self.num_partial, 'damaged video')}, kept up to "
                "the damage"
            )
        if self.num_pairs:
            spent = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
            lines.append(f"  workers spent {spent}")
            lines.append(f"  stored        {format_bytes(self.num_bytes)}")
            share = 100 * self.num_clipped / max(1, self.num_values)
            lines.append(f"  clipped       {share:.3f} % of the flow components")
        if self.num_lost_workers:
            lines.append(f"  lost workers  {self.num_lost_workers}, replaced")
        if self.num_failed:
            failed = format_count(self.num_failed, "video")
            them = "it" if self.num_failed == 1 else "them"
            lines.append(
                f"  failed        {failed}, listed in failures.jsonl; --retry-failed tries {them} "
                "again:"
            )
            for reason, count in self.failures.most_common():
                lines.append(f"    {count:6d}  {reason}: {FAILURE_REASONS[reason]}")
        if self.num_failed_before:
            failed = format_count(self.num_failed_before, "video")
            them = "it" if self.num_failed_before == 1 else "them"
            lines.append(
                f"  not tried     {failed} that failed in an earlier run; "
                f"--retry-failed tries {them} again"
            )
        if self.node_failures:
            count = self.node_failures.total()
            lines.append(
                f"  node's fault  {format_count(count, 'video')}, listed in failures.jsonl; the "
                f"same command tries {'it' if count == 1 else 'them'} again:"
            )
            for reason, count in self.node_failures.most_common():
                lines.append(f"    {count:6d}  {reason}: {NODE_FAILURES.get(reason, '')}")
        lines += [f"  note          {note}" for note in self.notes]
        lines += self.note_lines(14)
        if self.log_name:
            lines.append(f"  log           {self.log_name}")
        return "\n".join(lines)


class Progress:
    """A bar on stderr: videos, pairs per second, time left, failures."""

    def __init__(self, report: RunReport, *, enabled: bool | None) -> None:
        self._report = report
        self._began = time.monotonic()
        self._bar = tqdm(
            total=report.num_videos,
            initial=report.num_done_before + report.num_failed,
            unit="video",
            dynamic_ncols=True,
            file=sys.stderr,
            # For tqdm, None means: disabled unless stderr is a terminal.
            disable=None if enabled is None else not enabled,
        )

    def advance(self) -> None:
        """Counts one more video, finished or failed."""
        self._show_rate()
        self._bar.update()

    def refresh(self) -> None:
        """Shows the work done on unfinished videos."""
        self._show_rate()
        self._bar.refresh()

    def _show_rate(self) -> None:
        seconds = max(1e-9, time.monotonic() - self._began)
        rate = f"{self._report.num_pairs / seconds:.1f}"
        self._bar.set_postfix({"pairs/s": rate, "failed": self._report.num_failed}, refresh=False)

    def close(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        self._bar.close()
