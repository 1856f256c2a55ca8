"""The report on a training, for the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowprep.learn.run_folder import BEST_FILE, LAST_FILE
from flowprep.printable import join_lines
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
    score: float | None = None
    """The `measure` of the last test, averaged over data sets, 0 to 1; None without a test."""
    best_score: float | None = None
    best_step: int | None = None
    measure: str = "top-1"
    """What `score` is: `top-1`, `mAP` for videos of several labels, or what else is said."""
    notes: tuple[str, ...] = ()
    """What the user should know about data and first weights."""

    @property
    def exit_code(self) -> int:
        """Always 0, because an unfinished training raises an exception."""
        return 0

    @property
    def top1(self) -> float | None:
        """`score` if it is the top-1, otherwise None."""
        return self.score if self.measure == "top-1" else None

    @property
    def best_top1(self) -> float | None:
        """`best_score` if it is the top-1, otherwise None."""
        return self.best_score if self.measure == "top-1" else None

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
        if self.score is not None:
            lines.append(f"  {f'test {self.measure}':12}  {100 * self.score:.1f} %")
        if self.best_score is not None:
            best = f"{100 * self.best_score:.1f} % after step {self.best_step}"
            best = f"{best}, in {Path(self.run) / BEST_FILE}"
            lines.append(f"  {f'best {self.measure}':12}  {best}")
        lines.append(f"  last weights  {Path(self.run) / LAST_FILE}")
        return join_lines(lines)
