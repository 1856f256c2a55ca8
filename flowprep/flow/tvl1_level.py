"""One level of native TV-L1: its memory, and its kernels.

The algorithm is that of Zach, Pock and Bischof (DAGM 2007) in the form of Sanchez, Meinhardt-Llopis
and Facciolo (IPOL 2013, doi 10.5201/ipol.2013.26; "algorithm 1" below is theirs). It has OpenCV's
additions (opencv_contrib, modules/optflow/src/tvl1flow.cpp): a median filter of the flow, and a
stop criterion based on the change in an iteration.

The work is arranged for one core and its caches:

- All data that an iteration needs for 16 neighboring pixels is in one block of 10 x 16 numbers, so
  one address reaches all of it. A plane is one of the ten.
- An iteration is one pass over the image: the flow of row r, then the dual variables of row r - 1.
  Several iterations run at once, each one row behind the iteration before. So a row is updated as
  often as possible while it is in the cache. The pass also computes the error for the stop rule.
- Flow is measured in units of theta/tau px, so that the dual step has no factor inside its norm.
- The warp reads the next frame and its gradient from one array of four numbers per pixel.
- The data term needs 1 / |gradient|^2, not the gradient's square; the threshold is then a clamp.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import compiles_for, inline, kernel
from flowprep.flow.median import median_filter_3, median_filter_5, median_scratch_size
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    fma,
    lane_numbers,
    left_neighbor,
    load,
    maximum,
    minimum,
    prefetch,
    right_neighbor,
    sqrt,
    store,
    sum_lanes,
)
from flowprep.flow.warp import WEIGHTS_SIZE, pack_frame, packed_shape, place_taps, read_taps

__all__ = ["FrameLevel", "Level"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

# The positions of the planes within a block.
GRADIENT_X, GRADIENT_Y, THRESHOLD, RESIDUAL, U1, U2, P11, P12, P21, P22 = range(0, 160, NUM_LANES)
BLOCK = 10 * NUM_LANES

# Three masks of one vector each: all lanes; lanes inside the image; lanes with a right neighbor
# inside the image. The last two are for the last block of a row.
INSIDE_IMAGE, INSIDE_GRADIENT = NUM_LANES, 2 * NUM_LANES

FIRST_BATCH = 3
"""Iterations after which the decay of the error is first measured."""
DECAY_SPAN = 3
"""Iterations over which the decay of the error is measured: the error oscillates at this period."""
SLOWEST_DECAY = 0.005
"""The smallest decay, of the error's logarithm per iteration, that a prediction assumes."""
MAX_BATCH = 12
"""Largest number of iterations in a batch; more iterations gain nothing."""
CACHED_BYTES = 16 * 2**20
"""Planes up to this size mostly stay in the third-level cache between batches."""
MAX_STRIP = 24 * BLOCK
"""Longest part of a row, in numbers, that is processed at a time. Two such parts are read together
and fit into the first-level cache (32 to 48 KiB). One part for each iteration of a batch fits into
the second-level cache. Strips have at least `MAX_BATCH` + 1 blocks."""

NORMS_AHEAD = compiles_for("avx512f")
"""Whether the dual step's square roots are taken one block before its divisions, so that neither
waits for the other. With the 16 registers of AVX2 this would take longer. The bits are the same."""

FLOAT_EPSILON = 1.1920929e-07
"""The smallest squared gradient that counts (tvl1flow.cpp, EstimateVBody: FLT_EPSILON)."""


@inline
def _primal_step(
    planes: FloatArray,
    i: int,
    above: int,
    left_p11: Lanes,
    left_p21: Lanes,
    limit: Lanes,
    squared_change: Lanes,
) -> tuple[Lanes, Lanes, Lanes, Lanes, Lanes]:
    """Moves the flow of the block at `i` by the data term and the divergence of p.

    `above` is the block above. Equations 12 (thresholding) and 11 of algorithm 1. Returns the new
    flow, the p11 and p21 that the next block needs, and the sum of squared changes.
    """
    gradient_x, gradient_y = load(planes, i + GRADIENT_X), load(planes, i + GRADIENT_Y)
    u1, u2 = load(planes, i + U1), load(planes, i + U2)
    p11, p21 = load(planes, i + P11), load(planes, i + P21)
    rho = fma(gradient_x, u1, fma(gradient_y, u2, load(planes, i + RESIDUAL)))
    zero = broadcast(np.float32(0))
    shift = minimum(maximum(rho * load(planes, i + THRESHOLD), zero - limit), limit)
    divergence_1 = (p11 - left_neighbor(left_p11, p11)) + (
        load(planes, i + P12) - load(planes, above + P12)
    )
    divergence_2 = (p21 - left_neighbor(left_p21, p21)) + (
        load(planes, i + P22) - load(planes, above + P22)
    )
    change_1 = fma(shift, gradient_x, divergence_1)
    change_2 = fma(shift, gradient_y, divergence_2)
    u1, u2 = u1 + change_1, u2 + change_2
    store(planes, i + U1, u1)
    store(planes, i + U2, u2)
    squared_change = fma(change_1, change_1, fma(change_2, change_2, squared_change))
    return u1, u2, p11, p21, squared_change


