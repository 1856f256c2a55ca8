"""Opens a file safely with PyAV's FFmpeg, decodes its frames and finds damage.

streams.py chooses the stream, and clock.py corrects the time stamps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.clock import FrameClock, PacketClock, Stamp
from flowprep.video.containers import open_container
from flowprep.video.reader import FrameReader
from flowprep.video.streams import StreamChoice, choose_stream

__all__ = ["FILE_ERRORS", "Decoded", "PyAVDecoder"]

MAX_DECODED_PIXELS = 8192 * 8192
"""Larger pictures are refused before memory is allocated, because a header is easy to forge."""

MAX_AVERAGE_FPS = 1000
"""An average above this counts only if FFmpeg's guess is not lower. For raw DV the average is
60,000, which is the ticks of the clock."""

# Formats that name other files. A hostile file could name any file of the machine.
_PLAY_LISTS = frozenset({"concat", "dash", "hls", "imf", "webm_dash_manifest"})

# If a JPEG breaks off, these decoders show leftovers of an earlier picture without a flag.
_CONCEALING_DECODERS = frozenset({"amv", "mjpeg", "mjpegb"})

_DECODER_OPTIONS = {"max_pixels": str(MAX_DECODED_PIXELS)}

# The errors of FFmpeg and of PyAV: UnicodeDecodeError (a ValueError) for names in a broken file,
# IndexError for a missing stream, ValueError for a picture format without a name.
FILE_ERRORS = (av.FFmpegError, ValueError, IndexError)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame in the form in which the decoder gave it."""

    frame: VideoFrame
    stamp: Stamp


