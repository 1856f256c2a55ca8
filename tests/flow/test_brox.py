"""Native Brox: OpenCV's own expected field, true where the motion is known, safe at every size."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import llvmlite.binding
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction, FlowSpec
from flowprep.dataset.quantize import quantize
from flowprep.errors import ConfigError
from flowprep.flow import brox_level
from flowprep.flow.brox import Brox
from flowprep.flow.brox_pyramid import area_taps, down_taps, level_sizes, up_taps
from flowprep.flow.files import read_flow
from flowprep.flow.parameters import BroxParameters
from tests.flow.scenes import Flow, Gray, endpoint_error, frames, moving, turning_frames

GOLDEN = BroxParameters(0.197, 50.0, 0.8, 10, 77, 10)
"""The parameters of OpenCV's own test (cudaoptflow, test_optflow.cpp: BroxOpticalFlow)."""


def libpng_gray(path: Path) -> Gray:
    """Reads a picture as OpenCV's test does: libpng makes it gray, with truncated coefficients."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    if image.ndim == 2:
        return np.asarray(image, np.uint8)
    blue, green, red = (plane.astype(np.int64) for plane in cv2.split(image))
    return np.asarray((9797 * red + 19234 * green + 3737 * blue) >> 15, np.uint8)


@pytest.fixture(scope="module")
def golden_pair(test_data: Path) -> list[Gray]:
    return [libpng_gray(test_data / f"groundtruth/brox/frame{number}.png") for number in (0, 1)]


@pytest.fixture(scope="module")
def golden(test_data: Path) -> Flow:
    """OpenCV's expected field (opencv_extra, brox_optical_flow_cc20.bin)."""
    content = (test_data / "groundtruth/brox/brox_optical_flow_cc20.bin").read_bytes()
    height, width = np.frombuffer(content[:8], np.int32)
    planes = np.frombuffer(content[8:], np.float32).reshape(2, height, width)
    return np.asarray(np.moveaxis(planes, 0, -1), np.float32)


# ---- OpenCV's field


def test_the_field_is_that_of_opencvs_own_test(golden_pair: list[Gray], golden: Flow) -> None:
    found = Brox(GOLDEN)(*golden_pair)
    error = endpoint_error(found, golden)
    # As close as one float32 run comes to another: 1e-7 on the frames moves the mean by .0058 px.
    assert error.mean() <= 0.0062
    assert np.median(error) <= 0.0031
    assert np.percentile(error, 99) <= 0.045
    spec = FlowSpec()
    levels = [quantize(field, spec).astype(int) for field in (found, golden)]
    difference = np.abs(levels[0] - levels[1]).max(-1)
    assert (difference <= 1).mean() >= 0.9995
    assert (difference == 0).mean() >= 0.952


def test_the_field_is_one_of_the_runs_that_noise_gives(
    golden_pair: list[Gray], golden: Flow
) -> None:
    """A wrong border, color order, pyramid or relaxation has another mean than OpenCV's field."""
    estimator, rng, runs = Brox(GOLDEN), np.random.default_rng(0), []
    for _ in range(10):
        noisy = [
            (frame / np.float32(255) + rng.normal(0, 1e-7, frame.shape)).astype(np.float32)
            for frame in golden_pair
        ]
        runs.append(estimator(*noisy).astype(np.float64))
    mean, deviation = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1)
    distance = np.linalg.norm(golden - mean, axis=-1)
    spread = np.sqrt((deviation**2).sum(-1))
    assert np.minimum(distance / spread, 20).mean() < 1.03
    assert distance.mean() < 0.0048


@pytest.mark.parametrize(
    ("changed", "error_px"),
    [
        ({}, 0.173),
        ({"inner_iterations": 10}, 0.164),
        ({"pyramid_filter": "area"}, 0.124),
        ({"pyramid_filter": "area", "inner_iterations": 10}, 0.119),
    ],
)
def test_the_error_on_rubberwhale(
    test_data: Path, changed: dict[str, Any], error_px: float
) -> None:
    folder = test_data / "groundtruth/RubberWhale"
    pair = [libpng_gray(folder / f"frame{number}.png") for number in (10, 11)]
    truth, known = read_flow(folder / "flow10.flo")
    found = Brox(BroxParameters(**changed))(*pair)
    assert endpoint_error(found, truth)[known].mean() == pytest.approx(error_px, abs=0.003)