@inline
def _norms(u1_x: Lanes, u1_y: Lanes, u2_x: Lanes, u2_y: Lanes) -> tuple[Lanes, Lanes]:
    """The divisors of equation 14 of algorithm 1, for p1 and p2."""
    one = broadcast(np.float32(1))
    return (
        one + sqrt(fma(u1_x, u1_x, u1_y * u1_y)),
        one + sqrt(fma(u2_x, u2_x, u2_y * u2_y)),
    )


@inline
def _move_dual(
    planes: FloatArray,
    i: int,
    u1_x: Lanes,
    u1_y: Lanes,
    u2_x: Lanes,
    u2_y: Lanes,
    norm_1: Lanes,
    norm_2: Lanes,
    tau: Lanes,
) -> None:
    """Moves p of the block at `i` along the gradient of the flow; equation 14 of algorithm 1."""
    one = broadcast(np.float32(1))
    shrinkage_1 = one / norm_1
    shrinkage_2 = one / norm_2
    store(planes, i + P11, fma(tau, u1_x, load(planes, i + P11)) * shrinkage_1)
    store(planes, i + P12, fma(tau, u1_y, load(planes, i + P12)) * shrinkage_1)
    store(planes, i + P21, fma(tau, u2_x, load(planes, i + P21)) * shrinkage_2)
    store(planes, i + P22, fma(tau, u2_y, load(planes, i + P22)) * shrinkage_2)


@inline
def _dual_step(
    planes: FloatArray, i: int, u1_x: Lanes, u1_y: Lanes, u2_x: Lanes, u2_y: Lanes, tau: Lanes
) -> None:
    """All of the dual step of the block at `i`."""
    norm_1, norm_2 = _norms(u1_x, u1_y, u2_x, u2_y)
    _move_dual(planes, i, u1_x, u1_y, u2_x, u2_y, norm_1, norm_2, tau)


@inline
def _first_row(planes: FloatArray, spare: int, first: int, end: int, limit: Lanes) -> Any:
    """The primal step of row 0, from `first` to `end`. Above and left of the row is `spare`."""
    left = first - BLOCK if first > 0 else spare
    p11, p21 = load(planes, left + P11), load(planes, left + P21)
    squared_change = broadcast(np.float32(0))
    for i in range(first, end, BLOCK):
        _, _, p11, p21, squared_change = _primal_step(
            planes, i, spare, p11, p21, limit, squared_change
        )
    return sum_lanes(squared_change)


