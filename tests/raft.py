"""Random weights of torchvision's RAFT, and videos large enough for it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.synthetic import Layer, Motion, Scene

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
    if os.environ.get("FLOWPREP_REQUIRE_TORCHVISION") == "1":
        raise ImportError("torchvision is not installed")
    pytest.skip("torchvision is not installed", allow_module_level=True)

importlib.import_module("tests.torchvision_hook")

__all__ = ["network", "rgb_frames", "save_weights"]

RGB = NDArray[np.uint8]


def network(model: str, seed: int = 0) -> Any:
    """torchvision's network with random weights."""
    torch: Any = importlib.import_module("torch")
    optical_flow: Any = importlib.import_module("torchvision.models.optical_flow")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(optical_flow, model)().eval()


def save_weights(file: Path, model: str = "raft_small", seed: int = 0) -> Path:
    torch: Any = importlib.import_module("torch")
    torch.save(network(model, seed).state_dict(), file)
    return file


def rgb_frames(num_frames: int, width: int = 131, height: int = 123) -> list[RGB]:
    motion = Motion(velocity_px=(1.6, -0.7), turn_rate=0.01)
    scene = Scene(width, height, (Layer(3, (motion,)),))
    return [scene.frame(t) for t in range(num_frames)]
