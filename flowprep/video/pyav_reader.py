"""Decodes with PyAV's FFmpeg: file -> packets -> VideoFrames -> Pictures.

This module reads times and seeks to a range or a segment. pyav_decoder.py opens files and finds
their damage. orientation.py turns pictures.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.clock import PacketClock
from flowprep.video.orientation import AS_DECODED, Orientation, orientation_of_frame
from flowprep.video.pixel_aspect import is_plausible, stated_aspect
from flowprep.video.pyav_decoder import FILE_ERRORS, Decoded, PyAVDecoder
from flowprep.video.reader import RGB, Picture
from flowprep.video.segments import Scan, Segment
from flowprep.video.types import VideoInfo
from flowprep.words import format_count

__all__ = ["PyAVReader"]

SEEK_FROM_SECONDS = 5
"""A range that begins earlier than this is reached by decoding, because seeking saves nothing."""

# This many frames are compared with the packets. It is enough to find frames of VP8 that are never
# shown, fields of MPEG-TS that make one frame, and times that AVI does not have.
_NUM_COMPARED = 100


class PyAVReader(PyAVDecoder):
    """Takes the time and the pixels of each frame from PyAV. Seeks to ranges and segments."""

    seeks = True

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        super().__init__(video, spec)
        try:
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                hidden = f"; its edit list hides all {self._num_hidden}" * bool(self._num_hidden)
                raise VideoError("no-frames", f"the video stream holds no frame{hidden}")
            self._first = first
            self._first_time = self._time_of(first, None)
            self._orientation = orientation_of_frame(first.frame) or AS_DECODED
            self.info = self._describe()
            self._settle_range()
            # FFmpeg counts from the start of the container, which may be before the first frame.
            begin = self._container.start_time
            if not self._start and begin is not None and first.stamp.value is not None:
                self._grid_start = Fraction(begin, av.time_base) - self._first_time
            self._settle_size()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> VideoInfo:
        assert self._choice is not None
        stream, frame, orientation = self._stream, self._first.frame, self._orientation
        width, height = orientation.displayed_size(frame.width, frame.height)
        if orientation.problem is not None:
            self.notes["odd-angle"] = f"{orientation.problem}; {_describe_turn(orientation)}"
        aspect = stated_aspect(stream)
        if not is_plausible(aspect):
            ratio = f"{aspect.numerator}:{aspect.denominator}"
            self.notes["odd-pixels"] = f"its header states pixels of {ratio}"
            aspect = Fraction(1)
        rate = self._rate()
        seconds: Fraction | None = None
        if stream.duration and stream.time_base:
            seconds = stream.duration * stream.time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        return VideoInfo(
            width=width,
            height=height,
            rotation=orientation.rotation,
            fps=float(rate) if rate else None,
            duration_seconds=None if seconds is None else float(seconds),
            codec=stream.codec_context.codec.canonical_name,
            pixel_aspect=1 / aspect if orientation.rotation in (90, 270) else aspect,
            video_stream=self._choice.number,
            is_mirrored=orientation.is_mirrored,
        )

    def _pictures(self) -> Iterator[Picture]:
        frames: Iterable[Decoded] = itertools.chain([self._first], self._frames)
        if self._is_segment and self._conceals:
            # A damaged segment is given up: reading the video whole says what can be kept.
            self._conceals = False
            frames = self._rewind()
        if self._reaches_by_seeking():
            frames = self._seek(self._first_time + self._start)
        yield from self._timed(frames)
        self.num_damaged += self._num_lost
        self._num_lost = 0

    def _timed(self, frames: Iterable[Decoded], first_number: int = 0) -> Iterator[Picture]:
        previous: Picture | None = None
        for number, decoded in enumerate(frames, first_number):
            self.num_irregular_stamps += decoded.stamp.is_irregular
            previous = self._picture_of(decoded, number, previous)
            yield previous

    def _picture_of(self, decoded: Decoded, number: int, previous: Picture | None) -> Picture:
        time = self._time_of(decoded, previous) - self._first_time
        frame = decoded.frame
        num_damaged, self._num_lost = self._num_lost + bool(frame.is_corrupt), 0
        return Picture(
            time,
            self._duration_of(frame),
            self._rgb_reader(number, frame),
            number,
            decoded.stamp.disorder,
            num_damaged,
        )

    def _reaches_by_seeking(self) -> bool:
        stamped = self._first.stamp.value is not None
        return self.seeks and self._start >= SEEK_FROM_SECONDS and stamped

    def _seek(self, target: Fraction) -> Iterable[Decoded]:
        """Seeks to a key frame at or before `target` (container seconds), or to the start."""
        assert self._stream.time_base is not None
        self._check_clock_until(target)
        # Containers seek by decoding time or by rough tables. So even a "backward" seek may find a
        # key frame that is shown after the target. Then the key frame before it is needed.
        for margin_seconds in (0, 1, 10, 60):
            stamp = math.floor((target - margin_seconds) / self._stream.time_base)
            self.num_frames_decoded = 0
            self._num_lost = 0
            try:
                self._container.seek(stamp, stream=self._stream, backward=True)
                frames = self._decode()
                first = next(frames, None)
            except (av.FFmpegError, VideoError):
                continue
            if first is None or not first.frame.key_frame or first.frame.is_corrupt:
                continue
            if first.stamp.value is not None and self._time_of(first, None) <= target:
                return itertools.chain([first], frames)
        return self._rewind()

    def _check_clock_until(self, target: Fraction) -> None:
        """Raises VideoError if a file of joined recordings has another clock before `target`.

        Seeking could end in any recording that has this time. Only packets are read, and no picture
        is decoded.
        """
        flags = self._container.format.flags
        if not PacketClock.may_jump(flags):
            return
        self._rewind()
        time_base = self._stream.time_base
        assert time_base is not None
        clock = PacketClock(self._stream, flags)
        try:
            for packet in self._container.demux(self._stream):
                clock.correct(packet)
                if clock.num_corrected:
                    raise VideoError(
                        "irregular-clock",
                        f"the time stamps start again before {float(target):g} s, so the range "
                        f"{self._describe_range()} has no clear place; extract the file whole, or "
                        "convert it to one with a regular clock",
                    )
                if packet.dts is not None and packet.dts * time_base > target:
                    return
        except FILE_ERRORS:
            # Decoding says what is wrong.
            return

    # ---- segments

    def scan(self, on_progress: Callable[[], None]) -> Scan:
        """Takes the times from the packets or, if the packets do not give them, from all frames."""
        self._conceals = False
        begin: Fraction | None = None
        if self._reaches_by_seeking():
            decoded = next(iter(self._seek(self._first_time + self._start)))
            begin = self._time_of(decoded, None) - self._first_time
        scan = self._scan_packets(on_progress) or self._scan_frames(on_progress)
        if begin is None:
            return scan
        if begin not in scan.times:
            raise VideoError("unreadable", "seeking shows other frames than decoding in order")
        return dataclasses.replace(scan, first_number=scan.times.index(begin))

    def _scan_packets(self, on_progress: Callable[[], None]) -> Scan | None:
        """Returns the scan of the packets, or None if the first frames do not agree with it."""
        self._rewind()
        time_base = self._stream.time_base
        found: list[tuple[int, int, bool]] = []
        num_hidden = 0
        clock = PacketClock(self._stream, self._container.format.flags)
        try:
            for packet in self._container.demux(self._stream):
                on_progress()
                clock.correct(packet)
                if clock.num_corrected:
                    raise VideoError("irregular-clock", "the time stamps begin anew")
                if not packet.size or packet.is_discard:
                    num_hidden += bool(packet.size)
                    continue
                if packet.pts is None or packet.is_corrupt:
                    return None
                found.append((packet.pts, packet.duration or 0, packet.is_keyframe))
        except MemoryError:
            raise
        except FILE_ERRORS:
            return None
        found.sort()
        frames = self._rewind()
        for (stamp, _, is_key), decoded in zip(found, frames, strict=False):
            on_progress()
            frame = decoded.frame
            if (stamp, is_key, time_base) != (frame.pts, frame.key_frame, frame.time_base):
                return None
            if self.num_frames_decoded == _NUM_COMPARED:
                break
        if not time_base or not found:
            return None
        self._num_hidden = self._hidden(num_hidden, len(found))
        # Equal durations share one object, because there may be millions of frames.
        durations = {one: self._duration(one, time_base) for one in {item[1] for item in found}}
        return Scan(
            times=[stamp * time_base - self._first_time for stamp, _, _ in found],
            durations=[durations[duration] for _, duration, _ in found],
            keys=[number for number, item in enumerate(found) if item[2]],
        )

    def _scan_frames(self, on_progress: Callable[[], None]) -> Scan:
        scan = Scan([], [], [])
        previous: Picture | None = None
        for number, decoded in enumerate(self._rewind()):
            on_progress()
            if decoded.stamp.is_irregular:
                raise VideoError(
                    "irregular-clock", f"the time stamp of frame {number} is not in order"
                )
            previous = self._picture_of(decoded, number, previous)
            scan.times.append(previous.time)
            scan.durations.append(previous.duration)
            if decoded.frame.key_frame and decoded.stamp.value is not None:
                scan.keys.append(number)
        return scan

    def _pictures_of(self, segment: Segment, on_progress: Callable[[], None]) -> Iterator[Picture]:
        # A damaged segment is given up: reading the video whole says what can be kept.
        self._conceals = False
        frames: Iterable[Decoded] = itertools.chain([self._first], self._frames)
        if self.seeks and segment.seek_times:
            for time in segment.seek_times:
                found = self._seek_segment(segment, time, on_progress)
                if found is not None:
                    yield from self._timed(found, segment.first_picture)
                    return
            frames = self._rewind()
        for picture in self._timed(frames):
            if picture.number >= segment.first_picture:
                yield picture
            else:
                on_progress()

    def _seek_segment(
        self, segment: Segment, target: Fraction, on_progress: Callable[[], None]
    ) -> Iterable[Decoded] | None:
        """Returns the frames from the segment's first frame on, or None if seeking fails.

        Decoding must pass the segment's key frame, and this frame must really be a key frame.
        Containers seek by rough tables or land anywhere, and the times of AVI are only counts.
        """
        assert self._stream.time_base is not None
        stamp = math.floor((self._first_time + target) / self._stream.time_base)
        found_key = False
        try:
            self._container.seek(stamp, stream=self._stream, backward=True)
            frames = self._decode()
            for decoded in frames:
                on_progress()
                if decoded.stamp.value is None:
                    return None
                time = self._time_of(decoded, None) - self._first_time
                if time == segment.seek_times[0]:
                    frame = decoded.frame
                    found_key = bool(frame.key_frame) and not frame.is_corrupt
                if time >= segment.first_time:
                    is_there = found_key and time == segment.first_time
                    return itertools.chain([decoded], frames) if is_there else None
        except (av.FFmpegError, VideoError):
            return None
        return None

    def note_what_became_of_frames(self, num_frames: int) -> None:
        super().note_what_became_of_frames(num_frames)
        # For a range, only a part of the file is read.
        if self._num_hidden and not self._has_range:
            self.notes["edit-list"] = (
                f"its edit list hides {format_count(self._num_hidden, 'frame')}"
            )

    def _estimate_duration(self) -> float | None:
        if self._stream.frames and self.info.fps:
            return self._stream.frames / self.info.fps
        return super()._estimate_duration()

    # ---- times and pixels

    def _time_of(self, decoded: Decoded, previous: Picture | None) -> Fraction:
        """Returns a frame's container time in s, or the last frame's end if it has no stamp."""
        stamp, time_base = decoded.stamp.value, decoded.frame.time_base
        if stamp is not None and time_base:  # PyAV 19 has a zero for what is not known
            return stamp * time_base
        if previous is None:
            return Fraction(0)
        return self._first_time + previous.time + previous.duration

    def _duration_of(self, frame: VideoFrame) -> Fraction:
        return self._duration(frame.duration, frame.time_base)

    def _duration(self, duration: int | None, time_base: Fraction | None) -> Fraction:
        if duration and time_base:
            return duration * time_base
        rate = self._rate()
        return 1 / rate if rate else Fraction(0)

    def _rgb_reader(self, number: int, frame: VideoFrame) -> Callable[[], RGB]:
        orientation = self._orient(frame)
        return lambda: self._rgb_of(frame, orientation)

    def _orient(self, frame: VideoFrame) -> Orientation:
        """Returns the orientation of a frame, or the previous frame's if it has none."""
        self._orientation = orientation_of_frame(frame) or self._orientation
        return self._orientation

    def _rgb_of(self, frame: VideoFrame, orientation: Orientation) -> RGB:
        size = orientation.displayed_size(frame.width, frame.height)
        if size != (self.info.width, self.info.height):
            raise VideoError(
                "size-change",
                "the picture turns in the middle of the video, from "
                f"{self.info.width}x{self.info.height} to {size[0]}x{size[1]}",
            )
        # Bicubic is FFmpeg's own default. It matters if chroma of more than 8 bits is enlarged.
        rgb = frame.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        return orientation.apply(np.asarray(rgb, np.uint8))


def _describe_turn(orientation: Orientation) -> str:
    turn = f"turned by {orientation.rotation} degrees" if orientation.rotation else "not turned"
    return f"{turn} and mirrored" if orientation.is_mirrored else turn
