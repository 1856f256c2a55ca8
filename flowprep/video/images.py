"""Folders of frame images in the place of a video.

    ImageFolderReader:  names -> one series in natural order -> Pictures

What is a frame image is said in one place, `tree.parse_frame_name`, so that a folder that is taken
for a video is read as one.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import cv2
import numpy as np

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.video.reader import RGB, FrameReader, Picture, target_size
from flowprep.video.segments import Scan, Segment
from flowprep.video.tree import parse_frame_name
from flowprep.video.types import Video, VideoInfo

__all__ = ["ImageFolderReader"]


class ImageFolderReader(FrameReader):
    """Reads a folder of frame images in natural order (img_2 before img_10).

    A folder has no clock: `seconds` is the frame's index, a range counts in indices too, and
    sampling by `fps` is refused. Flow images and images without a number beside the frames are left
    aside. Gray images become RGB, 16 bits become 8, transparency is dropped, and the camera's
    orientation (EXIF) is applied.
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
            raise VideoError("missing", f"the folder may not be read: {error.strerror}") from error
        height, width = self._read(0).shape[:2]
        self.info = VideoInfo(width, height, 0, None, None, "images")
        self.size = target_size(width, height, spec)

    def estimate_num_frames(self) -> int:
        """Returns how many images there are."""
        return len(self._names)

    def scan(self, on_progress: Callable[[], None]) -> Scan:
        """Counts the images."""
        numbers = range(len(self._names))
        return Scan([Fraction(number) for number in numbers], [Fraction(1)] * len(numbers), [])

    def _pictures(self) -> Iterator[Picture]:
        return self._pictures_from(0)

    def _pictures_of(self, segment: Segment, on_progress: Callable[[], None]) -> Iterator[Picture]:
        return self._pictures_from(segment.first_picture)

    def _pictures_from(self, first: int) -> Iterator[Picture]:
        for index in range(first, len(self._names)):
            rgb = self._read(index)
            height, width = rgb.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                raise VideoError(
                    "size-change",
                    f"{self._names[index]} is {width}x{height}, but {self._names[0]} is "
                    f"{self.info.width}x{self.info.height}",
                )
            self.num_frames_decoded += 1
            yield Picture(Fraction(index), Fraction(1), functools.partial(_same, rgb), index)

    def _read(self, index: int) -> RGB:
        name = self._names[index]
        path = os.path.join(self.video.source, name)
        bgr = cv2.imread(path, cv2.IMREAD_COLOR) if os.path.getsize(path) else None
        if bgr is None:
            why = f"{name} is not an image that OpenCV reads"
            raise VideoError("damaged" if index else "unreadable", why)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _same(rgb: RGB) -> RGB:
    return rgb


def _frame_names(names: Iterable[str]) -> list[str]:
    """Returns the one series of frame images among file names, in natural order."""
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
            raise VideoError("unreadable", f"{name} and {next_name} have one number")
    return [name for _, name in files]
