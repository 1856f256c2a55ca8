"""Decodes videos with nothing of flowprep: `python -m tests.fuzzing.plain_decode < requests`.

A request is a line of JSON: path, stream, width, height, JPEG quality, and whether decoding goes on
after an error. The answer, a line of JSON too, has a digest for each picture as it would be stored,
and the error that ended the decoding, or the first one, if any.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterator
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

MAX_PICTURES = 2000
MAX_HELD = 64


def answer(
    path: str, stream: int, width: int, height: int, quality: int, conceals: bool
) -> dict[str, Any]:
    """Returns `digests`, `error`, and `unsure`, the numbers of pictures that are not certain.

    Where data breaks off and a decoder notices nothing, it leaves a part of a frame as its memory
    was. So it decodes twice, and once with a memory of its own for each frame.
    """
    found, again = (
        decode(path, stream, width, height, quality, conceals=conceals, holds=holds)
        for holds in (False, True)
    )
    pairs = zip(found["digests"], again["digests"], strict=False)
    return found | {"unsure": [n for n, (one, other) in enumerate(pairs) if one != other]}


def decode(
    path: str, number: int, width: int, height: int, quality: int, *, conceals: bool, holds: bool
) -> dict[str, Any]:
    """Returns `digests` and `error` of one video; `holds` keeps frames, and so their memory."""
    digests: list[str] = []
    errors: list[str] = []
    held: list[VideoFrame] = []
    matrix = (1, 0, 0, 1)
    try:
        # Names in a broken file are not always UTF-8. PyAV 19 takes them as they are.
        if int(av.__version__.partition(".")[0]) < 19:
            names: dict[str, Any] = {"metadata_errors": "replace"}
        else:
            names = {}
        with av.open(path, **names) as container:
            stream = container.streams[number]
            stream.codec_context.thread_count = 1
            for frame in frames_of(container, stream, errors, conceals=conceals):
                if holds and len(held) < MAX_HELD:
                    held.append(frame)
                matrix = matrix_of(frame) or matrix
                rgb = frame.to_ndarray(format="rgb24", interpolation="BICUBIC", threads=1)
                rgb = np.ascontiguousarray(shown(rgb, matrix))
                if rgb.shape[:2] != (height, width):
                    shrinks = width <= rgb.shape[1] and height <= rgb.shape[0]
                    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                    rgb = cv2.resize(rgb, (width, height), interpolation=how)
                parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
                _, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], parameters)
                digests.append(hashlib.sha256(jpeg.tobytes()).hexdigest())
                if len(digests) == MAX_PICTURES:
                    break
    except (av.FFmpegError, ValueError, StopIteration) as error:
        errors.insert(0, f"{type(error).__name__}: {error}")
    return {"digests": digests, "error": errors[0] if errors else None}


def frames_of(
    container: Any, stream: Any, errors: list[str], *, conceals: bool
) -> Iterator[VideoFrame]:
    """Yields a stream's frames; with `conceals` those after an error too, which is kept."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if not conceals:
                raise
            errors.append(str(error))
            # The decoder may hold frames back.
            yield from stream.codec_context.decode(None)
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            if not conceals:
                raise
            errors.append(str(error))


def matrix_of(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """Returns a, b, c, d of a frame's display matrix as -1, 0 or 1; None for a frame without one.

    The picture's x goes to a x + c y, its y to b x + d y (FFmpeg, libavutil/display.h).
    """
    for entry in frame.side_data:
        if str(entry.type).endswith("DISPLAYMATRIX"):
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(entry))
            if abs(a) >= abs(b):
                return (1 if a > 0 else -1, 0, 0, 1 if d > 0 else -1)
            return (0, 1 if b > 0 else -1, 1 if c > 0 else -1, 0)
    return None


def shown(rgb: Any, matrix: tuple[int, int, int, int]) -> Any:
    """Returns the picture as its matrix shows it."""
    a, b, c, d = matrix
    if b:
        rgb, a, d = rgb.transpose(1, 0, 2), c, b
    return rgb[:: d or 1, :: a or 1]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
