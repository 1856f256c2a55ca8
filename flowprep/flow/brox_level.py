"""One level of native Brox flow: its memory, and its kernels.

Thomas Brox, Andres Bruhn, Nils Papenberg and Joachim Weickert, "High accuracy optical flow
estimation based on a theory for warping", ECCV 2004, in the form of OpenCV's CUDA class
(opencv_contrib, modules/cudalegacy/src/cuda/NCVBroxOpticalFlow.cu; "the CUDA code" below). Gray
value and gradient stay the same along the motion (the paper's equation 4), and the flow is
piecewise smooth (equation 5). Both terms are robust by sqrt(x^2 + epsilon^2). A level is warped
once (section 3.2, the outer fixed point iteration). Then each inner iteration holds the robust
weights fixed (equation 13), and solves the linear equations approximately by successive
overrelaxation.

Where the CUDA code departs from the paper: one root of gray value and gradient together, a weight
`alpha` that stands at the data term as 1/alpha, and few unconverged sweeps with a relaxation of
1.99.

The work is arranged for one core and its caches:

- Cells are colored like a chessboard, and a sweep updates one color. A row of one color lies
  together, so that 16 cells of it are one vector.
- Half sweeps run at once, each one row behind the half sweep before. A row is updated as often as
  possible while it is in the cache.
- Unknowns are the flow u + du, not du. What is fixed in an inner iteration stands in one number of
  each equation (`_CONSTANT`), so a cell costs 14 operations.
- A pixel of the other frame has its gray value and derivatives side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.parameters import BroxParameters
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    broadcast_int,
    even_lanes,
    floor,
    fma,
    interleave_high,
    interleave_low,
    lane_numbers,
    load,
    load_mixed,
    maximum,
    minimum,
    odd_lanes,
    sqrt,
    store,
    store_int,
    to_int,
    transpose,
    where_less,
)

__all__ = ["PIXEL", "FrameLevel", "Level"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

PIXEL = 8
"""Numbers of a pixel in a packed frame: I, Ix, Iy, Ixx, Ixy, Iyy, and two zeros."""

# The planes of a row of one color. A cell is at (x, row); a link is that to the cell on its left or
# above it.
U, V, LINK_X, LINK_Y, CONSTANT_U, CONSTANT_V, STEP_U, STEP_V, MINUS_UV = range(9)
NUM_PLANES = 9

# What the data term of a cell needs, in the same order of cells. Numbers of the gradient carry the
# factor sqrt(gamma). A residual is what the linearized difference is for no flow at all.
IX, IY, IXX, IXY, IYY, REST, REST_X, REST_Y = range(8)
NUM_DATA = 8

MARGIN = NUM_LANES
"""Cells before the first and after the last of a row, for neighbors outside of the image."""

EPSILON_SQUARED = 1e-6
"""epsilon^2 of both robust terms (NCVBroxOpticalFlow.cu: eps2)."""
RELAXATION = 1.99
"""The factor of the overrelaxation (NCVBroxOpticalFlow.cu: the argument `1.99f` of sor_pass)."""
MAX_DISTANCE_PX = 1e6
"""Positions farther out than this are brought back to it, so that integers can hold them."""


@inline
def _place(length: int, row: int, color: int) -> int:
    """Where the first cell of a row of one color is; row -1 is the row above the image."""
    return ((row + 1) * 2 + color) * NUM_PLANES * length + MARGIN


# ---- the linear equations


@inline
def _relax_row(
    system: FloatArray, length: int, row: int, color: int, num_cells: int, keep: Lanes
) -> None:
    """Updates the cells of one color in a row: u, then v with the new u."""
    # Cell k of this color is in column 2 k + odd.
    odd = (row + color) & 1
    own = _place(length, row, color)
    beside = _place(length, row, 1 - color)
    above = _place(length, row - 1, 1 - color)
    below = _place(length, row + 1, 1 - color)
    for k in range(0, num_cells, NUM_LANES):
        left, right = beside + k - 1 + odd, beside + k + odd
        i, up, down = own + k, above + k, below + k
        link_left, link_up = load(system, i + LINK_X * length), load(system, i + LINK_Y * length)
        link_right = load(system, right + LINK_X * length)
        link_down = load(system, down + LINK_Y * length)
        minus_uv = load(system, i + MINUS_UV * length)
        u, v = load(system, i + U * length), load(system, i + V * length)
        sum_u = fma(
            link_left, load(system, left + U * length), load(system, i + CONSTANT_U * length)
        )
        sum_v = fma(
            link_left, load(system, left + V * length), load(system, i + CONSTANT_V * length)
        )
        sum_u = fma(link_right, load(system, right + U * length), sum_u)
        sum_v = fma(link_right, load(system, right + V * length), sum_v)
        sum_u = fma(link_up, load(system, up + U * length), sum_u)
        sum_v = fma(link_up, load(system, up + V * length), sum_v)
        sum_u = fma(link_down, load(system, down + U * length), sum_u)
        sum_v = fma(link_down, load(system, down + V * length), sum_v)
        sum_u = fma(minus_uv, v, sum_u)
        u = fma(load(system, i + STEP_U * length), sum_u, keep * u)
        sum_v = fma(minus_uv, u, sum_v)
        v = fma(load(system, i + STEP_V * length), sum_v, keep * v)
        store(system, i + U * length, u)
        store(system, i + V * length, v)


@inline
def _sweep(system: FloatArray, length: int, width: int, height: int, num_half_sweeps: int) -> None:
    """Half sweeps of both colors by turns, even cells first; each a row behind the one before."""
    keep = broadcast(np.float32(1) - np.float32(RELAXATION))
    num_cells = (width + 1) // 2
    for front in range(height + num_half_sweeps - 1):
        for t in range(max(0, front - height + 1), min(num_half_sweeps, front + 1)):
            _relax_row(system, length, front - t, t & 1, num_cells, keep)


# ---- their coefficients


@inline
def _mirror(system: FloatArray, length: int, width: int, height: int) -> None:
    """Writes the flow of the nearest pixel of the image around the image."""
    for row in range(height):
        first_color, last_color = row & 1, (width - 1 + row) & 1
        first, last = _place(length, row, first_color), _place(length, row, last_color)
        before, after = _place(length, row, 1 - first_color), _place(length, row, 1 - last_color)
        for plane in (U, V):
            at = plane * length
            system[before + at - 1] = system[first + at]
            system[after + at + width // 2] = system[last + at + (width - 1) // 2]
    for color in (0, 1):
        top, over = _place(length, 0, color), _place(length, -1, 1 - color)
        bottom, under = _place(length, height - 1, color), _place(length, height, 1 - color)
        for at in range(U * length - 1, V * length + width // 2 + 1):
            system[over + at] = system[top + at]
            system[under + at] = system[bottom + at]


@inline
def _weigh_row(
    system: FloatArray,
    data: FloatArray,
    masks: FloatArray,
    length: int,
    row: int,
    color: int,
    num_cells: int,
    inverse_alpha: Lanes,
) -> None:
    """The robust weights of a row's cells and links, and what follows from a cell alone.

    `STEP_U` and `STEP_V` become the diagonal of the data term; `_divide_row` makes the steps.
    """
    odd = (row + color) & 1
    own, beside = _place(length, row, color), _place(length, row, 1 - color)
    same_above, other_above = _place(length, row - 1, color), _place(length, row - 1, 1 - color)
    same_below, other_below = _place(length, row + 1, color), _place(length, row + 1, 1 - color)
    constants = (row * 2 + color) * NUM_DATA * length
    has_row_above = broadcast(np.float32(1 if row > 0 else 0))
    quarter, half = broadcast(np.float32(0.25)), broadcast(np.float32(0.5))
    epsilon = broadcast(np.float32(EPSILON_SQUARED))
    zero = broadcast(np.float32(0))
    for k in range(0, num_cells, NUM_LANES):
        i, left, right = own + k, k - 1 + odd, k + odd
        across_x, along_x, across_y, along_y = epsilon, zero, epsilon, zero
        for plane in (U, V):
            at = plane * length
            here = load(system, i + at)
            west, east = load(system, beside + left + at), load(system, beside + right + at)
            north, south = load(system, other_above + k + at), load(system, other_below + k + at)
            northwest = load(system, same_above + left + at)
            northeast = load(system, same_above + right + at)
            southwest = load(system, same_below + left + at)
            difference = here - west
            across_x = fma(difference, difference, across_x)
            difference = quarter * ((south + southwest) - (north + northwest))
            along_x = fma(difference, difference, along_x)
            difference = here - north
            across_y = fma(difference, difference, across_y)
            difference = quarter * ((east + northeast) - (west + northwest))
            along_y = fma(difference, difference, along_y)
        u, v = load(system, i + U * length), load(system, i + V * length)
        place = constants + k
        ix, iy = load(data, place + IX * length), load(data, place + IY * length)
        ixx, iyy = load(data, place + IXX * length), load(data, place + IYY * length)
        ixy = load(data, place + IXY * length)
        rest = load(data, place + REST * length)
        rest_x, rest_y = load(data, place + REST_X * length), load(data, place + REST_Y * length)
        gray = fma(ix, u, fma(iy, v, rest))
        gradient_x = fma(ixx, u, fma(ixy, v, rest_x))
        gradient_y = fma(ixy, u, fma(iyy, v, rest_y))
        root = sqrt(
            fma(gray, gray, fma(gradient_x, gradient_x, fma(gradient_y, gradient_y, epsilon)))
        )
        root_x, root_y = sqrt(across_x + along_x), sqrt(across_y + along_y)
        # One division for the three inverse roots.
        inverse = half / (root * root_x * root_y)
        weight = inverse * root_x * root_y * inverse_alpha
        mask = odd * 2 * length + k
        store(system, i + LINK_X * length, inverse * root * root_y * load(masks, mask + length))
        store(
            system,
            i + LINK_Y * length,
            inverse * root * root_x * (load(masks, mask) * has_row_above),
        )
        minus_weight = zero - weight
        store(
            system,
            i + CONSTANT_U * length,
            minus_weight * fma(ix, rest, fma(ixx, rest_x, ixy * rest_y)),
        )
        store(
            system,
            i + CONSTANT_V * length,
            minus_weight * fma(iy, rest, fma(iyy, rest_y, ixy * rest_x)),
        )
        store(system, i + MINUS_UV * length, minus_weight * fma(ix, iy, ixy * (ixx + iyy)))
        store(system, i + STEP_U * length, weight * fma(ix, ix, fma(ixy, ixy, ixx * ixx)))
        store(system, i + STEP_V * length, weight * fma(iy, iy, fma(ixy, ixy, iyy * iyy)))


@inline
def _divide_row(
    system: FloatArray, masks: FloatArray, length: int, row: int, color: int, num_cells: int
) -> None:
    """Turns the diagonal of the data term into the steps of the overrelaxation."""
    odd = (row + color) & 1
    own, beside = _place(length, row, color), _place(length, row, 1 - color)
    below = _place(length, row + 1, 1 - color)
    relaxation = broadcast(np.float32(RELAXATION))
    # Outside of the image all weights are 0.
    least = broadcast(np.float32(1e-12))
    for k in range(0, num_cells, NUM_LANES):
        i = own + k
        links = (load(system, i + LINK_X * length) + load(system, i + LINK_Y * length)) + (
            load(system, beside + k + odd + LINK_X * length)
            + load(system, below + k + LINK_Y * length)
        )
        links = maximum(links, least)
        diagonal_u = load(system, i + STEP_U * length) + links
        diagonal_v = load(system, i + STEP_V * length) + links
        inverse = relaxation / (diagonal_u * diagonal_v) * load(masks, odd * 2 * length + k)
        store(system, i + STEP_U * length, inverse * diagonal_v)
        store(system, i + STEP_V * length, inverse * diagonal_u)


@kernel
def relax(
    system: FloatArray,
    data: FloatArray,
    masks: FloatArray,
    length: int,
    width: int,
    height: int,
    alpha: np.float32,
    inner_iterations: int,
    solver_iterations: int,
) -> None:
    """The inner iterations of a level: new weights, then sweeps."""
    inverse_alpha = broadcast(np.float32(1) / alpha)
    num_cells = (width + 1) // 2
    for _ in range(inner_iterations):
        _mirror(system, length, width, height)
        for row in range(height + 1):
            for color in range(2):
                if row < height:
                    _weigh_row(system, data, masks, length, row, color, num_cells, inverse_alpha)
            for color in range(2):
                # A cell needs the links of its neighbors on the right and below.
                if row > 0:
                    _divide_row(system, masks, length, row - 1, color, num_cells)
        _sweep(system, length, width, height, 2 * solver_iterations)


# ---- the warp


@inline
def _folded(x: Lanes, size: Lanes) -> Lanes:
    """The place within the image that a place outside mirrors; the outer pixels are doubled."""
    half = broadcast(np.float32(0.5))
    period = size + size
    shifted = x + half
    shifted = shifted - period * floor(shifted / period)
    return minimum(shifted, period - shifted) - half


@inline
def _where_outside(distance: Lanes, outside: Lanes, inside: Lanes) -> Lanes:
    """`inside` where the distance is 0, else `outside`."""
    zero = broadcast(np.float32(0))
    return where_less(zero, distance * distance, outside, inside)


@inline
def _every_second(row: FloatArray, at: int, odd: int) -> Lanes:
    first, second = load(row, at), load(row, at + NUM_LANES)
    if odd:
        return odd_lanes(first, second)
    return even_lanes(first, second)


@kernel
def linearize(
    flow: FloatArray,
    own: FloatArray,
    packed: FloatArray,
    system: FloatArray,
    data: FloatArray,
    length: int,
    width: int,
    height: int,
    root_gamma: np.float32,
    row_memory: FloatArray,
    positions: IntArray,
    fractions: FloatArray,
) -> None:
    """Warps the second frame by the flow so far, and linearizes both constancies around it.

    `flow` holds u and v, (2, H, 2 L) with rows of 2 * `length` numbers, in px; `own` the first
    frame's I, Ix and Iy, (6, H, 2 L) with its other derivatives.
    `packed` is the second frame with a border of one pixel.
    """
    row_length = 2 * length
    plane = height * row_length
    columns, rows = broadcast(np.float32(width)), broadcast(np.float32(height))
    last_column, last_row = columns - broadcast(np.float32(1)), rows - broadcast(np.float32(1))
    zero, half = broadcast(np.float32(0)), broadcast(np.float32(0.5))
    far = broadcast(np.float32(MAX_DISTANCE_PX))
    steps = broadcast(np.float32(256))
    per_step = broadcast(np.float32(1 / 256))
    gamma = broadcast(root_gamma)
    packed_width = broadcast_int(np.int32(width + 2))
    one = broadcast_int(np.int32(1))
    num_blocks = (width + NUM_LANES - 1) // NUM_LANES
    for row in range(height):
        start = row * row_length
        for block in range(num_blocks):
            i = start + block * NUM_LANES
            x = broadcast(np.float32(block * NUM_LANES)) + lane_numbers() + load(flow, i)
            y = broadcast(np.float32(row)) + load(flow, i + plane)
            x = minimum(maximum(x, zero - far), far)
            y = minimum(maximum(y, zero - far), far)
            outside = x - minimum(maximum(x, zero), last_column)
            x = _where_outside(outside, _folded(x, columns), x)
            outside = y - minimum(maximum(y, zero), last_row)
            y = _where_outside(outside, _folded(y, rows), y)
            left, top = floor(x), floor(y)
            store_int(
                positions,
                block * NUM_LANES,
                (to_int(top) + one) * packed_width + (to_int(left) + one),
            )
            # The texture unit of a GPU takes fractions of 1/256, rounded to nearest.
            store(
                fractions,
                block * 2 * NUM_LANES,
                floor(fma(x - left, steps, half)) * per_step,
            )
            store(
                fractions,
                block * 2 * NUM_LANES + NUM_LANES,
                floor(fma(y - top, steps, half)) * per_step,
            )
        for block in range(num_blocks):
            i = start + block * NUM_LANES
            corners = transpose(
                load_mixed(
                    packed,
                    positions,
                    block * NUM_LANES,
                    (width + 2) * PIXEL,
                    fractions,
                    block * 2 * NUM_LANES + NUM_LANES,
                )
            )
            part = load(fractions, block * 2 * NUM_LANES)
            gray = fma(part, corners[8] - corners[0], corners[0])
            ix = fma(part, corners[9] - corners[1], corners[1])
            iy = fma(part, corners[10] - corners[2], corners[2])
            ixx = fma(part, corners[11] - corners[3], corners[3]) * gamma
            ixy = fma(part, corners[12] - corners[4], corners[4]) * gamma
            iyy = fma(part, corners[13] - corners[5], corners[5]) * gamma
            u, v = load(flow, i), load(flow, i + plane)
            iz = gray - load(own, i)
            ixz = (ix - load(own, i + plane)) * gamma
            iyz = (iy - load(own, i + 2 * plane)) * gamma
            at = block * NUM_LANES
            store(row_memory, at + IX * row_length, ix)
            store(row_memory, at + IY * row_length, iy)
            store(row_memory, at + IXX * row_length, ixx)
            store(row_memory, at + IXY * row_length, ixy)
            store(row_memory, at + IYY * row_length, iyy)
            store(row_memory, at + REST * row_length, iz - fma(ix, u, iy * v))
            store(row_memory, at + REST_X * row_length, ixz - fma(ixx, u, ixy * v))
            store(row_memory, at + REST_Y * row_length, iyz - fma(ixy, u, iyy * v))
        # Columns outside of the image have no data term and no flow.
        for number in range(NUM_DATA):
            row_memory[number * row_length + width : (number + 1) * row_length] = 0
        for k in range(0, (width + 1) // 2, NUM_LANES):
            for odd in range(2):
                color = (row + odd) & 1
                for number in range(NUM_DATA):
                    place = ((row * 2 + color) * NUM_DATA + number) * length + k
                    store(data, place, _every_second(row_memory, number * row_length + 2 * k, odd))
                place = _place(length, row, color) + k
                store(system, place + U * length, _every_second(flow, start + 2 * k, odd))
                store(system, place + V * length, _every_second(flow, start + plane + 2 * k, odd))


@kernel
def read_flow(system: FloatArray, flow: FloatArray, length: int, width: int, height: int) -> None:
    """Writes the flow of all cells into `flow`, (2, H, 2 L)."""
    row_length = 2 * length
    for row in range(height):
        for plane in (U, V):
            even = _place(length, row, row & 1) + plane * length
            odd = _place(length, row, 1 - (row & 1)) + plane * length
            target = (plane * height + row) * row_length
            for k in range(0, (width + 1) // 2, NUM_LANES):
                first, second = load(system, even + k), load(system, odd + k)
                store(flow, target + 2 * k, interleave_low(first, second))
                store(flow, target + 2 * k + NUM_LANES, interleave_high(first, second))


# ---- their memory


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
        self.row = np.zeros(NUM_DATA * 2 * length, np.float32)
        self.positions = np.zeros(2 * length, np.int32)
        self.fractions = np.zeros(4 * length, np.float32)
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
