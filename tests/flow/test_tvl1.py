"""Native TV-L1: the numbers of OpenCV's algorithm, and what holds of optical flow by itself."""

from __future__ import annotations

import copy
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import llvmlite.binding
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flowprep.config import FlowSpec
from flowprep.dataset.quantize import quantize
from flowprep.flow import FlowPair, create_estimator
from flowprep.flow.parameters import OpenCVTVL1Parameters
from flowprep.flow.tvl1 import TVL1
from flowprep.synthetic import Layer, Motion, Scene, textured_image
from tests.flow.scenes import Flow, Gray, endpoint_error, frames, gray, moving

Plane = NDArray[np.float32]


# ---- a plain reference


@dataclass(frozen=True)
class Reference:
    flow: Flow
    num_iterations: list[list[int]]
    """Of each warp, level by level, finest first."""


def reference(prev: Gray, following: Gray, p: OpenCVTVL1Parameters) -> Reference:
    """TV-L1 step by step as OpenCV's tvl1flow.cpp (procOneScale and calc) without its gamma."""
    pyramids = [pyramid(frame.astype(np.float32), p) for frame in (prev, following)]
    levels = list(zip(*pyramids, strict=True))
    counts: list[list[int]] = []
    flow = np.zeros((2, *levels[-1][0].shape), np.float32)
    for first, second in reversed(levels):
        height, width = first.shape
        if counts:
            larger = [cv2.resize(u, (width, height)) for u in flow]
            flow = np.stack(larger) * np.float32(1 / p.scale_step)
        flow, num_iterations = solve_level(first, second, flow, p)
        counts.insert(0, num_iterations)
    return Reference(np.ascontiguousarray(np.moveaxis(flow, 0, -1)), counts)


def pyramid(image: Plane, p: OpenCVTVL1Parameters) -> list[Plane]:
    levels = [image]
    while len(levels) < p.nscales:
        smaller = cv2.resize(levels[-1], None, fx=p.scale_step, fy=p.scale_step)
        if min(smaller.shape) < 16:
            break
        levels.append(np.asarray(smaller, np.float32))
    return levels


def solve_level(
    first: Plane, second: Plane, flow: Plane, p: OpenCVTVL1Parameters
) -> tuple[Plane, list[int]]:
    stop_error = p.epsilon**2 * first.size
    threshold = np.float32(p.lambda_ * p.theta)
    padded = np.pad(second, 1, mode="edge")
    gradient = np.stack(
        [padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]]
    ) * np.float32(0.5)
    dual = np.zeros((2, *flow.shape), np.float32)  # of u and v: its x and y component
    counts = []
    for _ in range(p.warps):
        warped = warp(second, flow)
        warped_gradient = np.stack([warp(plane, flow) for plane in gradient])
        squared_norm = (warped_gradient**2).sum(axis=0)
        residual = warped - (warped_gradient * flow).sum(axis=0) - first
        error, count = math.inf, 0
        for _ in range(p.outer_iterations):
            if error <= stop_error:
                break
            if p.median_filtering > 1:
                flow = np.stack([cv2.medianBlur(u, p.median_filtering) for u in flow])
            for _ in range(p.inner_iterations):
                if error <= stop_error:
                    break
                rho = residual + (warped_gradient * flow).sum(axis=0)
                with np.errstate(divide="ignore", invalid="ignore"):
                    step = np.where(squared_norm > np.finfo(np.float32).eps, -rho / squared_norm, 0)
                step = np.where(rho < -threshold * squared_norm, threshold, step)
                step = np.where(rho > threshold * squared_norm, -threshold, step)
                updated = flow + step * warped_gradient + np.float32(p.theta) * divergence(dual)
                error = float(((updated - flow) ** 2).sum())
                flow = updated
                slope = np.float32(p.tau / p.theta) * forward_gradient(flow)
                dual = (dual + slope) / (1 + np.sqrt((slope**2).sum(axis=1, keepdims=True)))
                count += 1
        counts.append(count)
    return flow, counts


