"""One level of native Brox flow: its memory, and what is done with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.brox_equations import MARGIN, NUM_DATA, NUM_PLANES, relax
from flowprep.flow.brox_warp import PIXEL, linearize, read_flow
from flowprep.flow.parameters import BroxParameters
from flowprep.flow.simd import NUM_LANES

__all__ = ["FrameLevel", "Level"]

FloatArray = NDArray[np.float32]


class FrameLevel:
    """A frame at one level: what the pairs in which it takes part read of it."""

    def __init__(self, width: int, height: int) -> None:
        self.length = row_length(width)
        self.own = aligned_zeros(6 * height * 2 * self.length)
        """I, Ix, Iy, Ixx, Ixy and Iyy, (6, H, 2 L), of the frame as the first of a pair."""
        self.packed = aligned_zeros(((height + 2) * (width + 2) + NUM_LANES) * PIXEL)
        """All that the warp reads of it as the second, with a border of one pixel."""


class Level:
    """The memory of one level: its equations, and the flow in rows."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        length = self.length = row_length(width)
        self.system = aligned_zeros((height + 2) * 2 * NUM_PLANES * length)
        self.data = aligned_zeros(height * 2 * NUM_DATA * length)
        self.flow = aligned_zeros((2 * height + NUM_LANES) * 2 * length)
        """u and v, px, (2, H, 2 L); columns from `width` on mean nothing, but are finite."""
        self.row = aligned_zeros(NUM_DATA * 2 * length)
        self.positions = np.zeros(2 * length, np.int32)
        self.fractions = aligned_zeros(4 * length)
        columns = np.arange(length)[None] * 2 + np.arange(2)[:, None]  # (2, L)
        inside = columns < width
        self.masks = np.stack([inside, inside & (columns > 0)], 1).astype(np.float32).ravel()

    def solve(self, prev: FrameLevel, next: FrameLevel, parameters: BroxParameters) -> None:
        """Improves `flow`, from `prev` to `next`."""
        linearize(
            self.flow,
            prev.own,
            next.packed,
            self.system,
            self.data,
            self.length,
            self.width,
            self.height,
            np.float32(parameters.gamma**0.5),
            self.row,
            self.positions,
            self.fractions,
        )
        relax(
            self.system,
            self.data,
            self.masks,
            self.length,
            self.width,
            self.height,
            np.float32(parameters.alpha),
            parameters.inner_iterations,
            parameters.solver_iterations,
        )
        read_flow(self.system, self.flow, self.length, self.width, self.height)

    def read(self) -> FloatArray:
        """Returns the flow, (H, W, 2) float32: u right and v down, in px."""
        rows = self.flow[: 4 * self.height * self.length].reshape(2, self.height, -1)
        return np.stack((rows[0, :, : self.width], rows[1, :, : self.width]), axis=-1)


def row_length(width: int) -> int:
    """Returns L: the numbers of a row of one color, with its margins."""
    cells = (width + 1) // 2
    return MARGIN + (cells + NUM_LANES - 1) // NUM_LANES * NUM_LANES + MARGIN


def aligned_zeros(size: int) -> FloatArray:
    """Returns `size` zeros that start at a cache line, so that few vectors cross one."""
    line = 64 // 4
    memory = np.zeros(size + line, np.float32)
    start = -(memory.ctypes.data // 4) % line
    return memory[start : start + size]
