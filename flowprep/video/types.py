"""The results of decoding: the properties of a file, its frames, and counts of them."""

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
    """Properties of a source that is open. Width and height are as displayed (rotated)."""

    width: int
    height: int
    rotation: int
    """Clockwise turn in degrees (0, 90, 180, 270) that was applied to the decoded picture."""
    fps: float | None
    """Average frame rate of the source. For a folder of images, the given rate or None."""
    duration_seconds: float | None
    """Duration in the container, or of the images at their rate. None if unknown."""
    codec: str
    """The codec's name, or `images` for a folder of images."""
    pixel_aspect: Fraction = Fraction(1)
    """Width divided by height of the source's pixels, as displayed (rotated)."""
    video_stream: int | None = None
    """Number of the chosen stream among all streams. None for a folder of images."""
    is_mirrored: bool = False
    """Whether left and right of the decoded picture were swapped before the turn."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame at its stored size."""

    rgb: NDArray[np.uint8]  # (H, W, 3), C-contiguous
    gray: NDArray[np.uint8]  # (H, W), C-contiguous, BT.601 full range: cv2.COLOR_RGB2GRAY of rgb
    seconds: float
    """Presentation time in the source, from its first frame."""


class FrameCounts(msgspec.Struct, forbid_unknown_fields=True):
    """Counts of what happened to the source's frames.

    decoded = lead_in + before_range + after_range + (kept - repeated + dropped)
    """

    lead_in: NumFrames
    """Decoded only to reach the range from the key frame that seeking found before it."""
    before_range: NumFrames
    """Decoded before the range, in a file that is decoded from its start."""
    after_range: NumFrames
    """Decoded to find the end of the range."""
    dropped: NumFrames
    """In the range, but never shown at the sampling rate."""
    repeated: NumFrames
    """Extra showings of frames at the sampling rate."""

    @classmethod
    def at_zero(cls) -> FrameCounts:
        """Returns the counts before anything of a source is read."""
        return cls(lead_in=0, before_range=0, after_range=0, dropped=0, repeated=0)


@dataclass(frozen=True)
class Provenance:
    """A store's information about an object that was fetched."""

    source: str
    """The URL of the object, without credentials."""
    source_bytes: int | None
    """Size of the object. None for a folder of images."""
    source_mtime_ns: int | None
    source_etag: str | None
