"""The iterations of TV-L1 with gradients: lines 6 to 13 of "algorithm 1" (`flow.tvl1_level`).

`flowprep.flow.tvl1_torch` does the same in place, which leaves nothing for a gradient. All else is
shared: pyramid, warp, median filter and the order of the steps. Here the finite differences are an
object, so that their taps may be learned.

A gradient needs every iteration's maps. Only those of every few iterations are kept, and the ones
between are computed again on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from flowprep.flow.median_torch import median_filter
from flowprep.flow.tvl1_torch import FLOAT_EPSILON

__all__ = [
    "Constants",
    "DataTerm",
    "Differences",
    "State",
    "TapDifferences",
    "full_precision",
    "iterate",
]

ROOT_EPSILON = 1e-12
"""Keeps the gradient of a slope's length finite where the slope is 0 (LijieFan/tvnet, tvnet.py:
GRAD_IS_ZERO; the same in piergiaj/representation-flow-cvpr19)."""


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context without autocast: squares of gray levels exceed half precision."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class Differences(Protocol):
    """Finite differences of maps (B, 2, ..., H, W). Their second axis is the flow's x and y."""

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the slopes of the flow along x and along y, each of its shape."""

    def divergence(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the divergence of dual variables along x and along y, of their shape."""


class TapDifferences:
    """Differences of two neighbors: (2, 2, 2) taps for x and y of the flow, along x and along y.

    The last column has no slope along x, and the last row has none along y. Taps of -1 and 1 are
    those of TV-L1.
    """

    def __init__(self, slope_taps: Tensor, divergence_taps: Tensor) -> None:
        # (along, tap) -> (2, 1, 1)
        self._slope, self._divergence = (
            taps.permute(1, 2, 0)[..., None, None] for taps in (slope_taps, divergence_taps)
        )

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        (left, right), (upper, lower) = self._slope
        along_x = u[..., :-1] * left + u[..., 1:] * right
        along_y = u[..., :-1, :] * upper + u[..., 1:, :] * lower
        return F.pad(along_x, (0, 1)), F.pad(along_y, (0, 0, 0, 1))

    def divergence(self, x: Tensor, y: Tensor) -> Tensor:
        (left, right), (upper, lower) = self._divergence
        before_x, before_y = F.pad(x[..., :-1], (1, 0)), F.pad(y[..., :-1, :], (0, 0, 1, 0))
        found: Tensor = x * right + before_x * left + y * lower + before_y * upper
        return found


@dataclass(frozen=True)
class DataTerm:
    """The linearized data term of a warp, as equation 12 needs it."""

    gradient: Tensor
    """(B, 2, ..., H, W), of the warped second frame."""
    slope: Tensor
    """The gradient divided by minus its square."""
    offset: Tensor
    """(B, ..., H, W): the residual divided by minus the square of the gradient."""

    @classmethod
    def of(
        cls, gradient: Tensor, residual: Tensor, smallest_square: float = FLOAT_EPSILON
    ) -> DataTerm:
        """Returns the term for a gradient (B, 2, ..., H, W) and rho for u = 0, (B, ..., H, W)."""
        weight = -(gradient * gradient).sum(1).clamp(min=smallest_square).reciprocal()
        return cls(gradient, gradient * weight.unsqueeze(1), weight * residual)


@dataclass(frozen=True)
class Constants:
    """The constants of TV-L1: tensors of no dimension, with or without a gradient."""

    lambda_: Tensor
    theta: Tensor
    tau: Tensor


