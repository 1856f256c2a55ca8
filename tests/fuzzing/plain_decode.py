"""Decodes videos with nothing of flowprep: `python -m tests.fuzzing.plain_decode < requests`.

A request is a line of JSON: path, width, height and JPEG quality. The answer, a line of JSON too,
has a digest for each picture as it would be stored, and the error that ended the decoding, if any.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.frame import VideoFrame

MAX_PICTURES = 2000
MAX_HELD = 64


def answer(path: str, width: int, height: int, quality: int) -> dict[str, Any]:
    """Returns `digests`, `error`, and `unsure`, the numbers of pictures that are not certain.

    Where data breaks off and a decoder notices nothing, it leaves a part of a frame as its memory
    was. So it decodes twice, and once with a memory of its own for each frame.
    """
    found = decode(path, width, height, quality, holds=False)
    again = decode(path, width, height, quality, holds=True)
    pairs = zip(found["digests"], again["digests"], strict=False)
    return found | {"unsure": [n for n, (one, other) in enumerate(pairs) if one != other]}


def decode(path: str, width: int, height: int, quality: int, *, holds: bool) -> dict[str, Any]:
    """Returns `digests` and `error` of one video; `holds` keeps frames, and so their memory."""
    digests: list[str] = []
    held: list[VideoFrame] = []
    turns: int | None = None
    try:
        # Names in a broken file are not always UTF-8. PyAV 19 takes them as they are.
        if int(av.__version__.partition(".")[0]) < 19:
            names: dict[str, Any] = {"metadata_errors": "replace"}
        else:
            names = {}
        with av.open(path, **names) as container:
            stream = next(
                stream
                for stream in container.streams.video
                if not stream.disposition & Disposition.attached_pic
            )
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if holds and len(held) < MAX_HELD:
                    held.append(frame)
                if turns is None:
                    turns = round(frame.rotation / 90) % 4
                rgb = frame.to_ndarray(format="rgb24", interpolation="BICUBIC", threads=1)
                rgb = np.ascontiguousarray(np.rot90(rgb, turns))
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
        return {"digests": digests, "error": f"{type(error).__name__}: {error}"}
    return {"digests": digests, "error": None}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
