"""The TV-L1 layer: the estimator's flow, with right gradients, and numbers that can be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.tvl1 import TVL1
from flowprep.flow.tvl1_torch import TVL1Torch
from flowprep.learn.layers.tvl1 import TVL1Layer, gray_levels
from flowprep.learn.layers.tvl1_steps import TapDifferences
from flowprep.learn.motion_spec import MotionLearning, MotionSpec
from tests.flow.scenes import endpoint_error, frames, moving, turning_frames
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

Gray = NDArray[np.uint8]
Field = NDArray[np.float32]

CLIPS = ("Biking/v_Biking_g19_c01.avi", "JavelinThrow/v_JavelinThrow_g21_c03.avi")
SURE: dict[str, Any] = {"epsilon": 1e-9, "inner_iterations": 15, "outer_iterations": 2}
"""A number of iterations that does not depend on rounding."""


def layer_flow(layer: TVL1Layer, first: Gray, second: Gray) -> Field:
    """The layer's field of one pair, (H, W, 2)."""
    pair = (torch.from_numpy(one)[None] for one in (first, second))
    with torch.no_grad():
        return layer(*pair)[0].permute(1, 2, 0).numpy()


def real_pair(path: Path) -> list[Gray]:
    """The frames 10 and 11 of a clip."""
    capture = cv2.VideoCapture(str(path))
    read = [capture.read() for _ in range(12)]
    assert all(found for found, _ in read), path
    return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8) for _, frame in read[10:]]


# ---- the estimator's numbers


@pytest.mark.parametrize(
    "given",
    [
        {"nscales": 1, "warps": 1, "stop": "exact"},
        {"nscales": 1, "warps": 1, "median_filtering": 1, "inner_iterations": 50, "stop": "exact"},
        {"nscales": 1, "warps": 1, "tau": 0.2, "lambda_": 0.3, "theta": 0.5, **SURE},
    ],
)
def test_one_warp_at_one_scale_is_the_estimators(given: dict[str, Any], test_data: Path) -> None:
    parameters = TVL1Parameters(**given)
    pairs = [
        turning_frames(2),
        *(real_pair(test_data / "ucf101" / "videos" / clip) for clip in CLIPS),
    ]
    for pair in pairs:
        expected = TVL1(parameters)(*pair)
        assert np.abs(expected).max() > 1
        assert endpoint_error(layer_flow(TVL1Layer(parameters), *pair), expected).max() < 1e-3


@pytest.mark.parametrize("given", [SURE, {**SURE, "median_filtering": 1}, {"stop": "exact"}])
def test_all_warps_at_all_scales_are_the_estimators(given: dict[str, Any], test_data: Path) -> None:
    parameters = TVL1Parameters(**given)
    pairs = [frames(moving(80, 64)), real_pair(test_data / "ucf101" / "videos" / CLIPS[0])]
    for pair in pairs:
        expected = TVL1(parameters)(*pair)
        error = endpoint_error(layer_flow(TVL1Layer(parameters), *pair), expected)
        assert error.mean() < 0.01
        # At an edge a rounding decides whether a pixel goes with one side or the other.
        assert (error < 0.01).mean() > 0.95


def test_the_estimators_own_settings_differ_no_more_than_its_two_implementations() -> None:
    parameters = TVL1Parameters()
    pair = turning_frames(2)
    native = TVL1(parameters)(*pair)
    error = endpoint_error(layer_flow(TVL1Layer(parameters), *pair), native).mean()
    portable = endpoint_error(TVL1Torch(parameters)(*pair), native).mean()
    assert error < max(0.01, 1.5 * portable)


def test_fields_of_a_batch_stop_one_by_one() -> None:
    parameters = TVL1Parameters(nscales=1, warps=1, stop="exact")
    layer = TVL1Layer(parameters)
    still = frames(moving(64, 48))[:1] * 2
    pairs = [still, frames(moving(64, 48)), frames(moving(64, 48, (0.3, 0.2), seed=5))]
    together = layer(*(torch.stack([torch.from_numpy(p[k]) for p in pairs]) for k in range(2)))
    for field, pair in zip(together.detach(), pairs, strict=True):
        expected = TVL1(parameters)(*pair)
        assert endpoint_error(field.permute(1, 2, 0).numpy(), expected).max() < 1e-3
    assert together[0].abs().max() == 0


def test_gray_levels_are_those_of_the_estimators_frames() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    levels = gray_levels(torch.from_numpy(rgb).permute(2, 0, 1)[None].float())
    expected = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(levels[0].numpy(), expected.astype(np.float32))


# ---- gradients


