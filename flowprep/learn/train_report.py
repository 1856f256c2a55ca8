"""The report on a training, for the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowprep.learn.run_folder import BEST_FILE, LAST_FILE
from flowprep.words import format_count, format_duration

__all__ = ["TrainReport"]


@dataclass(frozen=True)
class TrainReport:
    """The report on a training."""

    run: str
    """The folder of the training."""
    num_steps: int
    """Steps of the whole training."""
    num_new_steps: int
    """Steps of this run; 0 if the training was already finished."""
    num_videos: int
    """Number of training videos."""
    seconds: float
    """Duration of this run."""
    loss: float | None = None
    """Training loss in the last line of metrics.csv."""
    top1: float | None = None
    """Top-1 of the last test, averaged over data sets; None without a test split."""
    best_top1: float | None = None
    best_step: int | None = None
    notes: tuple[str, ...] = ()
    """What the user should know about data and first weights."""

    @property
    def exit_code(self) -> int:
        """Always 0, because an unfinished training raises an exception."""
        return 0

    def summary(self) -> str:
        """Returns the report as lines of text."""
        before = "" if self.num_new_steps else ", before this run"
        lines = [f"trained: {format_count(self.num_steps, 'step')} in {self.run}{before}"]
        lines.append(f"  videos        {self.num_videos}")
        if self.num_new_steps:
            steps = format_count(self.num_new_steps, "step")
            rate = self.num_new_steps / max(1e-9, self.seconds)
            lines.append(
                f"  this run      {steps} in {format_duration(self.seconds)} ({rate:.2f} steps/s)"
            )
        if self.loss is not None:
            lines.append(f"  loss          {self.loss:.4f}")
        if self.top1 is not None:
            lines.append(f"  test top-1    {100 * self.top1:.1f} %")
        if self.best_top1 is not None:
            best = f"{100 * self.best_top1:.1f} % after step {self.best_step}"
            lines.append(f"  best top-1    {best}, in {Path(self.run) / BEST_FILE}")
        lines.append(f"  last weights  {Path(self.run) / LAST_FILE}")
        return "\n".join(lines)
