"""From a video file, or a folder of frame images, to the frames that flow is computed on.

    open_video(video, spec) -> FrameReader -> Frame, Frame, ...
        decode -> rotate -> cut the range -> sample by timestamps -> resize -> gray

What a backend does is decode; all the rest is one path for every backend, so that a data set does
not depend on which of them made it. Memory stays flat: a reader holds a few frames, however long
the file.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from flowprep.config import DecodeSpec
from flowprep.errors import ConfigError, VideoError
from flowprep.video.types import Frame, Video, VideoInfo

__all__ = [
    "DECODERS",
    "DecordReader",
    "FrameReader",
    "ImageFolderReader",
    "PyAVReader",
    "open_video",
    "probe_video",
    "target_size",
]

RGB = NDArray[np.uint8]

SEEK_FROM_SECONDS = 5
"""A range that begins earlier than this is reached by decoding, which costs less than it saves."""

DECORD_CHUNK_BYTES = 64 << 20
"""How much decord reads before it is stopped; see `DecordReader`."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

# What FFmpeg raises, and what PyAV adds: UnicodeDecodeError (a ValueError) for names in a broken
# file, IndexError where a stream is not there, ValueError for a picture format that has no name.
_FILE_ERRORS = (av.FFmpegError, ValueError, IndexError)


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


