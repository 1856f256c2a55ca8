"""From a video file, or a folder of frame images, to the frames that flow is computed on.

    open_video(video, spec) -> FrameReader -> Frame, Frame, ...
        decode -> mirror and turn                      pyav_reader.py, decord_reader.py, images.py
        cut the range -> sample -> resize -> gray      reader.py

Memory stays flat: a reader holds a few frames, however long the file.
"""

from __future__ import annotations

import dataclasses
import os

from flowprep.config import DecodeSpec
from flowprep.inputs.video import Video
from flowprep.video.decord_reader import DecordReader
from flowprep.video.images import ImageFolderReader
from flowprep.video.pyav_reader import PyAVReader
from flowprep.video.reader import FrameReader
from flowprep.video.types import VideoInfo

__all__ = ["DECODERS", "open_video", "probe_video"]

DECODERS: dict[str, type[FrameReader]] = {"pyav": PyAVReader, "decord": DecordReader}
"""The backends by name, as `DecodeSpec.decoder` takes them."""


def open_video(video: Video, spec: DecodeSpec) -> FrameReader:
    """Opens a video file or a folder of images and decodes its first frame.

    Raises VideoError (missing, unreadable, no-video-stream, no-frames) if something is wrong with
    the source, and ConfigError if the decoder that `spec` names is not installed.
    """
    if os.path.isdir(video.source):
        return ImageFolderReader(video, spec)
    return DECODERS[spec.decoder](video, spec)


def probe_video(video: Video, spec: DecodeSpec | None = None) -> VideoInfo:
    """Returns the properties of a source. Decodes at most one frame. Raises VideoError.

    `spec` says which stream to take and how to read folders of images. Its decoder is not used.
    """
    spec = dataclasses.replace(spec or DecodeSpec(), decoder="pyav")
    with open_video(video, spec) as reader:
        return reader.info