def warp(image: Plane, flow: Plane) -> Plane:
    y, x = np.indices(image.shape, np.float32)
    return np.asarray(cv2.remap(image, x + flow[0], y + flow[1], cv2.INTER_CUBIC), np.float32)


def divergence(dual: NDArray[np.float32]) -> Plane:
    result = dual[:, 0] + dual[:, 1]
    result[:, :, 1:] -= dual[:, 0, :, :-1]
    result[:, 1:] -= dual[:, 1, :-1]
    return np.asarray(result, np.float32)


def forward_gradient(flow: Plane) -> NDArray[np.float32]:
    result = np.zeros((2, *flow.shape), np.float32)
    result[:, 0, :, :-1] = flow[:, :, 1:] - flow[:, :, :-1]
    result[:, 1, :-1] = flow[:, 1:] - flow[:, :-1]
    return result


# ---- scenes


def native(**parameters: Any) -> TVL1:
    estimator = create_estimator("tvl1", **parameters)
    assert isinstance(estimator, TVL1)
    return estimator


def mean_epe(one: Flow, other: Flow) -> float:
    return float(np.hypot(*np.moveaxis(one - other, -1, 0)).mean())


def interior(scene: Scene, margin: int) -> NDArray[np.bool_]:
    inside = np.zeros((scene.height, scene.width), np.bool_)
    inside[margin:-margin, margin:-margin] = True
    return inside


# ---- OpenCV's numbers

needs_opencv_5 = pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5,
    reason="before OpenCV 5, cv2.remap rounds positions to 1/32 px",
)
FIXED = {"epsilon": 1e-6, "outer_iterations": 2, "inner_iterations": 4}
"""A number of iterations that does not depend on rounding."""
# Rows of up to 3 blocks of 16 px at all widths, and some around a whole number of blocks.
WIDTHS = (*range(16, 51), 63, 64, 65, 127, 130)
HEIGHTS = (16, 17, 31, 40)

velocities_px = st.tuples(st.floats(-2, 2), st.floats(-2, 2))
seeds = st.integers(0, 20)


@needs_opencv_5
@pytest.mark.parametrize("median_filtering", [1, 5])
def test_the_reference_is_opencv(median_filtering: int) -> None:
    pair = frames(moving(64, 48))
    parameters = {"median_filtering": median_filtering, "warps": 3}
    expected = create_estimator("tvl1-opencv", **parameters)(*pair)
    found = reference(*pair, OpenCVTVL1Parameters(**parameters))
    assert mean_epe(found.flow, expected) < 1e-3
    # A little earlier or later stop would be seen.
    earlier = reference(*pair, OpenCVTVL1Parameters(**parameters, epsilon=0.012))
    assert mean_epe(earlier.flow, expected) > 1e-3


@needs_opencv_5
@pytest.mark.parametrize("median_filtering", [1, 3, 5])
@pytest.mark.parametrize("height", HEIGHTS)
def test_a_warp_is_that_of_the_reference_at_every_width(height: int, median_filtering: int) -> None:
    parameters = {**FIXED, "median_filtering": median_filtering, "warps": 1, "nscales": 1}
    estimator = native(**parameters)
    for width in WIDTHS:
        pair = frames(moving(width, height, seed=width % 3))
        expected = reference(*pair, OpenCVTVL1Parameters(**parameters)).flow
        # What single precision leaves of a flow of up to 5 px.
        np.testing.assert_allclose(
            estimator(*pair), expected, rtol=0, atol=1e-5, err_msg=f"{width}"
        )