@inline
def _middle_row(
    planes: FloatArray,
    start: int,
    above: int,
    spare: int,
    first: int,
    end: int,
    ahead: int,
    limit: Lanes,
    tau: Lanes,
) -> tuple[Lanes, Lanes, Lanes, Lanes, Lanes]:
    """The primal step of the row at `start` and the dual step of the row at `above`.

    The dual step of a block needs the new flow of the block itself, of its right neighbor and of
    the block below. It runs one block after the primal step of the block below. So neither step
    waits for the other, and the processor can work on both. The caller does the dual step of the
    last block. This function returns the flow for that step: of the block, and of the block below.
    """
    left = start + first - BLOCK if first > 0 else spare
    p11, p21 = load(planes, left + P11), load(planes, left + P21)
    u1_above, u2_above = load(planes, above + first + U1), load(planes, above + first + U2)
    if first > 0:
        # The previous strip left this block, because the flow to its right was missing.
        i = above + first - BLOCK
        u1, u2 = load(planes, i + U1), load(planes, i + U2)
        u1_x, u2_x = right_neighbor(u1, u1_above) - u1, right_neighbor(u2, u2_above) - u2
        u1_y, u2_y = load(planes, left + U1) - u1, load(planes, left + U2) - u2
        _dual_step(planes, i, u1_x, u1_y, u2_x, u2_y, tau)
    u1, u2, p11, p21, squared_change = _primal_step(
        planes, start + first, above + first, p11, p21, limit, broadcast(np.float32(0))
    )
    # The block whose norms are taken, and these norms. First the spare block, which stays 0.
    zero, norm_1 = broadcast(np.float32(0)), broadcast(np.float32(1))
    norm_2 = norm_1
    late, late_1_x, late_1_y, late_2_x, late_2_y = spare, zero, zero, zero, zero
    for block in range(first + BLOCK, end, BLOCK):
        prefetch(planes, ahead + block)
        prefetch(planes, ahead + block + NUM_LANES)
        i = above + block
        next_u1, next_u2 = load(planes, i + U1), load(planes, i + U2)
        u1_x = right_neighbor(u1_above, next_u1) - u1_above
        u2_x = right_neighbor(u2_above, next_u2) - u2_above
        u1_y, u2_y = u1 - u1_above, u2 - u2_above
        if NORMS_AHEAD:
            _move_dual(planes, late, late_1_x, late_1_y, late_2_x, late_2_y, norm_1, norm_2, tau)
            late, late_1_x, late_1_y, late_2_x, late_2_y = i - BLOCK, u1_x, u1_y, u2_x, u2_y
            norm_1, norm_2 = _norms(u1_x, u1_y, u2_x, u2_y)
        else:
            _dual_step(planes, i - BLOCK, u1_x, u1_y, u2_x, u2_y, tau)
        u1_above, u2_above = next_u1, next_u2
        u1, u2, p11, p21, squared_change = _primal_step(
            planes, start + block, i, p11, p21, limit, squared_change
        )
    if NORMS_AHEAD:
        _move_dual(planes, late, late_1_x, late_1_y, late_2_x, late_2_y, norm_1, norm_2, tau)
    return u1_above, u2_above, u1, u2, squared_change


@inline
def _last_row(
    planes: FloatArray, start: int, first: int, end: int, row_end: int, tau: Lanes, inside: Lanes
) -> None:
    """The dual step of the last row; below it, the flow does not change."""
    zero = broadcast(np.float32(0))
    mask = broadcast(np.float32(1))
    for block in range(max(first - BLOCK, 0), end if end == row_end else end - BLOCK, BLOCK):
        i = start + block
        u1, u2 = load(planes, i + U1), load(planes, i + U2)
        next_u1, next_u2 = u1, u2
        if block + BLOCK < row_end:
            next_u1, next_u2 = load(planes, i + BLOCK + U1), load(planes, i + BLOCK + U2)
        else:
            mask = inside
        u1_x = (right_neighbor(u1, next_u1) - u1) * mask
        u2_x = (right_neighbor(u2, next_u2) - u2) * mask
        _dual_step(planes, i, u1_x, zero, u2_x, zero, tau)


