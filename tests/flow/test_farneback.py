"""The native Farneback: near OpenCV's, true where the motion is known, and safe at every size."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction
from flowprep.flow import farneback_level
from flowprep.flow.farneback import Farneback
from flowprep.flow.opencv import OpenCVFarneback
from flowprep.flow.parameters import FarnebackParameters
from flowprep.synthetic import Layer, Motion, Scene
from tests.flow.scenes import Flow, Gray, endpoint_error, gray, turning_frames

DENSEFLOW = FarnebackParameters(0.702, 5, 10, 2, 7, 1.5, True)
"""The parameters of github.com/yjxiong/dense_flow."""
CUDA = FarnebackParameters(0.5, 5, 13, 10, 5, 1.1)
"""The defaults of OpenCV's cv::cuda::FarnebackOpticalFlow."""


VARIANTS = {
    "default": FarnebackParameters(),
    "poly_n 7": FarnebackParameters(poly_n=7, poly_sigma=1.5),
    "gaussian": FarnebackParameters(gaussian=True),
    "narrow window": FarnebackParameters(winsize=5),
    "even window": FarnebackParameters(winsize=12),
    "even gaussian": FarnebackParameters(winsize=12, gaussian=True),
    "wide window": FarnebackParameters(winsize=41),
    "one level": FarnebackParameters(levels=1),
    "five levels": FarnebackParameters(levels=5),
    "pyramid 0.7": FarnebackParameters(pyr_scale=0.7, levels=5),
    "pyramid 0.8": FarnebackParameters(pyr_scale=0.8, levels=5),
    "one iteration": FarnebackParameters(iterations=1),
    "ten iterations": FarnebackParameters(iterations=10),
    "denseflow": DENSEFLOW,
    "cuda": CUDA,
}


def distance_to_opencv(prev: Gray, following: Gray, parameters: FarnebackParameters) -> float:
    """The mean endpoint error to OpenCV's flow, px."""
    ours = Farneback(parameters)(prev, following)
    return float(endpoint_error(ours, OpenCVFarneback(parameters)(prev, following)).mean())


# ---- OpenCV


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 19), (33, 100), (100, 33)])
def test_small_fields_are_opencvs(variant: str, width: int, height: int) -> None:
    pair = turning_frames(2, width, height)
    assert distance_to_opencv(*pair, VARIANTS[variant]) < 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_large_fields_are_opencvs(variant: str) -> None:
    pair = turning_frames(2, 340, 256)
    assert distance_to_opencv(*pair, VARIANTS[variant]) < 1e-3


# Strips are full, have one column more or less than that, or are moved off a power of two; in the
# last, iterations run together.
@pytest.mark.parametrize("width", [31, 32, 33, 47, 48, 49, 511, 512, 513])
def test_every_width_is_cut_into_strips(width: int) -> None:
    assert distance_to_opencv(*turning_frames(2, width, 24), FarnebackParameters()) < 1e-3


# So narrow a Gaussian knows only its centre (0.1), or OpenCV takes another (1e-9).
@pytest.mark.parametrize("poly_sigma", [0.1, 0.4, 20.0, 1e-9])
def test_odd_poly_sigmas_are_treated_as_opencv_does(poly_sigma: float) -> None:
    parameters = FarnebackParameters(poly_sigma=poly_sigma)
    assert distance_to_opencv(*turning_frames(2), parameters) < 1e-3


def test_iterations_that_run_together_are_the_same() -> None:
    parameters = FarnebackParameters(levels=1, iterations=6)
    assert distance_to_opencv(*turning_frames(2, 512, 384), parameters) < 1e-3


@pytest.mark.parametrize("number", range(3))
def test_real_fields_are_opencvs(number: int, test_data: Path) -> None:
    path = sorted((test_data / "asl").glob("*.mkv"))[7 * number]
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 10)
    pair = [gray(capture.read()[1]) for _ in range(2)]
    assert distance_to_opencv(pair[0], pair[1], FarnebackParameters()) < 1e-3


def test_rubber_whale_is_as_exact_as_opencvs(
    rubber_whale: tuple[Gray, Gray, Flow, NDArray[np.bool_]],
) -> None:
    prev, following, truth, known = rubber_whale
    ours, opencvs = (
        endpoint_error(estimator(prev, following), truth)[known].mean()
        for estimator in (
            Farneback(FarnebackParameters()),
            OpenCVFarneback(FarnebackParameters()),
        )
    )
    assert ours == pytest.approx(0.361, abs=0.01)
    assert ours < 1.005 * opencvs


