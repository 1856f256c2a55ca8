"""Representation flow: TV-L1 between the feature maps of neighboring frames, inside a network.

Piergiovanni and Ryoo, "Representation Flow for Action Recognition" (CVPR 2019): one scale, no warp,
a start at 0, and numbers that learn. Their release (piergiaj/representation-flow-cvpr19,
rep_flow_layer.py) differs from TV-L1, and its weights need these differences:

- Its kernels go over all channels, so that the slope of a channel's flow begins as the sum of the
  slopes of all channels.
- Both slopes of the flow, and both parts of the divergence, begin as those along y.
- Features lie between -255 and 0. The slopes at the border are those of the first frame.

`TVL1Flow` has none of them: it is `tvl1` of each channel by itself, with the same learned numbers
for all channels. In both, the range is taken from each clip. The release takes it from the whole
batch, so that the scores of a video would depend on the videos beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from flowprep.flow.parameters import TVL1Parameters
from flowprep.learn.layers.tvl1 import TVL1Layer
from flowprep.learn.layers.tvl1_steps import (
    Constants,
    DataTerm,
    Differences,
    State,
    full_precision,
    iterate,
)

__all__ = [
    "FeatureFlow",
    "FlowOfFlow",
    "ReleasedFlow",
    "RepresentationFlow",
    "TVL1Flow",
]

_LEVELS = 255.0
"""The range of features, as of gray levels."""
_SMALLEST_SQUARE = 1e-12
"""The smallest squared gradient of the release."""
_SMALLEST_RANGE = 1e-12
"""Keeps features that are all the same from a division by 0."""


class FeatureFlow(nn.Module):
    """The flow of each channel between neighboring frames.

    (N, C, T, H, W) -> (N, 2 C, T - 1, H, W): C channels along x, then C along y.
    """

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            levels = self._levels(x if x.dtype == torch.float64 else x.float())
            frames = levels.transpose(1, 2)  # (N, T, C, H, W)
            first, second = (part.flatten(0, 1) for part in (frames[:, :-1], frames[:, 1:]))
            flow = self.flow(first, second)  # (N (T - 1), 2, C, H, W)
            return flow.reshape(len(x), -1, 2 * x.shape[1], *x.shape[3:]).transpose(1, 2)

    @abstractmethod
    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the flow between maps (N, C, H, W): (N, 2, C, H, W), along x and along y."""

    def _levels(self, x: Tensor) -> Tensor:
        """Returns features from 0 to 255, by the range of each clip."""
        low, high = x.amin((1, 2, 3, 4), keepdim=True), x.amax((1, 2, 3, 4), keepdim=True)
        return (x - low) * (_LEVELS / (high - low).clamp(min=_SMALLEST_RANGE))


class TVL1Flow(FeatureFlow):
    """TV-L1 of each channel by itself. All channels share the numbers, which learn."""

    def __init__(self, channels: int, num_iterations: int = 10) -> None:
        super().__init__()
        parameters = TVL1Parameters(
            nscales=1,
            warps=1,
            outer_iterations=1,
            inner_iterations=num_iterations,
            median_filtering=1,
        )
        self.tvl1 = TVL1Layer(parameters, learns="shared", stops=False)

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        flow: Tensor = self.tvl1(first.flatten(0, 1), second.flatten(0, 1))  # (N C, 2, H, W)
        return flow.view(*first.shape[:2], 2, *first.shape[2:]).transpose(1, 2)


