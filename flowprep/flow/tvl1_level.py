"""One level of native TV-L1: its memory, and the kernels that work on it.

The algorithm is that of Zach, Pock and Bischof (DAGM 2007) in the form of Sanchez, Meinhardt-Llopis
and Facciolo (IPOL 2013, doi 10.5201/ipol.2013.26; "algorithm 1" below is theirs), with OpenCV's
additions (opencv_contrib, modules/optflow/src/tvl1flow.cpp): a median filter of the flow, and a
stop by the change that an iteration makes.

The work is arranged for one core and its caches:

- All that an iteration needs of 16 neighboring pixels lies in one block of 10 x 16 numbers, so
  that one address reaches it. A plane is one of the ten.
- An iteration is one pass over the image: the flow of row r, then the dual variables of row r - 1.
  Several iterations run at once, each one row behind the one before it, so that a row is updated as
  often as possible while it is in the cache. The error that decides when to stop comes with it.
- Flow is measured in units of theta/tau px, so that the dual step has no factor inside its norm.
- The warp reads the next frame and its gradient from one array of four numbers a pixel.
- The data term needs 1 / |gradient|^2, not the gradient's square; the threshold is then a clamp.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
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

# Where the planes of a block lie in it.
GRADIENT_X, GRADIENT_Y, THRESHOLD, RESIDUAL, U1, U2, P11, P12, P21, P22 = range(0, 160, NUM_LANES)
BLOCK = 10 * NUM_LANES

# Three masks of one vector each: all lanes, those inside the image, those that have a right
# neighbor inside it; the latter two for the last block of a row.
INSIDE_IMAGE, INSIDE_GRADIENT = NUM_LANES, 2 * NUM_LANES

FIRST_BATCH = 3
"""Iterations after which the decay of the error is looked at."""
DECAY_SPAN = 3
"""Iterations over which the decay of the error is measured: it swings with this period."""
SLOWEST_DECAY = 0.005
"""The least decay of the error's logarithm in an iteration that a prediction takes."""
MAX_BATCH = 12
"""Iterations of a batch; beyond it nothing is gained."""
CACHED_BYTES = 16 * 2**20
"""Planes up to this size mostly stay in the third-level cache from one batch to the next."""
MAX_STRIP = 24 * BLOCK
"""Longest part of a row, in numbers, that is worked on at a time. Two of them are read together and
fit into the first-level cache (32 to 48 KiB); as many as a batch has iterations fit into the
second. Strips have at least `MAX_BATCH` + 1 blocks."""

FLOAT_EPSILON = 1.1920929e-07
"""The least squared gradient that counts (tvl1flow.cpp, EstimateVBody: FLT_EPSILON)."""


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

    `above` is the block above it. Equations 12 (thresholding) and 11 of algorithm 1. Returns the
    new flow, the p11 and p21 that the next block needs, and the sum of squared changes.
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
def _dual_step(
    planes: FloatArray, i: int, u1_x: Lanes, u1_y: Lanes, u2_x: Lanes, u2_y: Lanes, tau: Lanes
) -> None:
    """Moves p of the block at `i` along the gradient of the flow; equation 14 of algorithm 1."""
    one = broadcast(np.float32(1))
    shrinkage_1 = one / (one + sqrt(fma(u1_x, u1_x, u1_y * u1_y)))
    shrinkage_2 = one / (one + sqrt(fma(u2_x, u2_x, u2_y * u2_y)))
    store(planes, i + P11, fma(tau, u1_x, load(planes, i + P11)) * shrinkage_1)
    store(planes, i + P12, fma(tau, u1_y, load(planes, i + P12)) * shrinkage_1)
    store(planes, i + P21, fma(tau, u2_x, load(planes, i + P21)) * shrinkage_2)
    store(planes, i + P22, fma(tau, u2_y, load(planes, i + P22)) * shrinkage_2)


