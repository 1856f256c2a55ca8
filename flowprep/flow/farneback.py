"""Native Farneback on the CPU: OpenCV's algorithm and numbers, but each frame is expanded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.base import FlowEstimator, FlowPair
from flowprep.flow.parameters import DIRECTIONS, Direction, FarnebackParameters
from flowprep.garbage import collector_paused

if TYPE_CHECKING:
    from flowprep.flow.farneback_level import Frame, Pyramid

__all__ = ["Farneback"]


class Farneback(FlowEstimator):
    """Farneback (2003) as in cv2.calcOpticalFlowFarneback, but in float32 throughout."""

    implementation = "flowprep-1"

    def __init__(self, parameters: FarnebackParameters) -> None:
        # Imported late: numba takes longer to import than commands without kernels take to run.
        from flowprep.flow import farneback_level

        self._kernels = farneback_level
        self._parameters = parameters
        self._filters = farneback_level.expansion_filters(parameters.poly_n, parameters.poly_sigma)
        self._window = farneback_level.averaging_window(parameters.winsize, parameters.gaussian)
        # Single calls reuse this while the frame size stays the same: requesting memory from the
        # system would cost more than the arithmetic.
        self._pyramid: Pyramid | None = None
        self._frames: list[Frame] = []
        # Kernels are compiled, or read from disk, at their first call. This call does it now, so
        # that the time of a video's first pair does not include it.
        blank = np.zeros((self.min_side_px, self.min_side_px), np.uint8)
        with collector_paused():
            self(blank, blank)

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        pyramid = self._pyramid
        if pyramid is None or pyramid.full.shape != prev.shape:
            pyramid = self._pyramid = self._kernels.Pyramid(prev.shape, self._parameters)
            self._frames = [pyramid.new_frame(), pyramid.new_frame()]
        for image, frame in zip((prev, next), self._frames, strict=True):
            self._expand(image, pyramid, frame)
        return self._flow(pyramid, *self._frames)

    def pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Yields the same as `FlowEstimator.pairs`; each frame is expanded once for all pairs."""
        window: deque[Frame] = deque()
        pyramid: Pyramid | None = None
        for number, image in enumerate(frames):
            pyramid = pyramid or self._kernels.Pyramid(image.shape, self._parameters)
            window.append(window.popleft() if number > step else pyramid.new_frame())
            self._expand(image, pyramid, window[-1])
            if number >= step:
                first, last = window[0], window[-1]
                yield FlowPair(
                    index=number - step,
                    forward=self._flow(pyramid, first, last) if "forward" in directions else None,
                    backward=self._flow(pyramid, last, first) if "backward" in directions else None,
                )

    def _expand(self, image: NDArray[np.uint8], pyramid: Pyramid, frame: Frame) -> None:
        """Writes the polynomial expansion of an image at each level into `frame`."""
        np.copyto(pyramid.full, image)
        for number, (level, expansion) in enumerate(zip(pyramid.levels, frame, strict=True)):
            # Each level comes from the full image, not from the level before it.
            side = level.smoothing_side_px
            smooth = pyramid.smooth if number > 0 else level.image
            cv2.GaussianBlur(pyramid.full, (side, side), level.smoothing_sigma_px, dst=smooth)
            if number > 0:
                cv2.resize(smooth, (level.width, level.height), dst=level.image)
            self._kernels.expand(
                level.image.reshape(-1),
                self._filters,
                expansion.own,
                expansion.packed,
                level.height,
                level.width,
                level.line,
                level.image_strips,
                level.filtered,
            )

    def _flow(self, pyramid: Pyramid, first: Frame, second: Frame) -> NDArray[np.float32]:
        """Returns the flow from the first to the second frame, coarse to fine."""
        levels = pyramid.levels
        fields = [np.empty_like(levels[0].flow), *(level.flow for level in levels[1:])]
        fields[-1].fill(0)
        for number in reversed(range(len(levels))):
            level, flow = levels[number], fields[number]
            if number + 1 < len(levels):
                cv2.resize(fields[number + 1], (level.width, level.height), dst=flow)
                flow *= 1 / self._parameters.pyr_scale
            self._kernels.estimate(
                first[number].own,
                second[number].packed,
                flow.reshape(-1),
                self._window,
                not self._parameters.gaussian,
                self._parameters.iterations,
                level.width,
                level.row_trust,
                level.column_trust,
                level.line,
                level.displacement,
                level.rings,
                level.averages,
                level.column_starts,
                level.row_starts,
                level.positions,
                level.targets,
            )
        return fields[0]
