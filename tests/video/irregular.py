"""Files with odd clocks, written through PyAV: each picture is one gray level, told by its number.

A plain file is encoded first, and its packets are written again with other stamps. Muxers ask for
decoding times that rise; what a muxer cannot write is patched into the bytes (FLV) or made by
joining files (MPEG-TS, VOB), which is how such files come about.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

WIDTH, HEIGHT = 64, 48
RATE = 25
CODECS = {
    ".mp4": "mpeg4",
    ".mkv": "mpeg4",
    ".ts": "mpeg2video",
    ".vob": "mpeg2video",
    ".flv": "flv",
}
_FORMATS = {".ts": "mpegts", ".vob": "vob"}
_EARLY = {".mp4", ".mkv"}


def gray_of(number: int) -> int:
    """The level of picture `number`; 21 pictures have levels of their own, far from each other."""
    return 24 + 10 * (8 * number % 21)


def write_plain(path: Path, num_frames: int, first: int = 0, start: Fraction | None = None) -> None:
    """Writes pictures `first`, `first + 1`, ... at 25 fps, key frames all, from `start` seconds."""
    with av.open(str(path), "w", format=_FORMATS.get(path.suffix)) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=RATE)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = 1
        stream.bit_rate = 2_000_000
        for number in range(num_frames):
            level = np.full((HEIGHT, WIDTH), gray_of(first + number), np.uint8)
            frame = av.VideoFrame.from_ndarray(level, format="gray").reformat(format="yuv420p")
            frame.pts = number + round((start or 0) * RATE)
            frame.time_base = Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_shown(path: Path, times: Sequence[Fraction], *, has_edit_list: bool = False) -> bool:
    """Writes a picture for each time of presentation, in s, decoded in the order of the list.

    MP4 may have an edit list: the film begins with the first picture, and what is shown before it
    is hidden. Returns whether the muxer took it.
    """
    plain = path.with_name(f"plain-{path.name}")
    write_plain(plain, len(times))
    options = {"avoid_negative_ts": "disabled"}
    if path.suffix == ".mp4":
        options["use_editlist"] = str(int(has_edit_list))
    try:
        with (
            av.open(str(plain)) as source,
            av.open(str(path), "w", format=_FORMATS.get(path.suffix), options=options) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            packets = [packet for packet in source.demux(video=0) if packet.size]
            for number, (packet, time) in enumerate(zip(packets, times, strict=True)):
                packet.stream = stream
                packet.time_base = Fraction(1, 90000)
                # Early: no picture may be shown before it is decoded.
                packet.dts = number * (900 if path.suffix in _EARLY else 3600)
                packet.pts = round(time * 90000)
                packet.duration = 90000 // RATE
                target.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


def patch_flv(path: Path, stamps_ms: Sequence[int]) -> None:
    """Gives the pictures of a plain FLV file other decoding times, in ms."""
    data = bytearray(path.read_bytes())
    place, number = 13, 0  # the header, and the size of the tag before the first
    while place < len(data):
        kind, size = data[place], int.from_bytes(data[place + 1 : place + 4], "big")
        if kind == 9 and number < len(stamps_ms):
            stamp = stamps_ms[number]
            data[place + 4 : place + 7] = (stamp & 0xFFFFFF).to_bytes(3, "big")
            data[place + 7 : place + 8] = struct.pack("B", stamp >> 24 & 0xFF)
            number += 1
        place += 11 + size + 4
    path.write_bytes(data)


def join(path: Path, parts: Sequence[tuple[int, Fraction]]) -> None:
    """Joins recordings of (pictures, first time in s) as `cat` does; numbers go on."""
    content, first = b"", 0
    for number, (num_frames, start) in enumerate(parts):
        part = path.with_name(f"part{number}-{path.name}")
        write_plain(part, num_frames, first, start)
        content += part.read_bytes()
        first += num_frames
    path.write_bytes(content)
