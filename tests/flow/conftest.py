"""What tests of several estimators measure against."""

from __future__ import annotations

import ctypes
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.flow.scenes import Flow, Gray


@pytest.fixture(scope="session")
def rubber_whale(test_data: Path) -> tuple[Gray, Gray, Flow, NDArray[np.bool_]]:
    """Middlebury's first and second frame, the true flow, and where it is known."""
    folder = test_data / "groundtruth" / "RubberWhale"
    prev, following = (
        np.asarray(cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE), np.uint8)
        for name in ("frame10.png", "frame11.png")
    )
    truth = np.asarray(cv2.readOpticalFlow(str(folder / "flow10.flo")), np.float32)
    return prev, following, truth, np.abs(truth).max(axis=-1) < 1e9


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """TV-L1's CUDA kernels, compiled for the CPU."""
    # PyTorch takes seconds to import, so only tests that need it wait for it.
    from flowprep.flow.tvl1_cuda import SOURCE
    from tests.flow.simulator import build

    return build(SOURCE, tmp_path_factory.mktemp("cuda_on_cpu"))