# ---- known motion


@pytest.mark.parametrize("pyramid_filter", ["ncv", "area"])
@pytest.mark.parametrize("velocity_px", [(1.7, -0.9), (-6.3, 4.2), (0.0, 0.0)])
def test_a_moving_plane_is_found(velocity_px: tuple[float, float], pyramid_filter: Any) -> None:
    pair = frames(moving(128, 96, velocity_px))
    found = Brox(BroxParameters(pyramid_filter=pyramid_filter))(*pair)
    inside = found[16:-16, 16:-16]
    assert np.abs(inside - np.float32(velocity_px)).mean() < 0.06


def test_directions_and_videos_do_not_mix() -> None:
    video = turning_frames(4)
    estimator = Brox(BroxParameters())
    for pair in estimator.pairs(video, step=2):
        first, last = video[pair.index], video[pair.index + 2]
        assert pair.forward is not None
        assert pair.backward is not None
        np.testing.assert_array_equal(pair.forward, Brox(BroxParameters())(first, last))
        np.testing.assert_array_equal(pair.backward, estimator(last, first))
        # Another size in between takes the memory.
        estimator(*turning_frames(2, 40, 30))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_only_the_wanted_direction_is_computed(direction: Direction) -> None:
    (pair,) = Brox(BroxParameters()).pairs(turning_frames(2), directions=(direction,))
    assert (pair.forward is None) == (direction == "backward")
    assert (pair.backward is None) == (direction == "forward")


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="all frames must be of one size"):
        Brox(BroxParameters())(np.zeros((32, 32), np.uint8), np.zeros((32, 33), np.uint8))


# ---- a second implementation, as plain as the text


