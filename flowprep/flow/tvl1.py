"""Native TV-L1 on the CPU: OpenCV's algorithm and numbers, in 1/27 to 1/57 of its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.prepared import PreparedEstimator
from flowprep.garbage import collector_paused

if TYPE_CHECKING:
    from flowprep.flow.tvl1_level import FrameLevel, Level

__all__ = ["TVL1"]

MIN_LEVEL_SIDE_PX = 16
"""The pyramid ends before a level with a smaller side (OpenCV, tvl1flow.cpp: calc)."""


class TVL1(PreparedEstimator["list[FrameLevel]"]):
    """TV-L1 (Zach et al. 2007; Sanchez et al., IPOL 2013), coarse to fine, OpenCV's parameters.

    Its fields equal those of OpenCV 5's cv2.optflow.DualTVL1OpticalFlow to within about a hundredth
    of a pixel. They depend only on their two frames, not on earlier frames.
    """

    implementation = "flowprep-1"

    def __init__(self, parameters: TVL1Parameters) -> None:
        # Imported late: numba takes longer to import than commands without kernels take to run.
        from flowprep.flow import tvl1_level

        self._level_module = tvl1_level
        super().__init__()
        self._parameters = parameters
        self._levels: list[Level] = []
        # Kernels are compiled, or read from disk, at their first call. This call does it now, so
        # that the time of a video's first pair does not include it.
        blank = np.zeros((self.min_side_px, self.min_side_px), np.uint8)
        with collector_paused():
            self(blank, blank)

    @property
    def num_iterations(self) -> list[list[int]]:
        """Iterations of each warp of the last field, level by level, finest first."""
        return [list(level.num_iterations) for level in self._levels]

    def _set_size(self, width: int, height: int) -> None:
        """Allocates the levels, finest first. Their sizes equal those of cv2.resize by a factor."""
        p = self._parameters
        self._levels = []
        while not self._levels or (
            len(self._levels) < p.nscales and min(width, height) >= MIN_LEVEL_SIDE_PX
        ):
            self._levels.append(self._level_module.Level(width, height, p))
            width, height = round(width * p.scale_step), round(height * p.scale_step)

    def _new_frame(self) -> list[FrameLevel]:
        return [self._level_module.FrameLevel(x.width, x.height) for x in self._levels]

    def _prepare(self, frame: NDArray[Any], levels: list[FrameLevel]) -> None:
        """Fills `levels`, finest first, with the pyramid of `frame`."""
        image = frame.astype(np.float32, order="C")
        step = self._parameters.scale_step
        for number, level in enumerate(levels):
            if number > 0:
                # By factor, not by size: the two sample at slightly different positions.
                image = np.asarray(cv2.resize(image, None, fx=step, fy=step), np.float32)
            level.set(image)

    def _flow(self, prev: list[FrameLevel], next: list[FrameLevel]) -> NDArray[np.float32]:
        """Returns the flow from `prev` to `next` (IPOL 2013, algorithm 2)."""
        coarser = None
        for level, first, second in reversed(list(zip(self._levels, prev, next, strict=True))):
            level.begin(coarser)
            level.solve(first, second)
            coarser = level
        return self._levels[0].read_flow()
