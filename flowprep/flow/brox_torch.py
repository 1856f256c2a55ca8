"""Brox flow in PyTorch, for any torch device: many fields at once, each near the native one.

The algorithm and its sources are those of `flowprep.flow.brox_equations`, `brox_warp` and
`brox_pyramid`. The
control flow does not depend on results, so a batch is launched at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from flowprep.flow.base_torch import TorchEstimator, upload
from flowprep.flow.brox import Brox
from flowprep.flow.brox_equations import EPSILON_SQUARED, RELAXATION
from flowprep.flow.brox_pyramid import DOWN_TAPS, Taps, level_sizes, up_taps
from flowprep.flow.brox_warp import MAX_DISTANCE_PX, PIXEL
from flowprep.flow.parameters import BroxParameters

__all__ = ["BroxTorch"]


class _Resample:
    """Resamples (..., H, W) float32 images along both axes."""

    def __init__(self, columns: Taps, rows: Taps, *, device: torch.device) -> None:
        self._sides = []
        for axis, taps in ((-1, columns), (-2, rows)):
            weights = taps.weights.reshape(len(taps.begins), -1)
            for number in range(weights.shape[1]):
                # A tap beyond a side shorter than the taps has the weight 0.
                index = np.minimum(taps.begins + number, taps.num_before - 1)
                weight = weights[:, number].reshape((-1, 1)[:-axis])
                self._sides.append(
                    (
                        axis,
                        number == 0,
                        upload(index.astype(np.int64), device),
                        upload(weight.copy(), device),
                    )
                )

    def __call__(self, image: Tensor) -> Tensor:
        source, total = image, image
        for axis, is_first, index, weight in self._sides:
            if is_first:
                source = total
                total = source.index_select(axis, index) * weight
            else:
                total = total.addcmul_(source.index_select(axis, index), weight)
        return total


@dataclass
class _Level:
    """What all pairs share at one level of the pyramid."""

    height: int
    width: int
    shrink: _Resample | None
    """Makes this level's image from the next finer level's; None at the full size."""
    enlarge: _Resample | None
    """Makes this level's flow from the next coarser level's; None at the coarsest."""
    columns: Tensor
    """Numbers of the columns, (W,)."""
    rows: Tensor
    """Numbers of the rows, (H, 1)."""
    mirrored: tuple[Tensor, Tensor]
    """For each side, the places from -2 to n + 1 as NCV mirrors them for derivatives."""
    colors: Tensor
    """(2, H, W) float32: 1 where a half sweep updates, the even cells first."""


class BroxTorch(TorchEstimator[list[_Level]]):
    """High accuracy optical flow by warping (Brox et al., ECCV 2004), in PyTorch."""

    implementation = Brox.implementation
    bytes_per_pixel = 250
    """A field's equations, of up to 24 numbers a pixel, its two packed frames, and temporaries."""

    def __init__(
        self, parameters: BroxParameters, *, device: str, batch_pairs: int | None = None
    ) -> None:
        super().__init__(device=device, batch_pairs=batch_pairs)
        self._parameters = parameters

    def _make_plan(self, height: int, width: int) -> list[_Level]:
        """Returns the levels, the full size first."""
        p, device = self._parameters, self._device
        sizes = level_sizes(width, height, p.scale_factor, p.outer_iterations)
        down_taps = DOWN_TAPS[p.pyramid_filter]
        levels = []
        for number, (wide, high) in enumerate(sizes):
            shrink = enlarge = None
            if number > 0:
                finer = sizes[number - 1]
                shrink = _Resample(
                    down_taps(wide, finer[0], p.scale_factor),
                    down_taps(high, finer[1], p.scale_factor),
                    device=device,
                )
            if number + 1 < len(sizes):
                coarser = sizes[number + 1]
                enlarge = _Resample(
                    up_taps(wide, coarser[0], p.scale_factor),
                    up_taps(high, coarser[1], p.scale_factor),
                    device=device,
                )
            columns, rows = np.arange(wide), np.arange(high)[:, None]
            even = (columns + rows) % 2 == 0
            levels.append(
                _Level(
                    high,
                    wide,
                    shrink,
                    enlarge,
                    upload(columns.astype(np.float32), device),
                    upload(rows.astype(np.float32), device),
                    (upload(_mirrored(high), device), upload(_mirrored(wide), device)),
                    upload(np.stack([even, ~even]).astype(np.float32), device),
                )
            )
        return levels

    def _prepare(self, plan: list[_Level], frames: Tensor) -> list[Tensor]:
        """Returns, for each level, I, Ix, Iy, Ixx, Ixy, Iyy and two zeros of each pixel.

        The layout is (N, H + 2, W + 2, 8), with a border that doubles the outer pixels.
        """
        image = frames.to(torch.float32).mul_(1 / 255)
        prepared = []
        for level in plan:
            if level.shrink is not None:
                image = level.shrink(image)
            ix, iy = _derived(level, image, -1), _derived(level, image, -2)
            ixx, ixy = _derived(level, ix, -1), _derived(level, iy, -1)
            iyy = _derived(level, iy, -2)
            planes = torch.stack((image, ix, iy, ixx, ixy, iyy), dim=1)  # (N, 6, H, W)
            planes = pad(planes, (1, 1, 1, 1), mode="replicate")
            packed = pad(planes.permute(0, 2, 3, 1), (0, PIXEL - 6))
            prepared.append(packed.contiguous())
        return prepared

    def _estimate(
        self, plan: list[_Level], prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        """Works from coarse to fine."""
        p = self._parameters
        flow = torch.zeros((len(first), 2, plan[-1].height, plan[-1].width), device=self._device)
        for number in reversed(range(len(plan))):
            level, packed = plan[number], prepared[number]
            if level.enlarge is not None:
                flow = level.enlarge(flow).mul_(1 / p.scale_factor)
            data = _linearized(level, packed, first, second, flow, p.gamma**0.5)
            flow = pad(flow, (1, 1, 1, 1), mode="replicate")
            for _ in range(p.inner_iterations):
                _mirror(flow)
                equations = _Equations(flow, data, p.alpha)
                for half_sweep in range(2 * p.solver_iterations):
                    equations.relax(flow, level.colors[half_sweep % 2])
            flow = flow[:, :, 1:-1, 1:-1]
        return flow.permute(0, 2, 3, 1).contiguous()


def _mirrored(size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    places = np.arange(-2, size + 2)
    places = np.where(places < 0, 1 - places, places)
    return np.where(places >= size, 2 * size - 1 - places, places).astype(np.int64)


def _derived(level: _Level, image: Tensor, axis: int) -> Tensor:
    """Returns the derivative of (N, H, W) images along an axis (NCV: 1, -8, 0, 8, -1 over 12)."""
    image = image.index_select(axis, level.mirrored[axis])
    length = image.shape[axis] - 4
    a, b, c, d = (image.narrow(axis, start, length) for start in (0, 1, 3, 4))
    return ((a - d) + (c - b) * 8) * (1 / 12)


def _mirror(flow: Tensor) -> None:
    """Writes the flow of the nearest pixel of the image into the border of one pixel."""
    flow[:, :, :, 0], flow[:, :, :, -1] = flow[:, :, :, 1], flow[:, :, :, -2]
    flow[:, :, 0], flow[:, :, -1] = flow[:, :, 1], flow[:, :, -2]


def _folded(x: Tensor, size: int) -> Tensor:
    """Returns the places within the image that places outside mirror."""
    shifted = x + 0.5
    shifted = shifted - (2 * size) * torch.floor(shifted / (2 * size))
    folded = torch.minimum(shifted, 2 * size - shifted) - 0.5
    return torch.where((x < 0) | (x > size - 1), folded, x)


def _linearized(
    level: _Level,
    packed: Tensor,
    first: Tensor,
    second: Tensor,
    flow: Tensor,
    root_gamma: float,
) -> tuple[Tensor, ...]:
    """Returns the data of the level's equations, as in `brox_warp`, (B, H, W) each."""
    height, width = level.height, level.width
    u, v = flow[:, 0], flow[:, 1]
    far = MAX_DISTANCE_PX
    x = _folded(torch.nan_to_num((u + level.columns).clamp(-far, far)), width)
    y = _folded(torch.nan_to_num((v + level.rows).clamp(-far, far)), height)
    left, top = x.floor(), y.floor()
    start = (top.to(torch.int64) + 1).mul_(width + 2).add_(left.to(torch.int64) + 1)
    start += (second * ((height + 2) * (width + 2))).view(-1, 1, 1)
    num_pixels = packed.numel() // PIXEL
    start = start.clamp_(0, num_pixels - width - 4).view(-1)
    # The texture unit of a GPU takes fractions of 1/256, rounded to nearest.
    part_x = torch.floor((x - left) * 256 + 0.5).mul_(1 / 256).view(-1, 1)
    part_y = torch.floor((y - top) * 256 + 0.5).mul_(1 / 256).view(-1, 1)
    # Row i is pixel i and its right neighbor.
    pairs = packed.as_strided((num_pixels - 1, 2 * PIXEL), (PIXEL, 1))
    upper = pairs.index_select(0, start)
    lower = pairs.index_select(0, start + (width + 2))
    sides = upper.addcmul(lower.sub_(upper), part_y)
    warped = torch.addcmul(sides[:, :PIXEL], sides[:, PIXEL:] - sides[:, :PIXEL], part_x)
    warped = warped.view(-1, height, width, PIXEL)
    gray, ix, iy = warped[..., 0], warped[..., 1].contiguous(), warped[..., 2].contiguous()
    ixx, ixy, iyy = (warped[..., number] * root_gamma for number in (3, 4, 5))
    own = packed[:, 1:-1, 1:-1].index_select(0, first)
    iz = gray - own[..., 0]
    ixz, iyz = (ix - own[..., 1]) * root_gamma, (iy - own[..., 2]) * root_gamma
    rest = iz - (ix * u + iy * v)
    rest_x, rest_y = ixz - (ixx * u + ixy * v), iyz - (ixy * u + iyy * v)
    return ix, iy, ixx, ixy, iyy, rest, rest_x, rest_y


class _Equations:
    """The linear equations of an inner iteration; the names are those of `brox_equations`."""

    def __init__(self, flow: Tensor, data: tuple[Tensor, ...], alpha: float) -> None:
        """Takes the flow with a mirrored border, (B, 2, H + 2, W + 2), and the level's data."""
        ix, iy, ixx, ixy, iyy, rest, rest_x, rest_y = data
        u, v = flow[:, 0, 1:-1, 1:-1], flow[:, 1, 1:-1, 1:-1]
        gray = ix * u + iy * v + rest
        gradient_x, gradient_y = ixx * u + ixy * v + rest_x, ixy * u + iyy * v + rest_y
        squares = gray.square_() + gradient_x.square_() + gradient_y.square_()
        weight = (0.5 / alpha) / squares.add_(EPSILON_SQUARED).sqrt_()
        # Links are (B, H, W + 1) and (B, H + 1, W): also those out of the image, which are 0.
        across = (flow[:, :, 1:-1, 1:] - flow[:, :, 1:-1, :-1]).square().sum(1)
        south, north = flow[:, :, 2:], flow[:, :, :-2]
        both = (south[..., 1:] + south[..., :-1]) - (north[..., 1:] + north[..., :-1])
        along = both.mul_(0.25).square_().sum(1)
        self.link_x = 0.5 / (across + along).add_(EPSILON_SQUARED).sqrt_()
        self.link_x[:, :, 0] = self.link_x[:, :, -1] = 0
        across = (flow[:, :, 1:, 1:-1] - flow[:, :, :-1, 1:-1]).square().sum(1)
        east, west = flow[:, :, :, 2:], flow[:, :, :, :-2]
        both = (east[:, :, 1:] + east[:, :, :-1]) - (west[:, :, 1:] + west[:, :, :-1])
        along = both.mul_(0.25).square_().sum(1)
        self.link_y = 0.5 / (across + along).add_(EPSILON_SQUARED).sqrt_()
        self.link_y[:, 0] = self.link_y[:, -1] = 0
        links = self.link_x[:, :, :-1] + self.link_x[:, :, 1:]
        links += self.link_y[:, :-1] + self.link_y[:, 1:]
        self.constant = torch.stack(
            (
                -weight * (ix * rest + ixx * rest_x + ixy * rest_y),
                -weight * (iy * rest + iyy * rest_y + ixy * rest_x),
            )
        )
        self.minus_uv = -weight * (ix * iy + ixy * (ixx + iyy))
        self.step = torch.stack(
            (
                RELAXATION / (weight * (ix * ix + ixx * ixx + ixy * ixy) + links),
                RELAXATION / (weight * (iy * iy + iyy * iyy + ixy * ixy) + links),
            )
        )

    def relax(self, flow: Tensor, color: Tensor) -> None:
        """Updates the cells of one color, (H, W): u, then v with the new u."""
        keep = 1 - RELAXATION * color
        inside = flow[:, :, 1:-1, 1:-1]
        for one in (0, 1):
            near = flow[:, one]
            total = torch.addcmul(self.constant[one], self.link_x[:, :, :-1], near[:, 1:-1, :-2])
            total.addcmul_(self.link_x[:, :, 1:], near[:, 1:-1, 2:])
            total.addcmul_(self.link_y[:, :-1], near[:, :-2, 1:-1])
            total.addcmul_(self.link_y[:, 1:], near[:, 2:, 1:-1])
            total.addcmul_(self.minus_uv, inside[:, 1 - one])
            inside[:, one].mul_(keep).addcmul_(self.step[one] * color, total)