@needs_opencv_5
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.sampled_from(WIDTHS), st.integers(16, 40)),
    velocity_px=velocities_px,
    seed=seeds,
    tau=st.sampled_from([0.1, 0.25]),
    theta=st.sampled_from([0.1, 0.3, 0.5]),
    lambda_=st.sampled_from([0.05, 0.15, 0.5]),
    iterations=st.tuples(st.integers(1, 13), st.integers(1, 3)),
    median_filtering=st.sampled_from([1, 3, 5]),
)
def test_a_warp_is_that_of_the_reference_with_any_parameters(
    size: tuple[int, int],
    velocity_px: tuple[float, float],
    seed: int,
    iterations: tuple[int, int],
    **parameters: Any,
) -> None:
    pair = frames(moving(*size, velocity_px, seed))
    inner, outer = iterations
    parameters |= {"epsilon": 1e-6, "inner_iterations": inner, "outer_iterations": outer}
    parameters |= {"warps": 1, "nscales": 1}
    expected = reference(*pair, OpenCVTVL1Parameters(**parameters)).flow
    np.testing.assert_allclose(native(**parameters)(*pair), expected, rtol=0, atol=3e-5)


# By levels and warps: what rounding leaves of a flow of 2 px, on average over a frame. Each warp
# magnifies it, where the image is steep and flat by turns. Measured in 700 scenes: a tenth of that.
ROUNDING_PX = {(1, 2): 1e-5, (1, 3): 2e-5, (4, 1): 2e-5, (4, 2): 1e-3, (4, 3): 5e-3}


@needs_opencv_5
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.sampled_from(WIDTHS), st.integers(16, 70)),
    velocity_px=velocities_px,
    seed=seeds,
    levels_and_warps=st.sampled_from(sorted(ROUNDING_PX)),
    scale_step=st.sampled_from([0.5, 0.8]),
    median_filtering=st.sampled_from([1, 3, 5]),
)
def test_warps_and_levels_are_those_of_the_reference(
    size: tuple[int, int],
    velocity_px: tuple[float, float],
    seed: int,
    levels_and_warps: tuple[int, int],
    scale_step: float,
    median_filtering: int,
) -> None:
    pair = frames(moving(*size, velocity_px, seed))
    nscales, warps = levels_and_warps
    parameters = {**FIXED, "nscales": nscales, "warps": warps, "scale_step": scale_step}
    parameters |= {"median_filtering": median_filtering}
    expected = reference(*pair, OpenCVTVL1Parameters(**parameters)).flow
    error = np.abs(native(**parameters)(*pair) - expected)
    assert error.mean() < ROUNDING_PX[levels_and_warps]


@needs_opencv_5
@pytest.mark.parametrize(
    ("width", "height"), [(16, 16), (16, 200), (200, 16), (17, 333), (512, 20), (1024, 16)]
)
def test_thin_frames_and_widths_that_are_powers_of_two(width: int, height: int) -> None:
    scene = moving(width, height)
    pair = frames(scene)
    parameters = {**FIXED, "warps": 1}
    expected = reference(*pair, OpenCVTVL1Parameters(**parameters)).flow
    np.testing.assert_allclose(native(**parameters)(*pair), expected, rtol=0, atol=1e-3)
    error = endpoint_error(native()(*pair), scene.flow(0))
    assert error[scene.valid(0)].mean() < 0.08


@needs_opencv_5
@pytest.mark.parametrize("width", [383, 384, 385, 400, 593, 768, 769, 1153])
def test_strips_of_wide_rows_and_batches_of_iterations_do_not_show(width: int) -> None:
    pair = frames(moving(width, 21))
    parameters = {**FIXED, "inner_iterations": 37, "outer_iterations": 1, "nscales": 1, "warps": 1}
    batches = native(**parameters, stop="predicted")(*pair)
    # One iteration at a time, for which strips need not overlap.
    np.testing.assert_array_equal(batches, native(**parameters, stop="exact")(*pair))
    expected = reference(*pair, OpenCVTVL1Parameters(**parameters)).flow
    np.testing.assert_allclose(batches, expected, rtol=0, atol=1e-3)