def slow_relax(
    coefficients: dict[str, NDArray[np.float64]], num_sweeps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sweeps in the words of the CUDA code: cell by cell, for du and dv."""
    c = coefficients
    height, width = c["u"].shape
    du, dv = np.zeros((height, width)), np.zeros((height, width))
    for _ in range(num_sweeps):
        for color in (0, 1):
            for y in range(height):
                for x in range((y + color) % 2, width, 2):
                    near = [
                        (c["link_x"][y, x], y, x - 1),
                        (c["link_x"][y, x + 1] if x + 1 < width else 0.0, y, x + 1),
                        (c["link_y"][y, x], y - 1, x),
                        (c["link_y"][y + 1, x] if y + 1 < height else 0.0, y + 1, x),
                    ]
                    links = sum(link for link, _, _ in near)
                    for name, change, other in (("u", du, dv), ("v", dv, du)):
                        field = c[name]
                        pull = sum(
                            link * (field[j, i] + change[j, i]) for link, j, i in near if link
                        )
                        value = pull - field[y, x] * links - c[f"num_{name}"][y, x]
                        value -= c["num_uv"][y, x] * other[y, x]
                        step = 1.99 / (c[f"den_{name}"][y, x] + links)
                        change[y, x] = (1 - 1.99) * change[y, x] + step * value
    return du, dv


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 19), (19, 18), (34, 16)])
def test_the_sweeps_are_those_of_the_text(width: int, height: int) -> None:
    """One level, one inner iteration: each term of the equations from its definition."""
    rng = np.random.default_rng(width)
    texture = cv2.GaussianBlur(rng.random((height, width), np.float32), None, 1.2)
    moved = cv2.GaussianBlur(rng.random((height, width), np.float32), None, 1.2)
    parameters = BroxParameters(inner_iterations=1, outer_iterations=1, solver_iterations=3)
    found = Brox(parameters)(texture, moved)

    def derived(image: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        size = image.shape[axis]
        result = np.zeros_like(image)
        for offset, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            places = np.arange(size) + offset
            places = np.where(places < 0, 1 - places, places)
            places = np.where(places >= size, 2 * size - 1 - places, places)
            result += weight * image.take(places, axis)
        return result / 12

    first, second = texture.astype(np.float64), moved.astype(np.float64)
    ix, iy = derived(second, 1), derived(second, 0)
    ixx, ixy, iyy = derived(ix, 1), derived(iy, 1), derived(iy, 0)
    iz, ixz, iyz = second - first, ix - derived(first, 1), iy - derived(first, 0)
    weight = 0.5 / np.sqrt(iz**2 + 50 * (ixz**2 + iyz**2) + 1e-6) / 0.197
    link = 0.5 / np.sqrt(1e-6)  # of a flow that is 0 everywhere
    link_x, link_y = np.full((height, width), link), np.full((height, width), link)
    link_x[:, 0], link_y[0] = 0, 0
    du, dv = slow_relax(
        {
            "u": np.zeros((height, width)),
            "v": np.zeros((height, width)),
            "link_x": link_x,
            "link_y": link_y,
            "num_uv": weight * (ix * iy + 50 * ixy * (ixx + iyy)),
            "num_u": weight * (ix * iz + 50 * (ixx * ixz + ixy * iyz)),
            "num_v": weight * (iy * iz + 50 * (iyy * iyz + ixy * ixz)),
            "den_u": weight * (ix**2 + 50 * (ixx**2 + ixy**2)),
            "den_v": weight * (iy**2 + 50 * (iyy**2 + ixy**2)),
        },
        num_sweeps=3,
    )
    np.testing.assert_allclose(found[..., 0], du, rtol=0, atol=2e-4 * np.abs(du).max())
    np.testing.assert_allclose(found[..., 1], dv, rtol=0, atol=2e-4 * np.abs(dv).max())


# ---- the pyramid


def test_the_levels_are_opencvs() -> None:
    sizes = level_sizes(584, 388, 0.8, 150)
    assert (len(sizes), sizes[0], sizes[1], sizes[-1]) == (16, (584, 388), (468, 311), (21, 14))
    sizes = level_sizes(340, 256, 0.8, 150)
    assert (len(sizes), sizes[-1]) == (14, (19, 15))
    assert level_sizes(340, 256, 0.8, 3) == sizes[:3]
    # A level of fewer than four pixels has no derivatives.
    assert level_sizes(400, 16, 0.2, 150) == [(400, 16), (80, 4)]
    assert level_sizes(400, 16, 0.1, 150) == [(400, 16)]


@pytest.mark.parametrize("taps_of", [down_taps, area_taps, up_taps])
@given(before=st.integers(4, 80), factor=st.floats(0.2, 0.95))
def test_a_blank_image_stays_blank(taps_of: Any, before: int, factor: float) -> None:
    size = int(np.ceil(before * factor))
    if taps_of is up_taps:
        before, size = size, before
    taps = taps_of(size, before, factor)
    weights = taps.weights.reshape(size, -1)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    places = taps.begins[:, None] + np.arange(weights.shape[1])
    assert not weights[(places < 0) | (places >= before)].any()


def test_a_smaller_image_by_area_is_opencvs() -> None:
    image = np.random.default_rng(0).random((1, 100), np.float32)
    taps = area_taps(80, 100, 0.8)
    weights = taps.weights.reshape(80, -1)
    places = np.minimum(taps.begins[:, None] + np.arange(weights.shape[1]), 99)
    expected = cv2.resize(image, (80, 1), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose((image[0, places] * weights).sum(1), expected[0], atol=1e-5)


# ---- every size and every frame


@given(
    width=st.integers(16, 70),
    height=st.integers(16, 70),
    seed=st.integers(0, 9),
    area=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_size_gives_a_finite_field(width: int, height: int, seed: int, area: bool) -> None:
    rng = np.random.default_rng(seed)
    pair = [rng.integers(0, 256, (height, width), dtype=np.uint8) for _ in range(2)]
    filtered = BroxParameters(pyramid_filter="area" if area else "ncv")
    found = Brox(filtered)(*pair)
    assert found.shape == (height, width, 2)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, Brox(filtered)(*pair))


@pytest.mark.parametrize(
    "changed",
    [{}, {"outer_iterations": 1}, {"scale_factor": 0.1}, {"scale_factor": 0.97}],
)
@pytest.mark.parametrize(
    ("width", "height"), [(16, 16), (17, 300), (300, 17), (31, 33), (64, 48), (400, 40)]
)
def test_nothing_is_written_outside_of_its_memory(
    changed: dict[str, Any], width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels do not check indices: each piece of memory lies between numbers that must stay."""
    pieces: list[NDArray[np.float32]] = []

    def guarded(size: int) -> NDArray[np.float32]:
        memory = np.full(size + 2048, 77, np.float32)
        start = 1024 - memory.ctypes.data // 4 % 16
        memory[start : start + size] = 0
        pieces.append(memory)
        ends.append((start, start + size))
        return memory[start : start + size]

    ends: list[tuple[int, int]] = []
    estimator = Brox(BroxParameters(**changed))
    monkeypatch.setattr(brox_level, "aligned_zeros", guarded)
    # What it made its first call with was of the smallest size.
    estimator(*turning_frames(2, 18, 18))
    rng = np.random.default_rng(width)
    video = [rng.integers(0, 256, (height, width), dtype=np.uint8) for _ in range(3)]
    for pair in estimator.pairs(video):
        assert np.isfinite(pair.forward).all()  # type: ignore[arg-type]
    assert len(pieces) > 5
    for memory, (start, end) in zip(pieces, ends, strict=True):
        assert (memory[:start] == 77).all()
        assert (memory[end:] == 77).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha": 1e-6},
        {"alpha": 1e6},
        {"gamma": 0.0},
        {"gamma": 1e6},
        {"scale_factor": 0.99},
        {"scale_factor": 0.05},
        {"solver_iterations": 1, "inner_iterations": 1, "outer_iterations": 1},
        {"solver_iterations": 200},
    ],
)
def test_extreme_parameters_do_not_crash(changed: dict[str, Any]) -> None:
    assert Brox(BroxParameters(**changed))(*turning_frames(2, 40, 33)).shape == (33, 40, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ({"gamma": -1.0}, "gamma must be >= 0, got -1.0"),
        ({"scale_factor": 1.0}, "scale_factor must be > 0 and < 1, got 1.0"),
        ({"inner_iterations": 0}, "inner_iterations must be >= 1, got 0"),
        ({"solver_iterations": 2.5}, "solver_iterations must be an integer, got 2.5"),
        ({"pyramid_filter": "box"}, "pyramid_filter must be ncv or area, got box"),
    ],
)
def test_a_wrong_parameter_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        BroxParameters(**changed)


