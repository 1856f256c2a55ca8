"""The size of stored frames: how decoded frames are resized, and which part of them is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from flowprep.errors import ConfigError

__all__ = ["MAX_SIDE_PX", "CenterCrop", "Resize"]

ResizeMode = Literal["none", "short", "height", "exact"]

MAX_SIDE_PX = 16384
"""Largest stored side. JPEG allows 65,535; a value above this limit is probably a typing error."""


@dataclass(frozen=True)
class Resize:
    """How the stored size depends on the decoded size. Written as `short:256`, `340x256`, ..."""

    mode: ResizeMode = "short"
    width_px: int | None = None
    """Only for `exact`."""
    height_px: int | None = None
    """Only for `exact` and `height`."""
    short_px: int | None = 256
    """Only for `short`: the shorter side."""

    def __post_init__(self) -> None:
        wanted = {
            "none": (),
            "short": ("short_px",),
            "height": ("height_px",),
            "exact": ("width_px", "height_px"),
        }
        if self.mode not in wanted:
            raise ConfigError(f"resize mode must be one of {', '.join(wanted)}, got {self.mode!r}")
        for name in ("width_px", "height_px", "short_px"):
            value = getattr(self, name)
            if name not in wanted[self.mode]:
                if value is not None:
                    raise ConfigError(f"resize {self.mode} takes no {name}, got {value}")
            elif not isinstance(value, int) or not 8 <= value <= MAX_SIDE_PX:
                raise ConfigError(
                    f"resize {self.mode}: {name} must be an integer from 8 to {MAX_SIDE_PX}, "
                    f"got {value!r}"
                )

    @classmethod
    def parse(cls, text: str) -> Resize:
        """Reads `none`, `short:256`, `height:256` or `340x256`. Raises ConfigError otherwise."""
        if text == "none":
            return cls("none", None, None, None)
        if match := re.fullmatch(r"short:(\d+)", text):
            return cls("short", None, None, int(match[1]))
        if match := re.fullmatch(r"height:(\d+)", text):
            return cls("height", None, int(match[1]), None)
        if match := re.fullmatch(r"(\d+)x(\d+)", text):
            return cls("exact", int(match[1]), int(match[2]), None)
        raise ConfigError(
            f"resize must be none, short:PX, height:PX or WIDTHxHEIGHT (such as short:256 or "
            f"340x256), got {text!r}"
        )

    def __str__(self) -> str:
        if self.mode == "short":
            return f"short:{self.short_px}"
        if self.mode == "height":
            return f"height:{self.height_px}"
        if self.mode == "exact":
            return f"{self.width_px}x{self.height_px}"
        return "none"


@dataclass(frozen=True)
class CenterCrop:
    """The box in the middle of a frame that is kept. Written as `112` or `112x96`."""

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        for name in ("width_px", "height_px"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 8 <= value <= MAX_SIDE_PX:
                raise ConfigError(
                    f"crop {name} must be an integer from 8 to {MAX_SIDE_PX}, got {value!r}"
                )

    @classmethod
    def parse(cls, text: str) -> CenterCrop:
        """Reads `112`, for a square, or `112x96`. Raises ConfigError otherwise."""
        if match := re.fullmatch(r"(\d+)(?:x(\d+))?", text):
            return cls(int(match[1]), int(match[2] or match[1]))
        raise ConfigError(
            f"crop must be none, a side or WIDTHxHEIGHT in pixels (such as 112 or 112x96), got "
            f"{text!r}"
        )

    def __str__(self) -> str:
        if self.width_px == self.height_px:
            return f"{self.width_px}"
        return f"{self.width_px}x{self.height_px}"

    def place_in(self, width: int, height: int) -> tuple[int, int]:
        """Returns the upper left corner of the box in a frame of width x height px.

        If the rest is odd, the box lies half a pixel to the left or above the middle.
        """
        return (width - self.width_px) // 2, (height - self.height_px) // 2
