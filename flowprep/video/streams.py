"""Chooses the video stream of a file that a player would show.

FFmpeg's command gives each stream a score (fftools/ffmpeg_mux_init.c, map_auto_video). The score is
the size of the picture in px, plus 100,000,000 if packets of the stream come while the file is
probed, plus 5,000,000 for the default flag. The highest score wins, and the first stream among
equals. Two rules are stricter here. First, a cover picture is never taken, and a stream that FFmpeg
cannot decode only if all others are cover pictures. Second, a stream with more pictures is
preferred to a stream with a single picture, which has no flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from flowprep.errors import VideoError

__all__ = ["StreamChoice", "choose_stream", "decoder_of"]

PROBED_BYTES = 5_000_000
"""Bytes that are read to see which streams have packets. It is FFmpeg's `probesize`."""

PACKETS_SCORE_PX = 100_000_000
DEFAULT_SCORE_PX = 5_000_000


@dataclass(frozen=True, slots=True)
class StreamChoice:
    """The chosen stream, by FFmpeg's number."""

    number: int
    has_read: bool
    """Whether packets were read, so that the file must be opened again."""
    note: str | None
    """Names the chosen stream and the others. None if nothing was guessed."""


def choose_stream(container: InputContainer, wanted: int | None) -> StreamChoice:
    """Returns stream `wanted`, or the best stream if `wanted` is None.

    Raises VideoError (no-video-stream, unreadable) if there is none.
    """
    if wanted is not None:
        _check_wanted(container, wanted)
        return StreamChoice(wanted, has_read=False, note=None)
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    candidates = [stream for stream in streams if decoder_of(stream) is not None]
    if not candidates:
        if streams:
            raise VideoError("unreadable", "FFmpeg has no decoder for the video stream")
        holds = "only sound" if container.streams.audio else "no stream of pictures"
        raise VideoError("no-video-stream", f"the file holds {holds}")
    best, has_read = candidates[0], len(candidates) > 1
    if has_read:
        num_packets = _count_packets(container, candidates)
        best = max(candidates, key=lambda stream: _score(stream, num_packets[stream.index]))
    others = ", ".join(_describe(stream) for stream in streams if stream.index != best.index)
    note = f"{_describe(best)} was taken, and not {others}" if others else None
    return StreamChoice(best.index, has_read, note)


def decoder_of(stream: Stream) -> str | None:
    """Returns the name of the decoder, or None if FFmpeg has no decoder."""
    context = getattr(stream, "codec_context", None)
    return None if context is None else context.name


def _is_cover(stream: Stream) -> bool:
    # This is the cover of a song, or thumbnails of a film's chapters.
    return bool(stream.disposition & Disposition.attached_pic)


def _check_wanted(container: InputContainer, wanted: int) -> None:
    for stream in container.streams:
        if stream.index != wanted:
            continue
        if stream.type != "video":
            what = f"stream {wanted} is no video but {stream.type}"
        elif _is_cover(stream):
            what = f"stream {wanted} is a cover picture"
        elif decoder_of(stream) is None:
            what = f"FFmpeg has no decoder for stream {wanted}"
        else:
            return
        break
    else:
        what = f"the file has no stream {wanted}"
    videos = [
        _describe(stream)
        for stream in container.streams.video
        if not _is_cover(stream) and decoder_of(stream) is not None
    ]
    there = f"its video streams are {', '.join(videos)}" if videos else "it has no video stream"
    raise VideoError("no-video-stream", f"{what} (--video-stream); {there}")


def _count_packets(container: InputContainer, candidates: Sequence[VideoStream]) -> dict[int, int]:
    """Counts the packets of each stream, up to two, to see which streams have content."""
    found = {stream.index: 0 for stream in candidates}
    num_bytes = 0
    try:
        for packet in container.demux(*candidates):
            if not packet.size:
                continue
            found[packet.stream.index] += 1
            num_bytes += packet.size
            if num_bytes > PROBED_BYTES or min(found.values()) >= 2:
                break
    except (av.FFmpegError, ValueError, IndexError):
        pass  # decoding says what is wrong, if the stream that is chosen is
    return {stream.index: max(found[stream.index], stream.frames) for stream in candidates}


def _score(stream: VideoStream, num_packets: int) -> tuple[bool, int]:
    moves = num_packets >= 2 and not stream.disposition & Disposition.still_image
    width, height = stream.codec_context.width, stream.codec_context.height
    score = width * height
    score += PACKETS_SCORE_PX * (num_packets > 0)
    score += DEFAULT_SCORE_PX * bool(stream.disposition & Disposition.default)
    return moves, score


def _describe(stream: Stream) -> str:
    decoder = decoder_of(stream)
    if decoder is None:
        return f"stream {stream.index} (unknown codec)"
    assert isinstance(stream, VideoStream)
    width, height = stream.codec_context.width, stream.codec_context.height
    is_default = ", default" if stream.disposition & Disposition.default else ""
    return f"stream {stream.index} ({decoder}, {width}x{height}{is_default})"
