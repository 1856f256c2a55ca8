"""Segments of a long video: where it is cut, so that each has the frames that an uncut read gives.

    plan_cut(reader, ...) -> VideoCut -> Segment, Segment, ...
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
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import NoteCode, VideoError
from flowprep.video.clock import JUMP_SECONDS

if TYPE_CHECKING:
    from flowprep.video.reader import FrameReader, Picture

__all__ = ["PictureCheck", "Scan", "Segment", "SegmentEdges", "VideoCut", "is_long", "plan_cut"]

# How many key frames before a segment's first picture decoding begins, and where it is tried next
# if it does not come by that one. Never the nearest: what follows an open group's key frame in the
# file may be shown before it and lack its references, and an encoder that refreshes its picture bit
# by bit has a sound one only a while after its key frame.
_KEY_FRAMES_BACK = (2, 3, 5, 9)


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
    frame_counts: Mapping[str, int] | None = None
    """What becomes of them: `FrameCounts.to_dict`; None in a cut of version 1."""
    notes: Mapping[NoteCode, str] = field(default_factory=dict)
    """What an uncut read notes."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the cut as JSON values; `from_dict` is its inverse."""
        return {
            "segments": [segment.to_dict() for segment in self.segments],
            "num_frames_decoded": self.num_frames_decoded,
            "frame_counts": None if self.frame_counts is None else dict(self.frame_counts),
            "notes": dict(self.notes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoCut:
        """Rebuilds a stored cut."""
        segments = tuple(Segment.from_dict(segment) for segment in values["segments"])
        return cls(
            segments,
            values["num_frames_decoded"],
            values.get("frame_counts"),
            values.get("notes", {}),
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

    def to_dict(self) -> dict[str, str]:
        """Returns `head` and `tail`: one segment's tail is the head of the next."""
        return {"head": self._head.hexdigest(), "tail": self._tail.hexdigest()}


def is_long(reader: FrameReader, segment_frames: int) -> bool:
    """Whether a video may have more than two segments' frames, as its header says.

    Where that says nothing it may.
    """
    estimate = reader.estimate_num_frames()
    return estimate is None or estimate > 2 * segment_frames


def plan_cut(
    reader: FrameReader, *, segment_frames: int, step: int, on_progress: Callable[[], None]
) -> VideoCut | None:
    """Returns the segments of a video, of at most `segment_frames` flows each, or None.

    None leaves it uncut: it has no more than two segments' flows, or reading it whole is the only
    way to know its frames, as it is damaged or its clock is irregular. After that `reader` gives no
    frames. `on_progress` is called for each picture.
    """
    try:
        scan = reader.scan(on_progress)
    except VideoError:
        # Reading it uncut says what is wrong, and keeps what can be kept.
        return None
    if any(not 0 < b - a <= JUMP_SECONDS for a, b in itertools.pairwise(scan.times)):
        return None
    num_read = 0

    def pictures() -> Iterator[Picture]:
        nonlocal num_read
        for number in range(scan.first_number, len(scan.times)):
            num_read += 1
            yield reader.scanned_picture(scan.times[number], scan.durations[number], number)

    # The picture that each frame shows, by the very code that reading goes through.
    in_range = list(reader.cut_range(pictures()))
    shown = [picture.number for picture in reader.sampled(iter(in_range))]
    num_flows = len(shown) - step
    if num_flows <= 2 * segment_frames:
        return None
    num_segments = -(-num_flows // segment_frames)
    bounds = [num_flows * number // num_segments for number in range(num_segments + 1)]
    offset = in_range[0].number
    segments = []
    for start, stop in itertools.pairwise(bounds):
        is_last = stop == num_flows
        first = shown[start]
        end = in_range[-1].number + 1 if is_last else shown[stop + step - 1] + 1
        check = PictureCheck()
        # Of several pictures on the first tick sampling shows the last.
        begin = first if start else offset
        for picture in in_range[begin - offset : end - offset]:
            check.add(picture.time)
        if is_last:
            check.add(in_range[-1].duration)
        num_skipped = 0
        while num_skipped < start and shown[start - num_skipped - 1] == first:
            num_skipped += 1
        place = bisect_right(scan.keys, first)
        keys = [scan.keys[place - back] for back in _KEY_FRAMES_BACK if place >= back]
        segments.append(
            Segment(
                start=start,
                stop=stop,
                num_frames=stop - start + step,
                is_first=start == 0,
                is_last=is_last,
                first_picture=first,
                first_time=scan.times[first],
                num_skipped=num_skipped,
                seek_times=tuple(scan.times[key] for key in keys if key),
                digest=check.digest,
            )
        )
    reader.note_what_became_of_frames(len(shown))
    return VideoCut(tuple(segments), num_read, reader.counts.to_dict(), dict(reader.notes))
