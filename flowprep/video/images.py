"""Reads folders of frame images as videos.

    ImageFolderReader:  names -> one series in natural order -> Pictures

Only `tree.parse_frame_name` decides which files are frame images, so that a folder that counts as a
video is also read as a video.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import cv2
import numpy as np

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.images import conceal_image, decode_image, find_damage
from flowprep.inputs.tree import parse_frame_name
from flowprep.inputs.video import Video
from flowprep.video.reader import RGB, FrameReader, Picture
from flowprep.video.segments import Scan, Segment
from flowprep.video.types import VideoInfo

__all__ = ["ImageFolderReader"]


class ImageFolderReader(FrameReader):
    """Reads a folder of frame images in natural order (img_2 before img_10).

    A folder has no clock unless `image_fps` gives it one. Without a clock, `seconds` is the frame's
    index, and a range and sampling by `fps` are refused. Flow images and images without a number
    beside the frames are ignored. Gray images become RGB, 16 bits become 8, transparency is
    dropped, and the camera's orientation (EXIF) is applied.

    Missing numbers are `gaps`, unless `on_gaps` says otherwise. Numbers may begin anywhere, and may
    all rise by the same step, for example for every 30th frame of a film. An image is `damaged` if
    it is cut off, or if the decoder says that pixels are lost. Concealing the damage means using
    the picture that OpenCV makes.
    """

    def __init__(self, video: Video, spec: DecodeSpec) -> None:
        super().__init__(video, spec)
        if spec.image_fps is None:
            _refuse_clock(video, spec)
        try:
            images = _frame_images(os.listdir(video.source))
        except OSError as error:
            raise VideoError("missing", f"the folder may not be read: {error.strerror}") from error
        self._check_numbers(images)
        self._names = [name for _, name in images]
        # 29.97 means 2997/100.
        self._fps = Fraction(spec.image_fps or 1).limit_denominator(1_001_000)
        height, width = self._read(0)[0].shape[:2]
        has_clock = spec.image_fps is not None
        self.info = VideoInfo(
            width=width,
            height=height,
            rotation=0,
            fps=spec.image_fps,
            duration_seconds=float(len(images) / self._fps) if has_clock else None,
            codec="images",
        )
        self._settle_range()
        self._settle_size()

    def estimate_num_frames(self) -> int | None:
        """Returns the number of images, or of the frames that their range gives."""
        return len(self._names) if self.info.fps is None else super().estimate_num_frames()

    def scan(self, on_progress: Callable[[], None]) -> Scan:
        """Counts the images."""
        durations = [1 / self._fps] * len(self._names)
        times = [number / self._fps for number in range(len(self._names))]
        return Scan(times, durations, [], first_number=min(self._first, len(times) - 1))

    @property
    def _first(self) -> int:
        """Returns the first image of the range. No image before it is read."""
        return max(0, math.ceil(self._start * self._fps))

    def _pictures(self) -> Iterator[Picture]:
        return self._pictures_from(self._first)

    def _pictures_of(self, segment: Segment, on_progress: Callable[[], None]) -> Iterator[Picture]:
        return self._pictures_from(segment.first_picture)

    def _pictures_from(self, first: int) -> Iterator[Picture]:
        for index in range(first, len(self._names)):
            time, duration = index / self._fps, 1 / self._fps
            damage = ""
            if self._end is not None and time >= self._end:
                # This image only shows that the range ends here, so it may be damaged.
                read_rgb = functools.partial(self._read_rgb, index)
            else:
                rgb, damage = self._read(index)
                self._check_size(index, rgb)
                if damage:
                    self.notes.setdefault("concealed", damage)
                read_rgb = functools.partial(_same, rgb)
            self.num_frames_decoded += 1
            yield Picture(time, duration, read_rgb, index, num_damaged=int(bool(damage)))

    def _check_size(self, index: int, rgb: RGB) -> None:
        height, width = rgb.shape[:2]
        if (width, height) != (self.info.width, self.info.height):
            raise VideoError(
                "size-change",
                f"{self._names[index]} is {width}x{height}, but {self._names[0]} is "
                f"{self.info.width}x{self.info.height}",
            )

    def _read_rgb(self, index: int) -> RGB:
        return self._read(index)[0]

    def _read(self, index: int) -> tuple[RGB, str]:
        """Returns the image and, if damage was concealed, what is wrong with the image."""
        name = self._names[index]
        path = os.path.join(self.video.source, name)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise VideoError("missing", f"{name} may not be read: {error.strerror}") from error
        bgr, lines = decode_image(data, cv2.IMREAD_COLOR) if data else (None, [])
        why = find_damage(lines)
        damage = ""
        if bgr is None or why:
            # The prefix of a log message means nothing to a user.
            why = "is cut or damaged" if bgr is None else f"is damaged: {why.split('] ')[-1]}"
            # A damaged segment is given up. Reading the whole folder shows what can be kept.
            conceals = self.spec.on_damage == "conceal" and not self._is_segment
            if conceals and bgr is None and data:
                bgr = conceal_image(path, cv2.IMREAD_COLOR)
            if not conceals or bgr is None:
                raise VideoError("damaged" if index else "unreadable", f"{name} {why}")
            damage = f"{name} {why}"
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), damage

    def _check_numbers(self, images: Sequence[tuple[int, str]]) -> None:
        """Raises VideoError for gaps in the numbers, or adds a note on how they were handled."""
        steps = [later - number for (number, _), (later, _) in itertools.pairwise(images)]
        if not steps or max(steps) == 1:
            return
        if len(steps) > 1 and min(steps) == max(steps):
            self.notes["numbers-step"] = (
                f"numbers rise by {steps[0]} from {images[0][1]} to {images[-1][1]}"
            )
            return
        place = next(place for place, step in enumerate(steps) if step > 1)
        (number, name), (later, later_name) = images[place : place + 2]
        first = f"{number + 1}" if later == number + 2 else f"{number + 1} to {later - 1}"
        num_missing = sum(steps) - len(steps)
        gap = f"no image has number {first}, between {name} and {later_name}"
        if num_missing > later - number - 1:
            gap += f"; in all {num_missing} numbers are missing"
        if self.spec.on_gaps == "fail":
            raise VideoError(
                "gaps", f"{gap}. --on-gaps ignore uses the images as if there were no gaps"
            )
        self.notes["gaps-ignored"] = gap


def _refuse_clock(video: Video, spec: DecodeSpec) -> None:
    """Raises VideoError if the user gave seconds, which never count as frame numbers."""
    if spec.fps is not None:
        what = f"sampling at {spec.fps:g} fps"
    elif video.start_seconds is not None or video.end_seconds is not None:
        end = "the end" if video.end_seconds is None else f"{video.end_seconds:g} s"
        what = f"a range from {video.start_seconds or 0:g} s to {end}"
    else:
        return
    raise VideoError(
        "no-clock",
        f"{what} needs a frame rate, but a folder of images has none; give it with --image-fps",
    )


def _same(rgb: RGB) -> RGB:
    return rgb


def _frame_images(names: Iterable[str]) -> list[tuple[int, str]]:
    """Returns the only series of frame images among the file names, ordered by number."""
    series: dict[str, list[tuple[int, str]]] = {}
    for name in sorted(names):
        if (parsed := parse_frame_name(name)) is not None:
            prefix, number = parsed
            series.setdefault(prefix, []).append((number, name))
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
            raise VideoError("unreadable", f"{name} and {next_name} have the same number")
    return files
