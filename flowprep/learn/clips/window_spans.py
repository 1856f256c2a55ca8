"""Windows over a whole video: which frames each one covers, and when it begins and ends.

    num_positions    where windows may lie in a video of F frames and N flow fields
    cut_windows      the windows of a video, as ranges of these positions
    frame_borders    when each frame begins, and the last one ends

A position p is frame p and, where there is flow, field p: from frame p to frame p + step. A window
of W positions covers frames and fields p to p + W - 1. Windows begin at 0, S, 2 S, ... for a stride
of S. The tail is what no such window covers:

    num_positions = 11, length = 4, stride = 3

    0  1  2  3  4  5  6  7  8  9 10
    x--x--x--x
             x--x--x--x
                      x--x--x--x           the last one that fits
                         x--x--x--x        the tail's: tail="last", none for tail="drop"

A video shorter than a window gives one window of all its positions. A network that takes more
continues at the beginning of the video, as every clip does that is too long (`clips.indices`).

Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.config import check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import TailName

__all__ = [
    "WindowSpans",
    "cut_windows",
    "frame_borders",
    "num_positions",
]


@dataclass(frozen=True, eq=False)
class WindowSpans:
    """The windows of one video, in the order of time."""

    length: int
    """Number of positions of a whole window. In a shorter video, its only window has fewer."""
    starts: NDArray[np.int64]
    """(N,) the first position of each window."""
    stops: NDArray[np.int64]
    """(N,) the position after the last one of each window."""
    num_dropped: int = 0
    """Number of positions at the end that no window covers."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def is_short(self) -> bool:
        """Whether the video is shorter than a window."""
        return int(self.stops[-1] - self.starts[-1]) < self.length


def num_positions(num_frames: int, num_flows: int, streams: Collection[str]) -> int:
    """Returns the number of positions of a video for networks that see `streams`.

    It is the number of flow fields if any stream is flow, so that the windows of all streams agree.
    RGB frames alone count themselves.
    """
    if {"rgb-difference", "motion"} & set(streams) and not {"flow", "both"} & set(streams):
        return num_frames - 1
    return num_frames if set(streams) == {"rgb"} else num_flows


def cut_windows(
    num_positions: int, *, length: int, stride: int, tail: TailName = "last"
) -> WindowSpans:
    """Returns the windows of a video with this number of positions; always one or more.

    Raises ConfigError for a video without positions, and for a length or stride below 1.
    """
    check_choice("tail", tail, TailName)
    for name, value in (("window", length), ("stride", stride)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if num_positions < 1:
        raise ConfigError(f"a window needs at least one field or frame, got {num_positions}")
    starts = np.arange(0, max(0, num_positions - length) + 1, stride, dtype=np.int64)
    stops = np.minimum(starts + length, num_positions)
    left = num_positions - int(stops[-1])
    if left and tail == "last":
        starts = np.append(starts, num_positions - length)
        stops = np.append(stops, num_positions)
        left = 0
    return WindowSpans(length, starts, stops, left)


def frame_borders(
    num_frames: int, *, fps: float | None, frame_seconds: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Returns when each frame begins, and when the last one ends: (num_frames + 1,) float64.

    `frame_seconds`, (num_frames,) or more, are the time stamps of the frames from the first one on.
    If the stamp after the last frame is not among them, that frame lasts as long as the one before
    it. Without stamps, frame t begins at t / `fps`. Without both, times are NaN.
    """
    if frame_seconds is None:
        return np.arange(num_frames + 1) / (np.nan if fps is None else fps)
    stamps = np.asarray(frame_seconds, np.float64)
    if len(stamps) > num_frames:
        return stamps[: num_frames + 1]
    alone = 0.0 if fps is None else 1 / fps
    last = stamps[-1] - stamps[-2] if len(stamps) > 1 else alone
    return np.append(stamps, stamps[-1] + last)
