"""The camera's motion between two frames: found to a fraction of a px, or not claimed at all."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.flow.camera import MAX_BAR_LEVEL, camera_homography, track_frame
from flowprep.flow.homography import (
    IDENTITY,
    Homography,
    apply,
    corner_motion_px,
    frame_corners,
    from_corners,
    inverse,
    with_camera_motion,
)
from flowprep.flow.warp_back import warp_back
from flowprep.synthetic import Layer, Motion, Scene, Shape, camera_scene
from tests.flow.scenes import Gray, gray

CORNERS = frame_corners(320, 240)


def found(first: Gray, second: Gray) -> Homography | None:
    return camera_homography(track_frame(first), track_frame(second))


def matrix(homography: Homography) -> NDArray[np.float64]:
    return np.array(homography).reshape(3, 3)


# ---- arithmetic


@pytest.mark.parametrize("seed", range(20))
def test_corners_go_where_they_are_told_and_come_back(seed: int) -> None:
    wanted = CORNERS + np.round(np.random.default_rng(seed).uniform(-20, 20, (4, 2)), 3)
    homography = from_corners(wanted.tolist(), 320, 240)
    np.testing.assert_allclose(apply(matrix(homography), CORNERS), wanted, atol=1e-5)
    np.testing.assert_allclose(apply(matrix(inverse(homography)), wanted), CORNERS, atol=1e-5)
    farthest = np.hypot(*(wanted - CORNERS).T).max()
    assert corner_motion_px(homography, 320, 240) == pytest.approx(farthest, abs=1e-5)


def test_the_identity_moves_nothing() -> None:
    assert from_corners(CORNERS.tolist(), 320, 240) == IDENTITY == inverse(IDENTITY)
    picture = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    np.testing.assert_array_equal(
        warp_back(0 * picture, picture, IDENTITY, (0, 0, 32, 24)), picture
    )


@pytest.mark.parametrize("camera", ["pan", "all"])
def test_warped_flow_and_the_cameras_motion_are_the_flow(camera: str) -> None:
    scene = camera_scene(camera)
    rows = scene.camera_matrix(2)
    homography: Homography = tuple((rows / rows[2, 2]).ravel().tolist())
    np.testing.assert_allclose(
        with_camera_motion(scene.own_flow(2), homography), scene.flow(2), atol=1e-4
    )


# ---- the warp


@pytest.mark.parametrize("colors", [False, True])
def test_a_warped_frame_is_that_of_a_camera_that_stood_still(colors: bool) -> None:
    layers = camera_scene("all", num_actors=0, noise=0).layers
    moved = Scene(320, 240, layers, camera=camera_scene("all").camera)
    rows = moved.camera_matrix(2)
    first, second = moved.frame(2), moved.frame(3)
    if not colors:
        first, second = gray(first), gray(second)
    homography: Homography = tuple((rows / rows[2, 2]).ravel().tolist())
    warped = warp_back(first, second, homography, (0, 0, 320, 240))
    apart = np.abs(warped[8:-8, 8:-8].astype(int) - first[8:-8, 8:-8])
    assert apart.mean() < 1.0 < np.abs(second[8:-8, 8:-8].astype(int) - first[8:-8, 8:-8]).mean()


def test_where_the_second_frame_shows_nothing_the_first_one_stays() -> None:
    first, second = np.full((20, 30), 10, np.uint8), np.full((20, 30), 90, np.uint8)
    right: Homography = (1.0, 0.0, 7.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    warped = warp_back(first, second, right, (0, 5, 30, 20))
    wanted = first.copy()
    wanted[5:, :23] = 90
    np.testing.assert_array_equal(warped, wanted)


# ---- the fit


@pytest.mark.parametrize("camera", ["pan", "zoom", "turn", "all", "shake"])
def test_the_motion_is_found_to_a_tenth_of_a_px_beside_actors(camera: str) -> None:
    scene = camera_scene(camera, seed=1)
    homography = found(gray(scene.frame(1)), gray(scene.frame(2)))
    assert homography is not None
    wanted = apply(scene.camera_matrix(1), CORNERS)
    assert np.hypot(*(apply(matrix(homography), CORNERS) - wanted).T).max() < 0.1


def test_a_slow_pan_is_found_too() -> None:
    scene = Scene(
        320, 240, camera_scene("still").layers, noise=2, camera=(Motion(velocity_px=(0.2, 0.1)),)
    )
    homography = found(gray(scene.frame(1)), gray(scene.frame(2)))
    assert homography is not None
    assert corner_motion_px(homography, 320, 240) == pytest.approx(np.hypot(0.2, 0.1), abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_camera_that_stands_still_is_the_identity(seed: int) -> None:
    scene = camera_scene("still", seed=seed)
    assert found(gray(scene.frame(1)), gray(scene.frame(2))) == IDENTITY


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_an_actor_who_fills_most_of_the_picture_is_not_the_camera(share: float) -> None:
    actor = Layer(7, (Motion(offset_px=(160, 120), velocity_px=(4, 2)),), Shape(160 * share, 90, 4))
    scene = Scene(320, 240, (Layer(5), actor), noise=2)
    first, second = gray(scene.frame(0)), gray(scene.frame(1))
    assert found(first, second) in (IDENTITY, None)


def test_black_bars_do_not_hold_the_camera() -> None:
    scene = camera_scene("pan", seed=2)
    frames = [gray(scene.frame(t)) for t in (1, 2)]
    for frame in frames:
        frame[:50] = frame[-50:] = MAX_BAR_LEVEL - 8
    tracked = [track_frame(frame) for frame in frames]
    assert [one.picture for one in tracked] == [(0, 52, 320, 188)] * 2
    homography = camera_homography(*tracked)
    assert homography is not None
    wanted = apply(scene.camera_matrix(1), CORNERS)
    assert np.hypot(*(apply(matrix(homography), CORNERS) - wanted).T).max() < 0.5
    warped = warp_back(*frames, homography, tracked[0].picture)
    np.testing.assert_array_equal(warped[:52], frames[0][:52])


def noise(height: int, width: int, seed: int) -> Gray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(np.zeros((64, 96), np.uint8), np.zeros((64, 96), np.uint8), id="black"),
        pytest.param(np.full((64, 96), 200, np.uint8), noise(64, 96, 0), id="one color"),
        pytest.param(noise(16, 16, 0), noise(16, 16, 0), id="too small"),
        pytest.param(noise(16, 400, 0), noise(16, 400, 1), id="a strip of noise"),
        pytest.param(noise(120, 160, 0), noise(120, 160, 1), id="noise"),
        pytest.param(
            gray(camera_scene("pan", seed=3).frame(1)),
            gray(camera_scene("pan", seed=4).frame(1)),
            id="a cut",
        ),
        pytest.param(
            gray(camera_scene("still", seed=3).frame(1)),
            cv2.rotate(gray(camera_scene("still", seed=3).frame(1)), cv2.ROTATE_180),
            id="upside down",
        ),
    ],
)
def test_what_has_no_common_motion_has_no_homography(first: Gray, second: Gray) -> None:
    assert found(first, second) is None


def test_a_zoom_beyond_belief_is_refused() -> None:
    layers = camera_scene("still", num_actors=0).layers
    scene = Scene(320, 240, layers, camera=(Motion((160, 120), zoom_rate=0.5),))
    assert found(gray(scene.frame(0)), gray(scene.frame(1))) is None


# ---- the same bits everywhere

PROGRAM = """
import cv2, numpy as np, sys
from flowprep.flow.camera import camera_homography, track_frame
from flowprep.flow.warp_back import warp_back
frames = np.load(sys.argv[1])
cv2.setNumThreads(int(sys.argv[2]))
for first, second in zip(frames[::2], frames[1::2]):
    tracked = track_frame(first)
    found = camera_homography(tracked, track_frame(second))
    print(found, hash(warp_back(first, second, found, tracked.picture).tobytes()))
