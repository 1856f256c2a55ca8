"""The motion layer of a network that computes flow from frames by itself. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowprep.config import check_choice
from flowprep.errors import ConfigError
from flowprep.flow.parameters import TVL1Parameters

__all__ = ["MotionLearning", "MotionSpec"]

MotionLearning = Literal["none", "shared", "each"]
"""What of TV-L1 a network learns. `none`: nothing. `shared`: constants and taps, the same ones for
all iterations (Piergiovanni and Ryoo 2019). `each`: taps of its own for each iteration (Fan et al.
2018)."""


@dataclass(frozen=True)
class MotionSpec:
    """TV-L1 as the first layer of a network; defaults of TVNet (Fan et al. 2018)."""

    motion_learns: MotionLearning = "none"
    """What the motion layer of stream motion learns. `none`: nothing, it is TV-L1. `shared`:
    its constants and finite differences. `each`: the same, with differences of its own for each
    iteration."""
    motion_iterations: int = 50
    """Iterations of the motion layer for each warp."""
    motion_warps: int = 1
    """Warps of the motion layer at each scale."""
    motion_scales: int = 1
    """Scales of the motion layer's pyramid, each .8 as large as the one before. Fast motion needs
    several scales and warps."""
    motion_median: int = 1
    """Side of the motion layer's median filter before each warp: 5 as in --algorithm tvl1, 3, or 1
    for none."""
    motion_bound_px: float = 20.0
    """Longest flow along x or y that the motion layer gives, in pixels. The scale of the network's
    input depends on it, as on the bound of stored flow."""

    def __post_init__(self) -> None:
        check_choice("motion_learns", self.motion_learns, MotionLearning)
        for name in ("motion_iterations", "motion_warps", "motion_scales"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.motion_median not in (1, 3, 5):
            raise ConfigError(f"motion_median must be 1, 3 or 5, got {self.motion_median}")
        if not self.motion_bound_px > 0:
            raise ConfigError(f"motion_bound_px must be above 0, got {self.motion_bound_px:g}")

    @property
    def parameters(self) -> TVL1Parameters:
        """The parameters of TV-L1. The rest of them are the estimator's defaults."""
        return TVL1Parameters(
            nscales=self.motion_scales,
            warps=self.motion_warps,
            inner_iterations=self.motion_iterations,
            outer_iterations=1,
            median_filtering=self.motion_median,
        )