@pytest.mark.parametrize("learns", ["shared", "each"])
def test_gradients_are_right(learns: MotionLearning) -> None:
    parameters = TVL1Parameters(
        nscales=2, warps=2, outer_iterations=1, inner_iterations=5, median_filtering=3
    )
    layer = TVL1Layer(parameters, learns=learns, stops=False).double()
    pair = [torch.from_numpy(one)[None].double() for one in turning_frames(2, 24, 20)]
    names = [name for name, _ in layer.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in layer.parameters()]

    def flow(first: torch.Tensor, second: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, values, strict=True))
        result: torch.Tensor = torch.func.functional_call(layer, own, (first, second))
        return result

    given = [one.requires_grad_() for one in pair] + values
    assert torch.autograd.gradcheck(flow, tuple(given), eps=1e-6, atol=1e-4, fast_mode=True)
    gradients = torch.autograd.grad(flow(*given).square().sum(), given)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_gradient_of_rounded_gray_is_that_of_the_weights() -> None:
    rgb = torch.rand(1, 3, 4, 5, requires_grad=True)
    gray_levels(rgb).sum().backward()
    assert rgb.grad is not None
    expected = torch.tensor([0.299, 0.587, 0.114])[:, None, None].expand(3, 4, 5)
    torch.testing.assert_close(rgb.grad[0], expected, atol=1e-4, rtol=0)


def test_a_still_pair_has_finite_gradients() -> None:
    layer = TVL1Layer(TVL1Parameters(nscales=1, warps=1), learns="shared", stops=False)
    blank = torch.full((1, 20, 24), 128.0, requires_grad=True)
    layer(blank, blank).sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in (*layer.parameters(), blank))


# ---- learning


@pytest.mark.parametrize("which", ["all", "taps"])
@pytest.mark.parametrize("learns", ["shared", "each"])
def test_learning_its_numbers_lowers_the_error(learns: MotionLearning, which: str) -> None:
    """Also where the constants stay: TVNet learns nothing but taps."""
    scene = moving(48, 40, (0.9, -0.6))
    pair = [torch.from_numpy(one)[None] for one in frames(scene)]
    truth = torch.from_numpy(scene.flow(0)).permute(2, 0, 1)
    spec = MotionSpec(motion_learns=learns, motion_iterations=12)
    layer = TVL1Layer(spec.parameters, learns=learns, stops=False)
    names = [name for name, _ in layer.named_parameters() if which == "all" or "taps" in name]
    optimizer = torch.optim.Adam([layer.get_parameter(name) for name in names], lr=0.01)
    losses = []
    for _ in range(16):
        loss = (layer(*pair)[0] - truth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-2:]) < 0.95 * losses[0]


@pytest.mark.parametrize("learns", get_args(MotionLearning))
def test_what_learns(learns: MotionLearning) -> None:
    spec = MotionSpec(motion_learns=learns, motion_iterations=7, motion_warps=2, motion_scales=3)
    layer = TVL1Layer(spec.parameters, learns=learns, stops=False)
    assert all(one.requires_grad == (learns != "none") for one in layer.parameters())
    sets = 7 * 2 * 3 if learns == "each" else 1
    assert sum(one.numel() for one in layer.parameters()) == 3 + 2 * 3 + sets * 2 * 8


def test_each_iteration_has_its_own_taps() -> None:
    """Changing the taps of the last iteration of the finest scale alone changes the flow."""
    spec = MotionSpec(motion_learns="each", motion_iterations=4, motion_scales=2)
    layer = TVL1Layer(spec.parameters, learns="each", stops=False)
    pair = [torch.from_numpy(one)[None] for one in turning_frames(2, 48, 40)]
    with torch.no_grad():
        before = layer(*pair)
        layer.divergence_taps[3, 0, 0, 1] = 0.5  # of x along x
        after = layer(*pair)
    assert not torch.equal(before[:, 0], after[:, 0])
    torch.testing.assert_close(before[:, 1], after[:, 1])


def test_learned_numbers_keep_their_meaning_in_half_precision() -> None:
    layer = TVL1Layer(TVL1Parameters(nscales=1, warps=1), stops=False)
    pair = [torch.from_numpy(one)[None] for one in turning_frames(2, 48, 40)]
    with torch.no_grad():
        expected = layer(*pair)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer(*pair)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


# ---- the differences


def test_divergence_is_the_negative_adjoint_of_the_slopes() -> None:
    """<grad u, p> = -<u, div p> for dual variables without a part that leaves the image."""
    taps = torch.tensor([-1.0, 1.0], dtype=torch.double).expand(2, 2, 2)
    differences = TapDifferences(taps, taps)
    generator = torch.Generator().manual_seed(0)
    u, x, y = torch.randn(3, 1, 2, 6, 7, generator=generator, dtype=torch.double)
    x[..., -1], y[..., -1, :] = 0, 0
    along_x, along_y = differences.slopes(u)
    inner = (along_x * x + along_y * y).sum()
    torch.testing.assert_close(inner, -(u * differences.divergence(x, y)).sum())


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="learns must be"):
        TVL1Layer(learns="all")  # type: ignore[arg-type]
    for wrong in (
        {"motion_iterations": 0},
        {"motion_median": 2},
        {"motion_bound_px": 0.0},
        {"motion_scales": 0},
        {"motion_learns": "some"},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            MotionSpec(**wrong)  # type: ignore[arg-type]
