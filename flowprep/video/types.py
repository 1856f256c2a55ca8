"""What decoding gives: what a file says of itself, its frames, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "FrameCounts", "Provenance", "VideoInfo"]

NumFrames = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


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


class FrameCounts(msgspec.Struct, forbid_unknown_fields=True):
    """What became of the source's frames.

    decoded = lead_in + before_range + after_range + (kept - repeated + dropped)
    """

    lead_in: NumFrames
    """Decoded to reach the range from the key frame before it, which seeking found."""
    before_range: NumFrames
    """Before the range, in a file that is decoded from its begin."""
    after_range: NumFrames
    """Decoded to find the end of the range."""
    dropped: NumFrames
    """In the range, and never shown at the sampling rate."""
    repeated: NumFrames
    """Shown once more at the sampling rate."""

    @classmethod
    def at_zero(cls) -> FrameCounts:
        """Returns the counts of a source of which nothing is read yet."""
        return cls(lead_in=0, before_range=0, after_range=0, dropped=0, repeated=0)


@dataclass(frozen=True)
class Provenance:
    """What a store says of an object that was fetched from it."""

    source: str
    """Its URL, without credentials."""
    source_bytes: int | None
    """None of a folder of images."""
    source_mtime_ns: int | None
    source_etag: str | None