@needs_opencv_5
@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.sampled_from(WIDTHS), st.integers(16, 50)),
    velocity_px=velocities_px,
    seed=seeds,
    epsilon=st.sampled_from([0.005, 0.01, 0.03]),
    inner_iterations=st.sampled_from([7, 30, 300]),
    median_filtering=st.sampled_from([1, 3, 5]),
)
def test_a_warp_stops_at_the_very_iteration_of_the_reference(
    size: tuple[int, int],
    velocity_px: tuple[float, float],
    seed: int,
    **parameters: Any,
) -> None:
    pair = frames(moving(*size, velocity_px, seed))
    parameters |= {"warps": 1, "nscales": 1}
    estimator = native(stop="exact", **parameters)
    estimator(*pair)
    expected = reference(*pair, OpenCVTVL1Parameters(**parameters)).num_iterations
    ((count,),), ((expected_count,),) = estimator.num_iterations, expected
    # The error may lie on the threshold but for rounding; not seen in 150 scenes.
    assert abs(count - expected_count) <= 1


CONVERGED: list[tuple[int, int, dict[str, Any]]] = [
    (48, 40, {}),
    (64, 48, {}),
    (63, 49, {}),
    (50, 50, {}),
    (80, 64, {}),
    (64, 48, {"median_filtering": 1}),
    (64, 48, {"median_filtering": 3}),
    (64, 48, {"scale_step": 0.5}),
    (64, 48, {"lambda_": 0.05}),
    (64, 48, {"theta": 0.2, "tau": 0.2}),
    (64, 48, {"epsilon": 0.002}),
    (64, 48, {"inner_iterations": 300, "outer_iterations": 1, "median_filtering": 1}),
]


@needs_opencv_5
def test_exact_takes_the_iterations_of_the_reference_and_predicted_about_as_many() -> None:
    num_equal, exact_total, predicted_total = 0, 0, 0
    for seed, (width, height, parameters) in enumerate(CONVERGED):
        pair = frames(moving(width, height, (1.9 - 0.3 * seed, -1.1), seed))
        expected = reference(*pair, OpenCVTVL1Parameters(**parameters))
        exact, predicted = native(stop="exact", **parameters), native(**parameters)
        exact_flow, predicted_flow = exact(*pair), predicted(*pair)
        counts = [np.array(x) for x in (exact.num_iterations, expected.num_iterations)]
        num_equal += np.array_equal(*counts)
        assert counts[0].sum() == pytest.approx(counts[1].sum(), rel=0.02)
        assert mean_epe(exact_flow, expected.flow) < 0.02
        assert mean_epe(predicted_flow, exact_flow) < 0.03
        exact_total += sum(map(sum, exact.num_iterations))
        predicted_total += sum(map(sum, predicted.num_iterations))
    # Where a stop or an occlusion hangs on rounding, the warps behind it go another way.
    assert num_equal >= len(CONVERGED) - 3
    assert predicted_total == pytest.approx(exact_total, rel=0.06)


CLIPS = (
    "Biking/v_Biking_g19_c01.avi",
    "JavelinThrow/v_JavelinThrow_g21_c03.avi",
    "LongJump/v_LongJump_g15_c03.avi",
    "RockClimbingIndoor/v_RockClimbingIndoor_g11_c02.avi",
)


def clip_pair(path: Path) -> tuple[Gray, Gray]:
    """The 11th and 12th frame of a clip at 160 x 120 px."""
    video = cv2.VideoCapture(str(path))
    read = [video.read() for _ in range(12)]
    assert all(found for found, _ in read), path
    first, second = (
        cv2.resize(
            cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (160, 120), interpolation=cv2.INTER_AREA
        )
        for _, frame in read[10:]
    )
    return np.asarray(first, np.uint8), np.asarray(second, np.uint8)