# ---- truth


@pytest.mark.parametrize("velocity_px", [(2.3, -1.4), (-7.0, 3.0), (0.0, 0.4)])
def test_a_translation_is_found(velocity_px: tuple[float, float]) -> None:
    moving = Scene(128, 96, (Layer(5, (Motion(velocity_px=velocity_px),)),))
    prev, following = (gray(moving.frame(t)) for t in range(2))
    estimator = Farneback(FarnebackParameters())
    forward = endpoint_error(estimator(prev, following), moving.flow(0))
    assert np.median(forward[moving.valid(0)]) < 0.05
    backward = endpoint_error(estimator(following, prev), moving.backward_flow(0))
    assert np.median(backward[moving.valid(1, -1)]) < 0.05


@pytest.mark.parametrize("gray_level", [0, 1, 128, 255])
@pytest.mark.parametrize(("width", "height"), [(16, 16), (37, 41), (340, 256)])
def test_blank_frames_do_not_move(gray_level: int, width: int, height: int) -> None:
    blank = np.full((height, width), gray_level, np.uint8)
    for parameters in (FarnebackParameters(), DENSEFLOW):
        assert not Farneback(parameters)(blank, blank).any()


def test_a_blank_part_below_a_wild_one_does_not_move() -> None:
    # What rounding leaves in a running sum would be carried down.
    prev, following = np.random.default_rng(0).choice(np.uint8([0, 255]), (2, 400, 48))
    prev[100:], following[100:] = 90, 90
    flow = Farneback(FarnebackParameters(levels=1))(prev, following)
    assert np.abs(flow[:90]).max() > 0.1
    assert not flow[300:].any()


def test_identical_frames_do_not_move_away_from_the_border() -> None:
    (frame,) = turning_frames(1, 160, 120)
    flow = Farneback(FarnebackParameters(levels=1))(frame, frame.copy())
    # The last row and column count as without a counterpart, as OpenCV's do.
    assert np.abs(flow).max() < 0.25
    assert np.abs(flow[:60, :80]).max() < 1e-4


@pytest.mark.parametrize("variant", ["default", "gaussian", "poly_n 7"])
def test_transposed_frames_have_the_transposed_flow(variant: str) -> None:
    estimator = Farneback(VARIANTS[variant])
    prev, following = turning_frames(2, 96, 64)
    flow = estimator(prev, following)
    turned = estimator(prev.T.copy(), following.T.copy())
    assert endpoint_error(turned.swapaxes(0, 1)[..., ::-1], flow).max() < 1e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_frames_have_the_mirrored_flow(axis: int) -> None:
    estimator = Farneback(FarnebackParameters(levels=1))
    prev, following = turning_frames(2, 97, 65)
    flow = estimator(prev, following)
    mirrored = estimator(np.flip(prev, axis).copy(), np.flip(following, axis).copy())
    mirrored = np.flip(mirrored, axis) * np.float32((1, -1) if axis == 0 else (-1, 1))
    # The border is not alike on both sides: what lies on the last row or column counts as outside.
    error = endpoint_error(mirrored, flow)
    assert error[28:-28, 28:-28].max() < 1e-3


