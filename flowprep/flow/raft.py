"""RAFT by torchvision's networks, on any torch device: Teed and Deng, ECCV 2020 (arXiv 2003.12039).

torchvision's `RAFT.forward` computes pairs. Here, a frame's features are computed once for all its
pairs, and only the last of the updates is enlarged to full size. The fields are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowprep.errors import WeightsError
from flowprep.flow.base_torch import TorchEstimator
from flowprep.flow.parameters import RAFTParameters
from flowprep.flow.raft_weights import optical_flow, read_state
from flowprep.flow.weight_files import read

__all__ = ["RAFT", "padding_of"]

STRIDE_PX = 8
"""The side of a frame's patch that has one feature vector."""
MIN_FEATURES = 16
"""Least features along a side: the coarsest of four correlation levels has two then. torchvision
refuses fewer (`RAFT.forward`'s corr_block.build_pyramid)."""


@dataclass
class _Plan:
    height: int
    width: int
    padding: tuple[int, int, int, int]
    """Pixels added on the left, right, top and bottom."""
    grid: Tensor
    """Position of each feature, (1, 2, H / 8, W / 8), x before y."""
    steps: list[Tensor]
    """For each level of correlations, a feature's width and height in `grid_sample`'s units, where
    the centers of the first and the last feature are at -1 and 1."""