@pytest.mark.parametrize("median_filtering", [1, 5])
def test_real_videos_have_the_flow_of_opencv(test_data: Path, median_filtering: int) -> None:
    spec = FlowSpec("tvl1")
    errors: dict[str, list[float]] = {"predicted": [], "exact": []}
    equal_levels: dict[str, list[float]] = {"predicted": [], "exact": []}
    for name in CLIPS:
        pair = clip_pair(test_data / "ucf101" / "videos" / name)
        opencv = create_estimator("tvl1-opencv", median_filtering=median_filtering)(*pair)
        for stop in errors:
            flow = native(stop=stop, median_filtering=median_filtering)(*pair)
            difference = np.abs(quantize(flow, spec).astype(int) - quantize(opencv, spec))
            errors[stop].append(mean_epe(flow, opencv))
            equal_levels[stop].append(float((difference <= 1).mean()))
    for stop, most_px, least_share in (("predicted", 0.02, 0.995), ("exact", 0.01, 0.998)):
        assert np.mean(errors[stop]) <= most_px, errors
        assert np.mean(equal_levels[stop]) >= least_share, equal_levels
        # OpenCV's algorithm itself, with its sums in another order, is up to .03 px off.
        assert max(errors[stop]) <= 2 * most_px, errors


# ---- the truth


@pytest.fixture(scope="module")
def opencv_rubber_whale(rubber_whale: tuple[Gray, Gray, Flow, NDArray[np.bool_]]) -> Flow:
    prev, following, _, _ = rubber_whale
    return create_estimator("tvl1-opencv")(prev, following)


@pytest.mark.parametrize("stop", ["predicted", "exact"])
def test_rubber_whale_has_the_error_of_opencv(
    rubber_whale: tuple[Gray, Gray, Flow, NDArray[np.bool_]],
    opencv_rubber_whale: Flow,
    stop: str,
) -> None:
    prev, following, truth, known = rubber_whale
    flow = native(stop=stop)(prev, following)
    error, opencv_error = (
        endpoint_error(x, truth)[known].mean() for x in (flow, opencv_rubber_whale)
    )
    assert error <= 1.005 * opencv_error
    assert mean_epe(flow, opencv_rubber_whale) < 0.02


@settings(deadline=None, max_examples=40)
@given(speed_px=st.floats(0.2, 6), angle=st.floats(-math.pi, math.pi), seed=st.integers(0, 29))
def test_a_translation_is_found(speed_px: float, angle: float, seed: int) -> None:
    velocity_px = (speed_px * math.cos(angle), speed_px * math.sin(angle))
    scene = moving(96, 64, velocity_px, seed)
    inner = scene.valid(0) & interior(scene, 8)
    error = endpoint_error(native()(*frames(scene)), scene.flow(0))[inner]
    # Mostly .05 px, at whatever speed.
    assert error.mean() < 0.15


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("motion", "bound_px"),
    [
        (Motion(pivot_px=(45, 30), zoom_rate=0.04), 0.1),
        (Motion(pivot_px=(45, 30), zoom_rate=-0.04), 0.06),
        (Motion(pivot_px=(45, 30), turn_rate=0.05), 0.12),
        (Motion(pivot_px=(45, 30), turn_rate=-0.05), 0.12),
        (Motion(pivot_px=(45, 30), shear_rate=0.05), 0.08),
    ],
    ids=["zoom in", "zoom out", "clockwise", "counterclockwise", "shear"],
)
def test_zoom_rotation_and_shear_are_found(motion: Motion, bound_px: float, seed: int) -> None:
    scene = Scene(96, 64, (Layer(seed, (motion,)),))
    first, second = frames(scene)
    forward = endpoint_error(native()(first, second), scene.flow(0))[scene.valid(0)]
    backward = endpoint_error(native()(second, first), scene.backward_flow(0))[scene.valid(1, -1)]
    # The flow itself is .8 to 1.5 px on average.
    assert forward.mean() < bound_px
    assert backward.mean() < 1.5 * bound_px


# ---- mirrors and transposition


def transformed(pair: list[Gray], change: Callable[[Gray], Gray]) -> list[Gray]:
    return [np.ascontiguousarray(change(frame)) for frame in pair]


