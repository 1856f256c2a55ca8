"""Turns and mirrors decoded pictures for showing, as their display matrix says.

A camera stores the picture of its sensor, and separately how the camera was held: MP4, MOV and MKV
in their headers, H.264 and HEVC in messages within the stream, JPEG in its EXIF. FFmpeg turns each
of these into a display matrix and attaches it to the decoded frame (libavutil/display.h).
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from numpy.typing import NDArray

__all__ = ["AS_DECODED", "Orientation", "orientation_of_frame", "orientation_of_matrix"]

MAX_ERROR_DEGREES = 1.0
"""An angle this near to a quarter turn counts as one (fftools/ffmpeg_filter.c, autorotate)."""

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to show a picture: mirrored or not, then turned."""

    rotation: int = 0
    """Clockwise turn in degrees: 0, 90, 180 or 270."""
    is_mirrored: bool = False
    """Whether left and right are swapped before the turn."""
    problem: str | None = None
    """What is wrong with a matrix that is none of the eight ways. None for a valid matrix."""

    def displayed_size(self, width: int, height: int) -> tuple[int, int]:
        """Returns the shown (width, height) in px of a decoded picture of width x height px."""
        return (height, width) if self.rotation in (90, 270) else (width, height)

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the (H, W, 3) uint8 picture as shown, C-contiguous."""
        if self.is_mirrored and self.rotation in (0, 180):
            # Mirroring left to right and turning by 180 degrees equals mirroring top to bottom.
            return np.asarray(cv2.flip(picture, 0 if self.rotation else 1), np.uint8)
        if self.is_mirrored:
            picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        if self.rotation:
            picture = np.asarray(cv2.rotate(picture, _TURNS[self.rotation]), np.uint8)
        return np.ascontiguousarray(picture)


AS_DECODED = Orientation()


def orientation_of_frame(frame: VideoFrame) -> Orientation | None:
    """Returns the orientation in the frame's display matrix, or None without a matrix."""
    entry = _display_matrix(frame)
    # 3 x 3 int32 in the byte order of the machine.
    return None if entry is None else orientation_of_matrix(struct.unpack("=9i", bytes(entry)))


def orientation_of_matrix(matrix: tuple[int, ...]) -> Orientation:
    """Returns the orientation that is nearest to a display matrix of FFmpeg, row by row.

    A point (x, y) goes to (a x + c y, b x + d y) for the rows (a, b, u), (c, d, v), (x, y, w);
    x is right and y is down (libavutil/display.h). The scale is ignored.
    """
    a, b, _, c, d = matrix[:5]
    x_scale, y_scale = math.hypot(a, c), math.hypot(b, d)
    if not (x_scale and y_scale) or a * d == b * c:
        return Orientation(problem="its display matrix shows no picture at all")
    is_mirrored = a * d < b * c
    # Mirroring comes first, so it changes the sign of the first row.
    sign = -1 if is_mirrored else 1
    degrees = math.degrees(math.atan2(sign * b / y_scale, sign * a / x_scale))
    rotation = round(degrees / 90) * 90
    error = abs(degrees - rotation)
    problem = None
    if error >= MAX_ERROR_DEGREES:
        problem = f"it is to be turned by {degrees % 360:.0f} degrees"
    return Orientation(rotation % 360, is_mirrored, problem)


def _display_matrix(frame: VideoFrame) -> SideData | None:
    side_data = cast("Sequence[SideData]", frame.side_data)
    # The container's matrix comes before the stream's own, and FFmpeg uses the first. A lookup by
    # name in PyAV gives the last, and iterating and counting differ between versions of PyAV.
    for number in itertools.count():
        try:
            entry = side_data[number]
        except IndexError:
            break
        if entry.type is SideDataType.DISPLAYMATRIX:
            return entry
    return None


def _unnamed_type(kind: Any, value: int) -> Any:
    """Makes a member of PyAV's enumeration for a number without a name."""
    member = object.__new__(kind)
    member._name_ = f"UNNAMED_{value}"
    member._value_ = value
    return member


# Before version 19, PyAV returns no side data of a frame if it has no name for one entry, such as
# the EXIF of a JPEG or the view of a stereoscopic film.
SideDataType._missing_ = classmethod(_unnamed_type)  # type: ignore[assignment]
