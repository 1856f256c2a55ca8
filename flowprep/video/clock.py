"""Corrects time stamps as ffmpeg's command does, and counts irregular ones.

    packet -> PacketClock -> decoder -> frame -> FrameClock -> Stamp

No frame is ever left out because of its time stamp. Frames keep the order in which the decoder
gives them. Only sampling at a rate and ranges in seconds use the clock.
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
"""A clock that goes ahead by more than this jumps. FFmpeg, fftools/ffmpeg_demux.c:
dts_delta_threshold."""

_BACK_SECONDS = Fraction(1, 10)
"""A decoding time that goes back by more than this belongs to another clock. FFmpeg,
ts_discontinuity_detect."""

_ERROR_SECONDS = 3600 * 30
"""A stamp that is this far away is invalid. FFmpeg, fftools/ffmpeg_demux.c:
dts_error_threshold."""

# libavformat/avformat.h: AVFMT_TS_DISCONT and AVFMT_NOTIMESTAMPS.
_MAY_JUMP_FLAG = 0x0200
_NO_STAMPS_FLAG = 0x0080


class PacketClock:
    """Removes jumps from the stamps of a stream's packets, as ffmpeg's own command does.

    Files that may be joined from several recordings (MPEG-TS, VOB, ...) get one clock. If the clock
    jumps by more than `JUMP_SECONDS` or goes back, the next packet starts at the end of the last
    one. In other files, only stamps that are more than 30 hours away are dropped. (FFmpeg,
    fftools/ffmpeg_demux.c: ts_discontinuity_detect, ist_dts_update.)
    """

    num_corrected: int
    """Number of places so far at which the clock was corrected or a stamp was dropped."""

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
        """Whether files of a format may be joined from recordings with different clocks."""
        return bool(format_flags & _MAY_JUMP_FLAG)

    def correct(self, packet: Packet[Any]) -> None:
        """Corrects the stamps of the next packet if necessary."""
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
    """The time at which a frame is shown, as far as its file says it."""

    value: int | None
    """Time in units of the frame's time base. None if the file gives none."""
    disorder: str | None = None
    """What is wrong with the stamp, if a range in seconds has no meaning here."""
    is_irregular: bool = False
    """Whether the stamp goes back, repeats, jumps ahead or is missing."""


class FrameClock:
    """Gives frames the same stamps as ffmpeg's command does, and finds the irregular stamps.

    It uses presentation or decoding times, whichever have been in order more often. (FFmpeg,
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
        """Returns the stamp of the next frame. `num_corrected` comes from its PacketClock.

        `is_last` says that the decoder gave the frame after the last packet. AVI then has no stamp.
        """
        is_joined = num_corrected > self._num_corrected
        self._num_corrected = num_corrected
        value = self._guess(frame.pts, frame.dts)
        # This is the file's own stamp, even if ffmpeg would not use it.
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
