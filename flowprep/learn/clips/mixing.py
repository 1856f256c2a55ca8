"""Clips that are made of two videos (mixup, CutMix), and clips with a hole (random erasing).

    Mix, draw_mix, mix_clips     Zhang et al. 2018 (ICLR), Yun et al. 2019 (ICCV)
    erase_box                    Zhong et al. 2020 (AAAI)

Everything happens in the numbers that the network gets, for all inputs of a clip alike, so flow and
frames still show the same. A box is the same in all frames and fields of all segments of a sample.

Sample 2k of the training's stream is mixed with sample 2k + 1, and the reverse, each with a share
of its own. So a mixed sample depends on its position alone, as every other one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.training_specs import AugmentSpec

__all__ = [
    "Box",
    "Mix",
    "check_unmixed",
    "draw_erasing",
    "draw_mix",
    "erase_box",
    "mix_clips",
    "partner_of",
]


@dataclass(frozen=True)
class Box:
    """Whole px of the crop: columns from `left` to before `right`, rows from `top` to `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    def share(self, crop_px: int) -> float:
        """Returns which part of the crop it covers."""
        return (self.right - self.left) * (self.bottom - self.top) / crop_px**2

    def seen_by(self, one: ClipInput, crop_px: int) -> tuple[slice, slice]:
        """Returns the rows and columns of an input's tensor, whose view may be a part."""
        side = one.side_px(crop_px)
        edges = np.array([[self.top, self.bottom], [self.left, self.right]])
        if one.view == "fovea":
            edges = edges - (crop_px - side) // 2
        elif side != crop_px:
            edges = np.round(edges * side / crop_px).astype(int)
        (top, bottom), (left, right) = np.clip(edges, 0, side).tolist()
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Mix:
    """How a sample is mixed with its partner."""

    share: float
    """Of the sample itself, 0 to 1, in its clips and in its label. The rest is the partner's."""
    box: Box | None = None
    """What the partner covers. None mixes all px."""


def check_unmixed(augment: AugmentSpec) -> None:
    """Raises ConfigError for samples of two videos, where a sample has one label."""
    for name in ("mixup", "cutmix"):
        if getattr(augment, name):
            raise ConfigError(
                f"{name} must be 0 here, got {getattr(augment, name):g}: a sample has one label; "
                "take TrainingClips, or mix the batches of your own loop"
            )


def partner_of(position: int) -> int:
    """Returns the position of the sample that the one at `position` is mixed with."""
    return position ^ 1


def draw_mix(augment: AugmentSpec, crop_px: int, rng: np.random.Generator) -> Mix:
    """Draws how a sample is mixed: by mixup, by CutMix, or by one of the two if both are wanted."""
    cuts = augment.cutmix > 0 and (augment.mixup == 0 or rng.random() < 0.5)
    alpha = augment.cutmix if cuts else augment.mixup
    share = float(rng.beta(alpha, alpha))
    if not cuts:
        return Mix(share)
    # Yun et al. 2019, section 3.1: the box has the shape of the crop, its center lies anywhere, and
    # what would be outside is cut off. The labels' share is that of the px.
    side = int(crop_px * math.sqrt(1 - share))
    x, y = (int(place) for place in rng.integers(crop_px, size=2))
    left, top = max(0, x - side // 2), max(0, y - side // 2)
    right, bottom = (min(crop_px, place - side // 2 + side) for place in (x, y))
    box = Box(left, top, right, bottom)
    return Mix(1 - box.share(crop_px), box)


def mix_clips(
    own: Mapping[str, NDArray[np.float32]],
    other: Mapping[str, NDArray[np.float32]],
    mix: Mix,
    inputs: Sequence[ClipInput],
    crop_px: int,
) -> None:
    """Mixes a sample, tensors (S, C, ..., H, W) by input, with its partner's, in place."""
    for one in inputs:
        mine, partner = own[one.name], other[one.name]
        if mix.box is not None:
            rows, columns = mix.box.seen_by(one, crop_px)
            mine[..., rows, columns] = partner[..., rows, columns]
        elif mix.share < 1:
            mine *= np.float32(mix.share)
            mine += partner * np.float32(1 - mix.share)


def draw_erasing(augment: AugmentSpec, crop_px: int, rng: np.random.Generator) -> Box | None:
    """Draws whether a sample has a box erased, and which.

    Zhong et al. 2020, section 3.2, with the ranges of torchvision (RandomErasing): 2 to 33 % of the
    crop, sides of a ratio from .3 to 3.3.
    """
    if rng.random() >= augment.random_erasing:
        return None
    while True:
        area = rng.uniform(0.02, 0.33) * crop_px**2
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < height < crop_px and 0 < width < crop_px:
            left, top = (int(rng.integers(crop_px - side + 1)) for side in (width, height))
            return Box(left, top, left + width, top + height)


def erase_box(
    clips: Mapping[str, NDArray[np.float32]], box: Box, inputs: Sequence[ClipInput], crop_px: int
) -> None:
    """Sets a box of a sample's inputs to 0, in place: the mean of RGB, and about no motion."""
    for one in inputs:
        rows, columns = box.seen_by(one, crop_px)
        clips[one.name][..., rows, columns] = 0
