"""Checks flow for consistency: forward against backward, and against the warped frames."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["consistency_error", "warp", "warp_error"]


def consistency_error(
    flow: NDArray[np.float32], reverse: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the distance between each pixel and its place after following `flow`, then `reverse`.

    This is |f(p) + b(p + f(p))| for forward flow f and backward flow b, or the other way round.
    Both are (H, W, 2) float32 px. The result is (H, W) float32 px on the grid of `flow`: about 0
    where the two agree, large where something is occluded, NaN where p + f(p) is outside the frame.
    `reverse` is sampled bilinearly. Source: the occlusion test of Sundaram, Brox and Keutzer (ECCV
    2010).
    """
    back, outside = _sample(reverse, flow)
    back += flow
    error = np.hypot(back[..., 0], back[..., 1])
    error[outside] = np.nan
    return np.asarray(error, np.float32)


def warp(image: NDArray[Any], flow: NDArray[np.float32]) -> NDArray[Any]:
    """Returns `image` warped back: I(p + f(p)), bilinearly, and 0 if that is outside of the frame.

    `image` is (H, W) or (H, W, C), uint8 or float32. It is the frame into which `flow`, (H, W, 2)
    float32 px, points. The result has its shape and type, on the grid of `flow`.
    """
    warped, outside = _sample(image, flow)
    warped[outside] = 0
    return warped


def warp_error(
    frame: NDArray[np.uint8], following: NDArray[np.uint8], flow: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the difference that flow does not explain: |I1(p) - I2(p + f(p))| in gray levels.

    `frame` I1 and `following` I2 are (H, W) or (H, W, 3) uint8. `flow` f is (H, W, 2) float32 px on
    the grid of I1. For backward flow, swap the two frames. The result is (H, W) float32, from 0 to
    255, averaged over colors; NaN where p + f(p) is outside the frame.
    """
    warped, outside = _sample(following.astype(np.float32), flow)
    error = np.abs(frame.astype(np.float32) - warped)
    if error.ndim == 3:
        error = error.mean(axis=-1)
    error[outside] = np.nan
    return np.asarray(error, np.float32)


def _sample(
    image: NDArray[Any], flow: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Samples `image` at p + flow(p). Returns the samples, and which are outside of the frame."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    # Written so that NaN counts as outside.
    outside = ~((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
    x[outside] = y[outside] = 0
    sampled = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled), outside
