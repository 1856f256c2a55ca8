"""The steps that all backends share, from decoded pictures to the frames for the flow.

    Picture, Picture, ... -> cut the range -> sample by timestamps -> resize -> crop -> gray
        -> Frame

Without a range and a rate, every picture becomes a frame, in decoding order.

Everything except decoding is done here, so that a data set does not depend on the backend.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import DecodeSpec
from flowprep.errors import NoteCode, VideoError
from flowprep.inputs.video import Video
from flowprep.video.clock import JUMP_SECONDS
from flowprep.video.pixel_aspect import displayed_size
from flowprep.video.segments import PictureCheck, Scan, Segment
from flowprep.video.types import Frame, FrameCounts, VideoInfo
from flowprep.words import format_count

__all__ = ["RGB", "FrameReader", "Picture", "resized_size", "target_size"]

RGB = NDArray[np.uint8]

_INTERPOLATION = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}

MAX_STILL_SECONDS = 600
"""Sampling repeats no picture longer than this, because a damaged time stamp may be a thousand
years ahead."""

TRIM_TOLERANCE = 0.05
"""If the length of a file differs from the length of its range by less than this share, the file
may already be the cut range. Lengths are not exact, because ffmpeg's `-c copy` cuts at key frames.
"""

MAX_DROPPED_SHARE = 0.05
"""If more than this share of frames is dropped at a rate not below the source's, a note says so."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded source frame. Its RGB is only made if the frame is needed."""

    time: Fraction  # seconds from the first frame of the file
    duration: Fraction  # seconds, as the file says
    read_rgb: Callable[[], RGB]  # () -> (H, W, 3), as shown: mirrored and rotated
    number: int  # among those decoded, from 0
    disorder: str | None = None  # why its time is no place to cut at
    num_damaged: int = 0  # it, where the decoder concealed a part of it, and those lost before it


