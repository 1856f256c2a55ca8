"""Decoding with PyAV's FFmpeg: file -> packets -> VideoFrames -> Pictures.

Opening files safely, finding damage, reading time stamps, seeking to a range, and rotation.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.video.reader import RGB, FrameReader, Picture, target_size
from flowprep.video.types import Video, VideoInfo

__all__ = ["PyAVReader"]

SEEK_FROM_SECONDS = 5
"""A range that begins earlier than this is reached by decoding, which costs less than it saves."""

# What FFmpeg raises, and what PyAV adds: UnicodeDecodeError (a ValueError) for names in a broken
# file, IndexError where a stream is not there, ValueError for a picture format that has no name.
_FILE_ERRORS = (av.FFmpegError, ValueError, IndexError)


class PyAVReader(FrameReader):
    """Decodes with PyAV's FFmpeg, in one thread; gives each frame that ffmpeg itself gives.

    A packet that does not decode, a picture that the decoder had to conceal, and an AVI file that
    ends before its header says are damage: frames are never left out in silence. (Concealed
    pictures before the first sound one are kept, as FFmpeg does: recordings may begin between key
    frames.)
    """

    seeks = True

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        super().__init__(video, spec)
        self._open()
        try:
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise VideoError("no-frames", "the video stream holds no frame")
            self._first = first
            self._first_time = self._time_of(first, None)
            # FFmpeg counts from the start of the container, which may lie before the first frame.
            begin = self._container.start_time
            if not video.start_seconds and begin is not None and _stamp_of(first) is not None:
                self._grid_start = Fraction(begin, av.time_base) - self._first_time
            self.info = self._describe()
            self.size = target_size(self.info.width, self.info.height, spec)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        path = self.video.source
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise VideoError("missing", "the file does not exist or may not be read")
        if os.path.getsize(path) == 0:
            raise VideoError("unreadable", "the file is empty")
        try:
            # `file:` keeps names with a colon or a leading dash from being read as something else;
            # the white list keeps play lists from fetching anything over a network. PyAV by itself
            # has time stamps invented (genpts), which run out of order on AVI with B-frames.
            self._container: InputContainer = av.open(
                "file:" + path,
                metadata_errors="replace",
                options={"protocol_whitelist": "file", "fflags": "-genpts"},
            )
        except MemoryError:
            raise
        except _FILE_ERRORS as error:
            raise VideoError("unreadable", f"FFmpeg cannot open it: {_reason(error)}") from error
        try:
            self._stream = self._choose_stream()
            self._stream.codec_context.thread_count = 1
        except BaseException:
            self._container.close()
            raise

    def _choose_stream(self) -> VideoStream:
        if self._container.format.name == "tty":  # any text file is a film to FFmpeg
            raise VideoError("unreadable", "the file is text, not a video")
        for stream in self._container.streams.video:
            if stream.disposition & Disposition.attached_pic:  # the cover of a song
                continue
            if getattr(stream, "codec_context", None) is None:
                raise VideoError("unreadable", "FFmpeg has no decoder for the video stream")
            return stream
        kinds = sorted({stream.type for stream in self._container.streams.audio})
        holds = "only sound" if kinds else "no stream of pictures"
        raise VideoError("no-video-stream", f"the file holds {holds}")

    def _describe(self) -> VideoInfo:
        stream, frame = self._stream, self._first
        rotation = round(-frame.rotation / 90) * 90 % 360
        width, height = frame.width, frame.height
        if rotation in (90, 270):
            width, height = height, width
        rate = stream.average_rate or stream.guessed_rate
        seconds: Fraction | None = None
        if stream.duration and stream.time_base:
            seconds = stream.duration * stream.time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        return VideoInfo(
            width=width,
            height=height,
            rotation=rotation,
            fps=float(rate) if rate else None,
            duration_seconds=None if seconds is None else float(seconds),
            codec=stream.codec_context.codec.canonical_name,
        )

    def _decode(self) -> Iterator[VideoFrame]:
        """Yields the frames from where the container stands; raises VideoError."""
        size: tuple[int, int] | None = None
        num_sound = 0
        reached: int | None = None  # time stamp at which the last packet ends
        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    reached = packet.dts + (packet.duration or 0)
                for frame in packet.decode():
                    assert isinstance(frame, VideoFrame)
                    if frame.is_corrupt and num_sound:
                        raise self._damage("the next picture is incomplete")
                    num_sound += not frame.is_corrupt
                    size = size or (frame.width, frame.height)
                    if size != (frame.width, frame.height):
                        raise VideoError(
                            "size-change",
                            f"the picture changes from {size[0]}x{size[1]} to "
                            f"{frame.width}x{frame.height} at frame {self.num_frames_decoded}",
                        )
                    self.num_frames_decoded += 1
                    yield frame
        except MemoryError:
            raise
        except _FILE_ERRORS as error:
            raise self._damage(_reason(error)) from error
        self._check_end(reached)

    def _check_end(self, reached: int | None) -> None:
        # AVI counts its frames in the header and gives no error when the file is cut. One or two
        # frames too many are ordinary there. MP4 reports the cut itself, and its count is no
        # measure: an edit list may leave frames out.
        declared = self._stream.duration
        if self._container.format.name != "avi" or reached is None or not declared:
            return
        if declared - reached > max(3, declared // 50):
            raise self._damage("the file ends before its header says")

    def _damage(self, why: str) -> VideoError:
        num_frames, declared = self.num_frames_decoded, self._stream.frames
        if num_frames == 0:
            return VideoError("no-frames", f"the first frame does not decode: {why}")
        of = f" of {declared}" if declared else ""
        return VideoError("damaged", f"decoding broke off after frame {num_frames}{of}: {why}")

    def _pictures(self) -> Iterator[Picture]:
        frames: Iterable[VideoFrame] = itertools.chain([self._first], self._frames)
        if self.seeks and self._start >= SEEK_FROM_SECONDS and _stamp_of(self._first) is not None:
            frames = self._seek(self._first_time + self._start)
        previous: Picture | None = None
        for index, frame in enumerate(frames):
            time = self._time_of(frame, previous) - self._first_time
            previous = Picture(time, self._duration_of(frame), self._rgb_reader(index, frame))
            yield previous

    def _seek(self, target: Fraction) -> Iterable[VideoFrame]:
        """Goes to a key frame at or before `target` (container seconds), or else to the begin."""
        assert self._stream.time_base is not None
        # Containers seek by decoding time or by rough tables, so a key frame may be shown after the
        # target although the seek went "backward"; then the one before is wanted.
        for margin_seconds in (0, 1, 10, 60):
            stamp = math.floor((target - margin_seconds) / self._stream.time_base)
            self.num_frames_decoded = 0
            try:
                self._container.seek(stamp, stream=self._stream, backward=True)
                frames = self._decode()
                first = next(frames, None)
            except (av.FFmpegError, VideoError):
                continue
            if first is None or not first.key_frame or first.is_corrupt:
                continue
            if _stamp_of(first) is not None and self._time_of(first, None) <= target:
                return itertools.chain([first], frames)
        self.close()
        self._open()
        self.num_frames_decoded = 0
        return self._decode()

    def _time_of(self, frame: VideoFrame, previous: Picture | None) -> Fraction:
        """Returns the container's time of a frame in s; without a stamp, where the last ended."""
        stamp = _stamp_of(frame)
        if stamp is not None and frame.time_base is not None:
            return stamp * frame.time_base
        if previous is None:
            return Fraction(0)
        return self._first_time + previous.time + previous.duration

    def _duration_of(self, frame: VideoFrame) -> Fraction:
        if frame.duration and frame.time_base:
            return frame.duration * frame.time_base
        rate = self._stream.average_rate or self._stream.guessed_rate
        return 1 / rate if rate else Fraction(0)

    def _rgb_reader(self, index: int, frame: VideoFrame) -> Callable[[], RGB]:
        return lambda: self._rgb_of(frame)

    def _rgb_of(self, frame: VideoFrame) -> RGB:
        # Bicubic is FFmpeg's own default; it counts where chroma of more than 8 bits is enlarged.
        rgb = frame.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        return _rotate(np.asarray(rgb, np.uint8), self.info.rotation)


def _stamp_of(frame: VideoFrame) -> int | None:
    """Returns FFmpeg's time stamp: the presentation's or, where AVI has none, the decoding's."""
    return frame.pts if frame.pts is not None else frame.dts


def _rotate(rgb: RGB, rotation: int) -> RGB:
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    if rotation == 0:
        return np.ascontiguousarray(rgb)
    return np.asarray(cv2.rotate(rgb, turns[rotation]), np.uint8)


def _reason(error: Exception) -> str:
    # FFmpeg's own words, without the path and the numbers that PyAV puts round them.
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
