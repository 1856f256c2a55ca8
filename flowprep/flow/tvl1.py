"""Native TV-L1 on the CPU: OpenCV's algorithm and numbers, in a fiftieth of the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.base import FlowPair, VideoEstimator
from flowprep.flow.parameters import DIRECTIONS, Direction, TVL1Parameters
from flowprep.garbage import collector_paused

if TYPE_CHECKING:
    from flowprep.flow.tvl1_level import FrameLevel, Level

__all__ = ["TVL1"]

MIN_LEVEL_SIDE_PX = 16
"""The pyramid ends before a level with a smaller side (OpenCV, tvl1flow.cpp: calc)."""


class TVL1(VideoEstimator):
    """TV-L1 (Zach et al. 2007; Sanchez et al., IPOL 2013), coarse to fine, OpenCV's parameters.

    Its fields equal those of OpenCV 5's cv2.optflow.DualTVL1OpticalFlow to within about a hundredth
    of a pixel. They depend only on their two frames, not on earlier frames.
    """

    implementation = "flowprep-1"

    def __init__(self, parameters: TVL1Parameters) -> None:
        # Imported late: numba takes longer to import than commands without kernels take to run.
        from flowprep.flow import tvl1_level

        self._level_module = tvl1_level
        self._parameters = parameters
        self._levels: list[Level] = []
        # Kernels are compiled, or read from disk, at their first call. This call does it now, so
        # that the time of a video's first pair does not include it.
        blank = np.zeros((self.min_side_px, self.min_side_px), np.uint8)
        with collector_paused():
            self(blank, blank)

    def pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Like the base class; each frame is prepared once for its up to four pairs."""
        window: deque[list[FrameLevel]] = deque()
        shape: tuple[int, ...] | None = None
        for number, frame in enumerate(frames):
            shape = shape or frame.shape
            if frame.shape != shape:
                raise ValueError(f"all frames must be of one size, {shape}, got {frame.shape}")
            # For every frame, because other videos may have used the estimator in between.
            self._set_size(frame.shape[1], frame.shape[0])
            # A frame that has met all its partners gives its memory to the new frame.
            memory = window.popleft() if len(window) > step else self._new_frame()
            self._prepare(frame, memory)
            window.append(memory)
            if number >= step:
                first, last = window[0], window[-1]
                yield FlowPair(
                    index=number - step,
                    forward=self._flow(first, last) if "forward" in directions else None,
                    backward=self._flow(last, first) if "backward" in directions else None,
                )

    @property
    def num_iterations(self) -> list[list[int]]:
        """Iterations of each warp of the last field, level by level, finest first."""
        return [list(level.num_iterations) for level in self._levels]

    def _set_size(self, width: int, height: int) -> None:
        """Allocates the levels, finest first. Their sizes equal those of cv2.resize by a factor."""
        p = self._parameters
        if self._levels and (self._levels[0].width, self._levels[0].height) == (width, height):
            return
        self._levels = []
        while not self._levels or (
            len(self._levels) < p.nscales and min(width, height) >= MIN_LEVEL_SIDE_PX
        ):
            self._levels.append(self._level_module.Level(width, height, p))
            width, height = round(width * p.scale_step), round(height * p.scale_step)

    def _new_frame(self) -> list[FrameLevel]:
        return [self._level_module.FrameLevel(x.width, x.height) for x in self._levels]

    def _prepare(self, frame: NDArray[np.uint8], levels: list[FrameLevel]) -> None:
        """Fills `levels`, finest first, with the pyramid of `frame`."""
        image = frame.astype(np.float32)
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