class PyAVDecoder(FrameReader):
    """Opens a video and decodes it in one thread. Gives every frame that ffmpeg itself gives.

    Frames are never left out silently. It is damage if a packet does not decode, if the decoder had
    to conceal a picture, or if an AVI file ends earlier than its header says. (Concealed pictures
    before the first sound picture are kept and counted, as FFmpeg keeps them, because recordings
    may begin between key frames.) If `on_damage` is `conceal`, decoding continues and damaged
    pictures are counted.
    """

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        super().__init__(video, spec)
        self._conceals = spec.on_damage == "conceal"
        self._num_lost = 0
        self._num_hidden = 0
        self._choice: StreamChoice | None = None
        self._open()

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        path = self.video.source
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise VideoError("missing", "the file does not exist or may not be read")
        if os.path.getsize(path) == 0:
            raise VideoError("unreadable", "the file is empty")
        try:
            # `file:` is needed for names with a colon or a leading dash. The white list keeps play
            # lists from fetching anything over a network. By default, PyAV makes FFmpeg invent time
            # stamps (genpts), which are out of order on AVI with B-frames.
            self._container: InputContainer = open_container(
                "file:" + path,
                {"protocol_whitelist": "file", "fflags": "-genpts", **_DECODER_OPTIONS},
            )
        except MemoryError:
            raise
        except FILE_ERRORS as error:
            raise VideoError("unreadable", f"FFmpeg cannot open it: {_reason(error)}") from error
        try:
            if self._choice is None:
                self._choice = self._choose_stream()
                if self._choice.has_read:
                    self._container.close()
                    return self._open()
            stream = self._container.streams[self._choice.number]
            assert isinstance(stream, VideoStream)
            self._stream = stream
            self._check_pixels()
            self._stream.codec_context.thread_count = 1
            context = self._stream.codec_context
            # A stream may need more than its container says.
            context.options = _DECODER_OPTIONS
            self._checker: VideoCodecContext | None = None
            if context.codec.name in _CONCEALING_DECODERS:
                strict = _DECODER_OPTIONS | {"err_detect": "explode"}
                if self._conceals:
                    checker = VideoCodecContext.create(context.codec.name, "r")
                    assert isinstance(checker, VideoCodecContext)
                    checker.options = strict
                    checker.extradata = context.extradata
                    self._checker = checker
                else:
                    context.options = strict
        except BaseException:
            self._container.close()
            raise

    def _choose_stream(self) -> StreamChoice:
        if self._container.format.name == "tty":  # any text file is a film to FFmpeg
            raise VideoError("unreadable", "the file is text, not a video")
        if self._container.format.name in _PLAY_LISTS:
            name = self._container.format.name
            raise VideoError("unreadable", f"the file is a playlist of other files ({name})")
        choice = choose_stream(self._container, self.spec.video_stream)
        if choice.note is not None:
            self.notes["other-streams"] = choice.note
        return choice

    def _check_pixels(self) -> None:
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width * height > MAX_DECODED_PIXELS:
            raise VideoError(
                "too-large",
                f"its pictures of {width}x{height} px have more than {MAX_DECODED_PIXELS} "
                "(MAX_DECODED_PIXELS)",
            )

    def _rate(self) -> Fraction | None:
        """Returns the average frame rate or FFmpeg's guess, or None if both are unknown."""
        average, guessed = self._stream.average_rate, self._stream.guessed_rate
        if average and guessed and average > MAX_AVERAGE_FPS:
            return min(average, guessed)
        return average or guessed

    def _decode(self) -> Iterator[Decoded]:
        """Yields the frames from the container's current position. Raises VideoError."""
        size: tuple[int, int] | None = None
        num_sound = num_hidden = num_shown = 0
        reached: int | None = None  # time stamp at which the last packet ends
        flags = self._container.format.flags
        packet_clock = PacketClock(self._stream, flags)
        frame_clock = FrameClock(flags)
        try:
            for packet in self._packets():
                if packet.dts is not None:
                    reached = packet.dts + (packet.duration or 0)
                if packet.size:
                    # An edit list marks the packets whose frames are not shown.
                    num_hidden += packet.is_discard
                    num_shown += not packet.is_discard
                packet_clock.correct(packet)
                for frame in self._decode_packet(packet):
                    if frame.is_corrupt and num_sound and not self._conceals:
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
                    num_corrected = packet_clock.num_corrected
                    stamp = frame_clock.stamp(frame, num_corrected, is_last=not packet.size)
                    yield Decoded(frame, stamp)
        except MemoryError:
            raise
        except FILE_ERRORS as error:
            raise self._damage(_reason(error)) from error
        self._num_hidden = self._hidden(num_hidden, num_shown)
        self._check_end(reached)

    def _hidden(self, num_marked: int, num_shown: int) -> int:
        """Returns the number of frames that an edit list hides in a stream read to its end.

        FFmpeg marks packets before an edit, and leaves out packets after its end. In a damaged
        file, packets may also be lost, and nobody can tell these apart.
        """
        is_damaged = self._num_lost or self.num_damaged
        if is_damaged or "mov" not in self._container.format.name.split(","):
            return 0
        return max(num_marked, self._stream.frames - num_shown, 0)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Yields the stream's packets, and at the end an empty packet that flushes the decoder."""
        try:
            yield from self._container.demux(self._stream)
        except av.FFmpegError:
            if not self._conceals:
                raise
            self._num_lost += 1
            end = Packet()
            end.stream = self._stream
            yield cast("Packet[VideoStream]", end)

    def _decode_packet(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        is_broken = False
        if self._checker is not None and packet.size:
            try:
                self._checker.decode(packet)
            except av.FFmpegError:
                is_broken = True
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if not self._conceals:
                raise
            # Like ffmpeg's command, decoding continues, because the next packet may be whole.
            frames, is_broken = [], True
        self._num_lost += is_broken
        return frames

    def _check_end(self, reached: int | None) -> None:
        # AVI has the number of frames in its header and gives no error if the file is cut off. Its
        # number is often one or two too high. MP4 itself reports that it is cut off. Its number
        # cannot be used, because an edit list may leave out frames.
        declared = self._stream.duration
        if self._container.format.name != "avi" or reached is None or not declared:
            return
        if declared - reached > max(3, declared // 50):
            if not self._conceals:
                raise self._damage("the file ends before its header says")
            self._num_lost += 1

    def _damage(self, why: str) -> VideoError:
        num_frames, declared = self.num_frames_decoded, self._stream.frames
        if num_frames == 0:
            return VideoError("no-frames", f"the first frame does not decode: {why}")
        of = f" of {declared}" if declared else ""
        return VideoError("damaged", f"decoding broke off after frame {num_frames}{of}: {why}")

    def _rewind(self) -> Iterator[Decoded]:
        self.close()
        self._open()
        self.num_frames_decoded = 0
        self._num_lost = self._num_hidden = 0
        return self._decode()


def _reason(error: Exception) -> str:
    # FFmpeg's own words, without the path and the numbers that PyAV adds.
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
