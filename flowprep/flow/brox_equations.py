"""The equations of a level of native Brox flow, and the kernels that solve them.

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
  each equation (`CONSTANT_U`, `CONSTANT_V`), so a cell costs 14 operations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    fma,
    load,
    maximum,
    sqrt,
    store,
)

__all__ = ["place", "relax"]

FloatArray = NDArray[np.float32]

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


@inline
def place(length: int, row: int, color: int) -> int:
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
    own = place(length, row, color)
    beside = place(length, row, 1 - color)
    above = place(length, row - 1, 1 - color)
    below = place(length, row + 1, 1 - color)
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
        first, last = place(length, row, first_color), place(length, row, last_color)
        before, after = place(length, row, 1 - first_color), place(length, row, 1 - last_color)
        for plane in (U, V):
            at = plane * length
            system[before + at - 1] = system[first + at]
            system[after + at + width // 2] = system[last + at + (width - 1) // 2]
    for color in (0, 1):
        top, over = place(length, 0, color), place(length, -1, 1 - color)
        bottom, under = place(length, height - 1, color), place(length, height, 1 - color)
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
    own, beside = place(length, row, color), place(length, row, 1 - color)
    same_above, other_above = place(length, row - 1, color), place(length, row - 1, 1 - color)
    same_below, other_below = place(length, row + 1, color), place(length, row + 1, 1 - color)
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
        number = constants + k
        ix, iy = load(data, number + IX * length), load(data, number + IY * length)
        ixx, iyy = load(data, number + IXX * length), load(data, number + IYY * length)
        ixy = load(data, number + IXY * length)
        rest = load(data, number + REST * length)
        rest_x, rest_y = load(data, number + REST_X * length), load(data, number + REST_Y * length)
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
    own, beside = place(length, row, color), place(length, row, 1 - color)
    below = place(length, row + 1, 1 - color)
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
