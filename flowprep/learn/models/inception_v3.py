"""Inception-V3 of Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (CVPR
2016), as the base of GSM and of TSN, over images or stacks of flow fields.

Layers and names are those of yjxiong/tensorflow-model-zoo.torch and swathikirans/GSM
(model_zoo/bninception/inceptionv3.yaml), without `_Conv2D`, and with `_bn` for `_batchnorm`. Unlike
torchvision's, all convolutions have a bias, and there is no second classifier.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.bn_inception import GatedNetwork, PoolName

__all__ = ["InceptionV3"]


class Unit(NamedTuple):
    """A convolution with its batch norm."""

    name: str
    """What follows the block's name."""
    channels: int
    kernel: tuple[int, int] = (1, 1)
    """Height and width."""
    stride: int = 1


class Branch(NamedTuple):
    """A branch of a block: a pooling or none, then units; the last ones side by side."""

    units: tuple[Unit, ...]
    pool: Literal["", "average", "max", "halve"] = ""
    ends: tuple[Unit, ...] = ()


STEM = (
    (Unit("conv", 32, (3, 3), 2), 0),
    (Unit("conv_1", 32, (3, 3)), 0),
    (Unit("conv_2", 64, (3, 3)), 1),
    (Unit("conv_3", 80), 0),
    (Unit("conv_4", 192, (3, 3)), 0),
)
"""The first units and their padding. A pooling follows conv_2 and conv_4."""


def _wide(pooled: int) -> tuple[Branch, ...]:
    return (
        Branch((Unit("conv", 64),)),
        Branch((Unit("tower_conv", 48), Unit("tower_conv_1", 64, (5, 5)))),
        Branch(
            (
                Unit("tower_1_conv", 64),
                Unit("tower_1_conv_1", 96, (3, 3)),
                Unit("tower_1_conv_2", 96, (3, 3)),
            )
        ),
        Branch((Unit("tower_2_conv", pooled),), "average"),
    )


def _factorized(channels: int) -> tuple[Branch, ...]:
    return (
        Branch((Unit("conv", 192),)),
        Branch(
            (
                Unit("tower_conv", channels),
                Unit("tower_conv_1", channels, (7, 1)),
                Unit("tower_conv_2", 192, (1, 7)),
            )
        ),
        Branch(
            (
                Unit("tower_1_conv", channels),
                Unit("tower_1_conv_1", channels, (1, 7)),
                Unit("tower_1_conv_2", channels, (7, 1)),
                Unit("tower_1_conv_3", channels, (1, 7)),
                Unit("tower_1_conv_4", 192, (7, 1)),
            )
        ),
        Branch((Unit("tower_2_conv", 192),), "average"),
    )


def _expanded(pool: PoolName) -> tuple[Branch, ...]:
    def ends(tower: str) -> tuple[Unit, ...]:
        name = f"{tower}_mixed_conv"
        return Unit(name, 384, (3, 1)), Unit(f"{name}_1", 384, (1, 3))

    return (
        Branch((Unit("conv", 320),)),
        Branch((Unit("tower_conv", 384),), ends=ends("tower")),
        Branch(
            (Unit("tower_1_conv", 448), Unit("tower_1_conv_1", 384, (3, 3))), ends=ends("tower_1")
        ),
        Branch((Unit("tower_2_conv", 192),), pool),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "mixed": _wide(32),
    "mixed_1": _wide(64),
    "mixed_2": _wide(64),
    "mixed_3": (
        Branch((Unit("conv", 384, (3, 3), 2),)),
        Branch(
            (
                Unit("tower_conv", 64),
                Unit("tower_conv_1", 96, (3, 3)),
                Unit("tower_conv_2", 96, (3, 3), 2),
            )
        ),
        Branch((), "halve"),
    ),
    "mixed_4": _factorized(128),
    "mixed_5": _factorized(160),
    "mixed_6": _factorized(160),
    "mixed_7": _factorized(192),
    "mixed_8": (
        Branch((Unit("tower_conv", 192), Unit("tower_conv_1", 320, (3, 3), 2))),
        Branch(
            (
                Unit("tower_1_conv", 192),
                Unit("tower_1_conv_1", 192, (7, 1)),
                Unit("tower_1_conv_2", 192, (1, 7)),
                Unit("tower_1_conv_3", 192, (3, 3), 2),
            )
        ),
        Branch((), "halve"),
    ),
    "mixed_9": _expanded("average"),
    "mixed_10": _expanded("max"),
}