@pytest.mark.parametrize(("width", "height"), [(64, 48), (80, 64), (65, 47)])
@pytest.mark.parametrize("seed", range(3))
def test_mirrored_frames_have_mirrored_flow(width: int, height: int, seed: int) -> None:
    pair = frames(moving(width, height, (2.1 - seed, 1.3), seed))
    flow = native()(*pair)
    left_right = native()(*transformed(pair, np.fliplr))[:, ::-1] * np.float32([-1, 1])
    up_down = native()(*transformed(pair, np.flipud))[::-1] * np.float32([1, -1])
    # Divergences look to one side only, and the pyramid's pixels do not lie in the middle.
    assert mean_epe(left_right, flow) < 0.06
    assert mean_epe(up_down, flow) < 0.06


@pytest.mark.parametrize(("width", "height"), [(64, 48), (80, 64), (65, 47)])
@pytest.mark.parametrize("seed", range(3))
def test_transposed_frames_have_transposed_flow(width: int, height: int, seed: int) -> None:
    pair = frames(moving(width, height, (2.1 - seed, 1.3), seed))

    def transposed_flow(**parameters: Any) -> Flow:
        flow = native(**parameters)(*transformed(pair, np.transpose))
        return flow.transpose(1, 0, 2)[:, :, ::-1]

    one_warp = {"epsilon": 1e-6, "outer_iterations": 2, "warps": 1, "nscales": 1}
    np.testing.assert_allclose(
        transposed_flow(**one_warp), native(**one_warp)(*pair), rtol=0, atol=1e-4
    )
    assert mean_epe(transposed_flow(), native()(*pair)) < 0.03


# ---- frames without an answer


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_constant_frames_do_not_move_at_all(value: int) -> None:
    for width, height in ((16, 16), (50, 33), (97, 64)):
        frame = np.full((height, width), value, np.uint8)
        np.testing.assert_array_equal(native()(frame, frame), 0)


def test_between_two_constant_frames_there_is_no_gradient_to_follow() -> None:
    black, white = np.zeros((33, 50), np.uint8), np.full((33, 50), 255, np.uint8)
    np.testing.assert_array_equal(native()(black, white), 0)


@settings(deadline=None, max_examples=25)
@given(size=st.tuples(st.integers(16, 70), st.integers(16, 50)), seed=seeds)
def test_identical_frames_do_not_move(size: tuple[int, int], seed: int) -> None:
    (frame,) = frames(moving(*size, seed=seed), 1)
    assert np.abs(native()(frame, frame.copy())).max() <= 1e-6


def assert_plausible(flow: Flow) -> None:
    assert np.isfinite(flow).all()
    # On noise the flow goes up to .9 times the longer side.
    assert np.abs(flow).max() <= 3 * max(flow.shape)


CHECKERBOARD = np.asarray(np.indices((40, 56)).sum(axis=0) % 2 * 255, np.uint8)
BLANK = np.full((40, 56), 90, np.uint8)
DOT = np.where(np.indices(BLANK.shape).sum(axis=0) == 0, np.uint8(255), BLANK)
NOISE = np.random.default_rng(0).integers(0, 256, (2, 40, 56), dtype=np.uint8)
TEXTURES = [gray(textured_image(40, 56, seed)) for seed in (1, 2)]


@pytest.mark.parametrize(
    "pair",
    [
        (BLANK, TEXTURES[0]),
        (TEXTURES[0], TEXTURES[1]),
        (NOISE[0], NOISE[1]),
        (CHECKERBOARD, 255 - CHECKERBOARD),
        (CHECKERBOARD, NOISE[0]),
        (np.zeros_like(BLANK), CHECKERBOARD),
        (BLANK, DOT),
        (DOT, DOT[::-1, ::-1].copy()),
    ],
    ids=["blank", "cut", "noise", "inverse", "board", "black", "dot", "dots"],
)
@pytest.mark.parametrize("median_filtering", [1, 3, 5])
def test_frames_that_do_not_belong_together_give_plausible_flow(
    pair: tuple[Gray, Gray], median_filtering: int
) -> None:
    estimator = native(median_filtering=median_filtering)
    assert_plausible(estimator(*pair))
    assert_plausible(estimator(*pair[::-1]))


