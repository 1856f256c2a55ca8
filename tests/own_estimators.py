"""Estimators as users write them, in modules of their own, and clips that tell gray from RGB."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow import own
from flowprep.run import run_job, versions
from flowprep.synthetic import textured_image

CHANNEL_MOTIONS_PX = ((3, 0), (-2, 0), (0, 2))
"""Motion of each channel of `channel_frames` from frame to frame, x right and y down."""

GRAY_MODULE = '''\
"""Farneback of OpenCV, on gray frames."""

import cv2

from flowprep import FlowEstimator


class GrayFlow(FlowEstimator):
    version = "1.0"

    def __call__(self, prev, next):
        return cv2.calcOpticalFlowFarneback(prev, next, None, 0.5, 3, 15, 3, 5, 1.2, 0)
'''

RGB_MODULE = '''\
"""Farneback of OpenCV, on one channel of RGB frames."""

from dataclasses import dataclass

import cv2
import numpy as np

from flowprep import FlowEstimator

__version__ = "1.0"


@dataclass(frozen=True)
class ChannelParameters:
    channel: int = 0
    winsize: int = 15
    gains: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        if self.channel not in (0, 1, 2):
            raise ValueError(f"channel must be 0, 1 or 2, got {self.channel}")


class ChannelFlow(FlowEstimator):
    frames = "rgb"
    parameters_class = ChannelParameters

    def __init__(self, parameters):
        self.parameters = parameters

    def __call__(self, prev, next):
        p = self.parameters
        one, other = (np.ascontiguousarray(image[..., p.channel]) for image in (prev, next))
        return cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, p.winsize, 3, 5, 1.2, 0)
'''


def channel_frames(num_frames: int, width: int = 96, height: int = 64) -> list[NDArray[np.uint8]]:
    """Returns (H, W, 3) RGB frames whose channels are three pictures with motions of their own."""
    planes = [
        cv2.cvtColor(textured_image(height, width, seed), cv2.COLOR_RGB2GRAY) for seed in range(3)
    ]
    return [
        np.stack(
            [
                np.roll(plane, (y * t, x * t), (0, 1))
                for plane, (x, y) in zip(planes, CHANNEL_MOTIONS_PX, strict=True)
            ],
            axis=-1,
        )
        for t in range(num_frames)
    ]


def write_images(folder: Path, frames: list[NDArray[np.uint8]]) -> Path:
    """Writes frames without loss, as a folder of images."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        path = folder / f"img_{number:05d}.png"
        assert cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def forget_modules(folder: Path) -> None:
    """Forgets the modules of a folder, and what was made of them, so that they are read anew."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{folder}/"):
            del sys.modules[name]
    for cached in (own.load_own, versions.environment, run_job._estimator):
        cached.cache_clear()