class InceptionV3(GatedNetwork):
    """Inception-V3 over (N, C, H, W), published for 299 px and, in GSM, for 229.

    H and W may have any size; a map that is smaller than a window of 3 is padded to 3. `width`
    multiplies the channels of every layer. With `is_gated`, layers have channels for GSM's gates.
    """

    head = ("fc",)
    gated = (
        *("mixed_conv", "mixed_1_conv", "mixed_2_conv", "mixed_3_tower_conv", "mixed_4_conv"),
        *("mixed_5_conv", "mixed_7_conv", "mixed_8_tower_conv", "mixed_9_conv", "mixed_10_conv"),
    )

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.0,
        width: float = 1.0,
        is_gated: bool = False,
    ) -> None:
        super().__init__(inputs, width, is_gated=is_gated)
        (clip,) = self.inputs
        channels = clip.num_channels
        for unit, padding in STEM:
            channels = self._add_unit(
                unit.name, channels, unit.channels, unit.kernel, stride=unit.stride, padding=padding
            )
        for block, branches in BLOCKS.items():
            channels = sum(self._add_branch(block, channels, branch) for branch in branches)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self._init_classifier()
        names = [name for name, _ in self.named_children()]
        stages = (
            r"conv",
            r"mixed(_[12])?_(conv|tower)",
            r"mixed_[3-7]_(conv|tower)",
            r"mixed_([89]|10)_(conv|tower)",
        )
        self.stages = tuple(
            tuple(name for name in names if re.match(stage, name)) for stage in stages
        )

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 2048 * width)."""
        return self.extract_maps(x).mean((2, 3))  # (N, 2048)

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last map, (N, 2048 * width, h, w): 6 x 6 at 229 px."""
        for unit, padding in STEM:
            kernel = unit.kernel[0] if padding == 0 else 1
            x = self._unit(unit.name, _at_least(x, kernel))
            if unit.name in ("conv_2", "conv_4"):
                x = F.max_pool2d(_at_least(x, 3), 3, stride=2, ceil_mode=True)
        for block, branches in BLOCKS.items():
            # mixed to mixed_2: 256, 288, 288 channels; to mixed_7: 768; 1280, 2048, 2048
            x = torch.cat([part for one in branches for part in self._branch(block, x, one)], 1)
        return x

    def _add_branch(self, block: str, in_channels: int, branch: Branch) -> int:
        """Adds the layers of a branch; returns the channels of its result."""
        channels = in_channels

        def add(unit: Unit) -> int:
            padding = (0, 0) if unit.stride > 1 else (unit.kernel[0] // 2, unit.kernel[1] // 2)
            return self._add_unit(
                f"{block}_{unit.name}",
                channels,
                unit.channels,
                unit.kernel,
                stride=unit.stride,
                padding=padding,
            )

        for unit in branch.units:
            channels = add(unit)
        return sum(map(add, branch.ends)) if branch.ends else channels

    def _branch(self, block: str, x: torch.Tensor, branch: Branch) -> list[torch.Tensor]:
        if branch.pool == "average":
            x = F.avg_pool2d(x, 3, stride=1, padding=1)
        elif branch.pool == "max":
            x = F.max_pool2d(x, 3, stride=1, padding=1)
        elif branch.pool == "halve":
            # Caffe's pools round up. The convolutions beside this one round down: both are the
            # same where a side is odd, as at 229 and 299 px, and the release fails elsewhere.
            x = F.max_pool2d(_at_least(x, 3), 3, stride=2)
        for unit in branch.units:
            x = self._unit(f"{block}_{unit.name}", _at_least(x, 3) if unit.stride > 1 else x)
        if not branch.ends:
            return [x]
        return [self._unit(f"{block}_{unit.name}", x) for unit in branch.ends]


def _at_least(x: torch.Tensor, side: int) -> torch.Tensor:
    """Returns a map with zeros at its right and lower edge, so that a window fits into it."""
    missing = [max(0, side - x.shape[axis]) for axis in (3, 2)]
    return F.pad(x, (0, missing[0], 0, missing[1])) if any(missing) else x
