"""What decoding gives: what a file says of itself, its frames, and what became of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "FrameCounts", "VideoInfo"]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a source when it is opened; width and height are as displayed (rotated)."""

    width: int
    height: int
    rotation: int
    """Clockwise turn in degrees (0, 90, 180, 270) that was applied to the decoded picture."""
    fps: float | None
    """Average frame rate of the source; for a folder of images the one that was given, or None."""
    duration_seconds: float | None
    """As the container says, or as images last at their rate; None where nothing is known."""
    codec: str
    """The codec's name; `images` for a folder of images."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of the source's pixels by their height, as displayed (rotated)."""
    video_stream: int | None = None
    """Number of the stream that was taken among all of the file; None for a folder of images."""
    is_mirrored: bool = False
    """Whether left and right of the decoded picture were swapped, before the turn."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame at its stored size."""

    rgb: NDArray[np.uint8]  # (H, W, 3), C-contiguous
    gray: NDArray[np.uint8]  # (H, W), C-contiguous, BT.601 full range: cv2.COLOR_RGB2GRAY of rgb
    seconds: float
    """Presentation time in the source, from its first frame."""


@dataclass
class FrameCounts:
    """What became of the source's frames.

    decoded = lead_in + before_range + after_range + (kept - repeated + dropped)
    """

    lead_in: int = 0
    """Decoded to reach the range from the key frame before it, which seeking found."""
    before_range: int = 0
    """Before the range, in a file that is decoded from its begin."""
    after_range: int = 0
    """Decoded to find the end of the range."""
    dropped: int = 0
    """In the range, and never shown at the sampling rate."""
    repeated: int = 0
    """Shown once more at the sampling rate."""

    def to_dict(self) -> dict[str, int]:
        """Returns the counts as JSON values."""
        return asdict(self)
