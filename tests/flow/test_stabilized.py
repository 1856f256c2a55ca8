"""Warped flow is what the actors do, in both directions and with any estimator."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction
from flowprep.flow import create_estimator
from flowprep.flow.base import FlowEstimator, FrameKind
from flowprep.flow.homography import IDENTITY, inverse
from flowprep.flow.stabilized import StabilizedPairs
from flowprep.flow.warp_back import warp_back
from flowprep.synthetic import CAMERAS, Scene, camera_scene
from tests.flow.scenes import Flow, Gray, endpoint_error, frames, gray

Errors = NDArray[np.float64]
MOVING = [name for name in CAMERAS if name != "still"]


def warped_flow(first: Gray, last: Gray, direction: Direction = "forward") -> Flow:
    stabilized = StabilizedPairs(step=1, directions=(direction,))
    (pair,) = stabilized.pairs(create_estimator("dis"), [first, last])
    return cast(Flow, getattr(pair, direction))


def errors(scene: Scene, t: int) -> Errors:
    """The mean errors of plain flow, without its mean, and warped, of all pixels and of actors."""
    first, last = gray(scene.frame(t)), gray(scene.frame(t + 1))
    plain = create_estimator("dis")(first, last)
    flows = (plain, plain - plain.mean(axis=(0, 1)), warped_flow(first, last))
    seen = scene.valid(t)
    actors = seen & (scene.layer_map(t) > 0)
    apart = [endpoint_error(one, scene.own_flow(t)) for one in flows]
    return np.array([[one[mask].mean() for one in apart] for mask in (seen, actors)])


def test_the_cameras_motion_is_gone_and_the_actors_is_left() -> None:
    found = [errors(camera_scene(name, seed=seed), 1 + seed) for name in MOVING for seed in (0, 1)]
    for plain, without_mean, warped in np.mean(found, axis=0):
        assert warped < 0.2 * plain
        assert warped < 0.5 * without_mean


def test_without_camera_motion_nothing_changes() -> None:
    scene = camera_scene("still", seed=1)
    first, last = frames(scene)
    np.testing.assert_array_equal(warped_flow(first, last), create_estimator("dis")(first, last))


def test_backward_flow_is_freed_of_the_motion_back() -> None:
    scene = camera_scene("all", seed=2)
    back = warped_flow(*frames(scene), direction="backward")
    # What the actors did before frame 1, as the camera of frame 1 sees it.
    mask = scene.valid(1, -1)
    own, plain = scene.own_flow(1, -1), scene.flow(1, -1)
    assert endpoint_error(back, own)[mask].mean() < 0.2 * endpoint_error(plain, own)[mask].mean()


class Copying(FlowEstimator):
    """Gives the two images that it was given, the first as u and the second as v."""

    implementation = "test"

    def __init__(self, kind: FrameKind = "gray") -> None:
        self.frames = kind  # type: ignore[misc]

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> Flow:
        green = [one if one.ndim == 2 else one[..., 1] for one in (prev, next)]
        return np.stack(green, axis=-1).astype(np.float32)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kind", ["gray", "rgb"])
def test_an_estimator_gets_each_first_frame_and_the_warped_second(
    step: int, kind: FrameKind
) -> None:
    scene = camera_scene("pan", seed=3)
    given = [scene.frame(t) for t in range(4)]
    grays = [gray(one) for one in given]
    stabilized = StabilizedPairs(step=step, directions=DIRECTIONS)
    images = given if kind == "rgb" else grays
    pairs = list(stabilized.pairs(Copying(kind), images))
    assert [pair.index for pair in pairs] == list(range(4 - step))
    planes = [one[..., 1] for one in given] if kind == "rgb" else grays
    whole = (0, 0, 320, 240)
    for t, (pair, found) in enumerate(zip(pairs, stabilized.homographies, strict=True)):
        assert found not in (None, IDENTITY)
        assert found is not None
        first, last = planes[t], planes[t + step]
        assert pair.forward is not None
        assert pair.backward is not None
        ahead, behind = (
            warp_back(first, last, found, whole),
            warp_back(last, first, inverse(found), whole),
        )
        np.testing.assert_array_equal(pair.forward, np.stack([first, ahead], axis=-1))
        np.testing.assert_array_equal(pair.backward, np.stack([last, behind], axis=-1))


def test_a_pair_depends_on_its_two_frames_alone() -> None:
    given = frames(camera_scene("shake", seed=1), 5)
    whole = StabilizedPairs(step=1, directions=("forward",))
    list(whole.pairs(Copying(), given))
    for pair, found in zip(pairwise(given), whole.homographies, strict=True):
        alone = StabilizedPairs(step=1, directions=("backward",))
        list(alone.pairs(Copying(), pair))
        assert alone.homographies == [found]


@pytest.mark.parametrize("directions", [DIRECTIONS, ("backward",)])
@pytest.mark.parametrize("batch_pixels", [1, 150_000])
def test_blocks_of_pairs_on_a_device_are_the_pairs(
    directions: tuple[Direction, ...], batch_pixels: int
) -> None:
    pytest.importorskip("torch")
    from flowprep.flow.base_torch import TorchEstimator
    from tests.flow.torch_copying import CopyingTorch

    estimator: TorchEstimator[None] = CopyingTorch(device="cpu")
    estimator.batch_pixels = batch_pixels
    given = frames(camera_scene("all", seed=1), 5)
    one, other = (StabilizedPairs(step=1, directions=directions) for _ in range(2))
    wanted = list(one.pairs(Copying(), given))
    found = list(other.reduced_pairs(estimator, given, lambda fields: (fields,)))
    assert [pair.index for pair in found] == [pair.index for pair in wanted]
    assert one.homographies == other.homographies
    for pair, single in zip(found, wanted, strict=True):
        for name in DIRECTIONS:
            results, field = getattr(pair, name), getattr(single, name)
            assert (results is None) == (field is None) == (name not in directions)
            if results is not None:
                np.testing.assert_array_equal(results[0], field)