@settings(deadline=None, max_examples=60)
@given(
    pair=st.tuples(st.integers(16, 40), st.integers(16, 40)).flatmap(
        lambda shape: hnp.arrays(
            np.uint8,
            (2, *shape),
            elements=st.sampled_from([0, 1, 127, 254, 255]) | st.integers(0, 255),
            fill=st.sampled_from([0, 128, 255]),
        )
    ),
    stop=st.sampled_from(["predicted", "exact"]),
)
def test_any_frames_give_plausible_flow(pair: Gray, stop: str) -> None:
    assert_plausible(native(stop=stop)(*pair))


# ---- videos


def assert_same_pairs(found: Iterable[FlowPair], expected: Iterable[FlowPair]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.index == other.index
        np.testing.assert_array_equal(one.forward, other.forward)
        np.testing.assert_array_equal(one.backward, other.backward)


VIDEO = frames(moving(50, 40), 6)
OTHER_VIDEO = frames(moving(50, 40, (-2.2, 0.4), 8), 6)
# As many levels as the others, and fewer.
SHORTER_VIDEO = frames(moving(50, 38, (0.5, 1.9), 5), 6)
THIN_VIDEO = frames(moving(64, 18, (0.5, 0.9), 5), 6)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_pairs_are_the_single_calls_of_fresh_estimators(step: int) -> None:
    pairs = list(native().pairs(iter(VIDEO), step=step))
    assert [pair.index for pair in pairs] == list(range(len(VIDEO) - step))
    for pair in pairs:
        first, last = VIDEO[pair.index], VIDEO[pair.index + step]
        np.testing.assert_array_equal(pair.forward, native()(first, last))
        np.testing.assert_array_equal(pair.backward, native()(last, first))
    backward = native().pairs(iter(VIDEO), step=step, directions=("backward",))
    for one, pair in zip(backward, pairs, strict=True):
        np.testing.assert_array_equal(one.backward, pair.backward)


def test_a_field_is_kept_when_the_next_ones_are_computed() -> None:
    pairs, copies = [], []
    for pair in native().pairs(VIDEO):
        pairs.append(pair)
        copies.append(copy.deepcopy(pair))
    assert_same_pairs(pairs, copies)


def test_videos_one_after_another_do_not_touch_each_other() -> None:
    shared = native()
    for video in (VIDEO, VIDEO, THIN_VIDEO, VIDEO, SHORTER_VIDEO, OTHER_VIDEO, THIN_VIDEO):
        assert_same_pairs(shared.pairs(video), native().pairs(video))


def test_a_video_that_was_left_half_way_does_not_touch_the_next() -> None:
    shared = native()
    next(shared.pairs(VIDEO, step=2))
    assert_same_pairs(shared.pairs(OTHER_VIDEO), native().pairs(OTHER_VIDEO))


@pytest.mark.parametrize("other", [OTHER_VIDEO, SHORTER_VIDEO, THIN_VIDEO])
def test_two_videos_may_advance_by_turns(other: list[Gray]) -> None:
    shared = native()
    found = list(zip(shared.pairs(VIDEO), shared.pairs(other), strict=True))
    for pairs, video in zip(zip(*found, strict=True), (VIDEO, other), strict=True):
        assert_same_pairs(pairs, native().pairs(video))


def test_a_single_call_in_the_middle_of_a_video_does_not_touch_it() -> None:
    shared = native()
    found = []
    for pair in shared.pairs(VIDEO):
        found.append(pair)
        shared(*THIN_VIDEO[:2])
    assert_same_pairs(found, native().pairs(VIDEO))


def test_frames_may_lie_in_memory_as_they_like() -> None:
    first, second = VIDEO[:2]
    expected = native()(first, second)
    every_second = [np.repeat(frame, 2, axis=1)[:, ::2] for frame in (first, second)]
    np.testing.assert_array_equal(native()(*every_second), expected)
    columns = [np.asfortranarray(frame) for frame in (first, second)]
    for frame in columns:
        frame.flags.writeable = False
    np.testing.assert_array_equal(native()(*columns), expected)


def test_estimators_in_threads_do_not_touch_each_other() -> None:
    videos = [VIDEO, OTHER_VIDEO, SHORTER_VIDEO, THIN_VIDEO]
    with ThreadPoolExecutor(len(videos)) as threads:
        found = list(threads.map(lambda video: list(native().pairs(video)), videos))
    for pairs, video in zip(found, videos, strict=True):
        assert_same_pairs(pairs, native().pairs(video))


@pytest.mark.parametrize("other", [SHORTER_VIDEO[0], THIN_VIDEO[0]])
def test_frames_of_two_sizes_are_refused(other: Gray) -> None:
    with pytest.raises(ValueError, match="size"):
        native()(VIDEO[0], other)
    with pytest.raises(ValueError, match="size"):
        native()(other, VIDEO[0])


# ---- large frames


def test_positions_in_the_far_corner_of_a_large_frame_are_right() -> None:
    # The frame's packed numbers, 33 millions, are more than single precision can count.
    width, height, corner = 3840, 2160, 64
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.standard_normal((height, width + 1), np.float32), None, 1.5)
    texture = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    pair = [np.ascontiguousarray(texture[:, 1:]), np.ascontiguousarray(texture[:, :-1])]
    parameters = {"nscales": 1, "outer_iterations": 1, "median_filtering": 1, "epsilon": 1e-6}
    corners = [np.ascontiguousarray(frame[-corner:, -corner:]) for frame in pair]
    # Iterations and taps reach less than 16 px, so the corner knows nothing of the rest.
    for warps, inner_iterations, bound_px in ((1, 2, 1e-6), (2, 4, 3e-3)):
        estimator = native(**parameters, warps=warps, inner_iterations=inner_iterations)
        found = estimator(*pair)[16 - corner :, 16 - corner :]
        expected = estimator(*corners)[16:, 16:]
        # A position of 3840 px is rounded to 1/4096 px.
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound_px)
    assert found[..., 0].mean() > 0.5  # of the true 1 px, after 8 iterations


