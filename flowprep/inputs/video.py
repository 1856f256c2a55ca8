"""One video of the inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    listed_bytes: int | None = field(default=None, compare=False)
    """Size of the file, where the listing of a store said it anyhow; not stored in the plan."""
