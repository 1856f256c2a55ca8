"""Flow against itself and against the frames, on scenes whose flow is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from flowprep.flow.consistency import consistency_error, warp, warp_error
from flowprep.synthetic import Layer, Motion, Scene, action_scene


def moving(velocity_px: tuple[float, float]) -> Scene:
    return Scene(64, 48, (Layer(3, (Motion(velocity_px=velocity_px),)),))


@pytest.mark.parametrize("velocity_px", [(3, 0), (0, -2), (1.5, 2.25)])
def test_true_flow_explains_the_frames_and_the_reversed_one_does_not(
    velocity_px: tuple[float, float],
) -> None:
    scene = moving(velocity_px)
    first, last = scene.frame(0), scene.frame(1)
    right = warp_error(first, last, scene.flow(0))
    wrong = warp_error(first, last, -scene.flow(0))
    assert np.nanmean(right) < 2.5
    assert np.nanmean(wrong) > 5 * np.nanmean(right)
    if all(float(v).is_integer() for v in velocity_px):
        assert np.nanmax(right) <= 1  # no interpolation; rounding alone


def test_backward_flow_takes_the_frames_the_other_way_round() -> None:
    scene = moving((2, 1))
    error = warp_error(scene.frame(1), scene.frame(0), scene.backward_flow(0))
    assert np.nanmax(error) <= 1


def test_what_leaves_the_frame_is_nan() -> None:
    scene = moving((3, -2))
    error = warp_error(scene.frame(0), scene.frame(1), scene.flow(0))
    outside = np.zeros((48, 64), bool)
    outside[:, 61:] = outside[:2] = True
    assert np.array_equal(np.isnan(error), outside)
    warped = warp(scene.frame(1), scene.flow(0))
    assert warped.dtype == np.uint8
    assert not warped[outside].any()
    assert np.abs(warped.astype(int) - scene.frame(0))[~outside].max() <= 1


@pytest.mark.parametrize("action", ["rotate_clockwise", "zoom_in", "move_left"])
def test_exact_pairs_are_consistent_where_nothing_is_hidden(action: str) -> None:
    scene = action_scene(action, width=96, height=72, seed=2)
    forward, backward = scene.flow(0), scene.backward_flow(0)
    error = consistency_error(forward, backward)
    seen = scene.valid(0) & ~np.isnan(error)
    assert np.median(error[seen]) < 0.01
    assert np.quantile(error[seen], 0.95) < 0.1
    # The same flow twice goes twice as far.
    twice = consistency_error(forward, forward)
    assert np.nanmedian(twice) > 20 * np.median(error[seen])
    back = consistency_error(backward, forward)
    assert np.nanmedian(back) < 0.01


def test_the_error_is_the_length_of_what_is_left() -> None:
    forward = np.full((20, 30, 2), (2, 1), np.float32)
    backward = np.full((20, 30, 2), (-2 + 0.6, -1 - 0.8), np.float32)
    error = consistency_error(forward, backward)
    assert np.allclose(error[:-1, :-2], 1)
    assert np.isnan(error[-1:]).all()
    assert np.isnan(error[:, -2:]).all()


def test_nan_is_nan_and_frames_may_be_gray() -> None:
    flow = np.zeros((20, 30, 2), np.float32)
    flow[3, 4] = np.nan
    gray = np.arange(600, dtype=np.uint8).reshape(20, 30)
    error = warp_error(gray, gray, flow)
    assert np.isnan(error).sum() == 1
    assert np.isnan(error[3, 4])
    assert np.nanmax(error) == 0