@dataclass(frozen=True)
class State:
    """What an iteration changes."""

    u: Tensor
    """The flow, (B, 2, ..., H, W)."""
    dual_x: Tensor
    """The dual variables of both components along x, of the same shape."""
    dual_y: Tensor
    active: Tensor | None = None
    """Whether each field goes on, (B,) bool. None if all iterations are done."""

    @classmethod
    def of(cls, u: Tensor, dual: Tensor, *, stops: bool = False) -> State:
        """Returns the state of a flow (B, 2, H, W) and its dual variables (B, 4, H, W)."""
        parts = dual.view(len(u), 2, 2, *dual.shape[2:])
        active = torch.ones(len(u), dtype=torch.bool, device=u.device) if stops else None
        return cls(u, parts[:, :, 0], parts[:, :, 1], active)

    @property
    def dual(self) -> Tensor:
        """The dual variables p11, p12, p21, p22, (B, 4, H, W)."""
        return torch.stack([self.dual_x, self.dual_y], 2).flatten(1, 2)


def iterate(
    state: State,
    term: DataTerm,
    differences: Callable[[int], Differences],
    constants: Constants,
    *,
    num_iterations: int,
    num_between_medians: int = 0,
    median_side: int = 1,
    epsilon: float = 0.0,
) -> State:
    """Returns the state after `num_iterations`, or after all fields have stopped.

    `differences(k)` are those of iteration k. A median filter runs before the first iteration and
    after each `num_between_medians`, if its side is above 1. A state with `active` stops field by
    field, after the iteration whose mean squared change is at most epsilon^2.
    """

    def run(first: int, last: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        now = State(*tensors)
        for number in range(first, last):
            if median_side > 1 and number % num_between_medians == 0:
                now = _kept(now, State(median_filter(now.u, median_side), now.dual_x, now.dual_y))
            now = _step(now, term, differences(number), constants, epsilon)
            if now.active is not None and not now.active.any():
                break
        return _tensors(now)

    tensors = _tensors(state)
    size = max(1, math.isqrt(num_iterations))
    for first in range(0, num_iterations, size):
        last = min(first + size, num_iterations)
        if torch.is_grad_enabled():
            tensors = checkpoint(
                run, first, last, *tensors, use_reentrant=False, preserve_rng_state=False
            )
        else:
            tensors = run(first, last, *tensors)
        if len(tensors) > 3 and not tensors[3].any():
            break
    return State(*tensors)


def _tensors(state: State) -> tuple[Tensor, ...]:
    found = state.u, state.dual_x, state.dual_y
    return found if state.active is None else (*found, state.active)


def _step(
    state: State, term: DataTerm, differences: Differences, constants: Constants, epsilon: float
) -> State:
    """Does one iteration: equations 12, 11 and 14 of algorithm 1."""
    theta = constants.theta
    scale, limit = constants.tau / theta, constants.lambda_ * theta
    rho = term.offset + (term.slope * state.u).sum(1)
    shift = torch.minimum(torch.maximum(rho, -limit), limit)
    pull = differences.divergence(state.dual_x, state.dual_y) * theta
    u = state.u + term.gradient * shift.unsqueeze(1) + pull
    along_x, along_y = differences.slopes(u)
    shrinkage = 1 + (along_x * along_x + along_y * along_y + ROOT_EPSILON).sqrt() * scale
    new = State(
        u,
        (state.dual_x + along_x * scale) / shrinkage,
        (state.dual_y + along_y * scale) / shrinkage,
    )
    if state.active is None:
        return new
    change = torch.linalg.vector_norm((u - state.u).detach().flatten(1), dim=1)
    size = math.sqrt(u.shape[-2] * u.shape[-1])
    kept = _kept(state, new)
    # Written so that NaN, from extreme parameters, also ends the field.
    return State(kept.u, kept.dual_x, kept.dual_y, state.active & (change > epsilon * size))


def _kept(state: State, new: State) -> State:
    """Returns the new state of fields that go on, and the old one of those that have stopped."""
    active = state.active
    if active is None or bool(active.all()):
        return State(new.u, new.dual_x, new.dual_y, active)
    chosen = active.view(-1, *[1] * (state.u.dim() - 1))
    u, dual_x, dual_y = (
        torch.where(chosen, after, before)
        for before, after in zip(_tensors(state)[:3], _tensors(new)[:3], strict=True)
    )
    return State(u, dual_x, dual_y, active)