@inline
def _first_row(planes: FloatArray, spare: int, first: int, end: int, limit: Lanes) -> Any:
    """The primal step of row 0, from place `first` to `end`; above and left of it is `spare`."""
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
    the one below. It comes one block after the primal step of the block below: so neither waits for
    the other, and the processor has both to work on. The last block's is left to the caller, and
    the flow that it takes is returned: of the block, and of that below it.
    """
    left = start + first - BLOCK if first > 0 else spare
    p11, p21 = load(planes, left + P11), load(planes, left + P21)
    u1_above, u2_above = load(planes, above + first + U1), load(planes, above + first + U2)
    if first > 0:
        # The strip before has left this block, because it had no flow to its right.
        i = above + first - BLOCK
        u1, u2 = load(planes, i + U1), load(planes, i + U2)
        u1_x, u2_x = right_neighbor(u1, u1_above) - u1, right_neighbor(u2, u2_above) - u2
        u1_y, u2_y = load(planes, left + U1) - u1, load(planes, left + U2) - u2
        _dual_step(planes, i, u1_x, u1_y, u2_x, u2_y, tau)
    u1, u2, p11, p21, squared_change = _primal_step(
        planes, start + first, above + first, p11, p21, limit, broadcast(np.float32(0))
    )
    for block in range(first + BLOCK, end, BLOCK):
        prefetch(planes, ahead + block)
        prefetch(planes, ahead + block + NUM_LANES)
        i = above + block
        next_u1, next_u2 = load(planes, i + U1), load(planes, i + U2)
        u1_x = right_neighbor(u1_above, next_u1) - u1_above
        u2_x = right_neighbor(u2_above, next_u2) - u2_above
        _dual_step(planes, i - BLOCK, u1_x, u1 - u1_above, u2_x, u2 - u2_above, tau)
        u1_above, u2_above = next_u1, next_u2
        u1, u2, p11, p21, squared_change = _primal_step(
            planes, start + block, i, p11, p21, limit, squared_change
        )
    return u1_above, u2_above, u1, u2, squared_change


@inline
def _last_row(
    planes: FloatArray, start: int, first: int, end: int, row_end: int, tau: Lanes, inside: Lanes
) -> None:
    """The dual step of the last row, below which the flow does not change."""
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
    """Runs iterations of algorithm 1 over the blocks of a level, each one row behind the other.

    `errors[k]` becomes the sum of the squared changes of iteration k, in the units of the flow.

    Wide levels are cut into strips, so that a row is still near when the next iteration comes to
    it. An iteration needs what the one before it did one block to the right; so the strip of each
    lies one block to the left of that of the one before:

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
    # The last block of a row, whose dual step waits for the next row: its place and flow, and the
    # flow below it. Where none waits it is the spare one, and what is done to it leaves it at 0.
    zero = broadcast(np.float32(0))
    waiting, u1_above, u2_above, u1, u2 = spare, zero, zero, zero, zero
    for strip_start in range(0, row_end, strip):
        for front in range(height + num_iterations):
            for k in range(max(0, front - height), min(num_iterations, front + 1)):
                # It has no right neighbor.
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
                    # Meanwhile the next row comes from memory, two planes with each iteration.
                    ahead = min(front + 1, height - 1) * row_stride + min(k, 4) * 2 * NUM_LANES
                    u1_above, u2_above, u1, u2, squared_change = _middle_row(
                        planes, start, above, spare, first, end, ahead, wide_limit, wide_tau
                    )
                    errors[k] += sum_lanes(squared_change)
                    waiting = above + end - BLOCK
                    if end < row_end:
                        # The next strip does it.
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

    Fills the first four planes: the gradient of the warped next frame, -1 / |gradient|^2, and what
    is left of rho without its term in the flow. `image` is the first frame, rows of whole blocks.
    """
    unit = broadcast(unit_px)
    minus_one = broadcast(np.float32(-1))
    zero = broadcast(np.float32(0))
    least = broadcast(np.float32(FLOAT_EPSILON) * unit_px * unit_px)
    num_blocks = (width + NUM_LANES - 1) // NUM_LANES
    for row in range(height):
        y = broadcast(np.float32(row))
        # Apart from the reading, so that no read has to wait for its place to be worked out.
        for block in range(num_blocks):
            i = row * row_stride + block * BLOCK
            x = broadcast(np.float32(block * NUM_LANES)) + lane_numbers()
            u1, u2 = load(planes, i + U1), load(planes, i + U2)
            # The next row comes from memory while this one is worked on.
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
            # Pad lanes stay 0 in all planes, or the error would never go down.
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
    """What all pairs of a frame share at one level: its brightness, for either place in a pair."""

    def __init__(self, width: int, height: int) -> None:
        self.image = _aligned_zeros(height * -(-width // NUM_LANES) * NUM_LANES)
        """As the first frame: flat, in rows of whole blocks."""
        self.packed = np.zeros(packed_shape(width, height), np.float32)
        """As the second frame: brightness and gradient; see `flowprep.flow.warp`."""

    def set(self, image: FloatArray) -> None:
        """Takes over the frame at this level, (H, W) float32."""
        height, width = image.shape
        self.image.reshape(height, -1)[:, :width] = image
        pack_frame(image, self.packed)


class Level:
    """The working memory of one level of the pyramid, and what is done there."""

    def __init__(self, width: int, height: int, parameters: TVL1Parameters) -> None:
        self.width, self.height = width, height
        self._parameters = parameters
        # In this unit tau / theta is 1: |gradient| needs no factor in the dual step's norm.
        self._unit_px = parameters.theta / parameters.tau
        self._limit = np.float32(parameters.lambda_ * parameters.theta / self._unit_px**2)
        self._stop_error = parameters.epsilon**2 * width * height / self._unit_px**2
        num_blocks = -(-width // NUM_LANES)
        # Rows a multiple of a page apart would all want the same places in the cache.
        padding = NUM_LANES if num_blocks * BLOCK * 4 % 4096 == 0 else 0
        self._row_stride = num_blocks * BLOCK + padding
        self._row_end = num_blocks * BLOCK
        # Behind the rows lies the spare block of `iterate`.
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
        """Takes the flow of the coarser level, or 0, to begin with."""
        factor = 1.0
        if coarser is None:
            self._images[:] = 0
        else:
            factor = 1 / self._parameters.scale_step
            for image, coarse_image in zip(self._images, coarser._read(1), strict=True):
                cv2.resize(coarse_image, (self.width, self.height), dst=image[:, : self.width])
        begin_level(self._planes, self._row_stride, *self._images, np.float32(factor))

    def solve(self, prev: FrameLevel, next: FrameLevel) -> None:
        """Brings the flow to that from `prev` to `next` (IPOL 2013, algorithm 1).

        Iterations are counted and stopped as OpenCV does (tvl1flow.cpp, procOneScale): the outer
        ones each begin with a median filter, and all end where the error reaches its threshold.
        """
        p = self._parameters
        for warp in range(p.warps):
            linearize(
                self._planes,
                self._row_stride,
                self.width,
                self.height,
                prev.image,
                next.packed.ravel(),
                next.packed.shape[1] * 4,
                np.float32(self._unit_px),
                self._masks,
                self._weights,
                self._starts,
            )
            error = math.inf
            self.num_iterations[warp] = 0
            for _ in range(p.outer_iterations):
                if not error > self._stop_error:
                    break
                self._filter_flow()
                error = self._iterate(warp)

    def read_flow(self) -> FloatArray:
        """Returns the flow, (H, W, 2) float32: u right and v down, in px."""
        return np.stack(self._read(self._unit_px), axis=-1)

    def _filter_flow(self) -> None:
        if self._parameters.median_filtering == 1:
            return
        median_filter = {3: median_filter_3, 5: median_filter_5}[self._parameters.median_filtering]
        for plane in (U1, U2):
            median_filter(
                self._planes,
                plane,
                self._row_stride,
                BLOCK,
                self.width,
                self.height,
                self._median_scratch,
            )

    def _iterate(self, warp: int) -> float:
        """Runs inner iterations until the error is small enough, and returns it.

        Several at once take less time, but where OpenCV would stop among them they are too many.
        So about half of those that are still to come, by the error's decay, are the next batch, and
        the prediction is made again after it. Planes that do not fit into the cache take longer to
        pass over than an iteration too many: there all of them are the next batch.
        """
        errors = self._errors
        done = 0
        batch = min(self._max_batch, FIRST_BATCH if self._is_cached else 2 * FIRST_BATCH)
        while True:
            batch = min(batch, len(errors) - done)
            iterate(
                self._planes,
                self._row_stride,
                self._row_end,
                self.height,
                batch,
                self._limit,
                np.float32(self._parameters.tau),
                self._masks,
                errors[done:],
            )
            done += batch
            self.num_iterations[warp] += batch
            error = float(errors[done - 1])
            # So turned round that NaN, which outlandish parameters give, ends it too.
            if not error > self._stop_error or done == len(errors):
                return error
            span = min(DECAY_SPAN, done - 1)
            if span > 0:
                decay = math.log(float(errors[done - 1 - span]) / error) / span
                to_come = math.log(error / self._stop_error) / max(decay, SLOWEST_DECAY)
                batch = int(min(self._max_batch, 1 + (to_come / 2 if self._is_cached else to_come)))

    def _read(self, factor: float) -> list[FloatArray]:
        """Returns `factor` times the flow as two images, (H, W), valid until the next call."""
        read_flow(self._planes, self._row_stride, *self._images, np.float32(factor))
        return [image[:, : self.width] for image in self._images]


def _aligned_zeros(size: int) -> FloatArray:
    """Returns `size` zeros that start at a cache line, so that no vector lies in two."""
    line = 64 // 4
    memory = np.zeros(size + line, np.float32)
    start = -(memory.ctypes.data // 4) % line
    return memory[start : start + size]
