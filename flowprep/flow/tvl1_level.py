"""One level of native TV-L1: its memory, and the kernels that work on it.

The algorithm is that of Zach, Pock and Bischof (DAGM 2007) in the form of Sanchez, Meinhardt-Llopis
and Facciolo (IPOL 2013, doi 10.5201/ipol.2013.26; "algorithm 1" below is theirs), with OpenCV's
additions (opencv_contrib, modules/optflow/src/tvl1flow.cpp): a median filter of the flow, and a
stop by the change that an iteration makes.

The work is arranged for one core and its caches:

- All that an iteration needs of 16 neighbouring pixels lies in one block of 10 x 16 numbers, so
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
# neighbour inside it; the latter two for the last block of a row.
INSIDE_IMAGE, INSIDE_GRADIENT = NUM_LANES, 2 * NUM_LANES

FIRST_BATCH = 3
"""Iterations after which the decay of the error is looked at."""
DECAY_SPAN = 3
"""Iterations over which the decay of the error is measured: it swings with this period."""
SLOWEST_DECAY = 0.005
"""The least decay of the error's logarithm in an iteration that a prediction takes."""
MAX_BATCH = 12
"""Iterations of a batch; beyond it nothing is gained."""
BATCH_CACHE_BYTES = 768 * 1024
"""Of the rows that a batch works on at a time: less than a second-level cache (1 to 2 MiB)."""

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
def _first_row(planes: FloatArray, spare: int, last: int, limit: Lanes) -> Any:
    """The primal step of row 0; `spare` is a block of 0, as p12 and p22 are above it."""
    zero = broadcast(np.float32(0))
    squared_change, p11, p21 = zero, zero, zero
    for i in range(0, last + 1, BLOCK):
        _, _, p11, p21, squared_change = _primal_step(
            planes, i, spare, p11, p21, limit, squared_change
        )
    return sum_lanes(squared_change)


@inline
def _last_row(planes: FloatArray, start: int, last: int, tau: Lanes, inside: Lanes) -> None:
    """The dual step of the last row, below which the flow does not change."""
    zero = broadcast(np.float32(0))
    mask = broadcast(np.float32(1))
    for i in range(start, start + last + 1, BLOCK):
        u1, u2 = load(planes, i + U1), load(planes, i + U2)
        next_u1, next_u2 = u1, u2
        if i < start + last:
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
    last: int,
    height: int,
    num_iterations: int,
    limit: np.float32,
    tau: np.float32,
    masks: FloatArray,
    errors: FloatArray,
) -> None:
    """Runs iterations of algorithm 1 over the blocks of a level, each one row behind the other.

    `errors[k]` becomes the sum of the squared changes of iteration k, in the units of the flow.

    The dual step of a block needs the new flow of the block itself, of its right neighbour and of
    the one below. It comes one block after the primal step of the block below ("pending"), also
    from row to row: so neither step waits for the other, and the processor has both to work on.
    """
    wide_limit, wide_tau = broadcast(limit), broadcast(tau)
    inside = load(masks, INSIDE_GRADIENT)
    zero = broadcast(np.float32(0))
    spare = height * row_stride
    for k in range(num_iterations):
        errors[k] = 0
    pending = spare
    # The flow of the pending block and of the block below it.
    u1_above, u2_above, u1, u2 = zero, zero, zero, zero
    for front in range(height + num_iterations):
        for k in range(max(0, front - height), min(num_iterations, front + 1)):
            row = front - k
            start = row * row_stride
            above = start - row_stride
            # The last block of the row before, which has no right neighbour.
            u1_x = (right_neighbor(u1_above, u1_above) - u1_above) * inside
            u2_x = (right_neighbor(u2_above, u2_above) - u2_above) * inside
            _dual_step(planes, pending, u1_x, u1 - u1_above, u2_x, u2 - u2_above, wide_tau)
            if row == 0 or row == height:
                # None is pending. What is done to the spare block leaves it at 0.
                pending = spare
                u1_above, u2_above, u1, u2 = zero, zero, zero, zero
                if row == 0:
                    errors[k] += _first_row(planes, spare, last, wide_limit)
                else:
                    _last_row(planes, above, last, wide_tau, inside)
                continue
            pending = above
            u1_above, u2_above = load(planes, above + U1), load(planes, above + U2)
            u1, u2, p11, p21, squared_change = _primal_step(
                planes, start, above, zero, zero, wide_limit, zero
            )
            for block in range(BLOCK, last + 1, BLOCK):
                next_u1 = load(planes, above + block + U1)
                next_u2 = load(planes, above + block + U2)
                u1_x = right_neighbor(u1_above, next_u1) - u1_above
                u2_x = right_neighbor(u2_above, next_u2) - u2_above
                _dual_step(planes, pending, u1_x, u1 - u1_above, u2_x, u2 - u2_above, wide_tau)
                pending = above + block
                u1_above, u2_above = next_u1, next_u2
                u1, u2, p11, p21, squared_change = _primal_step(
                    planes, start + block, pending, p11, p21, wide_limit, squared_change
                )
            errors[k] += sum_lanes(squared_change)


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
        row_bytes = num_blocks * BLOCK * 4
        # Rows a multiple of a page apart would all want the same places in the cache.
        padding = NUM_LANES if row_bytes % 4096 == 0 else 0
        self._row_stride = num_blocks * BLOCK + padding
        self._last = (num_blocks - 1) * BLOCK
        # Behind the rows lies the spare block of `iterate`.
        self._planes = _aligned_zeros(height * self._row_stride + BLOCK)
        masks = np.zeros((3, NUM_LANES), np.float32)
        num_inside = width - (num_blocks - 1) * NUM_LANES
        masks[0], masks[1, :num_inside], masks[2, : num_inside - 1] = 1, 1, 1
        self._masks = masks.ravel()
        batch = max(1, min(MAX_BATCH, BATCH_CACHE_BYTES // row_bytes - 1))
        self._max_batch = 1 if parameters.stop == "exact" else batch
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
        the prediction is made again after it.
        """
        errors = self._errors
        done = 0
        batch = min(FIRST_BATCH, self._max_batch)
        while True:
            batch = min(batch, len(errors) - done)
            iterate(
                self._planes,
                self._row_stride,
                self._last,
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
                batch = int(min(self._max_batch, 1 + to_come / 2))

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