# ---- instruction sets

SCRIPT = """
import sys
import numpy as np
from flowprep.flow import create_estimator
first, second = np.load(sys.argv[1])
np.save(sys.argv[2], create_estimator("tvl1")(first, second))
"""
SSE_FEATURES = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"
AVX2_FEATURES = f"+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt,{SSE_FEATURES}"

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86"
)


def flow_on(processor: str, features: str, pair: list[Gray], folder: Path) -> Flow:
    """The flow of `pair` by code for another processor, which this one must be able to run."""
    host = llvmlite.binding.get_host_cpu_features()
    if missing := [name for name in features.split(",") if not host.get(name[1:])]:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    np.save(folder / "pair.npy", pair)
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    command = [sys.executable, "-c", SCRIPT, folder / "pair.npy", folder / "flow.npy"]
    subprocess.run(command, check=True, env=environment)
    return np.asarray(np.load(folder / "flow.npy"), np.float32)


@on_x86
def test_all_processors_with_fma_give_the_same_bits(tmp_path: Path) -> None:
    if not llvmlite.binding.get_host_cpu_features().get("fma"):
        pytest.skip("this processor has no FMA")
    pair = frames(moving(70, 50))
    found = flow_on("x86-64-v3", AVX2_FEATURES, pair, tmp_path)
    np.testing.assert_array_equal(found.view(np.int32), native()(*pair).view(np.int32))


@on_x86
def test_a_processor_without_fma_is_off_by_rounding_alone(tmp_path: Path) -> None:
    pair = frames(moving(70, 50))
    found = flow_on("x86-64-v2", SSE_FEATURES, pair, tmp_path)
    assert mean_epe(found, native()(*pair)) < 0.02
