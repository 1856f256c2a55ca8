"""One JPEG of a video: checked against the index, and decoded."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.jpeg_header import read_jpeg_header
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import DatasetError

__all__ = ["check_jpeg", "decode_jpeg"]


def check_jpeg(jpeg: bytes, video: StoredVideo, what: str) -> int:
    """Returns the number of components. Raises DatasetError if the size differs from the index.

    A header of a few bytes may ask for gigabytes, so it is checked before anything is decoded.
    """
    header = read_jpeg_header(jpeg)
    if header is None:
        raise DatasetError(f"{video.key}: {what} is not a JPEG; run `flowprep verify --deep`")
    if (header.width, header.height) != (video.width, video.height):
        raise DatasetError(
            f"{video.key}: {what} is {header.width}x{header.height}, but the index says "
            f"{video.width}x{video.height}; run `flowprep verify --deep`"
        )
    return header.num_components


def decode_jpeg(jpeg: bytes, flags: int, video: StoredVideo, what: str) -> NDArray[np.uint8]:
    """Returns a JPEG's picture, (H, W) or (H, W, 3) uint8 BGR, as `flags` of OpenCV say.

    Raises DatasetError if it is damaged or has another size than the video. `what` names it.
    """
    check_jpeg(jpeg, video, what)
    # A camera's orientation tag would turn the picture, and then it would not fit its flow.
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), flags)
    if image is None:
        raise DatasetError(f"{video.key}: {what} is not a JPEG; run `flowprep verify --deep`")
    if image.shape[:2] != (video.height, video.width):
        raise DatasetError(
            f"{video.key}: {what} is {image.shape[1]}x{image.shape[0]}, but the index says "
            f"{video.width}x{video.height}; run `flowprep verify --deep`"
        )
    return image  # type: ignore[return-value]
