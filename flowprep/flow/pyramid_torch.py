"""Resizes images on a torch device, at the sample positions of cv2.resize.

The positions are computed once per size on the host, in double precision.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flowprep.flow.base_torch import upload

__all__ = ["Resize"]


class Resize:
    """Resizes (..., H, W) float32 images bilinearly, with a replicated border.

    Pixel centers are at half-integers: pixel x of the result is sampled at
    (x + 1/2) / factor - 1/2. If `factor` is None, it is the ratio of the two sizes, as in
    cv2.resize with a given size. With fx and fy, cv2.resize uses these factors, although the size
    is rounded (OpenCV, modules/imgproc: resize).
    """

    def __init__(
        self,
        size: tuple[int, int],
        new_size: tuple[int, int],
        device: torch.device,
        factor: float | None = None,
    ) -> None:
        self._rows, self._columns = (
            _Samples(length, new_length, device, factor)
            for length, new_length in zip(size, new_size, strict=True)
        )

    def __call__(self, image: Tensor) -> Tensor:
        return self._rows(self._columns(image, -1), -2)


class _Samples:
    """For each pixel of a resized line: the two pixels around it, and the fraction between them."""

    def __init__(
        self, length: int, new_length: int, device: torch.device, factor: float | None
    ) -> None:
        scale = length / new_length if factor is None else 1 / factor
        position = (np.arange(new_length) + 0.5) * scale - 0.5
        position = np.clip(position, 0, length - 1)
        before = np.floor(position)
        weight = (position - before).astype(np.float32)
        self._before = upload(before.astype(np.int64), device)
        self._after = upload(np.minimum(before + 1, length - 1).astype(np.int64), device)
        self._weight = upload(weight, device)

    def __call__(self, image: Tensor, axis: int) -> Tensor:
        weight = self._weight if axis == -1 else self._weight[:, None]
        before = image.index_select(axis, self._before)
        # In this form, a blank image stays exactly blank.
        difference = image.index_select(axis, self._after).sub_(before)
        return before.addcmul_(difference, weight)