def test_the_filter_of_the_pyramid_has_its_own_implementation() -> None:
    names = {
        Brox.implementation_with(BroxParameters(pyramid_filter=name)) for name in ("ncv", "area")
    }
    assert names == {"flowprep-1", "flowprep-1-area"}


# ---- instruction sets

SCRIPT = """
import sys
import numpy as np
from flowprep.flow import create_estimator
first, second = np.load(sys.argv[1])
np.save(sys.argv[2], create_estimator("brox")(first, second))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86")
def test_all_processors_with_fma_give_the_same_bits(tmp_path: Path) -> None:
    host = llvmlite.binding.get_host_cpu_features()
    features = ("avx", "avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "sse4.2", "popcnt")
    if missing := [name for name in features if not host.get(name)]:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    pair = frames(moving(70, 50))
    np.save(tmp_path / "pair.npy", pair)
    environment = os.environ | {
        "NUMBA_CPU_NAME": "x86-64-v3",
        "NUMBA_CPU_FEATURES": ",".join(f"+{name}" for name in features),
    }
    command = [sys.executable, "-c", SCRIPT, tmp_path / "pair.npy", tmp_path / "flow.npy"]
    subprocess.run(command, check=True, env=environment)
    expected = Brox(BroxParameters())(*pair)
    found = np.load(tmp_path / "flow.npy")
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
