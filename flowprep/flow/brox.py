"""Native Brox flow on the CPU: the algorithm of OpenCV's CUDA class, on a plain core."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.base import FlowPair, VideoEstimator
from flowprep.flow.parameters import DIRECTIONS, BroxParameters, Direction
from flowprep.garbage import collector_paused

if TYPE_CHECKING:
    from flowprep.flow.brox_level import FrameLevel, Level
    from flowprep.flow.brox_pyramid import Taps

__all__ = ["Brox"]


class Brox(VideoEstimator):
    """High accuracy optical flow by warping (Brox et al., ECCV 2004), as OpenCV's CUDA class has it.

    The solver does not converge, and float32 does not settle its last digits: a change of 1e-7 in
    the frames moves the fields by about .006 px in the mean. Its fields are as close as that to
    OpenCV's.
    """

    implementation = "flowprep-1"

    def __init__(self, parameters: BroxParameters) -> None:
        # Imported late: numba takes longer to import than commands without kernels take to run.
        from flowprep.flow import brox_level, brox_pyramid

        self._level_module, self._pyramid_module = brox_level, brox_pyramid
        self._parameters = parameters
        self._levels: list[Level] = []
        self._down: list[tuple[Taps, Taps]] = []
        self._up: list[tuple[Taps, Taps]] = []
        self._memory = np.zeros(0, np.float32)
        # Kernels are compiled, or read from disk, at their first call. This call does it now, so
        # that the time of a video's first pair does not include it.
        blank = np.zeros((self.min_side_px, self.min_side_px), np.uint8)
        with collector_paused():
            self(blank, blank)

    @classmethod
    def implementation_with(cls, parameters: BroxParameters) -> str:
        """Returns the implementation, and the filter of the pyramid where it is not OpenCV's."""
        name = cls.implementation
        return name if parameters.pyramid_filter == "ncv" else f"{name}-{parameters.pyramid_filter}"

    def pairs(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Like the base class; each frame is prepared once for its up to four pairs."""
        images = (frame * np.float32(1 / 255) for frame in frames)
        yield from self.pairs_of_floats(images, step=step, directions=directions)

    def pairs_of_floats(
        self,
        frames: Iterable[NDArray[np.float32]],
        *,
        step: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Iterator[FlowPair]:
        """Like `pairs`, for frames that are (H, W) float32 in [0, 1]."""
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

    def _set_size(self, width: int, height: int) -> None:
        """Allocates the levels, finest first."""
        if self._levels and (self._levels[0].width, self._levels[0].height) == (width, height):
            return
        p, pyramid = self._parameters, self._pyramid_module
        sizes = pyramid.level_sizes(width, height, p.scale_factor, p.outer_iterations)
        self._levels = [self._level_module.Level(*size) for size in sizes]
        steps = list(zip(sizes, sizes[1:], strict=False))
        self._down = [
            (
                pyramid.down_taps(small[0], large[0], p.scale_factor),
                pyramid.down_taps(small[1], large[1], p.scale_factor),
            )
            for large, small in steps
        ]
        self._up = [
            (
                pyramid.up_taps(large[0], small[0], p.scale_factor),
                pyramid.up_taps(large[1], small[1], p.scale_factor),
            )
            for large, small in steps
        ]
        self._memory = np.zeros(width * height, np.float32)

    def _new_frame(self) -> list[FrameLevel]:
        return [self._level_module.FrameLevel(x.width, x.height) for x in self._levels]

    def _prepare(self, frame: NDArray[np.float32], levels: list[FrameLevel]) -> None:
        """Fills `levels`, finest first, with the pyramid of `frame` and its derivatives."""
        before: FrameLevel | None = None
        for number, (level, memory) in enumerate(zip(self._levels, levels, strict=True)):
            image = memory.own[0]
            if before is None:
                image[:, : level.width] = frame
            elif self._parameters.pyramid_filter == "area":
                larger = before.own[0, :, : self._levels[number - 1].width]
                size = (level.width, level.height)
                image[:, : level.width] = cv2.resize(larger, size, interpolation=cv2.INTER_AREA)
            else:
                self._resample(before.own[0], self._down[number - 1], 1.0, image)
            self._pyramid_module.derive(memory.own, level.width, memory.packed)
            before = memory

    def _flow(self, prev: list[FrameLevel], next: list[FrameLevel]) -> NDArray[np.float32]:
        """Returns the flow from `prev` to `next`, coarse to fine (NCV: the loop over levels)."""
        self._levels[-1].flow.fill(0)
        for number in reversed(range(len(self._levels))):
            level = self._levels[number]
            if number + 1 < len(self._levels):
                factor = 1 / self._parameters.scale_factor
                for plane in (0, 1):
                    coarser = self._levels[number + 1].flow[plane]
                    self._resample(coarser, self._up[number], factor, level.flow[plane])
            level.solve(prev[number], next[number], self._parameters)
        finest = self._levels[0]
        return np.stack(tuple(finest.flow[:, :, : finest.width]), axis=-1)

    def _resample(
        self,
        image: NDArray[np.float32],
        taps: tuple[Taps, Taps],
        factor: float,
        out: NDArray[np.float32],
    ) -> None:
        columns, rows = taps
        self._pyramid_module.resample(
            image.ravel(),
            image.shape[1],
            image.shape[0],
            columns.begins,
            columns.weights,
            rows.begins,
            rows.weights,
            np.float32(factor),
            self._memory,
            out.ravel(),
            out.shape[1],
        )
