"""TV-L1 in PyTorch, for any torch device: many fields at once, each as in native TV-L1 on the CPU.

The algorithm, its sources and "algorithm 1" are those of `flowprep.flow.tvl1_level`. Each field
stops where it stops there under `stop="exact"`, whatever `stop` is. A batch has no use for
predictions, since its other fields continue. A field that has stopped takes steps of length 0, so
that only the device needs to know about the stop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowprep.flow.base_torch import Arrival, TorchEstimator
from flowprep.flow.median_torch import median_filter
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.pyramid_torch import Resize
from flowprep.flow.tvl1 import MIN_LEVEL_SIDE_PX, TVL1
from flowprep.flow.warp_torch import pack_frames, read_at

__all__ = [
    "FLOAT_EPSILON",
    "Level",
    "LevelSolver",
    "TVL1Torch",
    "WarpSolver",
    "coarse_to_fine",
    "linearize",
    "prepare_levels",
    "pyramid_levels",
    "solve_warp",
]

WarpSolver = Callable[[Tensor, Tensor, Tensor, Tensor, TVL1Parameters, Tensor], None]
"""The type of `solve_warp`, and of its replacements on some devices."""
LevelSolver = Callable[[tuple[int, int], Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Does all iterations of one warp: level and warp, flow, dual variables, gradient and residual as
of `solve_warp` -> flow and dual variables."""

FLOAT_EPSILON = 1.1920929e-07
"""The smallest squared gradient that counts (OpenCV, tvl1flow.cpp, EstimateVBody: FLT_EPSILON)."""
POLL_INTERVAL = 4
"""Iterations between two checks, on CUDA, for whether all fields have stopped."""
MAX_POLLS_UNDER_WAY = 2
"""Checks whose answers have not arrived. While the host waits for the oldest answer, the device
has this many times `POLL_INTERVAL` iterations to do. So the device never waits, and does not run
far beyond the end."""


@dataclass
class Level:
    """The size of a pyramid level, and how to get to it from its neighboring levels."""

    height: int
    width: int
    shrink: Resize | None
    """Makes this level's image from the next finer level's; None at the finest."""
    enlarge: Resize | None
    """Makes this level's flow from the next coarser level's, in its px; None at the coarsest."""