class ReleasedFlow(FeatureFlow):
    """The flow of the release, with its tensors' names and first values."""

    def __init__(self, channels: int, num_iterations: int = 10) -> None:
        super().__init__()
        self.num_iterations = num_iterations
        central, forward = torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([-1.0, 1.0])

        def kernels(taps: Tensor, *window: int) -> nn.Parameter:
            return nn.Parameter(taps.view(window).repeat(channels, channels, 1, 1))

        self.img_grad = kernels(central, 1, 3)
        self.img_grad2 = kernels(central, 3, 1)
        self.f_grad = kernels(forward, 2, 1)
        self.f_grad2 = kernels(forward, 2, 1)
        self.div = kernels(forward, 2, 1)
        self.div2 = kernels(forward, 2, 1)
        self.t = nn.Parameter(torch.tensor([0.3]))
        """Theta."""
        self.l = nn.Parameter(torch.tensor([0.15]))
        """Lambda."""
        self.a = nn.Parameter(torch.tensor([0.25]))
        """Tau."""

    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        along_x = F.conv2d(second, self.img_grad)  # (N, C, H, W - 2)
        along_y = F.conv2d(second, self.img_grad2)
        left, right = first[..., 1:2] - first[..., :1], first[..., -1:] - first[..., -2:-1]
        top = first[..., 1:2, :] - first[..., :1, :]
        bottom = first[..., -1:, :] - first[..., -2:-1, :]
        gradient = torch.stack(
            [
                torch.cat([0.5 * left, along_x, 0.5 * right], 3),
                torch.cat([0.5 * top, along_y, 0.5 * bottom], 2),
            ],
            1,
        )  # (N, 2, C, H, W)
        zeros, differences = torch.zeros_like(gradient), _Kernels(self)
        state = iterate(
            State(zeros, zeros, zeros),
            DataTerm.of(gradient, second - first, _SMALLEST_SQUARE),
            lambda number: differences,
            Constants(self.l, self.t, self.a),
            num_iterations=self.num_iterations,
        )
        return state.u

    def _levels(self, x: Tensor) -> Tensor:
        return -super()._levels(x)


class _Kernels(Differences):
    """Differences by the release's kernels, which go over all channels."""

    def __init__(self, layer: ReleasedFlow) -> None:
        self._layer = layer

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        layer, maps = self._layer, u.flatten(0, 1)  # (N 2, C, H, W)
        found = (
            F.pad(F.conv2d(maps, kernel), (0, 0, 0, 1)).view_as(u)
            for kernel in (layer.f_grad, layer.f_grad2)
        )
        return next(found), next(found)

    def divergence(self, x: Tensor, y: Tensor) -> Tensor:
        layer = self._layer
        parts = [
            # A row of 0 before the first. The last row is left out, and counts as 0.
            F.conv2d(F.pad(one.flatten(0, 1)[..., :-1, :], (0, 0, 1, 1)), kernel).view_as(one)
            for one, kernel in ((x, layer.div), (y, layer.div2))
        ]
        return parts[0] + parts[1]


MakeFlow = Callable[[int], FeatureFlow]
"""Makes the flow of maps of so many channels."""


class RepresentationFlow(nn.Module):
    """The release's layer: (N, C, T, H, W) -> (N, C, T - 1, H, W).

    Fewer channels, their flow, as many channels as before, a batch norm, and the frames themselves.
    """

    num_frames_lost = 1

    def __init__(self, channels: int, between: int, make_flow: MakeFlow) -> None:
        super().__init__()
        self.flow = make_flow(between)
        self.bottleneck = nn.Conv3d(channels, between, 1, bias=False)
        self.unbottleneck = nn.Conv3d(2 * between, channels, 1, bias=False)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        flow = self.bn(self.unbottleneck(self.flow(self.bottleneck(x))))
        return F.relu(x[:, :, :-1] + flow)


class FlowOfFlow(nn.Module):
    """The flow of the flow, with a convolution between: (N, C, T, H, W) -> (N, C, T - 2, H, W).

    It is added to the mean of each three frames. Its batch norm begins at 0, so that the layer
    begins as this mean (flow_2p1d_resnets.py of the release).
    """

    num_frames_lost = 2

    def __init__(self, channels: int, between: int, make_flow: MakeFlow) -> None:
        super().__init__()
        window, padding = (1, 3, 3), (0, 1, 1)
        self.flow_cmp = nn.Conv3d(channels, between, 1, bias=False)
        self.flow_layer = make_flow(between)
        self.flow_conv = nn.Conv3d(2 * between, 2 * between, window, padding=padding, bias=False)
        self.flow_cmp2 = nn.Conv3d(2 * between, between, 1, bias=False)
        self.flow_layer2 = make_flow(between)
        self.flow_conv2 = nn.Conv3d(2 * between, channels, window, padding=padding, bias=False)
        self.bnf = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        flow = self.flow_conv(self.flow_layer(self.flow_cmp(x)))
        flow = self.flow_conv2(self.flow_layer2(self.flow_cmp2(flow)))
        return F.relu(F.avg_pool3d(x, (3, 1, 1), 1) + self.bnf(flow))