# ---- safety


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(16, 70), st.integers(16, 70)),
    seed=st.integers(0, 2**32 - 1),
    levels=st.lists(st.integers(0, 255), min_size=1, max_size=3),
    winsize=st.integers(1, 40),
    gaussian=st.booleans(),
)
def test_any_frames_give_finite_fields(
    size: tuple[int, int], seed: int, levels: list[int], winsize: int, gaussian: bool
) -> None:
    prev, following = np.random.default_rng(seed).choice(np.uint8(levels), (2, *size))
    parameters = FarnebackParameters(winsize=winsize, gaussian=gaussian)
    flow = Farneback(parameters)(prev, following)
    assert flow.shape == (*size, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


def stripes(width: int, height: int, slope: float, phase: float) -> Gray:
    """Sharp parallel stripes, whose motion along themselves nothing tells."""
    y, x = np.mgrid[:height, :width]
    return np.where((x + slope * y + phase) % 12 < 6, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("slope", [0.0, 1.0, -1.0, 0.5])
def test_parallel_stripes_have_a_modest_flow(slope: float) -> None:
    flow = Farneback(FarnebackParameters())(stripes(90, 70, slope, 0), stripes(90, 70, slope, 1))
    assert np.abs(flow).max() < 90


@pytest.mark.parametrize("variant", ["default", "gaussian", "wide window", "denseflow"])
@pytest.mark.parametrize(
    ("width", "height"), [(16, 16), (17, 16), (31, 45), (48, 33), (65, 64), (512, 20)]
)
def test_nothing_is_read_or_written_beside_the_arrays(
    variant: str, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noise, whose displacements point anywhere.
    pair = np.random.default_rng(1).integers(0, 256, (2, height, width), dtype=np.uint8)
    parameters = VARIANTS[variant]
    expected = Farneback(parameters)(*pair)

    margin, rooms = 4096, []

    def fenced(size: int) -> NDArray[np.float32]:
        room = np.full(size + 2 * margin, np.nan, np.float32)
        rooms.append(room)
        return room[margin : margin + size]

    monkeypatch.setattr("flowprep.flow.farneback_level._aligned", fenced)
    np.testing.assert_array_equal(Farneback(parameters)(*pair), expected)
    assert rooms
    for room in rooms:
        assert np.isnan(room[:margin]).all()
        assert np.isnan(room[-margin:]).all()


def test_frames_are_left_as_they_were() -> None:
    prev, following = turning_frames(2)
    before = prev.copy(), following.copy()
    Farneback(FarnebackParameters())(prev, following)
    np.testing.assert_array_equal(prev, before[0])
    np.testing.assert_array_equal(following, before[1])


# ---- many pairs


def test_a_result_does_not_depend_on_the_calls_before() -> None:
    first, second, third = turning_frames(3)
    small = turning_frames(2, 40, 30)
    estimator = Farneback(FarnebackParameters())
    fresh = estimator(first, second)
    kept = fresh.copy()
    estimator(third, first)
    estimator(*small)
    np.testing.assert_array_equal(estimator(first, second), kept)
    # The next call may not write into a field that was given away.
    np.testing.assert_array_equal(fresh, kept)


@pytest.mark.parametrize("variant", ["default", "denseflow"])
@pytest.mark.parametrize("step", [1, 2])
def test_pairs_are_the_single_calls(variant: str, step: int) -> None:
    video = turning_frames(6, 83, 70)
    estimator = Farneback(VARIANTS[variant])
    pairs = list(estimator.pairs(iter(video), step=step))
    assert [pair.index for pair in pairs] == list(range(len(video) - step))
    for pair in pairs:
        first, last = video[pair.index], video[pair.index + step]
        np.testing.assert_array_equal(pair.forward, Farneback(VARIANTS[variant])(first, last))
        np.testing.assert_array_equal(pair.backward, estimator(last, first))


def test_two_videos_at_once_do_not_mix() -> None:
    estimator = Farneback(FarnebackParameters())
    one, other = turning_frames(4, 60, 50), turning_frames(4, 48, 64)[::-1]
    streams = estimator.pairs(one), estimator.pairs(other)
    for number, pairs in enumerate(zip(*streams, strict=True)):
        for pair, video in zip(pairs, (one, other), strict=True):
            expected = estimator(video[number], video[number + 1])
            np.testing.assert_array_equal(pair.forward, expected)


@pytest.mark.parametrize("directions", [("forward",), ("backward",), DIRECTIONS])
def test_only_the_directions_that_are_asked_for_are_computed(
    directions: tuple[Direction, ...],
) -> None:
    video = turning_frames(3)
    both = Farneback(FarnebackParameters()).pairs(video)
    some = Farneback(FarnebackParameters()).pairs(video, directions=directions)
    for pair, whole in zip(some, both, strict=True):
        for direction in DIRECTIONS:
            field: Any = getattr(pair, direction)
            if direction in directions:
                np.testing.assert_array_equal(field, getattr(whole, direction))
            else:
                assert field is None


@pytest.mark.parametrize(("num_frames", "step"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_too_few_frames_give_no_pair(num_frames: int, step: int) -> None:
    pairs = Farneback(FarnebackParameters()).pairs(turning_frames(num_frames), step=step)
    assert list(pairs) == []


def test_only_the_frames_of_a_pair_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    original = farneback_level.Pyramid.new_frame

    def counted(pyramid: Any) -> Any:
        nonlocal made
        made += 1
        return original(pyramid)

    estimator = Farneback(FarnebackParameters())
    monkeypatch.setattr(farneback_level.Pyramid, "new_frame", counted)
    pairs = estimator.pairs(turning_frames(7), step=2)
    assert len(list(itertools.islice(pairs, 5))) == 5
    assert made == 3