class FrameReader:
    """Yields the frames of one source in order, and only once. It is a context manager.

    Iterating raises VideoError: `damaged` if decoding breaks off (`num_frames` then counts the
    frames yielded before), `size-change`, and `no-frames` for a range without frames.
    """

    info: VideoInfo
    size: tuple[int, int]
    """Stored (width, height) in px."""
    num_frames_decoded: int
    """Source frames decoded so far, including frames that sampling or the range leaves out."""
    counts: FrameCounts
    """Counts of what happened to the source frames so far."""
    num_damaged: int
    """Number of kept pictures so far that the decoder concealed or lost."""
    num_irregular_stamps: int
    """Number of source frames so far whose time stamp goes back, repeats, jumps or is missing."""
    notes: dict[NoteCode, str]
    """Notes that somebody should look at. They grow until the last frame is read."""

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        self.video = video
        self.spec = spec
        self.num_frames_decoded = 0
        self.counts = FrameCounts.at_zero()
        self.num_damaged = 0
        self.num_irregular_stamps = 0
        self.notes = {}
        self._iterated = False
        self._resized = (0, 0)
        self._start = _exact(video.start_seconds or 0.0)
        self._end = None if video.end_seconds is None else _exact(video.end_seconds)
        self._has_range = self._start > 0 or self._end is not None
        self._is_segment = False
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
        """Frees the file. Further calls do nothing."""

    def __iter__(self) -> Iterator[Frame]:
        self._begin()
        yield from self._frames_of(self.sampled(self.cut_range(self._pictures())))

    def read_segment(
        self, segment: Segment, on_progress: Callable[[], None] = lambda: None
    ) -> Iterator[Frame]:
        """Yields the frames of one segment. They equal the same frames of an uncut read.

        `on_progress` is called for pictures that are decoded before the first one. Raises the
        VideoErrors of an uncut read, and VideoError if the source does not match `segment`.
        """
        self._begin()
        self._is_segment = True
        check = PictureCheck()
        pictures = self._pictures() if segment.is_first else self._pictures_of(segment, on_progress)
        frames = self._frames_of(
            itertools.islice(
                self.sampled(_checked(self.cut_range(pictures), segment, check)),
                segment.num_skipped,
                # The last segment itself finds the end of the source and errors there.
                None if segment.is_last else segment.num_skipped + segment.num_frames,
            )
        )
        num_frames = 0
        for frame in frames:
            num_frames += 1
            if num_frames <= segment.num_frames:
                yield frame
        if num_frames != segment.num_frames or check.digest != segment.digest:
            raise VideoError(
                "unreadable",
                f"frames {segment.start} to {segment.stop} are not the frames that the scan found",
            )

    def estimate_num_frames(self) -> int | None:
        """Returns the number of frames to read by the header, or None if the header lacks it."""
        duration = self._estimate_duration()
        rate = self.spec.fps or self.info.fps
        if duration is None or rate is None:
            return None
        end = duration if self._end is None else min(duration, float(self._end))
        return math.ceil(max(0.0, end - float(self._start)) * rate)

    def scan(self, on_progress: Callable[[], None]) -> Scan:
        """Returns the times of all pictures of the source. Raises VideoError if it is damaged.

        After this call, the reader gives no frames.
        """
        raise NotImplementedError

    def scanned_picture(self, time: Fraction, duration: Fraction, number: int) -> Picture:
        """Returns a picture without RGB, to find out which pictures are shown."""
        return Picture(time, duration, _no_rgb, number)

    def _settle_range(self) -> None:
        """Uses a whole file if it is as long as its range, as it was cut from a longer file before.

        Called when `info` is known.
        """
        length = self.info.duration_seconds
        if self._end is None or length is None or not self._start:
            return
        wanted = float(self._end - self._start)
        tolerance = max(self._frame_seconds(), TRIM_TOLERANCE * wanted)
        if float(self._end) > length + self._frame_seconds() and abs(length - wanted) <= tolerance:
            self.notes["already-trimmed"] = (
                f"the range {self._describe_range()} ends after a file of {length:g} s, which is "
                f"as long as the range itself"
            )
            self._start, self._end, self._has_range = Fraction(0), None, False
            self._grid_start = Fraction(0)

    def _frame_seconds(self) -> float:
        """Returns the largest time difference at which two clocks may mean the same frame."""
        return 1.5 / self.info.fps if self.info.fps else 0.1

    def _describe_range(self) -> str:
        end = "the end" if self._end is None else f"{float(self._end):g} s"
        return f"from {float(self._start):g} s to {end}"

    def _begin(self) -> None:
        if self._iterated:
            raise RuntimeError("a FrameReader can be read once; open the video again")
        self._iterated = True

    def _estimate_duration(self) -> float | None:
        return self.info.duration_seconds

    def _frames_of(self, pictures: Iterable[Picture]) -> Iterator[Frame]:
        num_frames = 0
        last: tuple[Picture, Frame] | None = None
        try:
            for picture in pictures:
                # If the sampling rate is above the source's own, a picture is shown several times.
                if last is None or picture is not last[0]:
                    last = picture, self._frame(picture)
                yield last[1]
                num_frames += 1
        except VideoError as error:
            raise VideoError(error.reason, error.message, num_frames=num_frames) from error
        if num_frames == 0:
            raise VideoError("no-frames", self._describe_empty_range())
        if not self._is_segment:
            self.note_what_became_of_frames(num_frames)

    def note_what_became_of_frames(self, num_frames: int) -> None:
        """Adds the notes that are known at the end. `num_frames` is the number of kept frames."""
        if self.num_irregular_stamps:
            number = format_count(self.num_irregular_stamps, "time stamp")
            self.notes["irregular-stamps"] = f"{number} out of order"
        dropped, repeated = self.counts.dropped, self.counts.repeated
        num_sampled = num_frames - repeated + dropped
        rate = self.info.fps
        if self.spec.fps and rate and self.spec.fps > 0.999 * rate and num_sampled:
            share = dropped / num_sampled
            if share > MAX_DROPPED_SHARE:
                self.notes["rate-drops"] = (
                    f"{dropped} of {num_sampled} frames are left out at {self.spec.fps:g} fps, "
                    f"but the source has {rate:g}"
                )

    def _pictures(self) -> Iterator[Picture]:
        """Decodes in display order. May leave out pictures before the range."""
        raise NotImplementedError

    def _pictures_of(self, segment: Segment, on_progress: Callable[[], None]) -> Iterator[Picture]:
        """Decodes from the segment's first picture on."""
        raise NotImplementedError

    def cut_range(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Leaves out pictures before and after the range, and ends at the first one after it.

        Raises VideoError `irregular-clock` for a range whose time stamps are not in order, because
        seconds do not identify a place in such a file.
        """
        if not self._has_range:
            for picture in pictures:
                self.num_damaged += picture.num_damaged
                yield picture
            return
        reached: Fraction | None = None
        for picture in pictures:
            if picture.disorder is not None:
                raise VideoError(
                    "irregular-clock",
                    f"the time stamp of frame {picture.number} {picture.disorder}, so the range "
                    f"{self._describe_range()} has no clear place; extract the file whole, or "
                    "convert it to one with a regular clock",
                )
            if self._end is not None and picture.time >= self._end:
                self.counts.after_range += 1
                return
            if picture.time >= self._start:
                reached = picture.time + picture.duration
                self.num_damaged += picture.num_damaged
                yield picture
            elif self._reaches_by_seeking():
                self.counts.lead_in += 1
            else:
                self.counts.before_range += 1
        if self._end is not None and reached is not None:
            missing = float(self._end - reached)
            if missing > self._frame_seconds():
                self.notes["past-the-end"] = (
                    f"the range {self._describe_range()} ends {missing:g} s after the video, which "
                    f"ends at {float(reached):g} s"
                )

    def _reaches_by_seeking(self) -> bool:
        """Whether decoding begins at a key frame before the range, not at the start of the file."""
        return False

    def sampled(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Yields the picture that each frame shows."""
        if self.spec.fps is None:
            return pictures
        return self._sample(pictures, _exact(self.spec.fps))

    def _sample(self, pictures: Iterable[Picture], fps: Fraction) -> Iterator[Picture]:
        """Samples as FFmpeg's `fps` filter does at its default rounding (libavfilter/vf_fps.c).

        Each picture moves to the nearest tick and stays until the tick of the next picture. If
        several pictures are on one tick, the last one counts. The last picture stays for its
        duration. A video shorter than half a tick gives its last picture, but none with FFmpeg.
        """

        def tick_of(time: Fraction) -> int:
            return math.floor((time - self._grid_start) * fps + Fraction(1, 2))

        shown: Picture | None = None
        tick = 0
        num_yielded = 0
        try:
            for picture in pictures:
                if shown is None:
                    tick = tick_of(picture.time)
                else:
                    num_ticks = max(0, tick_of(picture.time) - tick)
                    self._count_shown(shown, num_ticks, fps)
                    tick += num_ticks
                    num_yielded += num_ticks
                    yield from itertools.repeat(shown, num_ticks)
                shown = picture
        except VideoError:
            # Nobody knows how long the last picture before the damage would stay.
            self.counts.dropped += shown is not None
            raise
        if shown is None:
            return
        stop = shown.time + shown.duration
        if self._end is not None:
            stop = min(stop, self._end)
        num_ticks = max(tick_of(stop) - tick, 0 if num_yielded else 1)
        self._count_shown(shown, num_ticks, fps)
        yield from itertools.repeat(shown, num_ticks)

    def _count_shown(self, picture: Picture, num_ticks: int, fps: Fraction) -> None:
        if num_ticks > MAX_STILL_SECONDS * fps:
            raise VideoError(
                "damaged",
                f"one picture would be shown for {math.ceil(num_ticks / fps)} s; more than "
                f"{MAX_STILL_SECONDS} (MAX_STILL_SECONDS) are taken for a damaged time stamp",
            )
        if num_ticks == 0:
            self.counts.dropped += 1
            return
        self.counts.repeated += num_ticks - 1
        if num_ticks > JUMP_SECONDS * fps and not self._is_segment:
            self.notes.setdefault(
                "long-still",
                f"the picture at {float(picture.time):.3f} s is repeated for "
                f"{float(num_ticks / fps):g} s",
            )

    def _frame(self, picture: Picture) -> Frame:
        rgb = picture.read_rgb()
        height, width = rgb.shape[:2]
        # The same step makes pixels square.
        if (width, height) != self._resized:
            grows = self._resized[0] > width or self._resized[1] > height
            name = self.spec.interpolation
            # Averaging over areas can only shrink a picture.
            interpolation = _INTERPOLATION["bilinear" if name == "area" and grows else name]
            rgb = np.asarray(cv2.resize(rgb, self._resized, interpolation=interpolation), np.uint8)
        if (crop := self.spec.crop) is not None:
            left, upper = crop.place_in(*self._resized)
            rgb = rgb[upper : upper + crop.height_px, left : left + crop.width_px]
        rgb = np.ascontiguousarray(rgb)
        gray = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        return Frame(rgb, np.ascontiguousarray(gray), float(picture.time))

    def _settle_size(self) -> None:
        """Sets the size of the frames, which depends on `info`.

        Adds a note if pixels are not square. Raises VideoError for frames smaller than the crop.
        """
        size = self.info.width, self.info.height
        aspect = self.info.pixel_aspect
        if aspect != 1:
            square = displayed_size(*size, aspect)
            if self.spec.square_pixels:
                size = square
            elif square != size:
                self.notes["not-square"] = (
                    f"its pixels are {aspect.numerator}:{aspect.denominator}; a picture of "
                    f"{size[0]}x{size[1]} px is shown as {square[0]}x{square[1]}"
                )
        self._resized = resized_size(*size, self.spec)
        self.size = target_size(*size, self.spec)

    def _describe_empty_range(self) -> str:
        length = self.info.duration_seconds
        of = "" if length is None else f" of a video of {length:g} s"
        return f"no frame lies {self._describe_range()}{of}"


def _checked(
    pictures: Iterator[Picture], segment: Segment, check: PictureCheck
) -> Iterator[Picture]:
    """Yields the pictures, and adds those that a segment needs to `check`."""
    num_wanted = int(segment.digest.partition("-")[0])
    last: Picture | None = None
    for picture in pictures:
        last = picture
        # Sampling reads one more picture to find the end of the last one.
        if segment.is_last or check.num_pictures < num_wanted:
            check.add(picture.time)
        yield picture
    if segment.is_last and last is not None:
        check.add(last.duration)


def _no_rgb() -> RGB:
    raise AssertionError("a scanned picture has no RGB")


def _exact(seconds: float) -> Fraction:
    # 0.2 means 1/5 and 29.97 means 2997/100. As binary fractions, they would miss a frame.
    return Fraction(seconds).limit_denominator(1_001_000)


def target_size(width: int, height: int, spec: DecodeSpec) -> tuple[int, int]:
    """Returns the stored (width, height) in px of a picture of width x height px, as displayed.

    This is the size of the crop, or else `resized_size`. Raises VideoError if the crop is larger
    than the resized picture.
    """
    width, height = resized_size(width, height, spec)
    if (crop := spec.crop) is None:
        return width, height
    if crop.width_px > width or crop.height_px > height:
        raise VideoError(
            "too-small",
            f"the crop of {crop.width_px}x{crop.height_px} px is larger than the frames, which are "
            f"{width}x{height} px after --resize {spec.resize}; take a smaller --crop or a larger "
            "--resize, or --upscale",
        )
    return crop.width_px, crop.height_px


def resized_size(width: int, height: int, spec: DecodeSpec) -> tuple[int, int]:
    """Returns the (width, height) in px to which a picture of width x height px is resized.

    Sides are rounded half up and are at least 1 px. Unless `spec.allow_upscale` is true, a picture
    keeps its own size if the wanted size is larger. For `exact`, it keeps its size if either side
    would grow, because shrinking only the other side would distort the picture for nothing.
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
