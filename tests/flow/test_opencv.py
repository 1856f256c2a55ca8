"""All estimators: what they return, and that nothing is kept; OpenCV's get their parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction
from flowprep.errors import ConfigError
from flowprep.flow import FlowPair, create_estimator
from flowprep.flow.parameters import PARAMETERS
from flowprep.synthetic import Layer, Motion, Scene, textured_image
from tests.flow.scenes import Flow, Gray, endpoint_error, frames, gray

WIDTH, HEIGHT = 96, 64
SCENE = Scene(WIDTH, HEIGHT, (Layer(3, (Motion(velocity_px=(2.3, -1.4)),)),))
# tests/flow/test_raft.py has those that need weights.
NAMES = [name for name, kind in PARAMETERS.items() if not kind.takes_weights]


# ---- fields


@pytest.mark.parametrize("name", NAMES)
def test_a_field_is_float32_of_the_frames_size_and_finite(name: str) -> None:
    prev, following = frames(SCENE)
    flow = create_estimator(name)(prev, following)
    assert flow.shape == (HEIGHT, WIDTH, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


@pytest.mark.parametrize(
    ("name", "bound_px"),
    [
        ("tvl1", 0.06),
        ("tvl1-opencv", 0.06),
        ("farneback", 0.04),
        ("farneback-opencv", 0.04),
        ("dis", 0.05),
    ],
)
def test_a_translation_is_found(name: str, bound_px: float) -> None:
    prev, following = frames(SCENE)
    estimator = create_estimator(name)
    valid = SCENE.valid(0)
    forward = endpoint_error(estimator(prev, following), SCENE.flow(0))
    assert forward[valid].mean() < bound_px
    backward = endpoint_error(estimator(following, prev), SCENE.backward_flow(0))
    assert backward[SCENE.valid(1, -1)].mean() < bound_px


@pytest.mark.parametrize("name", NAMES)
def test_noise_gives_finite_fields(name: str) -> None:
    rng = np.random.default_rng(0)
    prev, following = rng.integers(0, 256, (2, 40, 48), dtype=np.uint8)
    assert np.isfinite(create_estimator(name)(prev, following)).all()


@pytest.mark.parametrize("name", NAMES)
def test_blank_frames_do_not_move(name: str) -> None:
    blank = np.full((HEIGHT, WIDTH), 128, np.uint8)
    assert np.abs(create_estimator(name)(blank, blank)).max() == 0


# Farneback takes what lies beyond the last row and column for black, so its border moves a little.
@pytest.mark.parametrize(
    ("name", "most_px", "mean_px"),
    [
        ("tvl1", 1e-6, 1e-6),
        ("tvl1-opencv", 1e-6, 1e-6),
        ("farneback", 0.15, 0.01),
        ("farneback-opencv", 0.15, 0.01),
        ("dis", 1e-6, 1e-6),
    ],
)
def test_identical_frames_do_not_move(name: str, most_px: float, mean_px: float) -> None:
    (frame,) = frames(SCENE, 1)
    flow = create_estimator(name)(frame, frame.copy())
    assert np.abs(flow).max() <= most_px
    assert np.abs(flow).mean() <= mean_px


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_left_as_they_were(name: str) -> None:
    prev, following = frames(SCENE)
    before = prev.copy(), following.copy()
    create_estimator(name)(prev, following)
    np.testing.assert_array_equal(prev, before[0])
    np.testing.assert_array_equal(following, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_least_side_that_is_promised_works(name: str) -> None:
    estimator = create_estimator(name)
    side = estimator.min_side_px
    scene = Scene(side, side, SCENE.layers)
    flow = estimator(*frames(scene))
    assert flow.shape == (side, side, 2)
    assert np.isfinite(flow).all()


@pytest.mark.parametrize(
    ("name", "known_px"),
    [
        ("tvl1", 0.156),
        ("tvl1-opencv", 0.156),  # 4 s
        ("farneback", 0.361),
        ("farneback-opencv", 0.361),
    ],
)
def test_rubber_whale_has_the_known_error(
    name: str,
    known_px: float,
    rubber_whale: tuple[Gray, Gray, Flow, NDArray[np.bool_]],
) -> None:
    prev, following, truth, known = rubber_whale
    flow = create_estimator(name)(prev, following)
    assert endpoint_error(flow, truth)[known].mean() == pytest.approx(known_px, abs=0.01)


@pytest.mark.parametrize("name", ["tvl1", "farneback", "dis"])
def test_rubber_whale_in_the_wrong_order_is_far_off(
    name: str, rubber_whale: tuple[Gray, Gray, Flow, NDArray[np.bool_]]
) -> None:
    prev, following, truth, known = rubber_whale
    flow = create_estimator(name)(following, prev)
    assert endpoint_error(flow, truth)[known].mean() >= 2.3


# ---- DIS


@pytest.mark.parametrize("dis_preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize(("width", "height"), [(200, 16), (16, 200), (640, 17), (33, 16)])
def test_dis_takes_long_thin_frames(dis_preset: str, width: int, height: int) -> None:
    # OpenCV by itself reads outside of the image here and ends the process.
    scene = Scene(width, height, (Layer(3, (Motion(velocity_px=(1.0, 0.5)),)),))
    flow = create_estimator("dis", dis_preset=dis_preset)(*frames(scene))
    assert flow.shape == (height, width, 2)
    error = endpoint_error(flow, scene.flow(0))[scene.valid(0)]
    assert error.mean() < (0.3 if dis_preset == "medium" else 1.0)


def test_a_dis_estimator_takes_sizes_in_any_order() -> None:
    thin = Scene(200, 16, SCENE.layers)
    shared = create_estimator("dis", finest_scale=2)
    for scene in (SCENE, thin, SCENE, thin):
        pair = frames(scene)
        alone = create_estimator("dis", finest_scale=2)(*pair)
        np.testing.assert_array_equal(shared(*pair), alone)


@pytest.mark.parametrize(
    ("patch_size", "min_side_px"), [(None, 16), (4, 16), (8, 16), (12, 18), (24, 36), (33, 50)]
)
def test_the_least_side_of_dis_follows_its_patch(patch_size: int | None, min_side_px: int) -> None:
    estimator = create_estimator("dis", patch_size=patch_size)
    assert estimator.min_side_px == min_side_px
    scene = Scene(min_side_px, min_side_px, SCENE.layers)
    assert np.isfinite(estimator(*frames(scene))).all()


def test_all_presets_of_dis_have_the_patch_that_the_stride_is_checked_against() -> None:
    for dis_preset in ("ultrafast", "fast", "medium"):
        create_estimator("dis", dis_preset=dis_preset, patch_stride=8)
        with pytest.raises(ConfigError, match="patch_stride must be <= patch_size, 8, got 9"):
            create_estimator("dis", dis_preset=dis_preset, patch_stride=9)
    for preset in (
        cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        cv2.DISOPTICAL_FLOW_PRESET_FAST,
        cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    ):
        assert cv2.DISOpticalFlow.create(preset).getPatchSize() == 8


def test_dis_equals_opencv_where_opencv_is_safe() -> None:
    pair = frames(SCENE)
    opencv = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    expected = opencv.calc(*pair, None)  # type: ignore[call-overload]
    np.testing.assert_array_equal(create_estimator("dis")(*pair), expected)


# ---- parameters


TVL1_GETTERS = {
    "tau": ("getTau", 0.2),
    "lambda_": ("getLambda", 0.1),
    "theta": ("getTheta", 0.4),
    "nscales": ("getScalesNumber", 3),
    "warps": ("getWarpingsNumber", 2),
    "epsilon": ("getEpsilon", 0.02),
    "inner_iterations": ("getInnerIterations", 7),
    "outer_iterations": ("getOuterIterations", 4),
    "scale_step": ("getScaleStep", 0.5),
    "gamma": ("getGamma", 0.1),
    "median_filtering": ("getMedianFiltering", 3),
}


def test_every_parameter_of_tvl1_opencv_reaches_opencv() -> None:
    assert set(TVL1_GETTERS) == set(PARAMETERS["tvl1-opencv"].__dataclass_fields__)
    estimator: Any = create_estimator(
        "tvl1-opencv", **{name: value for name, (_, value) in TVL1_GETTERS.items()}
    )
    for getter, value in TVL1_GETTERS.values():
        assert getattr(estimator._flow, getter)() == value, getter
    assert not estimator._flow.getUseInitialFlow()


def test_the_defaults_of_tvl1_are_opencvs() -> None:
    opencv = cv2.optflow.DualTVL1OpticalFlow.create()
    estimator: Any = create_estimator("tvl1-opencv")
    for name, (getter, _) in TVL1_GETTERS.items():
        assert getattr(estimator._flow, getter)() == getattr(opencv, getter)(), getter
        assert getattr(PARAMETERS["tvl1"](), name) == getattr(opencv, getter)(), name


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("pyr_scale", 0.7),
        ("levels", 1),
        ("winsize", 9),
        ("iterations", 1),
        ("poly_n", 7),
        ("poly_sigma", 1.6),
        ("gaussian", True),
    ],
)
def test_every_parameter_of_farneback_changes_the_flow(parameter: str, value: Any) -> None:
    # Large enough that three levels of the pyramid are used: OpenCV's end at 32 px.
    prev = gray(textured_image(160, 160, 1))
    following = np.roll(prev, 3, axis=1)
    changed = create_estimator("farneback", **{parameter: value})(prev, following)
    assert not np.array_equal(changed, create_estimator("farneback")(prev, following))


def test_the_values_of_farneback_stand_in_opencvs_order() -> None:
    pair = frames(SCENE)
    given = {"pyr_scale": 0.6, "levels": 2, "winsize": 11, "iterations": 4, "poly_n": 7}
    flow = create_estimator("farneback-opencv", **given, poly_sigma=1.5, gaussian=True)(*pair)
    expected = cv2.calcOpticalFlowFarneback(
        *pair,
        None,  # type: ignore[call-overload]
        pyr_scale=0.6,
        levels=2,
        winsize=11,
        iterations=4,
        poly_n=7,
        poly_sigma=1.5,
        flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN,
    )
    np.testing.assert_array_equal(flow, expected)


def test_every_parameter_of_dis_reaches_opencv() -> None:
    estimator: Any = create_estimator(
        "dis",
        finest_scale=0,
        patch_size=10,
        patch_stride=5,
        gradient_descent_iterations=7,
        variational_refinement_iterations=2,
    )
    estimator(*frames(SCENE))
    opencv = estimator._flow
    assert opencv.getFinestScale() == 0
    assert opencv.getPatchSize() == 10
    assert opencv.getPatchStride() == 5
    assert opencv.getGradientDescentIterations() == 7
    assert opencv.getVariationalRefinementIterations() == 2


def test_the_presets_of_dis_differ() -> None:
    pair = frames(SCENE)
    ultrafast, fast, medium = (
        create_estimator("dis", dis_preset=name)(*pair) for name in ("ultrafast", "fast", "medium")
    )
    assert not np.array_equal(ultrafast, fast)
    assert not np.array_equal(fast, medium)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("tvl1-opencv", {"tau": 0}, "tau must be > 0, got 0"),
        ("tvl1-opencv", {"lambda_": -1.0}, "lambda must be > 0, got -1.0"),
        ("tvl1-opencv", {"theta": 0.0}, "theta must be > 0, got 0.0"),
        ("tvl1-opencv", {"epsilon": float("nan")}, "epsilon must be > 0, got nan"),
        ("tvl1-opencv", {"nscales": 0}, "nscales must be >= 1, got 0"),
        ("tvl1-opencv", {"warps": 2.5}, "warps must be an integer, got 2.5"),
        ("tvl1-opencv", {"scale_step": 1.0}, "scale_step must be > 0 and < 1, got 1.0"),
        ("tvl1-opencv", {"gamma": -0.1}, "gamma must be >= 0, got -0.1"),
        ("tvl1-opencv", {"median_filtering": 4}, "median_filtering must be 1 (off), 3 or 5, got 4"),
        (
            "tvl1",
            {"gamma": 0.1},
            "gamma must be 0, got 0.1; the illumination term is in tvl1-opencv",
        ),
        ("tvl1", {"stop": "soon"}, "stop must be predicted or exact, got soon"),
        ("tvl1", {"tau": -1}, "tau must be > 0, got -1"),
        ("farneback", {"pyr_scale": 1}, "pyr_scale must be > 0 and < 1, got 1"),
        ("farneback", {"levels": True}, "levels must be an integer, got True"),
        ("farneback", {"winsize": 0}, "winsize must be >= 1, got 0"),
        ("farneback", {"poly_n": 6}, "poly_n must be 5 or 7, got 6"),
        ("farneback", {"poly_sigma": 0.0}, "poly_sigma must be > 0, got 0.0"),
        (
            "dis",
            {"dis_preset": "slow"},
            "dis_preset must be one of ultrafast, fast, medium, got 'slow'",
        ),
        ("dis", {"finest_scale": -1}, "finest_scale must be >= 0, got -1"),
        ("dis", {"patch_size": 3}, "patch_size must be >= 4, got 3"),
        ("dis", {"patch_size": 8.0}, "patch_size must be an integer, got 8.0"),
        ("dis", {"patch_stride": 0}, "patch_stride must be >= 1, got 0"),
        ("dis", {"patch_stride": 9}, "patch_stride must be <= patch_size, 8, got 9"),
        (
            "dis",
            {"patch_size": 5, "patch_stride": 6},
            "patch_stride must be <= patch_size, 5, got 6",
        ),
        (
            "dis",
            {"gradient_descent_iterations": 0},
            "gradient_descent_iterations must be >= 1, got 0",
        ),
        (
            "dis",
            {"variational_refinement_iterations": -1},
            "variational_refinement_iterations must be >= 0, got -1",
        ),
    ],
)
def test_a_parameter_out_of_range_is_refused(
    name: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        create_estimator(name, **parameters)
    assert str(caught.value) == message


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        create_estimator("pwc")
    assert str(caught.value) == f"algorithm must be one of {', '.join(PARAMETERS)}, got 'pwc'"


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        create_estimator("farneback", window=3, levels=2, sigma=1)
    assert str(caught.value) == (
        "algorithm farneback has no parameter window, sigma; it takes pyr_scale, levels, winsize, "
        "iterations, poly_n, poly_sigma, gaussian"
    )


def test_another_device_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        create_estimator("dis", device="cuda")
    assert str(caught.value) == (
        "device of dis must be cpu, got 'cuda'; tvl1, farneback, brox and raft have a version for "
        "GPUs"
    )


def test_every_estimator_has_parameters_and_names_its_implementation() -> None:
    major = cv2.__version__.split(".")[0]
    kinds = {name: kind for name, kind in PARAMETERS.items() if not kind.takes_weights}
    found = {name: create_estimator(name).implementation for name in kinds}
    assert found["tvl1-opencv"] == found["dis"] == f"opencv-{major}"
    assert found["farneback-opencv"] == "opencv"
    assert found["tvl1"] == found["farneback"] == "flowprep-1"
    assert found["tvl1"] == "flowprep-1"


# ---- many pairs


@pytest.mark.parametrize("name", NAMES)
def test_a_result_does_not_depend_on_the_calls_before(name: str) -> None:
    first, second, third = frames(SCENE, 3)
    estimator = create_estimator(name)
    fresh = estimator(first, second)
    kept = fresh.copy()
    estimator(third, first)
    estimator(second, third)
    np.testing.assert_array_equal(estimator(first, second), kept)
    # The next call may not write into a field that was given away.
    np.testing.assert_array_equal(fresh, kept)


@pytest.mark.parametrize("name", ["tvl1", "farneback", "dis"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_pairs_are_the_single_calls(name: str, step: int) -> None:
    video = frames(SCENE, 6)
    estimator = create_estimator(name)
    pairs = list(estimator.pairs(iter(video), step=step))
    assert [pair.index for pair in pairs] == list(range(len(video) - step))
    for pair in pairs:
        first, last = video[pair.index], video[pair.index + step]
        np.testing.assert_array_equal(pair.forward, estimator(first, last))
        np.testing.assert_array_equal(pair.backward, estimator(last, first))


def test_pairs_of_tvl1_opencv_are_the_single_calls() -> None:
    video = frames(Scene(48, 32, SCENE.layers), 3)
    estimator = create_estimator("tvl1-opencv")
    for pair, (first, last) in zip(estimator.pairs(video), itertools.pairwise(video), strict=True):
        np.testing.assert_array_equal(pair.forward, estimator(first, last))
        np.testing.assert_array_equal(pair.backward, estimator(last, first))


@pytest.mark.parametrize("name", ["tvl1", "dis"])
@pytest.mark.parametrize("directions", [("forward",), ("backward",), DIRECTIONS])
def test_only_the_directions_that_are_asked_for_are_computed(
    name: str, directions: tuple[Direction, ...]
) -> None:
    for pair in create_estimator(name).pairs(frames(SCENE, 3), directions=directions):
        assert (pair.forward is not None) == ("forward" in directions)
        assert (pair.backward is not None) == ("backward" in directions)


@pytest.mark.parametrize("name", ["tvl1", "dis"])
@pytest.mark.parametrize(("num_frames", "step"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_too_few_frames_give_no_pair(name: str, num_frames: int, step: int) -> None:
    assert list(create_estimator(name).pairs(frames(SCENE, num_frames), step=step)) == []


@pytest.mark.parametrize("name", ["tvl1", "dis"])
def test_pairs_come_while_the_frames_arrive(name: str) -> None:
    delivered = 0

    def arriving() -> Iterator[Gray]:
        nonlocal delivered
        for frame in frames(SCENE, 5):
            delivered += 1
            yield frame

    pairs = create_estimator(name).pairs(arriving(), step=2)
    seen: list[FlowPair] = []
    for number, pair in enumerate(pairs):
        seen.append(pair)
        assert delivered == number + 3
    assert len(seen) == 3