def target_size(width: int, height: int, spec: DecodeSpec) -> tuple[int, int]:
    """Returns the stored (width, height) in px of a picture of width x height px, as displayed.

    Sides are rounded half up and are at least 1 px. Unless `spec.allow_upscale`, a picture keeps
    its own size wherever the wanted one is larger; for `exact`, where either side would grow,
    because shrinking the other one alone would distort the picture for nothing.
    """
    resize = spec.resize
    if resize.mode == "none":
        return width, height
    if resize.mode == "exact":
        assert resize.width_px is not None
        assert resize.height_px is not None
        wanted = resize.width_px, resize.height_px
    else:
        side = height if resize.mode == "height" else min(width, height)
        wanted_side = resize.height_px if resize.mode == "height" else resize.short_px
        assert wanted_side is not None
        wanted = (
            max(1, (2 * width * wanted_side + side) // (2 * side)),
            max(1, (2 * height * wanted_side + side) // (2 * side)),
        )
    if not spec.allow_upscale and (wanted[0] > width or wanted[1] > height):
        return width, height
    return wanted


@dataclass(frozen=True, slots=True)
class _Picture:
    """One decoded source frame whose RGB is only made if the frame is wanted."""

    time: Fraction  # seconds from the first frame of the file
    duration: Fraction  # seconds, as the file says
    read_rgb: Callable[[], RGB]  # () -> (H, W, 3), rotated


class FrameReader:
    """Yields the frames of one source in order, once; a context manager.

    Iterating raises VideoError: `damaged` where decoding breaks off (`num_frames` then counts the
    frames yielded before), `size-change`, and `no-frames` for a range without frames.
    """

    info: VideoInfo
    size: tuple[int, int]
    """Stored (width, height) in px."""
    num_frames_decoded: int
    """Source frames decoded so far, including those that sampling or the range leaves out."""

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        self.video = video
        self.spec = spec
        self.num_frames_decoded = 0
        self._iterated = False
        self._start = _exact(video.start_seconds or 0.0)
        self._end = None if video.end_seconds is None else _exact(video.end_seconds)
        # Where the sampling grid begins, in seconds from the first frame.
        self._grid_start = self._start

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the file; more calls do nothing."""

    def __iter__(self) -> Iterator[Frame]:
        if self._iterated:
            raise RuntimeError("a FrameReader can be read once; open the video again")
        self._iterated = True
        pictures: Iterable[_Picture] = self._cut(self._pictures())
        if self.spec.fps is not None:
            pictures = _sample(pictures, _exact(self.spec.fps), self._grid_start, self._end)
        num_frames = 0
        last: tuple[_Picture, Frame] | None = None
        try:
            for picture in pictures:
                # A sampling rate above the source's own shows one picture several times.
                if last is None or picture is not last[0]:
                    last = picture, self._frame(picture)
                yield last[1]
                num_frames += 1
        except VideoError as error:
            raise VideoError(error.reason, error.message, num_frames=num_frames) from error
        if num_frames == 0:
            raise VideoError("no-frames", self._describe_empty_range())

    def _pictures(self) -> Iterator[_Picture]:
        """Decodes in display order; may leave out what comes before the range."""
        raise NotImplementedError

    def _cut(self, pictures: Iterator[_Picture]) -> Iterator[_Picture]:
        for picture in pictures:
            if self._end is not None and picture.time >= self._end:
                return
            if picture.time >= self._start:
                yield picture

    def _frame(self, picture: _Picture) -> Frame:
        rgb = picture.read_rgb()
        height, width = rgb.shape[:2]
        if (width, height) != self.size:
            grows = self.size[0] > width or self.size[1] > height
            shrink = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
            interpolation = {
                "area": shrink,
                "bilinear": cv2.INTER_LINEAR,
                "bicubic": cv2.INTER_CUBIC,
            }[self.spec.interpolation]
            rgb = np.asarray(cv2.resize(rgb, self.size, interpolation=interpolation), np.uint8)
        rgb = np.ascontiguousarray(rgb)
        gray = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        return Frame(rgb, np.ascontiguousarray(gray), float(picture.time))

    def _describe_empty_range(self) -> str:
        end = "the end" if self._end is None else f"{float(self._end):g} s"
        length = self.info.duration_seconds
        of = "" if length is None else f" of a video of {length:g} s"
        return f"no frame lies from {float(self._start):g} s to {end}{of}"


class PyAVReader(FrameReader):
    """Decodes with PyAV's FFmpeg, in one thread; gives each frame that ffmpeg itself gives.

    A packet that does not decode, a picture that the decoder had to conceal, and an AVI file that
    ends before its header says are damage: frames are never left out in silence. (Concealed
    pictures before the first sound one are kept, as FFmpeg does: recordings may begin between key
    frames.)
    """

    seeks = True

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        super().__init__(video, spec)
        self._open()
        try:
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                raise VideoError("no-frames", "the video stream holds no frame")
            self._first = first
            self._first_time = self._time_of(first, None)
            # FFmpeg counts from the start of the container, which may lie before the first frame.
            begin = self._container.start_time
            if not video.start_seconds and begin is not None and _stamp_of(first) is not None:
                self._grid_start = Fraction(begin, av.time_base) - self._first_time
            self.info = self._describe()
            self.size = target_size(self.info.width, self.info.height, spec)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def _open(self) -> None:
        path = self.video.source
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise VideoError("missing", "the file does not exist or may not be read")
        if os.path.getsize(path) == 0:
            raise VideoError("unreadable", "the file is empty")
        try:
            # `file:` keeps names with a colon or a leading dash from being read as something else;
            # the white list keeps play lists from fetching anything over a network. PyAV by itself
            # has time stamps invented (genpts), which run out of order on AVI with B-frames.
            self._container: InputContainer = av.open(
                "file:" + path,
                metadata_errors="replace",
                options={"protocol_whitelist": "file", "fflags": "-genpts"},
            )
        except MemoryError:
            raise
        except _FILE_ERRORS as error:
            raise VideoError("unreadable", f"FFmpeg cannot open it: {_reason(error)}") from error
        try:
            self._stream = self._choose_stream()
            self._stream.codec_context.thread_count = 1
        except BaseException:
            self._container.close()
            raise

    def _choose_stream(self) -> VideoStream:
        if self._container.format.name == "tty":  # any text file is a film to FFmpeg
            raise VideoError("unreadable", "the file is text, not a video")
        for stream in self._container.streams.video:
            if stream.disposition & Disposition.attached_pic:  # the cover of a song
                continue
            if getattr(stream, "codec_context", None) is None:
                raise VideoError("unreadable", "FFmpeg has no decoder for the video stream")
            return stream
        kinds = sorted({stream.type for stream in self._container.streams.audio})
        holds = "only sound" if kinds else "no stream of pictures"
        raise VideoError("no-video-stream", f"the file holds {holds}")

    def _describe(self) -> VideoInfo:
        stream, frame = self._stream, self._first
        rotation = round(-frame.rotation / 90) * 90 % 360
        width, height = frame.width, frame.height
        if rotation in (90, 270):
            width, height = height, width
        rate = stream.average_rate or stream.guessed_rate
        seconds: Fraction | None = None
        if stream.duration and stream.time_base:
            seconds = stream.duration * stream.time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        return VideoInfo(
            width=width,
            height=height,
            rotation=rotation,
            fps=float(rate) if rate else None,
            duration_seconds=None if seconds is None else float(seconds),
            codec=stream.codec_context.codec.canonical_name,
        )

    def _decode(self) -> Iterator[VideoFrame]:
        """Yields the frames from where the container stands; raises VideoError."""
        size: tuple[int, int] | None = None
        num_sound = 0
        reached: int | None = None  # time stamp at which the last packet ends
        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    reached = packet.dts + (packet.duration or 0)
                for frame in packet.decode():
                    assert isinstance(frame, VideoFrame)
                    if frame.is_corrupt and num_sound:
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
                    yield frame
        except MemoryError:
            raise
        except _FILE_ERRORS as error:
            raise self._damage(_reason(error)) from error
        self._check_end(reached)

    def _check_end(self, reached: int | None) -> None:
        # AVI counts its frames in the header and gives no error when the file is cut. One or two
        # frames too many are ordinary there. MP4 reports the cut itself, and its count is no
        # measure: an edit list may leave frames out.
        declared = self._stream.duration
        if self._container.format.name != "avi" or reached is None or not declared:
            return
        if declared - reached > max(3, declared // 50):
            raise self._damage("the file ends before its header says")

    def _damage(self, why: str) -> VideoError:
        num_frames, declared = self.num_frames_decoded, self._stream.frames
        if num_frames == 0:
            return VideoError("no-frames", f"the first frame does not decode: {why}")
        of = f" of {declared}" if declared else ""
        return VideoError("damaged", f"decoding broke off after frame {num_frames}{of}: {why}")

    def _pictures(self) -> Iterator[_Picture]:
        frames: Iterable[VideoFrame] = itertools.chain([self._first], self._frames)
        if self.seeks and self._start >= SEEK_FROM_SECONDS and _stamp_of(self._first) is not None:
            frames = self._seek(self._first_time + self._start)
        previous: _Picture | None = None
        for index, frame in enumerate(frames):
            time = self._time_of(frame, previous) - self._first_time
            previous = _Picture(time, self._duration_of(frame), self._rgb_reader(index, frame))
            yield previous

    def _seek(self, target: Fraction) -> Iterable[VideoFrame]:
        """Goes to a key frame at or before `target` (container seconds), or else to the begin."""
        assert self._stream.time_base is not None
        # Containers seek by decoding time or by rough tables, so a key frame may be shown after the
        # target although the seek went "backward"; then the one before is wanted.
        for margin_seconds in (0, 1, 10, 60):
            stamp = math.floor((target - margin_seconds) / self._stream.time_base)
            self.num_frames_decoded = 0
            try:
                self._container.seek(stamp, stream=self._stream, backward=True)
                frames = self._decode()
                first = next(frames, None)
            except (av.FFmpegError, VideoError):
                continue
            if first is None or not first.key_frame or first.is_corrupt:
                continue
            if _stamp_of(first) is not None and self._time_of(first, None) <= target:
                return itertools.chain([first], frames)
        self.close()
        self._open()
        self.num_frames_decoded = 0
        return self._decode()

    def _time_of(self, frame: VideoFrame, previous: _Picture | None) -> Fraction:
        """Returns the container's time of a frame in s; without a stamp, where the last ended."""
        stamp = _stamp_of(frame)
        if stamp is not None and frame.time_base is not None:
            return stamp * frame.time_base
        if previous is None:
            return Fraction(0)
        return self._first_time + previous.time + previous.duration

    def _duration_of(self, frame: VideoFrame) -> Fraction:
        if frame.duration and frame.time_base:
            return frame.duration * frame.time_base
        rate = self._stream.average_rate or self._stream.guessed_rate
        return 1 / rate if rate else Fraction(0)

    def _rgb_reader(self, index: int, frame: VideoFrame) -> Callable[[], RGB]:
        return lambda: _rotate(_to_rgb(frame), self.info.rotation)


class DecordReader(PyAVReader):
    """Takes the pixels from decord, in one thread, and everything else from PyAV.

    decord 0.6 does not tell the truth about a file: it overstates lengths and repeats the last
    frame, hides a change of size, and shows a neighbour in the place of a frame that it could not
    decode (most of an MPEG-TS file). So PyAV decodes along: its frames say how many there are, when
    and how large, and each of decord's is held against it. What decord shows wrongly, or in more
    than 8 bits (it converts chroma otherwise), is `unreadable`.

    decord also decodes ahead without bound while nobody reads. Here it reads up to
    `DECORD_CHUNK_BYTES` at once and is then stopped, which costs a seek back to a key frame per
    chunk: 460 MB and half of PyAV's speed at 1080p, where decord alone held 1.5 GB after 4 s of
    rest, and rising. A range is reached by decoding from the begin. Of a damaged file decord gives
    fewer frames than PyAV, and not always as many. MPEG-4 part 2 (old AVI files) differs from PyAV
    by a few levels in single pixels, as decord carries an older FFmpeg; other codecs are equal bit
    by bit.
    """

    seeks = False

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        self._chunk: list[RGB] = []
        self._chunk_start = 0
        decord = _import_decord()
        super().__init__(video, spec)
        try:
            self._decord: Any = decord.VideoReader("file:" + video.source, num_threads=1)
        except (RuntimeError, decord.DECORDError) as error:
            self.close()
            raise self._refusal("cannot open") from error

    def close(self) -> None:
        super().close()
        self._chunk = []
        self._decord = None

    def _refusal(self, what: str) -> VideoError:
        return VideoError(
            "unreadable",
            f"decord {what} this {self.info.codec} video; try --decoder pyav",
        )

    def _rgb_reader(self, index: int, frame: VideoFrame) -> Callable[[], RGB]:
        if frame.format.components[0].bits > 8:
            raise self._refusal("has no right conversion to 8 bits for")
        return lambda: self._read(index, frame)

    def _read(self, index: int, frame: VideoFrame) -> RGB:
        while index >= self._chunk_start + len(self._chunk):
            self._read_chunk()
        rgb = self._chunk[index - self._chunk_start]
        truth = _rotate(_to_rgb(frame), self.info.rotation)
        if rgb.shape != truth.shape or cv2.norm(rgb, truth, cv2.NORM_L1) > 2 * rgb.size:
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


class ImageFolderReader(FrameReader):
    """Reads a folder of frame images in natural order (img_2 before img_10).

    A folder has no clock: `seconds` is the frame's index, a range counts in indices too, and
    sampling by `fps` is refused. Flow images beside the frames (`flow_x_`, `x_`, `u_` ... as
    denseflow, TSN and gpu_flow name them, `...x.jpg` as pytorch-i3d does) are left aside. Gray
    images become RGB, 16 bits become 8, transparency is dropped, and the camera's orientation
    (EXIF) is applied.
    """

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        super().__init__(video, spec)
        if spec.fps is not None:
            raise VideoError(
                "unreadable", "a folder of images has no frame rate to sample from; leave out fps"
            )
        try:
            self._names = _frame_names(os.listdir(video.source))
        except OSError as error:
            raise VideoError("missing", f"the folder may not be read: {_reason(error)}") from error
        height, width = self._read(0).shape[:2]
        self.info = VideoInfo(width, height, 0, None, None, "images")
        self.size = target_size(width, height, spec)

    def _pictures(self) -> Iterator[_Picture]:
        for index in range(len(self._names)):
            rgb = self._read(index)
            height, width = rgb.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                raise VideoError(
                    "size-change",
                    f"{self._names[index]} is {width}x{height}, but {self._names[0]} is "
                    f"{self.info.width}x{self.info.height}",
                )
            self.num_frames_decoded += 1
            yield _Picture(Fraction(index), Fraction(1), lambda rgb=rgb: rgb)  # type: ignore[misc]

    def _read(self, index: int) -> RGB:
        name = self._names[index]
        path = os.path.join(self.video.source, name)
        bgr = cv2.imread(path, cv2.IMREAD_COLOR) if os.path.getsize(path) else None
        if bgr is None:
            why = f"{name} is not an image that OpenCV reads"
            raise VideoError("damaged" if index else "unreadable", why)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


DECODERS: dict[str, type[FrameReader]] = {"pyav": PyAVReader, "decord": DecordReader}
"""The backends by name, as `DecodeSpec.decoder` takes them."""


def _sample(
    pictures: Iterable[_Picture], fps: Fraction, grid_start: Fraction, end: Fraction | None
) -> Iterator[_Picture]:
    """Samples as FFmpeg's `fps` filter does at its default rounding.

    Each picture moves to the nearest tick and stays until the next one's; of several on one tick
    the last counts. The last picture stays for its duration. A video shorter than half a tick, of
    which FFmpeg makes nothing, gives its last picture.
    """

    def tick_of(time: Fraction) -> int:
        return math.floor((time - grid_start) * fps + Fraction(1, 2))

    shown: _Picture | None = None
    tick = 0
    num_yielded = 0
    for picture in pictures:
        if shown is None:
            tick = tick_of(picture.time)
        else:
            while tick < tick_of(picture.time):
                yield shown
                tick += 1
                num_yielded += 1
        shown = picture
    if shown is None:
        return
    stop = shown.time + shown.duration
    if end is not None:
        stop = min(stop, end)
    for _ in range(max(tick_of(stop) - tick, 0 if num_yielded else 1)):
        yield shown


def _exact(seconds: float) -> Fraction:
    # 0.2 is meant as 1/5 and 29.97 as 2997/100; as binary fractions they would miss a frame.
    return Fraction(seconds).limit_denominator(1_001_000)


def _stamp_of(frame: VideoFrame) -> int | None:
    """Returns FFmpeg's time stamp: the presentation's or, where AVI has none, the decoding's."""
    return frame.pts if frame.pts is not None else frame.dts


def _to_rgb(frame: VideoFrame) -> RGB:
    # Bicubic is FFmpeg's own default; it counts where chroma of more than 8 bits is enlarged.
    rgb = frame.to_ndarray(format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
    return np.asarray(rgb, np.uint8)


def _rotate(rgb: RGB, rotation: int) -> RGB:
    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    if rotation == 0:
        return np.ascontiguousarray(rgb)
    return np.asarray(cv2.rotate(rgb, turns[rotation]), np.uint8)


def _reason(error: Exception) -> str:
    # FFmpeg's own words, without the path and the numbers that PyAV puts round them.
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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


_FLOW_STEM = re.compile(r"(flow_?)?[xyuv](_[pm]\d+)?_\d+|(flow|back)_.*|.*\d[xyuv]", re.IGNORECASE)


def _frame_names(names: Iterable[str]) -> list[str]:
    """Returns the one series of frame images among file names, in natural order."""
    series: dict[str, list[tuple[int, str]]] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if name.startswith(".") or suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if _FLOW_STEM.fullmatch(stem):
            continue
        match = re.fullmatch(r"(.*?)(\d*)", stem, re.DOTALL)
        assert match is not None
        series.setdefault(match[1], []).append((int(match[2] or -1), name))
    if not series:
        raise VideoError("no-frames", "the folder holds no frame images")
    if len(series) > 1:
        examples = ", ".join(sorted(files[0][1] for files in series.values())[:3])
        raise VideoError(
            "unreadable", f"the folder holds {len(series)} series of images ({examples}), not one"
        )
    (files,) = series.values()
    files.sort()
    for (number, name), (next_number, next_name) in itertools.pairwise(files):
        if number == next_number:
            raise VideoError("unreadable", f"{name} and {next_name} have one number")
    return [name for _, name in files]
