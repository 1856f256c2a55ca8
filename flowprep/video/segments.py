"""Segments of a long video: what each holds, and how it is held against the plan.

    plan_cut(reader, ...) -> VideoCut -> Segment, Segment, ...              cut.py
    reader.read_segment(segment) -> Frame, Frame, ...                       reader.py

Frames are counted as they are sampled. A segment has the flows `start` to `stop`, for which it
reads the frames up to `stop + step`; those from `stop` on are those that the next one begins with:

    frames   0 1 2 3 4 5 6 7 8 9        step = 1, 9 flows, 3 a segment
    first    f f f +                    f: begin of a flow; its RGB is kept
                   f f f +              +: end of a flow; the last segment keeps its RGB too
    last                 f f f +

Nothing that is planned here is believed: a segment holds the time of every frame that it decodes
against the plan, and who joins the segments holds the frames that two of them read against one
another. Whatever does not agree is read uncut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from flowprep.errors import NoteCode
from flowprep.video.types import FrameCounts

__all__ = ["EdgeDigests", "PictureCheck", "Scan", "Segment", "SegmentEdges", "VideoCut"]


@dataclass(frozen=True)
class Scan:
    """The pictures of a source, in the order in which decoding it from its begin shows them."""

    times: list[Fraction]
    """In seconds from the first picture."""
    durations: list[Fraction]
    """In seconds."""
    keys: list[int]
    """Numbers of the key frames."""
    first_number: int = 0
    """The picture at which uncut reading begins, if it reaches its range by seeking."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a video that one worker extracts."""

    start: int
    """Its first frame and flow."""
    stop: int
    """After its last flow; the next segment's first."""
    num_frames: int
    """That it reads: step more than it has flows."""
    is_first: bool
    is_last: bool
    first_picture: int
    """Number of the source's picture that frame `start` shows."""
    first_time: Fraction
    """Of that picture, in seconds from the source's first."""
    num_skipped: int
    """How often sampling shows that picture before frame `start`."""
    seek_times: tuple[Fraction, ...]
    """Where to seek, the best first, and after them the source's begin; of the first of these
    decoding must find the key frame, so that whole groups of pictures lie before `first_time`."""
    digest: str
    """Of the times of the pictures that it needs: see PictureCheck."""

    def keeps_frame(self, number: int) -> bool:
        """Whether the RGB of the frame that it reads as `number`, from 0, is its own."""
        return self.is_last or number < self.stop - self.start

    def to_dict(self) -> dict[str, Any]:
        """Returns the segment as JSON values; `from_dict` is its inverse."""
        return {
            "start": self.start,
            "stop": self.stop,
            "num_frames": self.num_frames,
            "is_first": self.is_first,
            "is_last": self.is_last,
            "first_picture": self.first_picture,
            "first_time": str(self.first_time),
            "num_skipped": self.num_skipped,
            "seek_times": [str(time) for time in self.seek_times],
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Segment:
        """Rebuilds a stored segment."""
        values = dict(values)
        values["first_time"] = Fraction(values["first_time"])
        values["seek_times"] = tuple(Fraction(time) for time in values["seek_times"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class VideoCut:
    """How a video is cut; stored as long as its segments are."""

    segments: tuple[Segment, ...]
    num_frames_decoded: int
    """Source frames that an uncut read decodes."""
    frame_counts: FrameCounts | None = None
    """What becomes of them; None in a cut of version 1."""
    notes: Mapping[NoteCode, str] = field(default_factory=dict)
    """What an uncut read notes."""
    source_sha256: str | None = None
    """Of the file; None of a range of it."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the cut as JSON values; `from_dict` is its inverse."""
        return {
            "segments": [segment.to_dict() for segment in self.segments],
            "num_frames_decoded": self.num_frames_decoded,
            "frame_counts": msgspec.to_builtins(self.frame_counts),
            "notes": dict(self.notes),
            "source_sha256": self.source_sha256,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoCut:
        """Rebuilds a stored cut."""
        segments = tuple(Segment.from_dict(segment) for segment in values["segments"])
        return cls(
            segments,
            values["num_frames_decoded"],
            msgspec.convert(values.get("frame_counts"), FrameCounts | None),
            values.get("notes", {}),
            values.get("source_sha256"),
        )


@dataclass
class PictureCheck:
    """Sums up the times of the pictures that a segment needs; two that differ never agree."""

    num_pictures: int = 0
    _hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, time: Fraction) -> None:
        """Counts a picture, or the duration of the last one."""
        self.num_pictures += 1
        self._hash.update(f"{time}\n".encode())

    @property
    def digest(self) -> str:
        """Of all that was added, in its order."""
        return f"{self.num_pictures}-{self._hash.hexdigest()}"


@dataclass(frozen=True, slots=True)
class EdgeDigests:
    """Of the frames that a segment shares: one segment's tail is the head of the next."""

    head: str
    tail: str


class SegmentEdges:
    """Sums up the frames that a segment shares with the ones before and after it."""

    def __init__(self, num_frames: int, step: int) -> None:
        self._step = step
        self._first_of_tail = num_frames - step
        self._number = 0
        self._head = hashlib.blake2b(digest_size=16)
        self._tail = hashlib.blake2b(digest_size=16)

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Takes the next frame: (H, W, 3) uint8, C-contiguous."""
        if self._number < self._step:
            self._head.update(rgb.data)
        if self._number >= self._first_of_tail:
            self._tail.update(rgb.data)
        self._number += 1

    def digests(self) -> EdgeDigests:
        """Returns the digests of the frames that were added."""
        return EdgeDigests(self._head.hexdigest(), self._tail.hexdigest())
