"""One level of native Farneback: its memory, and its kernels.

Gunnar Farneback, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003, with the
choices of OpenCV's modules/video/src/optflowgf.cpp. Each frame is approximated around every pixel
by a quadratic polynomial f(x) = x'Ax + b'x + c. If the scene moves by d, the second frame's b is
the first frame's b minus 2Ad. This equation is averaged over a window and solved for d, coarse to
fine.

In the averages, neighbors in a row depend on each other, so a vector must not hold neighbors. A row
is cut into 16 strips of equal width, and lane i of vector t is column t of strip i. A window then
slides along all strips at once, by additions of whole vectors. Numbers cross lanes only at the
strips' ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.flow.kernel import inline, kernel
from flowprep.flow.parameters import FarnebackParameters
from flowprep.flow.simd import (
    NUM_LANES,
    Lanes,
    broadcast,
    broadcast_int,
    copy,
    difference_each,
    floor,
    fma,
    fma_each,
    lane_numbers,
    left_neighbor,
    load,
    load_broadcast,
    load_mixed,
    load_series,
    maximum,
    minimum,
    right_neighbor,
    store,
    store_half_square,
    store_int,
    store_series,
    sum_each,
    to_int,
    transpose,
    where_less,
)

__all__ = [
    "Expansion",
    "Frame",
    "Pyramid",
    "averaging_window",
    "border_trust",
    "estimate",
    "expand",
    "expansion_filters",
    "level_scales",
    "smoothing",
]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32 | np.int64]

# Numbers per pixel in each array. A vector of pixels has as many vectors.
_FLOW = 2  # u, v
_EXPANSION = 5  # b_y, b_x, A_yy, A_xx, 2 A_xy
_NORMAL = 5  # G_yy, G_xy, G_xx, h_y, h_x
_PIXEL = 8
"""Numbers per pixel in a packed expansion: its five, and three so that two pixels fill a line."""
_FILTERS = 3  # smooth, slope, curvature
_FLOW_BLOCK = _FLOW * NUM_LANES
_EXPANSION_BLOCK = _EXPANSION * NUM_LANES
_NORMAL_BLOCK = _NORMAL * NUM_LANES
_FILTERED_BLOCK = _FILTERS * NUM_LANES
_TARGET_BLOCK = 3 * NUM_LANES  # fractions of x and y, squared distance to the frame

MIN_SIDE_PX = 32
"""Smallest side of a pyramid level other than the full image (calc: min_size)."""
_BORDER = np.array([0.14, 0.14, 0.4472, 0.4472, 0.4472], np.float32)
"""Weight of the outermost five pixels, which lack neighbors (FarnebackUpdateMatrices: border)."""
REGULARIZATION = np.float32(1e-3)
"""Added to the determinant so that blank regions stay still (FarnebackUpdateFlow_Blur)."""
PRECISION = np.finfo(np.float32).eps
"""Share of the determinant that is rounding noise if all edges are parallel. The same share is
added to it, so that the flow along the edges stays modest. OpenCV solves in double instead."""
_WAVE = 4
"""Iterations that pass over a large image together, one behind the other."""
_CACHE_BYTES = 6_000_000
"""Up to this size, both frames' expansions stay in the cache from one iteration to the next."""
_REFRESH_ROWS = 64
"""Rows after which a running sum is computed afresh, before its rounding errors add up."""


class Pyramid:
    """The levels for frames of one size, the full image first, and the memory to compute them."""

    def __init__(self, shape: tuple[int, ...], parameters: FarnebackParameters) -> None:
        height, width = shape
        scales = level_scales(height, width, parameters)
        self.levels = [_Level(height, width, scale, parameters) for scale in scales]
        self.full = np.empty((height, width), np.float32)
        self.smooth = np.empty((height, width), np.float32)

    def new_frame(self) -> Frame:
        """Returns memory for the expansions of a frame."""
        return [Expansion(level) for level in self.levels]


