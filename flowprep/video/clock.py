"""Time stamps: corrected as ffmpeg's command corrects them, and counted where they are irregular.

    packet -> PacketClock -> decoder -> frame -> FrameClock -> Stamp

No frame is ever left out because of its stamp: frames keep the order in which the decoder gives
them. Only sampling at a rate and ranges in seconds look at the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

__all__ = ["JUMP_SECONDS", "FrameClock", "PacketClock", "Stamp"]

JUMP_SECONDS = 10
"""A clock that goes ahead by more jumps. FFmpeg, fftools/ffmpeg_demux.c: dts_delta_threshold."""

_BACK_SECONDS = Fraction(1, 10)
"""A decoding time that goes back by more is another clock. FFmpeg, ts_discontinuity_detect."""

_ERROR_SECONDS = 3600 * 30
"""A stamp that is so far away is none. FFmpeg, fftools/ffmpeg_demux.c: dts_error_threshold."""

# libavformat/avformat.h: AVFMT_TS_DISCONT and AVFMT_NOTIMESTAMPS.
_MAY_JUMP_FLAG = 0x0200
_NO_STAMPS_FLAG = 0x0080


class PacketClock:
    """Takes the jumps out of the stamps of a stream's packets, as ffmpeg's own command does.

    Files that may be joined from several recordings (MPEG-TS, VOB, ...) get one clock: where it
    jumps by more than `JUMP_SECONDS` or goes back, the packets go on where the last one ended.
    In other files only stamps that are more than 30 hours away are dropped. (FFmpeg,
    fftools/ffmpeg_demux.c: ts_discontinuity_detect, ist_dts_update.)
    """

    num_corrected: int
    """Places so far at which the clock was corrected, or a stamp dropped."""

    def __init__(self, stream: Stream, format_flags: int) -> None:
        self.num_corrected = 0
        self._may_jump = self.may_jump(format_flags)
        self._time_base = stream.time_base or Fraction(1)
        rate = getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None)
        self._frame = 1 / (rate * self._time_base) if rate else Fraction(0)
        self._offset = 0
        self._last: Fraction | None = None
        self._next: Fraction | None = None

    @staticmethod
    def may_jump(format_flags: int) -> bool:
        """Whether files of a format may be joined from recordings with clocks of their own."""
        return bool(format_flags & _MAY_JUMP_FLAG)

    def correct(self, packet: Packet[Any]) -> None:
        """Changes the stamps of the next packet where they need it."""
        if self._offset:
            if packet.pts is not None:
                packet.pts += self._offset
            if packet.dts is not None:
                packet.dts += self._offset
        if packet.dts is not None and self._next is not None:
            if self._may_jump:
                self._join(packet)
            else:
                self._drop_errors(packet)
        if packet.dts is not None:
            self._last = Fraction(packet.dts)
        elif self._next is not None:
            self._last = self._next
        else:
            self._last = Fraction(packet.pts or 0)
        self._next = self._last + (packet.duration or self._frame)

    def _join(self, packet: Packet[Any]) -> None:
        assert packet.dts is not None
        assert self._next is not None
        assert self._last is not None
        ahead = packet.dts - self._next
        if (
            abs(ahead) * self._time_base > JUMP_SECONDS
            or (self._last - packet.dts) * self._time_base > _BACK_SECONDS
        ):
            shift = round(ahead)
            self._offset -= shift
            packet.dts -= shift
            if packet.pts is not None:
                packet.pts -= shift
            self.num_corrected += 1

    def _drop_errors(self, packet: Packet[Any]) -> None:
        assert packet.dts is not None
        assert self._next is not None
        dropped = False
        if abs(packet.dts - self._next) * self._time_base > _ERROR_SECONDS:
            packet.dts = None
            dropped = True
        if (
            packet.pts is not None
            and abs(packet.pts - self._next) * self._time_base > _ERROR_SECONDS
        ):
            packet.pts = None
            dropped = True
        self.num_corrected += dropped


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a frame is shown, as far as its file says so."""

    value: int | None
    """In units of the frame's time base; None where the file says nothing."""
    disorder: str | None = None
    """What is wrong with it, if a range in seconds has no meaning there."""
    is_irregular: bool = False
    """Whether it goes back, repeats, jumps ahead or is missing."""


class FrameClock:
    """Gives frames the stamps that ffmpeg's command gives them, and finds the irregular ones.

    Of presentation and decoding times those are taken that have been in order more often. (FFmpeg,
    libavcodec/decode.c: guess_correct_pts.)
    """

    def __init__(self, format_flags: int) -> None:
        self._has_stamps = not format_flags & _NO_STAMPS_FLAG
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._num_faulty_pts = 0
        self._num_faulty_dts = 0
        self._last_raw: int | None = None
        self._num_corrected = 0

    def stamp(self, frame: VideoFrame, num_corrected: int, *, is_last: bool) -> Stamp:
        """Returns the stamp of the next frame; `num_corrected` is that of its PacketClock.

        `is_last` says that the decoder gave it after the last packet: AVI has no stamp for it then.
        """
        is_joined = num_corrected > self._num_corrected
        self._num_corrected = num_corrected
        value = self._guess(frame.pts, frame.dts)
        # What the file says, whether ffmpeg would follow it or not.
        raw = frame.pts if frame.pts is not None else frame.dts
        previous, self._last_raw = self._last_raw, raw if raw is not None else self._last_raw
        if is_joined:
            return Stamp(value, "begins another clock", True)
        if raw is None:
            if self._has_stamps and not is_last:
                return Stamp(value, "is missing", True)
            return Stamp(value)
        if previous is None or not frame.time_base:
            return Stamp(value)
        if raw > previous:
            ahead_seconds = float((raw - previous) * frame.time_base)
            return Stamp(value, is_irregular=ahead_seconds > JUMP_SECONDS)
        seconds = [float(one * frame.time_base) for one in (previous, raw)]
        if raw < previous:
            return Stamp(value, f"goes back from {seconds[0]:.3f} to {seconds[1]:.3f} s", True)
        return Stamp(value, f"repeats the one before, {seconds[0]:.3f} s", True)

    def _guess(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self._num_faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._num_faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self._num_faulty_pts <= self._num_faulty_dts):
            return pts
        return dts
