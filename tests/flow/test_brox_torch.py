"""Brox in PyTorch: as near the native one as two runs of that are, in batches of any size."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from flowprep.flow.brox import Brox
from flowprep.flow.parameters import BroxParameters
from tests.flow.scenes import endpoint_error, frames, moving, turning_frames

if os.environ.get("FLOWPREP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="PyTorch is not installed")

from flowprep.flow.brox_torch import BroxTorch
from tests.torch_devices import devices, one_thread

__all__ = ["one_thread"]


@devices
@pytest.mark.parametrize(
    "changed",
    [
        {"solver_iterations": 2, "inner_iterations": 2},
        {"pyramid_filter": "area", "solver_iterations": 2, "inner_iterations": 2},
        {"outer_iterations": 1, "solver_iterations": 1, "inner_iterations": 1},
        {"scale_factor": 0.5, "gamma": 5.0, "alpha": 1.0, "solver_iterations": 2},
    ],
)
@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 19), (64, 33)])
def test_few_sweeps_give_the_native_field(
    changed: dict[str, Any], width: int, height: int, device: str
) -> None:
    """Few sweeps do not amplify roundings, so that nothing hides a difference."""
    parameters = BroxParameters(**changed)
    pair = turning_frames(2, width, height)
    found = BroxTorch(parameters, device=device)(*pair)
    assert endpoint_error(found, Brox(parameters)(*pair)).max() < 2e-3


@devices
def test_the_defaults_are_as_near_as_rounding_lets_them(device: str) -> None:
    pair = frames(moving(128, 96, (2.3, -1.4)))
    found = BroxTorch(BroxParameters(), device=device)(*pair)
    native = Brox(BroxParameters())
    expected = native(*pair)
    # How far 1e-7 on the frames moves the native field itself.
    noise = np.random.default_rng(0).normal(0, 1e-7, (2, 96, 128))
    noisy = [
        (frame / np.float32(255) + one).astype(np.float32)
        for frame, one in zip(pair, noise, strict=True)
    ]
    settled = endpoint_error(native(*noisy), expected).mean()
    assert 0.001 < settled < 0.08
    assert endpoint_error(found, expected).mean() < 1.5 * settled
    assert np.abs(found[16:-16, 16:-16] - np.float32((2.3, -1.4))).mean() < 0.06


@devices
def test_a_batch_does_not_change_a_field(device: str) -> None:
    video = turning_frames(5, 40, 33)
    parameters = BroxParameters(solver_iterations=2)
    one = list(BroxTorch(parameters, device=device, batch_pairs=1).pairs(video))
    several = list(BroxTorch(parameters, device=device, batch_pairs=3).pairs(video))
    assert len(one) == len(several) == 4
    for alone, together in zip(one, several, strict=True):
        for name in ("forward", "backward"):
            np.testing.assert_allclose(
                getattr(alone, name), getattr(together, name), rtol=0, atol=1e-4
            )
