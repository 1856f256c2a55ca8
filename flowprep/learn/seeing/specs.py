"""Options of `flowprep imagine` and `flowprep explain`. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flowprep.config import check_at_least, check_choice
from flowprep.errors import ConfigError

__all__ = ["ExplainSpec", "FilmName", "ImagineSpec", "MotionChoice", "MotionName"]

MotionChoice = Literal["slow", "fast", "both"]
MotionName = Literal["slow", "fast"]
"""`slow`: changes over time cost much. `fast`: they cost little."""
FilmName = Literal["mp4", "gif", "webp"]


@dataclass(frozen=True)
class ImagineSpec:
    """How inputs are found that please a class."""

    motion: MotionChoice = "both"
    """`slow`: changes over time cost much. `fast`: they cost little. `both`: one after the
    other."""
    steps: int = 60
    """Steps of gradient ascent. More steps make clearer pictures."""
    smoothness: float = 1.0
    """How much changes from pixel to pixel cost. Higher makes smoother pictures."""
    seed: int = 0
    """Seed of the noise from which the pictures begin."""

    def __post_init__(self) -> None:
        check_choice("motion", self.motion, MotionChoice)
        check_at_least(self, 1, "steps")
        if not 0 <= self.smoothness <= 1000:
            raise ConfigError(f"smoothness must be from 0 to 1000, got {self.smoothness:g}")

    @property
    def motions(self) -> tuple[MotionName, ...]:
        """The kinds of motion to imagine."""
        return get_args(MotionName) if self.motion == "both" else (self.motion,)


@dataclass(frozen=True)
class ExplainSpec:
    """Which parts of a video are looked at, and how finely."""

    num_clips: int = 10
    """Number of clips of the video that each network sees, at equal distances. Networks that join
    segments see as many as they need."""
    num_crops: Literal[1, 3] = 3
    """Crops of each clip. 1: the center. 3: left, center and right, which cover a wide frame."""
    num_moments: int = 10
    """Number of equal parts of the video whose weight is told."""
    steps: int = 8
    """Steps between a video of nothing and this video over which gradients are averaged. More steps
    make the weights of the moments more exact."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clips", "num_moments", "steps")
        if self.num_crops not in (1, 3):
            raise ConfigError(f"num_crops must be 1 or 3, got {self.num_crops}")
