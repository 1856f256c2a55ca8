"""Segments of a long video: the content of each segment, and how it is checked with the plan.

    plan_cut(reader, ...) -> VideoCut -> Segment, Segment, ...              cut.py
    reader.read_segment(segment) -> Frame, Frame, ...                       reader.py

Frames are counted after sampling. A segment has the flows `start` to `stop`, and reads the frames
up to `stop + step` for them. The next segment begins with the frames from `stop` on:

    frames   0 1 2 3 4 5 6 7 8 9        step = 1, 9 flows, 3 per segment
    first    f f f +                    f: begin of a flow; its RGB is kept
                   f f f +              +: end of a flow; the last segment keeps its RGB too
    last                 f f f +

The plan is always checked. A segment compares the time of every decoded frame with the plan. The
joining of segments compares the frames that two segments have both read. If anything does not
agree, the video is read uncut.
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
    """The pictures of a source, in the order of decoding from its start."""

    times: list[Fraction]
    """Times in seconds from the first picture."""
    durations: list[Fraction]
    """Durations in seconds."""
    keys: list[int]
    """Numbers of the key frames."""
    first_number: int = 0
    """The picture at which uncut reading begins if it seeks to its range."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a video that one worker extracts."""

    start: int
    """The first frame and flow of the segment."""
    stop: int
    """The flow after its last one, which is the first flow of the next segment."""
    num_frames: int
    """Number of frames that it reads: `step` more than its flows."""
    is_first: bool
    is_last: bool
    first_picture: int
    """Number of the source's picture that frame `start` shows."""
    first_time: Fraction
    """Time of that picture, in seconds from the source's first picture."""
    num_skipped: int
    """Number of times that sampling shows that picture before frame `start`."""
    seek_times: tuple[Fraction, ...]
    """Times to seek to, the best first. If all of them fail, decoding begins at the source's start.
    It must always pass the key frame at the first of these times, so that whole groups of pictures
    precede `first_time`."""
    digest: str
    """Digest of the times of the pictures that the segment needs; see PictureCheck."""

    def keeps_frame(self, number: int) -> bool:
        """Whether the segment stores the RGB of the frame that it reads as `number`, from 0."""
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
    """How a video is cut. It is stored as long as the segments are."""

    segments: tuple[Segment, ...]
    num_frames_decoded: int
    """Number of source frames that an uncut read decodes."""
    frame_counts: FrameCounts | None = None
    """Counts of what happens to these frames. None in a cut of version 1."""
    notes: Mapping[NoteCode, str] = field(default_factory=dict)
    """The notes of an uncut read."""
    source_sha256: str | None = None
    """SHA-256 of the file. None for a range of a file."""

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
    """Makes a digest of the times of the pictures that a segment needs."""

    num_pictures: int = 0
    _hash: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, time: Fraction) -> None:
        """Adds the time of a picture, or the duration of the last picture."""
        self.num_pictures += 1
        self._hash.update(f"{time}\n".encode())

    @property
    def digest(self) -> str:
        """Returns the digest of everything that was added, in order."""
        return f"{self.num_pictures}-{self._hash.hexdigest()}"


@dataclass(frozen=True, slots=True)
class EdgeDigests:
    """Digests of the frames that segments share. A segment's tail is the head of the next."""

    head: str
    tail: str


class SegmentEdges:
    """Makes digests of the frames that a segment shares with the segments before and after it."""

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
