"""Native Farneback on the CPU: OpenCV's algorithm and numbers, but each frame is expanded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.parameters import FarnebackParameters
from flowprep.flow.prepared import PreparedEstimator
from flowprep.garbage import collector_paused

if TYPE_CHECKING:
    from flowprep.flow.farneback_level import Frame, Pyramid

__all__ = ["Farneback"]


class Farneback(PreparedEstimator["Frame"]):
    """Farneback (2003) as in cv2.calcOpticalFlowFarneback, but in float32 throughout."""

    implementation = "flowprep-1"

    def __init__(self, parameters: FarnebackParameters) -> None:
        # Imported late: numba takes longer to import than commands without kernels take to run.
        from flowprep.flow import farneback_level

        self._kernels = farneback_level
        super().__init__()
        self._parameters = parameters
        self._filters = farneback_level.expansion_filters(parameters.poly_n, parameters.poly_sigma)
        self._window = farneback_level.averaging_window(parameters.winsize, parameters.gaussian)
        self._pyramid: Pyramid
        # Kernels are compiled, or read from disk, at their first call. This call does it now, so
        # that the time of a video's first pair does not include it.
        blank = np.zeros((self.min_side_px, self.min_side_px), np.uint8)
        with collector_paused():
            self(blank, blank)

    def _set_size(self, width: int, height: int) -> None:
        self._pyramid = self._kernels.Pyramid((height, width), self._parameters)

    def _new_frame(self) -> Frame:
        return self._pyramid.new_frame()

    def _prepare(self, frame: NDArray[Any], memory: Frame) -> None:
        """Writes the polynomial expansion of a frame at each level into `memory`."""
        pyramid = self._pyramid
        np.copyto(pyramid.full, frame)
        for number, (level, expansion) in enumerate(zip(pyramid.levels, memory, strict=True)):
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

    def _flow(self, prev: Frame, next: Frame) -> NDArray[np.float32]:
        """Returns the flow from `prev` to `next`, coarse to fine."""
        levels = self._pyramid.levels
        fields = [np.empty_like(levels[0].flow), *(level.flow for level in levels[1:])]
        fields[-1].fill(0)
        for number in reversed(range(len(levels))):
            level, flow = levels[number], fields[number]
            if number + 1 < len(levels):
                cv2.resize(fields[number + 1], (level.width, level.height), dst=flow)
                flow *= 1 / self._parameters.pyr_scale
            self._kernels.estimate(
                prev[number].own,
                next[number].packed,
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
