"""An estimator of PyTorch whose fields are the images that it was given."""

from __future__ import annotations

import torch
from torch import Tensor

from flowprep.flow.base_torch import TorchEstimator

__all__ = ["CopyingTorch"]


class CopyingTorch(TorchEstimator[None]):
    """Gives the first image as u and the second as v."""

    implementation = "test"
    bytes_per_pixel = 16

    def _make_plan(self, height: int, width: int) -> None:
        return None

    def _prepare(self, plan: None, frames: Tensor) -> list[Tensor]:
        return [frames]

    def _estimate(
        self, plan: None, prepared: list[Tensor], first: Tensor, second: Tensor
    ) -> Tensor:
        return torch.stack([prepared[0][first], prepared[0][second]], dim=-1).float()
