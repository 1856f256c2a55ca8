"""Decodes with decord. decord gives the pixels; PyAV gives the number, times and sizes of frames.

decord exists only for x86-64 Linux, so it is imported when the first video is opened with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cv2
from av.video.frame import VideoFrame

from flowprep.config import DecodeSpec
from flowprep.errors import ConfigError, VideoError
from flowprep.inputs.video import Video
from flowprep.video.orientation import Orientation
from flowprep.video.pyav_reader import PyAVReader
from flowprep.video.reader import RGB

__all__ = ["DecordReader"]

DECORD_CHUNK_BYTES = 64 << 20
"""Number of bytes that decord reads before it is stopped; see `DecordReader`."""

MAX_DIFFERENCE_LEVELS = 32
"""If a pixel of decord differs more than this from PyAV's, decord shows another picture. Pixels of
UCF101 (MPEG-4 part 2) differ by 2. A mean difference would not detect a dark scene that is upside
down."""

# decord turns pictures only by the header of these formats, and never mirrors them.
_TURNED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})


class DecordReader(PyAVReader):
    """Takes the pixels from decord, in one thread, and everything else from PyAV.

    decord 0.6 gives wrong information about a file. It overstates lengths and repeats the last
    frame. It hides a change of size. It shows a neighbor in place of a frame that it could not
    decode (most of an MPEG-TS file). So PyAV decodes the file, too. PyAV's frames give the number,
    times and sizes, and each frame of decord is compared with PyAV's. A video is `unreadable` if
    decord shows it wrongly, or if it has more than 8 bits (decord converts its chroma differently).

    decord also decodes ahead without limit while nobody reads. Here it reads up to
    `DECORD_CHUNK_BYTES` at once and is then stopped, which costs one seek back to a key frame per
    chunk. This takes 460 MB and has half of PyAV's speed at 1080p; decord alone held 1.5 GB after
    4 s without reading, and more later. A range is reached by decoding from the start. For a
    damaged file, decord gives fewer frames than PyAV, and the number varies. MPEG-4 part 2 (old AVI
    files) differs from PyAV by a few levels in single pixels, because decord contains an older
    FFmpeg. Other codecs are equal bit by bit.
    """

    seeks = False

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        self._chunk: list[RGB] = []
        self._chunk_start = 0
        decord = _import_decord()
        super().__init__(video, spec)
        try:
            self._check_shown_alike()
        except VideoError:
            self.close()
            raise
        try:
            self._decord: Any = decord.VideoReader("file:" + video.source, num_threads=1)
        except (RuntimeError, decord.DECORDError) as error:
            self.close()
            raise self._refusal("cannot open") from error

    def close(self) -> None:
        super().close()
        self._chunk = []
        self._decord = None

    def _check_shown_alike(self) -> None:
        """Raises VideoError if decord is known to show another picture."""
        # decord lets an older FFmpeg choose the stream. This FFmpeg does not consider default flags
        # yet, so pictures may still come from another stream: see _read.
        best = self._container.streams.best("video")
        if best is None or best.index != self.info.video_stream:
            raise self._refusal_of_stream()
        if self.info.is_mirrored:
            raise self._refusal("does not mirror the picture of")
        if self.info.rotation and self._container.format.name not in _TURNED_FORMATS:
            raise self._refusal("does not turn the picture of")

    def _refusal_of_stream(self) -> VideoError:
        return VideoError(
            "unreadable",
            "decord shows another stream of this file instead of stream "
            f"{self.info.video_stream}; try --decoder pyav",
        )

    def _refusal(self, what: str) -> VideoError:
        return VideoError(
            "unreadable",
            f"decord {what} this {self.info.codec} video; try --decoder pyav",
        )

    def _rgb_reader(self, number: int, frame: VideoFrame) -> Callable[[], RGB]:
        if frame.format.components[0].bits > 8:
            raise self._refusal("has no right conversion to 8 bits for")
        orientation = self._orient(frame)
        return lambda: self._read(number, frame, orientation)

    def _read(self, index: int, frame: VideoFrame, orientation: Orientation) -> RGB:
        while index >= self._chunk_start + len(self._chunk):
            self._read_chunk()
        rgb = self._chunk[index - self._chunk_start]
        if not _is_same(rgb, self._rgb_of(frame, orientation), frame):
            if index == 0 and len(self._container.streams.video) > 1:
                raise self._refusal_of_stream()
            raise self._refusal(f"shows a wrong picture at frame {index} of")
        return rgb

    def _read_chunk(self) -> None:
        frame_bytes = self.info.width * self.info.height * 3
        start = self._chunk_start + len(self._chunk)
        stop = min(start + max(1, DECORD_CHUNK_BYTES // frame_bytes), len(self._decord))
        self._chunk, self._chunk_start = [], start
        if start >= stop:
            raise self._refusal(f"ends before frame {start} of")
        try:
            if start > 0:
                self._decord.seek_accurate(start)
            for _ in range(start, stop):
                # A picture 1 px wide comes with the padding of its lines as further channels.
                self._chunk.append(self._decord.next().asnumpy()[:, :, :3])
            if stop < len(self._decord):
                self._decord.seek(0)  # ends the decoding ahead
        except MemoryError:
            raise
        except Exception as error:  # decord raises what its C++ says, in classes of several kinds
            if not self._chunk:
                raise VideoError("damaged", f"decord breaks off after frame {start}") from error


def _is_same(rgb: RGB, truth: RGB, frame: VideoFrame) -> bool:
    if rgb.shape != truth.shape or cv2.norm(rgb, truth, cv2.NORM_L1) > 2 * rgb.size:
        return False
    # decord's older swscale mixes the chroma of both fields, which shows at colored edges.
    return frame.interlaced_frame or cv2.norm(rgb, truth, cv2.NORM_INF) <= MAX_DIFFERENCE_LEVELS


def _import_decord() -> Any:
    # decord warns about frames that it replaced; they are found by comparison, so it may be quiet.
    os.environ.setdefault("DECORD_DUPLICATE_WARNING_THRESHOLD", "1.0")
    try:
        import decord
    except ImportError as error:
        raise ConfigError(
            "the decoder decord is not installed: `pip install decord` (x86-64 Linux), or use "
            "--decoder pyav"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord
