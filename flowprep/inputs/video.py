"""One video of the inputs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Video"]


@dataclass(frozen=True, slots=True)
class Video:
    """One input: a video file, a range of one, or a folder of frame images."""

    key: str
    """Its name in the data set: escaped, unique, `/` between folders, no dots."""
    source: str
    """Path of the file or folder, absolute, or its URL."""
    labels: tuple[int, ...] = ()
    """Class numbers, 0-based; empty where the input has none."""
    split: str | None = None
    """`train`, `test`, `val` or what the annotation says; None where it says nothing."""
    start_seconds: float | None = None
    """Begin of the range to cut from an untrimmed file, in seconds from its first frame."""
    end_seconds: float | None = None
    """End of the range, exclusive."""
