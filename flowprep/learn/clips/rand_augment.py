"""RandAugment of the RGB frames of a clip: Cubuk et al., "RandAugment" (CVPR Workshops 2020).

A clip draws a few operations of one magnitude. Every operation changes all frames of the clip in
the same way. The ranges are those of torchvision (transforms/autoaugment.py, RandAugment), by
Pillow's operations as there. Two things differ, so that magnitude 0 changes nothing and a still
video stays still:

- Solarization inverts levels from 256 - 256 m / 30 on, not from 255 - 255 m / 30 on.
- Statistics (the range of levels, their histogram, the mean gray) are those of the whole clip.

Px that come from outside of the frame are gray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from flowprep.learn.training_specs import HIGHEST_MAGNITUDE, AugmentSpec

__all__ = ["COLOR_OPERATIONS", "OPERATIONS", "FrameChange", "draw_frame_change"]

_GRAY = (128, 128, 128)

Operation = Callable[[Image.Image, float], Image.Image]
"""Changes a picture by a strength: 0 to 1, or -1 to 1 for an operation with two directions."""


def _affine(
    image: Image.Image, matrix: tuple[float, float, float, float, float, float]
) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BILINEAR,
        fillcolor=_GRAY,
    )


def _translation(width: int) -> float:
    # 150 px of 331, the size of the paper's pictures.
    return width * 150 / 331


_BENDING: Mapping[str, Operation] = {
    "shear-x": lambda image, strength: _affine(image, (1, 0.3 * strength, 0, 0, 1, 0)),
    "shear-y": lambda image, strength: _affine(image, (1, 0, 0, 0.3 * strength, 1, 0)),
    "translate-x": lambda image, strength: _affine(
        image, (1, 0, strength * _translation(image.width), 0, 1, 0)
    ),
    "translate-y": lambda image, strength: _affine(
        image, (1, 0, 0, 0, 1, strength * _translation(image.height))
    ),
    "rotate": lambda image, strength: image.rotate(
        30 * strength, resample=Image.Resampling.BILINEAR, fillcolor=_GRAY
    ),
}
"""They move px, so flow beside the frames would be wrong: both its places and its vectors."""

_SHARPNESS = "sharpness"

_PLAIN: Mapping[str, Operation] = {
    "identity": lambda image, strength: image,
    "auto-contrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(strength * 4)),
    "solarize": lambda image, strength: ImageOps.solarize(image, round(256 * (1 - strength))),
}
"""Operations of one direction. The first three have no strength."""

_ENHANCING: Mapping[str, Operation] = {
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(
        1 + 0.9 * strength
    ),
    "color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    _SHARPNESS: lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
}

COLOR_OPERATIONS: Mapping[str, Operation] = {**_PLAIN, **_ENHANCING}
"""Operations that leave every px in its place."""

OPERATIONS: Mapping[str, Operation] = {**COLOR_OPERATIONS, **_BENDING}
"""The paper's 14 operations."""


@dataclass(frozen=True)
class FrameChange:
    """Operations, one after the other, and the strength of each."""

    steps: tuple[tuple[str, float], ...]

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns changed frames: (n, H, W, 3) uint8 RGB, as `frames`, which stay as they are."""
        for name, strength in self.steps:
            change = OPERATIONS[name]
            if name in _BENDING or name == _SHARPNESS:
                # These look at neighbors, so each frame is a picture of its own.
                changed = [np.asarray(change(Image.fromarray(one), strength)) for one in frames]
                frames = np.stack(changed)
            else:
                # One high picture: what is measured of it is measured of the whole clip.
                high = Image.fromarray(frames.reshape(-1, *frames.shape[2:]))
                frames = np.asarray(change(high, strength)).reshape(frames.shape)
        return frames


def draw_frame_change(
    augment: AugmentSpec, *, beside_flow: bool, rng: np.random.Generator
) -> FrameChange | None:
    """Draws the operations of a clip; returns None without `augment.rand_augment`.

    `beside_flow` is for clips whose flow goes along: then only colors are changed.
    """
    if not augment.rand_augment:
        return None
    num_operations, magnitude = augment.rand_augment
    names = list(COLOR_OPERATIONS if beside_flow else OPERATIONS)
    steps = []
    for _ in range(int(num_operations)):
        name = names[rng.integers(len(names))]
        sign = 1 if rng.random() < 0.5 or name in _PLAIN else -1
        steps.append((name, sign * magnitude / HIGHEST_MAGNITUDE))
    return FrameChange(tuple(steps))
