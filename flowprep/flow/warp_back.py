"""Warps a frame back by a homography: the frame as a camera that had not moved would see it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.homography import Box, Homography
from flowprep.flow.kernel import kernel

__all__ = ["warp_back"]


def warp_back(
    first: NDArray[np.uint8], second: NDArray[np.uint8], homography: Homography, picture: Box
) -> NDArray[np.uint8]:
    """Returns `second` on the grid of `first`, as if the camera had not moved.

    Both are uint8 of one shape, (H, W) or (H, W, 3). `homography` goes from `first` to `second`.
    Outside of `picture`, and where `second` shows nothing, the result is `first`, which is no
    motion.
    """
    height, width = first.shape[:2]
    shape = (height, width, first.size // (height * width))
    result = np.empty(shape, np.uint8)
    _warp(
        np.ascontiguousarray(first).reshape(shape),
        np.ascontiguousarray(second).reshape(shape),
        np.array(homography),
        np.array(picture, np.int64),
        result,
    )
    return result.reshape(first.shape)


@kernel
def _warp(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    homography: NDArray[np.float64],
    picture: NDArray[np.int64],
    result: NDArray[np.uint8],
) -> None:
    """Cubic convolution with a = -0.5 (Keys 1981): bilinear samples blur, which looks like motion.

    Its own and not cv2.remap, which rounds positions to 1/32 px in OpenCV 4.
    """
    height, width, channels = first.shape
    left_edge, top_edge, right_edge, bottom_edge = picture
    weights_x, weights_y = np.empty(4), np.empty(4)
    for row in range(height):
        for column in range(width):
            depth = homography[6] * column + homography[7] * row + homography[8]
            x = (homography[0] * column + homography[1] * row + homography[2]) / depth
            y = (homography[3] * column + homography[4] * row + homography[5]) / depth
            is_picture = left_edge <= column < right_edge and top_edge <= row < bottom_edge
            is_seen = left_edge <= x <= right_edge - 1 and top_edge <= y <= bottom_edge - 1
            if not (is_picture and is_seen):
                for channel in range(channels):
                    result[row, column, channel] = first[row, column, channel]
                continue
            left, top = int(x), int(y)
            for weights, part in ((weights_x, x - left), (weights_y, y - top)):
                weights[0] = ((-0.5 * part + 1.0) * part - 0.5) * part
                weights[1] = (1.5 * part - 2.5) * part * part + 1.0
                weights[2] = ((-1.5 * part + 2.0) * part + 0.5) * part
                weights[3] = (0.5 * part - 0.5) * part * part
            for channel in range(channels):
                total = 0.5
                for j in range(4):
                    source_row = min(max(top + j - 1, 0), height - 1)
                    for i in range(4):
                        source_column = min(max(left + i - 1, 0), width - 1)
                        weight = weights_y[j] * weights_x[i]
                        total += weight * second[source_row, source_column, channel]
                result[row, column, channel] = min(max(int(np.floor(total)), 0), 255)
