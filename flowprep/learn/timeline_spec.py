"""How the windows of a timeline lie."""

from __future__ import annotations

from dataclasses import dataclass

from flowprep.config import check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import TailName

__all__ = ["TimelineSpec"]


@dataclass(frozen=True)
class TimelineSpec:
    """The windows of a video that are scored one by one."""

    window: int = 64
    """Frames in each window. The network sees each window as if it were a video of this length. It
    must hold at least one of the network's clips."""
    stride: int = 16
    """Frames from the begin of a window to the begin of the next one."""
    tail: TailName = "last"
    """The last frames, if they do not fill a window. `last`: one more window, which ends with the
    last frame. `drop`: no window."""

    def __post_init__(self) -> None:
        check_choice("tail", self.tail, TailName)
        for name in ("window", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