class _Level:
    """One level of the pyramid: its size, what depends on the size, and the kernels' memory."""

    def __init__(
        self, height: int, width: int, scale: float, parameters: FarnebackParameters
    ) -> None:
        self.height, self.width = round(height * scale), round(width * scale)
        self.smoothing_side_px, self.smoothing_sigma_px = smoothing(scale)
        strip = -(-self.width // NUM_LANES)
        # Strips at a distance of a power of two would compete for the same places in the cache.
        strip += strip % 32 == 0
        self.strip = strip
        self.row_trust = border_trust(self.height)
        columns = np.zeros(NUM_LANES * strip, np.float32)
        columns[: self.width] = border_trust(self.width)
        self.column_trust = columns.reshape(NUM_LANES, strip).T.reshape(-1)

        self.image = np.empty((self.height, self.width), np.float32)
        self.flow = np.empty((self.height, self.width, _FLOW), np.float32)
        # One row of the image or of the flow.
        self.line = _aligned((_FLOW * strip + 1) * NUM_LANES)
        # Both in strips. Squares of 16 vectors may reach beyond the last row.
        self.image_strips = _aligned((self.height * strip + NUM_LANES) * NUM_LANES)
        self.displacement = _aligned((self.height * strip * _FLOW + NUM_LANES) * NUM_LANES)
        # One row, plus the columns beyond its ends that the expansion's filters reach.
        self.filtered = _aligned((strip + 2 * parameters.poly_n) * _FILTERED_BLOCK)
        # For each iteration of a wave: the rows of normal equations in the window, the row that the
        # window just left, and the averages of a row with the columns beyond its ends.
        reach = parameters.winsize // 2
        num_pixels = self.height * strip * NUM_LANES
        in_cache = num_pixels * (_EXPANSION + _PIXEL) * 4 <= _CACHE_BYTES
        wave = 1 if in_cache else _WAVE
        ring_size, row_size = (2 * reach + 2) * strip, strip + 2 * reach
        self.rings = _aligned(wave * ring_size * _NORMAL_BLOCK).reshape(wave, -1)
        self.averages = _aligned(wave * row_size * _NORMAL_BLOCK).reshape(wave, -1)
        # Where the columns of the window start in that row, and its rows in the ring.
        self.column_starts = np.arange(2 * reach + 1) * _NORMAL_BLOCK
        self.row_starts = np.empty_like(self.column_starts)
        # The places to which a row's displacements point.
        self.positions = np.empty(strip * NUM_LANES, np.int32)
        self.targets = _aligned(strip * _TARGET_BLOCK)


class Expansion:
    """The polynomials of one frame at one level, in the two layouts that a pair reads."""

    def __init__(self, level: _Level) -> None:
        num_vectors = level.height * level.strip
        self.own = _aligned(num_vectors * _EXPANSION_BLOCK)
        """Axes: row, vector t of the strips, coefficient, lane."""
        self.packed = _aligned(num_vectors * NUM_LANES * _PIXEL)
        """Axes: row, column, coefficient. All numbers of a displaced position are together."""


Frame = list[Expansion]


def level_scales(height: int, width: int, parameters: FarnebackParameters) -> list[float]:
    """Returns the scale of each level relative to the full image, which comes first.

    `levels` counts the levels above the full image (FarnebackOpticalFlowImpl::calc).
    """
    scales = [1.0]
    for _ in range(parameters.levels):
        scale = scales[-1] * parameters.pyr_scale
        if min(height, width) * scale < MIN_SIDE_PX:
            break
        scales.append(scale)
    return scales


def smoothing(scale: float) -> tuple[int, float]:
    """Returns side and sigma, px, of the Gaussian that smooths the full image for a level.

    For sigma 0, OpenCV uses the default sigma of that side (FarnebackOpticalFlowImpl::calc).
    """
    sigma_px = (1 / scale - 1) / 2
    return max(round(5 * sigma_px) | 1, 3), sigma_px


def expansion_filters(poly_n: int, sigma: float) -> FloatArray:
    """Returns the taps 0 ... n of the polynomial expansion's three filters, one after another.

    The filters smooth, differentiate once (odd) and differentiate twice (even). The weights of the
    neighborhood are a product of Gaussians. With these weights, 1, x, y, x^2 - m, y^2 - m and xy
    are orthogonal (m is the variance of the sampled Gaussian), so each coefficient is one separable
    filter. OpenCV does not subtract m. There, the same appears in the inverse of G
    (FarnebackPrepareGaussian).
    """
    x = np.arange(-poly_n, poly_n + 1)
    if sigma < np.finfo(np.float32).eps:
        sigma = 0.3 * poly_n
    gaussian = np.exp(-(x**2) / (2 * sigma**2))
    gaussian /= gaussian.sum()
    variance, fourth = (gaussian * x**2).sum(), (gaussian * x**4).sum()
    filters = np.zeros((_FILTERS, x.size))
    filters[0] = gaussian
    # If OpenCV cannot invert G, it uses 0 as the inverse: nothing moves.
    if variance**2 >= np.finfo(np.float64).eps:
        filters[1] = gaussian * x / variance
        filters[2] = gaussian * (x**2 - variance) / (fourth - variance**2)
    return np.ascontiguousarray(filters[:, poly_n:].reshape(-1), np.float32)


def averaging_window(winsize: int, gaussian: bool) -> FloatArray:
    """Returns the weights of a row's pixels at distance 0 ... winsize // 2, float32.

    An even box is as wide as the next odd box but is divided by its own side, as in OpenCV
    (FarnebackUpdateFlow_Blur and FarnebackUpdateFlow_GaussianBlur). A box of side 1 is only the
    pixel itself. By an oversight, OpenCV also includes the first row and column of the image.
    """
    reach = winsize // 2
    if not gaussian or reach == 0:
        return np.full(reach + 1, 1 / winsize, np.float32)
    weights = np.exp(-((np.arange(reach + 1) / (0.3 * reach)) ** 2) / 2)
    return np.asarray(weights / (2 * weights.sum() - 1), np.float32)


def border_trust(size: int) -> FloatArray:
    """Returns the weight of each row or column of pixels by its position, (size,) float32."""
    trust = np.ones(size, np.float32)
    trust[: _BORDER.size] *= _BORDER[:size]
    trust[::-1][: _BORDER.size] *= _BORDER[:size]
    return trust


def _aligned(size: int) -> FloatArray:
    """Returns an uninitialized array that starts at a cache line."""
    room = np.empty(size + NUM_LANES, np.float32)
    start = -room.ctypes.data // room.itemsize % NUM_LANES
    return room[start : start + size]


@kernel
def expand(
    image: FloatArray,
    filters: FloatArray,
    own: FloatArray,
    packed: FloatArray,
    height: int,
    width: int,
    line: FloatArray,
    image_strips: FloatArray,
    row: FloatArray,
) -> None:
    """Computes the polynomial expansion of an image (FarnebackPolyExp), with replicated borders."""
    strip = own.size // (height * _EXPANSION_BLOCK)
    reach = filters.size // _FILTERS - 1
    for y in range(height):
        _cut_row(image, y, width, height, line, image_strips, strip)
    zero = broadcast(np.float32(0))
    unused = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    for y in range(height):
        for t in range(strip):
            place = (reach + t) * _FILTERED_BLOCK
            filtered = _filter_down(
                image_strips, filters, t * NUM_LANES, strip * NUM_LANES, y, height
            )
            store_series(row, place, NUM_LANES, filtered)
        _extend_row(row, strip, reach)
        for t in range(strip):
            polynomial = _filter_across(row, filters, (reach + t) * _FILTERED_BLOCK)
            store_series(own, (y * strip + t) * _EXPANSION_BLOCK, NUM_LANES, polynomial)
            pixels = transpose(polynomial + unused)
            store_half_square(packed, (y * strip * NUM_LANES + t) * _PIXEL, strip * _PIXEL, pixels)


@inline
def _filter_down(
    image_strips: FloatArray, filters: FloatArray, column: int, stride: int, y: int, height: int
) -> tuple[Lanes, Lanes, Lanes]:
    """Returns row `y` smoothed, differentiated once and differentiated twice along y."""
    center = load(image_strips, y * stride + column)
    smooth = load_broadcast(filters, 0) * center
    slope = broadcast(np.float32(0))
    curvature = slope
    taps = filters.size // _FILTERS
    for k in range(1, taps):
        above = load(image_strips, max(y - k, 0) * stride + column)
        below = load(image_strips, min(y + k, height - 1) * stride + column)
        both = above + below
        smooth = fma(load_broadcast(filters, k), both, smooth)
        slope = fma(load_broadcast(filters, taps + k), below - above, slope)
        # The taps of this filter sum to 0. In this form, a blank image gives exactly 0.
        curvature = fma(load_broadcast(filters, 2 * taps + k), both - (center + center), curvature)
    return smooth, slope, curvature


@inline
def _filter_across(
    row: FloatArray, filters: FloatArray, place: int
) -> tuple[Lanes, Lanes, Lanes, Lanes, Lanes]:
    """Returns the polynomial at a vector of a row filtered along y: b_y, b_x, A_yy, A_xx, 2 A_xy.

    b_x is smoothed along y and differentiated along x. 2 A_xy is differentiated along both.
    """
    center, center_slope, center_curvature = load_series(row, place, NUM_LANES, _FILTERS)
    smooth = load_broadcast(filters, 0)
    b_y = smooth * center_slope
    a_yy = smooth * center_curvature
    b_x = broadcast(np.float32(0))
    a_xx, a_xy = b_x, b_x
    taps = filters.size // _FILTERS
    for k in range(1, taps):
        left, right = place - k * _FILTERED_BLOCK, place + k * _FILTERED_BLOCK
        smooth = load_broadcast(filters, k)
        slope = load_broadcast(filters, taps + k)
        curvature = load_broadcast(filters, 2 * taps + k)
        before = load_series(row, left, NUM_LANES, _FILTERS)
        after = load_series(row, right, NUM_LANES, _FILTERS)
        both_smooth, both_slopes, both_curvatures = sum_each(before, after)
        b_y = fma(smooth, both_slopes, b_y)
        b_x = fma(slope, after[0] - before[0], b_x)
        a_yy = fma(smooth, both_curvatures, a_yy)
        a_xx = fma(curvature, both_smooth - (center + center), a_xx)
        a_xy = fma(slope, after[1] - before[1], a_xy)
    return b_y, b_x, a_yy, a_xx, a_xy


@kernel
def estimate(
    own: FloatArray,
    packed: FloatArray,
    flow: FloatArray,
    window: FloatArray,
    is_box: bool,
    iterations: int,
    width: int,
    row_trust: FloatArray,
    column_trust: FloatArray,
    line: FloatArray,
    displacement: FloatArray,
    rings: FloatArray,
    rows: FloatArray,
    column_starts: IntArray,
    row_starts: IntArray,
    positions: IntArray,
    targets: FloatArray,
) -> None:
    """Refines the flow from one frame to another at one level, in place.

    This is "Estimation Over a Neighborhood" in the paper. Each iteration uses the flow so far as
    the a priori displacement.
    """
    height, strip, reach = row_trust.size, column_trust.size // NUM_LANES, window.size - 1
    for y in range(height):
        _cut_row(flow, y, width, height, line, displacement, strip)
    # An iteration at row y needs the previous iteration at row y + reach. So all iterations pass
    # over the image together, one behind the other, and find in the cache what the first one read.
    for first in range(0, iterations, rings.shape[0]):
        wave = min(iterations - first, rings.shape[0])
        for step in range(-reach, height + (wave - 1) * reach):
            for number in range(wave):
                y = step - number * reach
                if y < -reach or y >= height:
                    continue
                ring, row = rings[number], rows[number]
                if y + reach < height:
                    _set_normal_equations(
                        own,
                        packed,
                        displacement,
                        ring,
                        y + reach,
                        row_trust,
                        column_trust,
                        width,
                        positions,
                        targets,
                    )
                if y < 0:
                    continue
                if is_box and y % _REFRESH_ROWS != 0:
                    _slide_down(ring, window, row, y, height, strip)
                else:
                    _average_down(ring, row_starts, window, row, y, height, strip)
                _replicate_last_column(row, strip, reach, width)
                _extend_row(row, strip, reach)
                place = y * strip * _FLOW_BLOCK
                _solve_row(row, column_starts, window, is_box, displacement, place, strip)
    for y in range(height):
        _join_row(displacement, y, width, height, line, flow, strip)


@inline
def _set_normal_equations(
    own: FloatArray,
    packed: FloatArray,
    displacement: FloatArray,
    ring: FloatArray,
    y: int,
    row_trust: FloatArray,
    column_trust: FloatArray,
    width: int,
    positions: IntArray,
    targets: FloatArray,
) -> None:
    """Writes G = A'A and h = A'(A d + db / 2) of row `y`, for its displacements d, into the ring.

    A is the mean of both frames' A. db is the first frame's b minus the second frame's b, which is
    sampled bilinearly at the place to which d points. If that place is outside, the second frame
    counts as b = 0 with the first frame's A (FarnebackUpdateMatrices).
    """
    height, strip = row_trust.size, column_trust.size // NUM_LANES
    rows_in_ring = ring.size // (strip * _NORMAL_BLOCK)
    zero, half = broadcast(np.float32(0)), broadcast(np.float32(0.5))
    strip_starts = lane_numbers() * broadcast(np.float32(strip))
    last_x, last_y = broadcast(np.float32(width - 2)), broadcast(np.float32(height - 2))
    row_length = broadcast_int(np.int32(strip * NUM_LANES))
    # Positions first, pixels later: the reads then arrive while other positions are computed.
    for t in range(strip):
        u = load(displacement, (y * strip + t) * _FLOW_BLOCK)
        v = load(displacement, (y * strip + t) * _FLOW_BLOCK + NUM_LANES)
        target_x = strip_starts + broadcast(np.float32(t)) + u
        target_y = broadcast(np.float32(y)) + v
        left, top = floor(target_x), floor(target_y)
        # For every displacement, all reads are within the frame.
        near_x = minimum(maximum(left, zero), last_x)
        near_y = minimum(maximum(top, zero), last_y)
        off_x, off_y = left - near_x, top - near_y
        store_int(positions, t * NUM_LANES, to_int(near_y) * row_length + to_int(near_x))
        store(targets, t * _TARGET_BLOCK, target_x - left)
        store(targets, t * _TARGET_BLOCK + NUM_LANES, target_y - top)
        store(targets, t * _TARGET_BLOCK + 2 * NUM_LANES, fma(off_x, off_x, off_y * off_y))
    next_row = strip * NUM_LANES * _PIXEL
    for t in range(strip):
        u = load(displacement, (y * strip + t) * _FLOW_BLOCK)
        v = load(displacement, (y * strip + t) * _FLOW_BLOCK + NUM_LANES)
        fraction_x = load(targets, t * _TARGET_BLOCK)
        off = load(targets, t * _TARGET_BLOCK + 2 * NUM_LANES)
        corners = transpose(
            load_mixed(
                packed, positions, t * NUM_LANES, next_row, targets, t * _TARGET_BLOCK + NUM_LANES
            )
        )
        # The five numbers of the left and of the right pixel, at a distance of eight.
        left, right = corners[:5], corners[8:13]
        other = fma_each(fraction_x, difference_each(right, left), left)
        other_b_y, other_b_x, other_a_yy, other_a_xx, other_a_xy = other
        place = (y * strip + t) * _EXPANSION_BLOCK
        b_y, b_x, own_a_yy, own_a_xx, own_a_xy = load_series(own, place, NUM_LANES, _EXPANSION)
        trust = broadcast(row_trust[y]) * load(column_trust, t * NUM_LANES)
        half_trust = half * trust
        a_yy = half_trust * (own_a_yy + where_less(off, half, other_a_yy, own_a_yy))
        a_xx = half_trust * (own_a_xx + where_less(off, half, other_a_xx, own_a_xx))
        # The expansion holds twice the off-diagonal element of A.
        a_xy = half * half_trust * (own_a_xy + where_less(off, half, other_a_xy, own_a_xy))
        db_y = half_trust * (b_y - where_less(off, half, other_b_y, zero))
        db_x = half_trust * (b_x - where_less(off, half, other_b_x, zero))
        moved_y = fma(a_yy, v, fma(a_xy, u, db_y))
        moved_x = fma(a_xy, v, fma(a_xx, u, db_x))
        target = (y % rows_in_ring * strip + t) * _NORMAL_BLOCK
        equations = (
            fma(a_yy, a_yy, a_xy * a_xy),
            a_xy * (a_yy + a_xx),
            fma(a_xx, a_xx, a_xy * a_xy),
            fma(a_yy, moved_y, a_xy * moved_x),
            fma(a_xx, moved_x, a_xy * moved_y),
        )
        store_series(ring, target, NUM_LANES, equations)


@inline
def _weigh(
    equations: FloatArray, starts: IntArray, window: FloatArray, place: int
) -> tuple[Lanes, ...]:
    """Returns the weighted mean of the normal equations that are `place` after each of `starts`."""
    reach = window.size - 1
    weight = load_broadcast(window, 0)
    center = load_series(equations, starts[reach] + place, NUM_LANES, _NORMAL)
    mean: tuple[Lanes, ...] = fma_each(weight, center, _no_equations())
    for k in range(1, reach + 1):
        before = load_series(equations, starts[reach - k] + place, NUM_LANES, _NORMAL)
        after = load_series(equations, starts[reach + k] + place, NUM_LANES, _NORMAL)
        mean = fma_each(load_broadcast(window, k), sum_each(before, after), mean)
    return mean


@inline
def _no_equations() -> tuple[Lanes, ...]:
    zero = broadcast(np.float32(0))
    return zero, zero, zero, zero, zero


@inline
def _average_down(
    ring: FloatArray,
    starts: IntArray,
    window: FloatArray,
    row: FloatArray,
    y: int,
    height: int,
    strip: int,
) -> None:
    """Averages the normal equations of the rows around `y`, with replicated borders."""
    reach, length = window.size - 1, strip * _NORMAL_BLOCK
    rows_in_ring = ring.size // length
    for k in range(-reach, reach + 1):
        starts[reach + k] = max(0, min(y + k, height - 1)) % rows_in_ring * length
    for i in range(0, length, _NORMAL_BLOCK):
        mean = _weigh(ring, starts, window, i)
        store_series(row, reach * _NORMAL_BLOCK + i, NUM_LANES, mean)


@inline
def _slide_down(
    ring: FloatArray, window: FloatArray, row: FloatArray, y: int, height: int, strip: int
) -> None:
    """Does the same as `_average_down`, for a box, from the averages around row `y - 1`."""
    reach, length = window.size - 1, strip * _NORMAL_BLOCK
    rows_in_ring = ring.size // length
    entering = min(y + reach, height - 1) % rows_in_ring * length
    leaving = max(y - reach - 1, 0) % rows_in_ring * length
    weight = load_broadcast(window, 0)
    for i in range(0, length, NUM_LANES):
        place = reach * _NORMAL_BLOCK + i
        change = load(ring, entering + i) - load(ring, leaving + i)
        store(row, place, fma(weight, change, load(row, place)))


@inline
def _replicate_last_column(row: FloatArray, strip: int, reach: int, width: int) -> None:
    """Overwrites the columns beyond the image, which pad the strips, with its last column."""
    block = row.size // (strip + 2 * reach)
    last_lane, last_t = (width - 1) // strip, (width - 1) % strip
    for t in range(last_t + 1 if last_lane == NUM_LANES - 1 else 0, strip):
        lanes = broadcast(np.float32((width - 1 - t) // strip + 1))
        for plane in range(0, block, NUM_LANES):
            edge = broadcast(row[(reach + last_t) * block + plane + last_lane])
            place = (reach + t) * block + plane
            store(row, place, where_less(lane_numbers(), lanes, load(row, place), edge))


@inline
def _extend_row(row: FloatArray, strip: int, reach: int) -> None:
    """Gives each strip `reach` columns before and after it: those of other strips, or replicas."""
    block = row.size // (strip + 2 * reach)
    first, last = reach * block, (reach + strip - 1) * block
    for plane in range(0, block, NUM_LANES):
        left_edge = broadcast(row[first + plane])
        right_edge = broadcast(row[last + plane + NUM_LANES - 1])
        for k in range(reach):
            # If the reach is longer than a strip, these columns were themselves extended before.
            before = load(row, last + plane - k * block)
            store(row, first + plane - (k + 1) * block, left_neighbor(left_edge, before))
            after = load(row, first + plane + k * block)
            store(row, last + plane + (k + 1) * block, right_neighbor(after, right_edge))


@inline
def _solve_row(
    row: FloatArray,
    starts: IntArray,
    window: FloatArray,
    is_box: bool,
    displacement: FloatArray,
    place: int,
    strip: int,
) -> None:
    """Averages a row's equations along the row too, and solves G d = h for d."""
    reach = window.size - 1
    one, zero = broadcast(np.float32(1)), broadcast(np.float32(0))
    regularization = broadcast(REGULARIZATION)
    mean = _no_equations()
    for t in range(strip):
        if is_box and t > 0:
            leaving = load_series(row, (t - 1) * _NORMAL_BLOCK, NUM_LANES, _NORMAL)
            entering = load_series(row, (t + 2 * reach) * _NORMAL_BLOCK, NUM_LANES, _NORMAL)
            mean = fma_each(load_broadcast(window, 0), difference_each(entering, leaving), mean)
        else:
            mean = _weigh(row, starts, window, t * _NORMAL_BLOCK)
        g_yy, g_xy, g_xx, h_y, h_x = mean
        product = g_yy * g_xx
        determinant = maximum(zero, product - g_xy * g_xy)
        inverse = one / (determinant + fma(broadcast(PRECISION), product, regularization))
        target = place + t * _FLOW_BLOCK
        store(displacement, target, (g_yy * h_x - g_xy * h_y) * inverse)
        store(displacement, target + NUM_LANES, (g_xx * h_y - g_xy * h_x) * inverse)


@inline
def _cut_row(
    image: FloatArray,
    y: int,
    width: int,
    height: int,
    line: FloatArray,
    strips: FloatArray,
    strip: int,
) -> None:
    """Writes row `y` of an image as strips: vector, channel, lane.

    Lanes beyond the row hold its last pixel.
    """
    channels = image.size // (width * height)
    size, length = width * channels, strip * channels
    copy(line, 0, image, y * size, size)
    for i in range(size, length * NUM_LANES):
        line[i] = line[i - channels]
    # A square may reach beyond the row. The next square then overwrites the excess.
    for i in range(0, length, NUM_LANES):
        square = transpose(load_series(line, i, length, NUM_LANES))
        store_series(strips, (y * length + i) * NUM_LANES, NUM_LANES, square)


@inline
def _join_row(
    strips: FloatArray,
    y: int,
    width: int,
    height: int,
    line: FloatArray,
    image: FloatArray,
    strip: int,
) -> None:
    """Does the reverse of `_cut_row`."""
    channels = image.size // (width * height)
    size, length = width * channels, strip * channels
    for i in range(0, length, NUM_LANES):
        # The last square ends with the strips. Otherwise it would overwrite finished strips.
        first = max(min(i, length - NUM_LANES), 0)
        square = load_series(strips, (y * length + first) * NUM_LANES, NUM_LANES, NUM_LANES)
        store_series(line, first, length, transpose(square))
    copy(image, y * size, line, 0, size)
