"""Native Brox flow on the CPU: the algorithm of OpenCV's CUDA class, on a plain core."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.parameters import BroxParameters
from flowprep.flow.prepared import PreparedEstimator
from flowprep.garbage import collector_paused

if TYPE_CHECKING:
    from flowprep.flow.brox_level import FrameLevel, Level
    from flowprep.flow.brox_pyramid import Taps

__all__ = ["Brox"]

Size = tuple[int, int]
"""Width and height in px."""


class Brox(PreparedEstimator["list[FrameLevel]"]):
    """High accuracy optical flow by warping (Brox et al., ECCV 2004), as in OpenCV's CUDA class.

    The solver does not converge, and float32 does not settle its last digits: a change of 1e-7 in
    the frames moves the fields by about .006 px in the mean. Its fields are as close as that to
    OpenCV's.
    """

    implementation = "flowprep-1"

    def __init__(self, parameters: BroxParameters) -> None:
        # Imported late: numba takes longer to import than commands without kernels take to run.
        from flowprep.flow import brox_level, brox_pyramid

        self._level_module, self._pyramid_module = brox_level, brox_pyramid
        super().__init__()
        self._parameters = parameters
        self._levels: list[Level] = []
        self._down: list[tuple[Taps, Taps]] = []
        self._up: list[tuple[Taps, Taps]] = []
        self._memory = self._line = np.zeros(0, np.float32)
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

    def _set_size(self, width: int, height: int) -> None:
        """Allocates the levels, finest first."""
        p, pyramid = self._parameters, self._pyramid_module
        sizes = pyramid.level_sizes(width, height, p.scale_factor, p.outer_iterations)
        self._levels = [self._level_module.Level(*size) for size in sizes]
        self._memory = np.zeros(0, np.float32)
        self._line = self._level_module.aligned_zeros(pyramid.line_size(width))
        self._down, self._up = [], []
        for large, small in itertools.pairwise(sizes):
            self._down.append(self._taps(pyramid.DOWN_TAPS[p.pyramid_filter], large, small))
            self._up.append(self._taps(pyramid.up_taps, small, large))

    def _taps(
        self, make: Callable[[int, int, float], Taps], before: Size, after: Size
    ) -> tuple[Taps, Taps]:
        """Returns the taps of a step of the pyramid, along x and along y."""
        size = self._pyramid_module.memory_size(before, after)
        if size > self._memory.size:
            self._memory = self._level_module.aligned_zeros(size)
        factor = self._parameters.scale_factor
        columns, rows = (make(after[side], before[side], factor) for side in (0, 1))
        return columns, rows

    def _new_frame(self) -> list[FrameLevel]:
        return [self._level_module.FrameLevel(x.width, x.height) for x in self._levels]

    def _prepare(self, frame: NDArray[Any], levels: list[FrameLevel]) -> None:
        """Fills `levels`, finest first, with the pyramid of `frame` and its derivatives.

        `frame` is (H, W), uint8 or float32 in [0, 1].
        """
        if frame.dtype == np.uint8:
            frame = frame * np.float32(1 / 255)
        before: FrameLevel | None = None
        for number, (level, memory) in enumerate(zip(self._levels, levels, strict=True)):
            stride, width, height = 2 * level.length, level.width, level.height
            if before is None:
                _image(memory, level)[:] = frame
            else:
                larger = self._levels[number - 1]
                self._resample(before.own, larger, memory.own, level, self._down[number - 1], 1.0)
            self._pyramid_module.derive(
                memory.own, stride, width, height, memory.packed, self._line
            )
            before = memory

    def _flow(self, prev: list[FrameLevel], next: list[FrameLevel]) -> NDArray[np.float32]:
        """Returns the flow from `prev` to `next`, coarse to fine (NCV: the loop over levels)."""
        self._levels[-1].flow.fill(0)
        for number in reversed(range(len(self._levels))):
            level = self._levels[number]
            if number + 1 < len(self._levels):
                coarser, factor = self._levels[number + 1], 1 / self._parameters.scale_factor
                for plane in (0, 1):
                    self._resample(
                        coarser.flow, coarser, level.flow, level, self._up[number], factor, plane
                    )
            level.solve(prev[number], next[number], self._parameters)
        return self._levels[0].read()

    def _resample(
        self,
        image: NDArray[np.float32],
        before: Level,
        out: NDArray[np.float32],
        after: Level,
        taps: tuple[Taps, Taps],
        factor: float,
        plane: int = 0,
    ) -> None:
        """Resamples a plane of one level to another, and multiplies it by `factor`."""
        columns, rows = taps
        self._pyramid_module.resample(
            image,
            plane * before.height * 2 * before.length,
            2 * before.length,
            before.width,
            before.height,
            columns.begins,
            columns.weights,
            rows.begins,
            rows.weights,
            np.float32(factor),
            self._memory,
            out,
            plane * after.height * 2 * after.length,
            2 * after.length,
        )


def _image(frame: FrameLevel, level: Level) -> NDArray[np.float32]:
    """Returns the gray values of a frame at a level, (H, W)."""
    rows = frame.own[: level.height * 2 * level.length].reshape(level.height, 2 * level.length)
    return rows[:, : level.width]