"""


def test_older_processors_and_threads_give_the_same_bits(tmp_path) -> None:  # type: ignore[no-untyped-def]
    frames = [
        gray(camera_scene(camera, seed=seed).frame(t))
        for camera, seed in (("all", 0), ("shake", 1), ("zoom", 2))
        for t in (1, 2)
    ]
    np.save(tmp_path / "frames.npy", frames)
    older = {
        # What OpenCV, OpenBLAS and NumPy take for a processor without AVX.
        "OPENCV_CPU_DISABLE": "AVX512_SKX,AVX512_ICL,AVX2,FMA3,AVX,FP16,SSE4_2,SSE4_1",
        "OPENCV_IPP": "sse42",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX2 FMA3",
        "NUMBA_CPU_NAME": "nehalem",
        "NUMBA_CPU_FEATURES": "",
    }
    said = {}
    for name, threads, more in (("here", "1", {}), ("many", "4", {}), ("older", "1", older)):
        environment = {**os.environ, "PYTHONHASHSEED": "0", "FLOWPREP_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "frames.npy"), threads]
        run = subprocess.run(
            command, env=environment | more, capture_output=True, text=True, check=True, timeout=600
        )
        said[name] = run.stdout
    assert said["here"].count("(") == 3
    assert said["many"] == said["here"]
    assert said["older"] == said["here"]
