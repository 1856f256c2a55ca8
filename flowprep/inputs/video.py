"""One video of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Video"]


@dataclass(frozen=True, slots=True)
class Video:
    """One input: a video file, a range of a video file, or a folder of frame images."""

    key: str
    """The name in the data set: escaped, unique, without dots, with `/` between folders."""
    source: str
    """The absolute path or the URL of the file or folder."""
    labels: tuple[int, ...] = ()
    """Class numbers, 0-based. Empty if the input has no labels."""
    split: str | None = None
    """`train`, `test`, `val` or another name from the annotation. None if there is none."""
    start_seconds: float | None = None
    """The start of the range to cut from an untrimmed file, in seconds from its first frame."""
    end_seconds: float | None = None
    """The end of the range in seconds, exclusive."""
    listed_bytes: int | None = field(default=None, compare=False)
    """The size of the file, if the listing of a store contains it. The plan does not store it."""
    named_labels: Mapping[str, tuple[int, ...]] | None = field(default=None, compare=False)
    """Class numbers in each label set of the annotation, such as verb and noun. They are stored as
    named labels, not in the plan."""
