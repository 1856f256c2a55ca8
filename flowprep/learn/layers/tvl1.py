"""TV-L1 as a layer: the flow of pairs of frames, with gradients for the frames and its own numbers.

With the estimator's parameters the fields are those of `tvl1` to within .01 px. Two publications
made its numbers a part of the network:

- Fan et al., "End-to-End Learning of Motion Representation for Video Understanding" (CVPR 2018):
  TVNet, 1 scale, 1 warp and 50 iterations, each with taps of its own (LijieFan/tvnet).
- Piergiovanni and Ryoo, "Representation Flow for Action Recognition" (CVPR 2019): the constants and
  the gradient's taps learn too, and all iterations share their numbers.

TVNet also learns the field that it begins with, which fits one size of frames. It is 0 here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowprep.config import check_choice
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.tvl1_torch import coarse_to_fine, prepare_levels, pyramid_levels
from flowprep.flow.warp_torch import pack_frames
from flowprep.learn.layers.tvl1_steps import (
    Constants,
    DataTerm,
    Differences,
    State,
    TapDifferences,
    full_precision,
    iterate,
)
from flowprep.learn.motion_spec import MotionLearning

__all__ = ["TVL1Layer", "gray_levels"]

_GRAY_WEIGHTS = (9798, 19235, 3735)
"""Of red, green and blue, of 2^15 (OpenCV, modules/imgproc: RGB2GRAY of 8-bit images)."""


class TVL1Layer(nn.Module):
    """TV-L1 of pairs of gray frames. `learns` says what of it learns; see `MotionLearning`.

    With `stops`, each field ends by the estimator's rule (`parameters.epsilon`). Otherwise all
    iterations are done, as a training on several processes needs.
    """

    def __init__(
        self,
        parameters: TVL1Parameters | None = None,
        *,
        learns: MotionLearning = "none",
        stops: bool = True,
    ) -> None:
        super().__init__()
        check_choice("learns", learns, MotionLearning)
        p = self.parameters_of_tvl1 = parameters or TVL1Parameters()
        self.stops = stops
        self.num_iterations = p.outer_iterations * p.inner_iterations
        num_sets = p.nscales * p.warps * self.num_iterations if learns == "each" else 1
        # Logarithms, because the constants are positive.
        self.log_lambda = nn.Parameter(torch.tensor(math.log(p.lambda_)))
        self.log_theta = nn.Parameter(torch.tensor(math.log(p.theta)))
        self.log_tau = nn.Parameter(torch.tensor(math.log(p.tau)))
        self.image_taps = nn.Parameter(torch.tensor([-0.5, 0.0, 0.5]).repeat(2, 1))
        """(along x or y, tap): the derivatives of the second frame."""
        taps = torch.tensor([-1.0, 1.0]).repeat(num_sets, 2, 2, 1)
        self.slope_taps = nn.Parameter(taps)
        """(iteration, x or y of the flow, along x or y, tap): the slopes of the flow."""
        self.divergence_taps = nn.Parameter(taps.clone())
        """The same for the divergence of the dual variables."""
        self.requires_grad_(learns != "none")

    @property
    def constants(self) -> Constants:
        """Lambda, theta and tau."""
        return Constants(self.log_lambda.exp(), self.log_theta.exp(), self.log_tau.exp())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the flow from `first` to `second`, (N, 2, H, W) px.

        Both are (N, H, W), gray levels from 0 to 255. The flow has their dtype, and is at least
        float32.
        """
        with full_precision(first.device):
            return self._flow(first, second)

    def _flow(self, first: Tensor, second: Tensor) -> Tensor:
        p, num_pairs = self.parameters_of_tvl1, len(first)
        images = torch.cat([first, second])
        if images.dtype != torch.float64:
            images = images.float()
        height, width = images.shape[1:]
        levels = pyramid_levels(height, width, p, images.device)
        taps = self.image_taps
        prepared = prepare_levels(levels, images, lambda image: pack_frames(image, taps))
        numbers = torch.arange(2 * num_pairs, device=images.device)
        return coarse_to_fine(
            levels, prepared, numbers[:num_pairs], numbers[num_pairs:], p, self._solve
        )

    def _solve(
        self, place: tuple[int, int], flow: Tensor, dual: Tensor, gradient: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Does the iterations of one warp, as `flowprep.flow.tvl1_torch.solve_warp` does."""
        p, (level, warp) = self.parameters_of_tvl1, place
        first = (level * p.warps + warp) * self.num_iterations
        num_sets = len(self.slope_taps)

        def differences(number: int) -> Differences:
            own = (first + number) % num_sets
            return TapDifferences(self.slope_taps[own], self.divergence_taps[own])

        state = iterate(
            State.of(flow, dual, stops=self.stops),
            DataTerm.of(gradient, residual),
            differences,
            self.constants,
            num_iterations=self.num_iterations,
            num_between_medians=p.inner_iterations,
            median_side=p.median_filtering,
            epsilon=p.epsilon,
        )
        return state.u, state.dual


def gray_levels(rgb: Tensor) -> Tensor:
    """Returns gray levels (N, H, W) of RGB levels (N, 3, H, W), rounded as the estimators' frames.

    The gradient is that of gray levels that are not rounded.
    """
    red, green, blue = (rgb[:, place] * weight for place, weight in enumerate(_GRAY_WEIGHTS))
    gray = (red + green + blue) / 2**15
    return gray + ((gray + 0.5).floor() - gray).detach()
