"""From a video file, or a folder of frame images, to the frames that flow is computed on.

    open_video(video, spec) -> FrameReader -> Frame, Frame, ...
        decode -> rotate                               pyav_reader.py, decord_reader.py, images.py
        cut the range -> sample -> resize -> gray      reader.py

Memory stays flat: a reader holds a few frames, however long the file.
"""

from __future__ import annotations

import os

from flowprep.config import DecodeSpec
from flowprep.video.decord_reader import DecordReader
from flowprep.video.images import ImageFolderReader
from flowprep.video.pyav_reader import PyAVReader
from flowprep.video.reader import FrameReader
from flowprep.video.types import Video, VideoInfo

__all__ = ["DECODERS", "open_video", "probe_video"]

DECODERS: dict[str, type[FrameReader]] = {"pyav": PyAVReader, "decord": DecordReader}
"""The backends by name, as `DecodeSpec.decoder` takes them."""


def open_video(video: Video, spec: DecodeSpec) -> FrameReader:
    """Opens a video file or a folder of images and decodes its first frame.

    Raises VideoError (missing, unreadable, no-video-stream, no-frames) for what is wrong with the
    source, and ConfigError where the decoder that `spec` names is not installed.
    """
    if os.path.isdir(video.source):
        return ImageFolderReader(video, spec)
    return DECODERS[spec.decoder](video, spec)


def probe_video(video: Video) -> VideoInfo:
    """Returns what a source says of itself; decodes one frame at most. Raises VideoError."""
    with open_video(video, DecodeSpec()) as reader:
        return reader.info