class TVL1Torch(TorchEstimator[list[Level]]):
    """TV-L1 on a torch device: the fields of `flowprep.flow.tvl1.TVL1` to within about .01 px.

    So workers with and without a GPU may fill one data set. The difference is as large as between
    the two values of `stop` in the native class: there, `predicted` sometimes takes one iteration
    more. Here, rounding changes by as much where a field stops.
    """

    implementation = TVL1.implementation
    bytes_per_pixel = 400

    def __init__(
        self,
        parameters: TVL1Parameters,
        *,
        device: str = "cpu",
        batch_pairs: int | None = None,
        warp_solver: WarpSolver | None = None,
    ) -> None:
        super().__init__(device=device, batch_pairs=batch_pairs)
        self._parameters = parameters
        self._solve_warp: WarpSolver = warp_solver or solve_warp
        self._num_iterations: Tensor | None = None

    @property
    def num_iterations(self) -> list[list[int]]:
        """Iterations of each warp of the last field, level by level, finest first.

        Waits for the device.
        """
        if self._num_iterations is None:
            return []
        counts: list[list[int]] = self._num_iterations[:, :, -1].tolist()
        return counts

    def _make_plan(self, height: int, width: int) -> list[Level]:
        return pyramid_levels(height, width, self._parameters, self._device)

    def _prepare(self, plan: list[Level], frames: Tensor) -> list[Tensor]:
        """Returns the image and the packed image of each level, finest first."""
        return prepare_levels(plan, frames.to(torch.float32))

    def _estimate(
        self, plan: list[Level], prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        p = self._parameters
        counts = torch.zeros(
            (len(plan), p.warps, len(first)), dtype=torch.int32, device=self._device
        )

        def solve(
            place: tuple[int, int], flow: Tensor, dual: Tensor, gradient: Tensor, residual: Tensor
        ) -> tuple[Tensor, Tensor]:
            self._solve_warp(flow, dual, gradient, residual, p, counts[place])
            return flow, dual

        flow = coarse_to_fine(plan, prepared, first, second, p, solve)
        self._num_iterations = counts
        return flow.permute(0, 2, 3, 1).contiguous()


def pyramid_levels(
    height: int, width: int, parameters: TVL1Parameters, device: torch.device
) -> list[Level]:
    """Returns the levels of the pyramid of a frame size, finest first."""
    step = parameters.scale_step
    sizes = [(height, width)]
    while len(sizes) < parameters.nscales:
        smaller = round(sizes[-1][0] * step), round(sizes[-1][1] * step)
        if min(smaller) < MIN_LEVEL_SIDE_PX:
            break
        sizes.append(smaller)
    levels = []
    for number, size in enumerate(sizes):
        shrink = enlarge = None
        if number > 0:
            # By factor, not by size: the two sample at slightly different positions.
            shrink = Resize(sizes[number - 1], size, device, step)
        if number + 1 < len(sizes):
            enlarge = Resize(sizes[number + 1], size, device)
        levels.append(Level(*size, shrink, enlarge))
    return levels


def prepare_levels(
    levels: Sequence[Level], images: Tensor, pack: Callable[[Tensor], Tensor] = pack_frames
) -> list[Tensor]:
    """Returns the images (N, h, w) and the packed images of each level, finest first.

    `images` are (N, H, W), 0 to 255. `pack` is `pack_frames`, or does the same with other taps.
    """
    prepared = []
    for level in levels:
        if level.shrink is not None:
            images = level.shrink(images)
        prepared += [images, pack(images)]
    return prepared


def coarse_to_fine(
    levels: Sequence[Level],
    prepared: Sequence[Tensor],
    first: Tensor,
    second: Tensor,
    parameters: TVL1Parameters,
    solve: LevelSolver,
) -> Tensor:
    """Returns the flow of B pairs of frames, (B, 2, H, W) px (IPOL 2013, algorithm 2).

    `prepared` is the result of `prepare_levels`. `first` and `second`, (B,) int64, are the indices
    in it of each pair's frames. A gradient passes through all but `solve`, which may change what it
    gets.
    """
    coarsest = prepared[-2]
    flow = coarsest.new_zeros((len(first), 2, *coarsest.shape[1:]))
    for number in reversed(range(len(levels))):
        enlarge = levels[number].enlarge
        if enlarge is not None:
            flow = enlarge(flow).mul_(1 / parameters.scale_step)
        images, packed = prepared[2 * number : 2 * number + 2]
        image = images.index_select(0, first)
        dual = image.new_zeros((len(first), 4, *flow.shape[2:]))
        for warp in range(parameters.warps):
            gradient, residual = linearize(flow, image, packed, second)
            flow, dual = solve((number, warp), flow, dual, gradient, residual)
    return flow


def linearize(flow: Tensor, image: Tensor, packed: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Linearizes the data term around the flow so far: lines 3 to 5 of algorithm 1.

    `flow` is (B, 2, H, W) px, `image` (B, H, W) the first frames. `packed` is the result of
    `pack_frames` for all frames, and `second`, (B,) int64, are the indices of the second frames in
    `packed`. Returns the gradient of the warped second frame, (B, 2, H, W) per px, and the part of
    rho that does not depend on the flow, (B, H, W): both float32 and contiguous.
    """
    warped = read_at(packed, flow, second)  # (B, 3, H, W): brightness, d/dx, d/dy
    gradient = warped[:, 1:].contiguous()
    residual = warped[:, 0] - image
    residual.addcmul_(gradient[:, 0], flow[:, 0], value=-1)
    residual.addcmul_(gradient[:, 1], flow[:, 1], value=-1)
    return gradient, residual


def solve_warp(
    u: Tensor,
    p: Tensor,
    gradient: Tensor,
    residual: Tensor,
    parameters: TVL1Parameters,
    num_iterations: Tensor,
) -> None:
    """Does all iterations of one warp of B fields: lines 6 to 13 of algorithm 1.

    All tensors are contiguous, on one device. `u`, (B, 2, H, W) float32, is the flow in px, and
    `p`, (B, 4, H, W) float32, the dual variables p11, p12, p21, p22; both are updated in place.
    `gradient`, (B, 2, H, W) float32, is the gradient of the warped second frame, per px.
    `residual`, (B, H, W) float32, is rho for u = 0. `num_iterations`, (B,) int32, is written.

    Iterations are counted and stopped as in OpenCV (tvl1flow.cpp, procOneScale), separately for
    each field. Each outer iteration begins with a median filter. All end after the iteration whose
    sum of squared changes is at most epsilon^2 H W px^2. A field that has stopped does not change.
    """
    # A processor's cache holds one field. One by one, each field can end where it stops.
    if u.device.type == "cpu":
        for k in range(len(u)):
            flow, dual, slope, rest, count = (
                x[k : k + 1] for x in (u, p, gradient, residual, num_iterations)
            )
            _iterate(flow, dual, slope, rest, parameters, count, _Direct())
    else:
        watch: _Watch = _Delayed(u.device) if u.device.type == "cuda" else _ByRound()
        _iterate(u, p, gradient, residual, parameters, num_iterations, watch)


class _Watch(Protocol):
    """Tells the host when all fields have stopped, so that it launches no more iterations."""

    def sees_end(self, active: Tensor, ends_round: bool) -> bool:
        """Returns, after an iteration, whether it is known that all fields have stopped.

        `active`, (B,) float32, is 1 for fields that continue and 0 for others. `ends_round` means
        that a median filter is next.
        """


class _Direct:
    """Checks after every iteration: for the CPU, where a check is free."""

    def sees_end(self, active: Tensor, ends_round: bool) -> bool:
        return not active.any()


class _ByRound:
    """Checks before each median filter: for devices without events, where a check is slow."""

    def sees_end(self, active: Tensor, ends_round: bool) -> bool:
        return ends_round and not active.any()


class _Delayed:
    """Copies the answer to the host's memory while the device continues, and checks it there.

    A later answer may overwrite an answer at any time: once all fields have stopped, none resumes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._answer = torch.ones((), pin_memory=device.type == "cuda")
        self._arrivals: deque[Arrival] = deque()
        self._num_iterations = 0

    def sees_end(self, active: Tensor, ends_round: bool) -> bool:
        self._num_iterations += 1
        if self._num_iterations % POLL_INTERVAL != 0:
            return False
        self._answer.copy_(active.amax(), non_blocking=True)
        self._arrivals.append(Arrival(self._device))
        if len(self._arrivals) > MAX_POLLS_UNDER_WAY:
            self._arrivals.popleft().wait()
        return self._answer.item() == 0


def _iterate(
    u: Tensor,
    p: Tensor,
    gradient: Tensor,
    residual: Tensor,
    parameters: TVL1Parameters,
    num_iterations: Tensor,
    watch: _Watch,
) -> None:
    """Does the same as `solve_warp`, until `watch` knows that all fields have stopped."""
    tau, theta = parameters.tau, parameters.theta
    num_fields, _, height, width = u.shape
    limit = parameters.lambda_ * theta
    stop_change = parameters.epsilon * math.sqrt(height * width)
    # With rho divided by -|gradient|^2, the threshold of equation 12 is a clamp.
    weight = torch.mul(gradient[:, 0], gradient[:, 0])
    weight.addcmul_(gradient[:, 1], gradient[:, 1]).clamp_(min=FLOAT_EPSILON)
    weight.reciprocal_().neg_()
    slope_x, slope_y = gradient[:, 0] * weight, gradient[:, 1] * weight
    offset = weight.mul_(residual)
    # theta p replaces p, so that its divergence needs no factor.
    dual = p.view(num_fields, 2, 2, height, width).mul_(theta)  # of u1 and u2: x and y
    dual_x, dual_y = dual[:, :, 0], dual[:, :, 1]
    shift = torch.empty_like(offset)
    change = torch.empty_like(u)
    # The last column has no slope along x, and the last row has none along y.
    slopes = torch.zeros_like(dual)
    slopes_x, slopes_y = slopes[:, :, 0], slopes[:, :, 1]
    shrinkage = torch.empty_like(u)
    # For each field: 1, tau and tau / theta. All become 0 when the field has stopped.
    factors = torch.empty((3, num_fields), device=u.device)
    for factor, value in zip(factors, (1, tau, tau / theta), strict=True):
        factor.fill_(value)
    active, taus, scales = (factor.view(num_fields, 1, 1, 1) for factor in factors)
    count = torch.zeros(num_fields, device=u.device)

    for number in range(parameters.outer_iterations * parameters.inner_iterations):
        if number % parameters.inner_iterations == 0 and parameters.median_filtering > 1:
            median = median_filter(u, parameters.median_filtering)
            torch.where(active > 0, median, u, out=u)
            del median
        # Equation 12.
        torch.addcmul(offset, slope_x, u[:, 0], out=shift)
        shift.addcmul_(slope_y, u[:, 1]).clamp_(-limit, limit)
        # Equation 11, with the divergence of p.
        torch.add(dual_x, dual_y, out=change)
        change[..., 1:].sub_(dual_x[..., :-1])
        change[..., 1:, :].sub_(dual_y[..., :-1, :])
        change.addcmul_(gradient, shift[:, None])
        u.addcmul_(change, active)
        # Equation 14.
        torch.sub(u[..., 1:], u[..., :-1], out=slopes_x[..., :-1])
        torch.sub(u[..., 1:, :], u[..., :-1, :], out=slopes_y[..., :-1, :])
        torch.mul(slopes_x, slopes_x, out=shrinkage)
        shrinkage.addcmul_(slopes_y, slopes_y).sqrt_().mul_(scales).add_(1)
        dual.addcmul_(slopes, taus[..., None]).div_(shrinkage[:, :, None])
        count.add_(factors[0])
        # Written so that NaN, from extreme parameters, also ends the field.
        factors.mul_(torch.linalg.vector_norm(change, dim=(1, 2, 3)) > stop_change)
        if watch.sees_end(factors[0], (number + 1) % parameters.inner_iterations == 0):
            break
    dual.div_(theta)
    num_iterations.copy_(count)
