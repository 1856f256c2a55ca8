"""Frames whose flow is known, for the tests of estimators."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.synthetic import Layer, Motion, Scene

Gray = NDArray[np.uint8]
Flow = NDArray[np.float32]


def gray(rgb: NDArray[np.uint8]) -> Gray:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def frames(scene: Scene, num_frames: int = 2) -> list[Gray]:
    return [gray(scene.frame(t)) for t in range(num_frames)]


def moving(
    width: int, height: int, velocity_px: tuple[float, float] = (1.7, -0.9), seed: int = 3
) -> Scene:
    return Scene(width, height, (Layer(seed, (Motion(velocity_px=velocity_px),)),))


def turning(width: int = 96, height: int = 64) -> Scene:
    """A textured plane that shifts, turns and grows a little."""
    motion = Motion(velocity_px=(1.6, -0.7), turn_rate=0.01, zoom_rate=0.004)
    return Scene(width, height, (Layer(3, (motion,)),))


def turning_frames(num_frames: int, width: int = 96, height: int = 64) -> list[Gray]:
    return frames(turning(width, height), num_frames)


def endpoint_error(flow: Flow, other: Flow) -> NDArray[np.float32]:
    """The length in px of each pixel's difference."""
    return np.asarray(np.linalg.norm(flow - other, axis=-1), np.float32)