class RAFT(TorchEstimator[_Plan]):
    """The flow of torchvision's `raft_large` or `raft_small`, for RGB frames."""

    frames = "rgb"
    implementation = "torchvision-raft-1"
    libraries = ("torch", "torchvision")
    min_side_px = STRIDE_PX * (MIN_FEATURES - 1) + 1
    bytes_per_pixel = 600
    """Without correlations. raft_large takes 340 on the CPU, raft_small 140. cuDNN needs more."""

    def __init__(
        self, parameters: RAFTParameters, *, device: str = "cpu", batch_pairs: int | None = None
    ) -> None:
        super().__init__(device=device, batch_pairs=batch_pairs)
        self._num_updates = parameters.num_flow_updates
        self._network = _load(parameters).to(self._device)
        radius = self._network.corr_block.radius
        self._num_levels: int = self._network.corr_block.num_levels
        offsets = torch.linspace(-radius, radius, 2 * radius + 1, device=self._device)
        # The first axis of the window is x: it is in this order that the networks were trained.
        window = torch.meshgrid(offsets, offsets, indexing="ij")
        self._window = torch.stack(window, dim=-1)[None]

    @classmethod
    def weights(cls, parameters: RAFTParameters) -> str:
        return parameters.resolved().raft_weights

    def _bytes_per_pixel_of(self, height: int, width: int) -> int:
        # Each feature is correlated with each, in float32, at four levels.
        correlations = 4 * (1 + 1 / 4 + 1 / 16 + 1 / 64) * height * width / STRIDE_PX**4
        return self.bytes_per_pixel + math.ceil(correlations)

    def _make_plan(self, height: int, width: int) -> _Plan:
        left, right = padding_of(width)
        top, bottom = padding_of(height)
        sides = (height + top + bottom) // STRIDE_PX, (width + left + right) // STRIDE_PX
        y, x = torch.meshgrid(
            *(torch.arange(side, device=self._device) for side in sides), indexing="ij"
        )
        grid = torch.stack([x, y])[None].to(torch.float32)
        steps = [
            torch.tensor([2 / ((side >> level) - 1) for side in reversed(sides)]).to(self._device)
            for level in range(self._num_levels)
        ]
        return _Plan(height, width, (left, right, top, bottom), grid, steps)

    def _prepare(self, plan: _Plan, frames: Tensor) -> list[Tensor]:
        """Returns the features for correlation, the first hidden state and the context."""
        # RAFT's `forward`: 2 (x / 255) - 1.
        images = frames.permute(0, 3, 1, 2).to(torch.float32).div_(255).mul_(2).sub_(1)
        images = functional.pad(images, plan.padding, mode="replicate")
        network = self._network
        with _float32(self._device):
            features = network.feature_encoder(images)
            state = network.context_encoder(images)
        num_hidden = network.update_block.hidden_state_size
        hidden, context = torch.split(state, [num_hidden, state.shape[1] - num_hidden], dim=1)
        return [features, torch.tanh(hidden), torch.relu(context)]

    def _estimate(
        self, plan: _Plan, prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        features, hiddens, contexts = prepared
        network = self._network
        with _float32(self._device):
            levels = self._correlate(
                features.index_select(0, first), features.index_select(0, second)
            )
            hidden, context = hiddens.index_select(0, first), contexts.index_select(0, first)
            flow = torch.zeros_like(plan.grid).repeat(len(first), 1, 1, 1)
            for _ in range(self._num_updates):
                correlations = self._look_up(levels, plan.steps, plan.grid + flow)
                hidden, change = network.update_block(hidden, context, correlations, flow)
                flow = flow + change
            mask = None if network.mask_predictor is None else network.mask_predictor(hidden)
        full = _enlarged(flow, mask)
        left, _, top, _ = plan.padding
        full = full[:, :, top : top + plan.height, left : left + plan.width]
        return full.permute(0, 2, 3, 1).contiguous()

    def _correlate(self, one: Tensor, other: Tensor) -> list[Tensor]:
        """Returns the products of all pairs of features, (B H W, 1, H, W), and their means.

        The means are over 2x2, 4x4 and 8x8 features of the second frame (section 3.2).
        """
        num_channels, height, width = one.shape[1:]
        volume = torch.matmul(one.flatten(2).transpose(1, 2), other.flatten(2))
        volume = volume.div_(math.sqrt(num_channels)).view(-1, 1, height, width)
        levels = [volume]
        while len(levels) < self._num_levels:
            levels.append(functional.avg_pool2d(levels[-1], 2))
        return levels

    def _look_up(self, levels: list[Tensor], steps: list[Tensor], places: Tensor) -> Tensor:
        """Returns the correlations around `places`, (B, 2, H, W), of each level: (B, C, H, W)."""
        num_pairs, _, height, width = places.shape
        centers = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found = []
        for number, (level, step) in enumerate(zip(levels, steps, strict=True)):
            at = (centers / 2**number + self._window) * step - 1
            sampled = functional.grid_sample(level, at, align_corners=True)
            found.append(sampled.view(num_pairs, height, width, -1))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()


def padding_of(side_px: int) -> tuple[int, int]:
    """Returns the pixels to add before and after a side, so that it divides by eight.

    As RAFT's InputPadder of mode `sintel` and torchvision's references/optical_flow/utils.py: half
    on each side, the odd pixel after. At least 128 px must come out, so smaller frames are refused.
    """
    missing = -side_px % STRIDE_PX
    return missing // 2, missing - missing // 2


def _enlarged(flow: Tensor, mask: Tensor | None) -> Tensor:
    """Returns (B, 2, 8 H, 8 W) px of (B, 2, H, W) flow in features.

    Each pixel is the mean of nine neighbors with the weights that the network has chosen (section
    3.3, appendix B). raft_small chooses none, and is interpolated.
    """
    if mask is None:
        size = flow.shape[-2] * STRIDE_PX, flow.shape[-1] * STRIDE_PX
        return STRIDE_PX * functional.interpolate(
            flow, size=size, mode="bilinear", align_corners=True
        )
    num_pairs, _, height, width = flow.shape
    shares = torch.softmax(mask.view(num_pairs, 1, 9, STRIDE_PX, STRIDE_PX, height, width), dim=2)
    neighbors = functional.unfold(STRIDE_PX * flow, 3, padding=1)
    means = (shares * neighbors.view(num_pairs, 2, 9, 1, 1, height, width)).sum(2)
    means = means.permute(0, 1, 4, 2, 5, 3)  # (B, 2, H, 8, W, 8)
    return means.reshape(num_pairs, 2, height * STRIDE_PX, width * STRIDE_PX)


def _load(parameters: RAFTParameters) -> Any:
    weights_id = parameters.resolved().raft_weights
    network: nn.Module = getattr(optical_flow(), parameters.raft_model)()
    source = parameters.raft_weights
    state = read_state(read(weights_id), source)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        wanted = network.state_dict()
        strange = sorted(set(state) ^ set(wanted)) or ["tensors of other sizes"]
        hint = ""
        if any(name.startswith(("fnet.", "cnet.")) for name in state):
            hint = (
                "; it is a file of RAFT's own code, with other names; torchvision has the same as "
                "C_T_V1 (things), C_T_SKHT_V1 (sintel) and C_T_SKHT_K_V1 (kitti)"
            )
        raise WeightsError(
            f"{source} must hold the weights of torchvision's {parameters.raft_model}, and differs "
            f"in {len(strange)} of them, such as {strange[0]}{hint}"
        ) from error
    return network.eval().requires_grad_(False)


@contextmanager
def _float32(device: torch.device) -> Iterator[None]:
    """Convolutions in float32: PyTorch's default on newer NVIDIA GPUs has 10 bits (TF32).

    One data set may come from GPUs and cores, so their fields should be as near as can be.
    """
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