@kernel
def iterate(
    planes: FloatArray,
    row_stride: int,
    row_end: int,
    height: int,
    num_iterations: int,
    limit: np.float32,
    tau: np.float32,
    masks: FloatArray,
    errors: FloatArray,
) -> None:
    """Runs iterations of algorithm 1 over the blocks of a level, each one row behind the previous.

    `errors[k]` becomes the sum of the squared changes of iteration k, in the units of the flow.

    Wide levels are cut into strips, so that a row is still in the cache for the next iteration. An
    iteration needs the results of the previous iteration one block to the right. So each
    iteration's strip is one block to the left of the previous iteration's strip:

        iteration 0   |11111111|22222222|333333
        iteration 1   |1111111|22222222|3333333
        iteration 2   |111111|22222222|33333333
    """
    wide_limit, wide_tau = broadcast(limit), broadcast(tau)
    inside = load(masks, INSIDE_GRADIENT)
    spare = height * row_stride
    num_strips = (row_end + MAX_STRIP - 1) // MAX_STRIP
    strip = (row_end // BLOCK + num_strips - 1) // num_strips * BLOCK
    for k in range(num_iterations):
        errors[k] = 0
    # The last block of a row, whose dual step waits for the next row: its place, its flow, and the
    # flow below. If none waits, this is the spare block, whose values stay 0 in a dual step.
    zero = broadcast(np.float32(0))
    waiting, u1_above, u2_above, u1, u2 = spare, zero, zero, zero, zero
    for strip_start in range(0, row_end, strip):
        for front in range(height + num_iterations):
            for k in range(max(0, front - height), min(num_iterations, front + 1)):
                # This block has no right neighbor.
                u1_x = (right_neighbor(u1_above, u1_above) - u1_above) * inside
                u2_x = (right_neighbor(u2_above, u2_above) - u2_above) * inside
                _dual_step(planes, waiting, u1_x, u1 - u1_above, u2_x, u2 - u2_above, wide_tau)
                waiting, u1_above, u2_above, u1, u2 = spare, zero, zero, zero, zero
                first = max(0, strip_start - k * BLOCK)
                end = strip_start + strip - k * BLOCK
                if strip_start + strip >= row_end:
                    end = row_end
                row = front - k
                start = row * row_stride
                above = start - row_stride
                if row == 0:
                    errors[k] += _first_row(planes, spare, first, end, wide_limit)
                elif row == height:
                    _last_row(planes, above, first, end, row_end, wide_tau, inside)
                else:
                    # Prefetches the next row meanwhile, two planes with each iteration.
                    ahead = min(front + 1, height - 1) * row_stride + min(k, 4) * 2 * NUM_LANES
                    u1_above, u2_above, u1, u2, squared_change = _middle_row(
                        planes, start, above, spare, first, end, ahead, wide_limit, wide_tau
                    )
                    errors[k] += sum_lanes(squared_change)
                    waiting = above + end - BLOCK
                    if end < row_end:
                        # The next strip does this block's dual step.
                        waiting, u1_above, u2_above, u1, u2 = spare, zero, zero, zero, zero


@kernel
def linearize(
    planes: FloatArray,
    row_stride: int,
    width: int,
    height: int,
    image: FloatArray,
    packed: FloatArray,
    packed_row_stride: int,
    unit_px: np.float32,
    masks: FloatArray,
    weights: FloatArray,
    starts: IntArray,
) -> None:
    """Linearizes the data term around the flow so far: lines 3 to 5 of algorithm 1.

    Fills the first four planes: the gradient of the warped next frame, -1 / |gradient|^2, and the
    part of rho without the flow. `image` is the first frame, in rows of whole blocks.
    """
    unit = broadcast(unit_px)
    minus_one = broadcast(np.float32(-1))
    zero = broadcast(np.float32(0))
    least = broadcast(np.float32(FLOAT_EPSILON) * unit_px * unit_px)
    num_blocks = (width + NUM_LANES - 1) // NUM_LANES
    for row in range(height):
        y = broadcast(np.float32(row))
        # A separate loop, so that no read waits for the computation of its address.
        for block in range(num_blocks):
            i = row * row_stride + block * BLOCK
            x = broadcast(np.float32(block * NUM_LANES)) + lane_numbers()
            u1, u2 = load(planes, i + U1), load(planes, i + U2)
            # The next row is prefetched while this one is processed.
            ahead = i + row_stride
            prefetch(planes, ahead + U1)
            prefetch(planes, ahead + U2)
            place_taps(
                packed_row_stride,
                width,
                height,
                fma(u1, unit, x),
                fma(u2, unit, y),
                weights,
                starts,
                block,
            )
        for block in range(num_blocks):
            i = row * row_stride + block * BLOCK
            warped, gradient_x, gradient_y = read_taps(
                packed, packed_row_stride, weights, starts, block
            )
            # Padding lanes stay 0 in all planes. Otherwise the error would never decrease.
            mask = load(masks, INSIDE_IMAGE if block == num_blocks - 1 else 0)
            gradient_x, gradient_y = gradient_x * unit * mask, gradient_y * unit * mask
            squared_norm = maximum(fma(gradient_x, gradient_x, gradient_y * gradient_y), least)
            difference = warped - load(image, (row * num_blocks + block) * NUM_LANES)
            moved = fma(gradient_x, load(planes, i + U1), gradient_y * load(planes, i + U2))
            for place in range(row_stride, row_stride + 4 * NUM_LANES, NUM_LANES):
                prefetch(planes, i + place)
            store(planes, i + GRADIENT_X, gradient_x)
            store(planes, i + GRADIENT_Y, gradient_y)
            store(planes, i + THRESHOLD, minus_one / squared_norm)
            store(planes, i + RESIDUAL, fma(difference, mask, zero - moved))


@kernel
def solve_warp(
    planes: FloatArray,
    row_stride: int,
    row_end: int,
    width: int,
    height: int,
    image: FloatArray,
    packed: FloatArray,
    packed_row_stride: int,
    unit_px: np.float32,
    limit: np.float32,
    tau: np.float32,
    median_filtering: int,
    outer_iterations: int,
    stop_error: float,
    max_batch: int,
    is_cached: bool,
    masks: FloatArray,
    weights: FloatArray,
    starts: IntArray,
    median_scratch: FloatArray,
    errors: FloatArray,
) -> int:
    """Does all of a warp, lines 3 to 13 of algorithm 1, and returns its number of iterations.

    Iterations are counted and stopped as in OpenCV (tvl1flow.cpp, procOneScale). Each outer
    iteration begins with a median filter. All end when the error reaches its threshold. There are
    as many inner iterations as `errors` has places.

    This is one kernel, because to call a kernel takes as long as an iteration of a small level.

    Several iterations at once take less time. But if OpenCV would stop within such a batch, the
    rest of the batch is too many. So the next batch is about half of the remaining iterations,
    predicted from the error's decay, and then the prediction is repeated. For planes that do not
    fit into the cache, a pass takes longer than one iteration too many. There, the next batch is
    all remaining iterations.
    """
    linearize(
        planes,
        row_stride,
        width,
        height,
        image,
        packed,
        packed_row_stride,
        unit_px,
        masks,
        weights,
        starts,
    )
    num_iterations = 0
    for _ in range(outer_iterations):
        for plane in (U1, U2):
            if median_filtering == 3:
                median_filter_3(planes, plane, row_stride, BLOCK, width, height, median_scratch)
            elif median_filtering == 5:
                median_filter_5(planes, plane, row_stride, BLOCK, width, height, median_scratch)
        done = 0
        batch = min(max_batch, FIRST_BATCH if is_cached else 2 * FIRST_BATCH)
        while True:
            batch = min(batch, len(errors) - done)
            iterate(planes, row_stride, row_end, height, batch, limit, tau, masks, errors[done:])
            done += batch
            num_iterations += batch
            error = float(errors[done - 1])
            # Written so that NaN, from extreme parameters, also ends the loops.
            if not error > stop_error:
                return num_iterations
            if done == len(errors):
                break
            span = min(DECAY_SPAN, done - 1)
            if span > 0:
                decay = math.log(float(errors[done - 1 - span]) / error) / span
                to_come = math.log(error / stop_error) / max(decay, SLOWEST_DECAY)
                following = 1 + (to_come / 2 if is_cached else to_come)
                batch = int(following) if following < max_batch else max_batch
    return num_iterations


@kernel
def begin_level(
    planes: FloatArray, row_stride: int, flow_1: FloatArray, flow_2: FloatArray, factor: np.float32
) -> None:
    """Sets the flow to `factor` times two images in rows of whole blocks, and all of p to 0."""
    height, width = flow_1.shape
    wide_factor, zero = broadcast(factor), broadcast(np.float32(0))
    for y in range(height):
        i = y * row_stride
        for pixel in range(y * width, (y + 1) * width, NUM_LANES):
            store(planes, i + U1, wide_factor * load(flow_1, pixel))
            store(planes, i + U2, wide_factor * load(flow_2, pixel))
            store(planes, i + P11, zero)
            store(planes, i + P12, zero)
            store(planes, i + P21, zero)
            store(planes, i + P22, zero)
            i += BLOCK


@kernel
def read_flow(
    planes: FloatArray, row_stride: int, flow_1: FloatArray, flow_2: FloatArray, factor: np.float32
) -> None:
    """Writes `factor` times the flow into two images in rows of whole blocks."""
    height, width = flow_1.shape
    wide_factor = broadcast(factor)
    for y in range(height):
        i = y * row_stride
        for pixel in range(y * width, (y + 1) * width, NUM_LANES):
            store(flow_1, pixel, wide_factor * load(planes, i + U1))
            store(flow_2, pixel, wide_factor * load(planes, i + U2))
            i += BLOCK


class FrameLevel:
    """What all pairs of a frame share at one level: its brightness, for both places in a pair."""

    def __init__(self, width: int, height: int) -> None:
        self.image = _aligned_zeros(height * -(-width // NUM_LANES) * NUM_LANES)
        """For the first frame of a pair: flat, in rows of whole blocks."""
        self.packed = np.zeros(packed_shape(width, height), np.float32)
        """For the second frame of a pair: brightness and gradient; see `flowprep.flow.warp`."""

    def set(self, image: FloatArray) -> None:
        """Stores the frame at this level, (H, W) float32."""
        height, width = image.shape
        self.image.reshape(height, -1)[:, :width] = image
        pack_frame(image, self.packed)


class Level:
    """The working memory of one level of the pyramid, and the computation on this level."""

    def __init__(self, width: int, height: int, parameters: TVL1Parameters) -> None:
        self.width, self.height = width, height
        self._parameters = parameters
        # In this unit, tau / theta is 1: |gradient| needs no factor in the dual step's norm.
        self._unit_px = parameters.theta / parameters.tau
        self._limit = np.float32(parameters.lambda_ * parameters.theta / self._unit_px**2)
        self._stop_error = parameters.epsilon**2 * width * height / self._unit_px**2
        num_blocks = -(-width // NUM_LANES)
        # Rows at multiples of a page would compete for the same places in the cache.
        padding = NUM_LANES if num_blocks * BLOCK * 4 % 4096 == 0 else 0
        self._row_stride = num_blocks * BLOCK + padding
        self._row_end = num_blocks * BLOCK
        # The spare block of `iterate` comes after the rows.
        self._planes = _aligned_zeros(height * self._row_stride + BLOCK)
        masks = np.zeros((3, NUM_LANES), np.float32)
        num_inside = width - (num_blocks - 1) * NUM_LANES
        masks[0], masks[1, :num_inside], masks[2, : num_inside - 1] = 1, 1, 1
        self._masks = masks.ravel()
        self._is_cached = self._planes.nbytes < CACHED_BYTES
        self._max_batch = 1 if parameters.stop == "exact" else MAX_BATCH
        self._weights = _aligned_zeros(num_blocks * WEIGHTS_SIZE)
        self._starts = np.zeros(num_blocks * NUM_LANES, np.int32)
        self._median_scratch = _aligned_zeros(median_scratch_size(width))
        self._errors = np.zeros(parameters.inner_iterations, np.float32)
        self._images = np.zeros((2, height, num_blocks * NUM_LANES), np.float32)
        self.num_iterations = [0] * parameters.warps
        """Iterations of each warp of the last pair."""

    def begin(self, coarser: Level | None) -> None:
        """Starts with the flow of the coarser level, or with 0."""
        factor = 1.0
        if coarser is None:
            self._images[:] = 0
        else:
            factor = 1 / self._parameters.scale_step
            for image, coarse_image in zip(self._images, coarser._read(1), strict=True):
                cv2.resize(coarse_image, (self.width, self.height), dst=image[:, : self.width])
        begin_level(self._planes, self._row_stride, *self._images, np.float32(factor))

    def solve(self, prev: FrameLevel, next: FrameLevel) -> None:
        """Computes the flow from `prev` to `next` (IPOL 2013, algorithm 1)."""
        p = self._parameters
        for warp in range(p.warps):
            self.num_iterations[warp] = solve_warp(
                self._planes,
                self._row_stride,
                self._row_end,
                self.width,
                self.height,
                prev.image,
                next.packed.reshape(-1),
                next.packed.shape[1] * 4,
                np.float32(self._unit_px),
                self._limit,
                np.float32(p.tau),
                p.median_filtering,
                p.outer_iterations,
                self._stop_error,
                self._max_batch,
                self._is_cached,
                self._masks,
                self._weights,
                self._starts,
                self._median_scratch,
                self._errors,
            )

    def read_flow(self) -> FloatArray:
        """Returns the flow, (H, W, 2) float32: u right and v down, in px."""
        return np.stack(self._read(self._unit_px), axis=-1)

    def _read(self, factor: float) -> list[FloatArray]:
        """Returns `factor` times the flow as two images, (H, W), valid until the next call."""
        read_flow(self._planes, self._row_stride, *self._images, np.float32(factor))
        return [image[:, : self.width] for image in self._images]


def _aligned_zeros(size: int) -> FloatArray:
    """Returns `size` zeros that start at a cache line, so that no vector crosses a cache line."""
    line = 64 // 4
    memory = np.zeros(size + line, np.float32)
    start = -(memory.ctypes.data // 4) % line
    return memory[start : start + size]
