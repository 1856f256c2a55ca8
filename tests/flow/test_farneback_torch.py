"""Farneback in PyTorch: the native estimator's numbers, in batches of any size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.config import DIRECTIONS, Direction, FlowSpec
from flowprep.dataset.quantize import quantize
from flowprep.errors import VideoError
from flowprep.flow.base import FlowPair
from flowprep.flow.farneback import Farneback
from flowprep.flow.parameters import FarnebackParameters
from flowprep.synthetic import Layer, Motion, Scene
from tests.flow.scenes import endpoint_error, gray, turning_frames

if os.environ.get("FLOWPREP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from flowprep.flow.farneback_torch import FarnebackTorch, _box_sum
from tests.torch_devices import devices, needs_cuda, one_thread

__all__ = ["one_thread"]


VARIANTS = {
    "default": FarnebackParameters(),
    "poly_n 7": FarnebackParameters(poly_n=7, poly_sigma=1.5),
    "gaussian": FarnebackParameters(gaussian=True),
    "narrow window": FarnebackParameters(winsize=5),
    "narrowest window": FarnebackParameters(winsize=2),
    "even window": FarnebackParameters(winsize=12),
    "even gaussian": FarnebackParameters(winsize=12, gaussian=True),
    "wide window": FarnebackParameters(winsize=41),
    "one level": FarnebackParameters(levels=1),
    "pyramid 0.7": FarnebackParameters(pyr_scale=0.7, levels=5),
    "one iteration": FarnebackParameters(iterations=1),
    "narrow sigma": FarnebackParameters(poly_sigma=0.1),
    "denseflow": FarnebackParameters(0.702, 5, 10, 2, 7, 1.5, True),
    "cuda": FarnebackParameters(0.5, 5, 13, 10, 5, 1.1),
}


def on(
    device: str = "cpu", batch_pairs: int | None = None, variant: str = "default"
) -> FarnebackTorch:
    return FarnebackTorch(VARIANTS[variant], device=device, batch_pairs=batch_pairs)


# ---- the native estimator's numbers


@devices
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("width", "height"), [(16, 16), (17, 16), (33, 100), (100, 33), (341, 255)]
)
def test_fields_are_the_native_ones(variant: str, width: int, height: int, device: str) -> None:
    pair = turning_frames(2, width, height)
    expected = Farneback(VARIANTS[variant])(*pair)
    error = endpoint_error(on(device, variant=variant)(*pair), expected)
    assert error.mean() < 1e-4
    # Few pixels do not tell their motion well.
    assert error.max() < (0.02 if variant == "narrowest window" else 2e-3)


CLIPS = (
    ("ucf101/videos/Biking/v_Biking_g19_c01.avi", (240, 320)),
    ("ucf101/videos/JavelinThrow/v_JavelinThrow_g21_c03.avi", (240, 320)),
    ("ucf101/videos/LongJump/v_LongJump_g15_c03.avi", (240, 320)),
    ("clips/juggle.mp4", None),
    ("asl", (480, 640)),
)


@devices
@pytest.mark.parametrize("variant", ["default", "denseflow"])
@pytest.mark.parametrize(("name", "size"), CLIPS)
def test_real_videos_of_full_size_have_the_native_flow(
    name: str, size: tuple[int, int] | None, variant: str, device: str, test_data: Path
) -> None:
    path = test_data / name
    capture = cv2.VideoCapture(str(sorted(path.glob("*.mkv"))[0] if path.is_dir() else path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 10)
    video = [np.asarray(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY)) for _ in range(2)]
    assert size in (None, video[0].shape)
    (pair,) = on(device, variant=variant).pairs(video)
    native = Farneback(VARIANTS[variant])
    for flow, ends in ((pair.forward, video), (pair.backward, video[::-1])):
        assert flow is not None
        expected = native(*ends)
        assert endpoint_error(flow, expected).mean() <= 0.002
        one, two = (quantize(x, FlowSpec("farneback")).astype(int) for x in (flow, expected))
        assert (np.abs(one - two) <= 1).mean() >= 0.999


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 13, 41])
def test_box_sums_are_sums(side: int) -> None:
    values = torch.from_numpy(np.random.default_rng(side).integers(-9, 9, (3, 60, 70))).float()
    for axis in (-1, -2):
        torch.testing.assert_close(
            _box_sum(values, side, axis), values.unfold(axis, side, 1).sum(-1), rtol=0, atol=0
        )


# ---- the truth


@devices
@pytest.mark.parametrize("velocity_px", [(2.3, -1.4), (-7.0, 3.0), (0.0, 0.4)])
def test_a_translation_is_found_both_ways(velocity_px: tuple[float, float], device: str) -> None:
    moving = Scene(128, 96, (Layer(5, (Motion(velocity_px=velocity_px),)),))
    (pair,) = on(device).pairs([gray(moving.frame(t)) for t in range(2)])
    assert pair.forward is not None
    assert pair.backward is not None
    forward = endpoint_error(pair.forward, moving.flow(0))
    backward = endpoint_error(pair.backward, moving.backward_flow(0))
    assert np.median(forward[moving.valid(0)]) < 0.05
    assert np.median(backward[moving.valid(1, -1)]) < 0.05


@devices
@pytest.mark.parametrize("gray_level", [0, 1, 128, 255])
@pytest.mark.parametrize("variant", ["default", "denseflow"])
def test_blank_frames_do_not_move(gray_level: int, variant: str, device: str) -> None:
    for width, height in ((16, 16), (37, 41), (340, 256)):
        blank = np.full((height, width), gray_level, np.uint8)
        assert not on(device, variant=variant)(blank, blank).any()


def test_a_blank_part_below_a_wild_one_does_not_move() -> None:
    prev, following = np.random.default_rng(0).choice(np.uint8([0, 255]), (2, 400, 48))
    prev[100:], following[100:] = 90, 90
    flow = on(variant="one level")(prev, following)
    assert np.abs(flow[:90]).max() > 0.1
    assert not flow[300:].any()


@pytest.mark.parametrize("variant", ["default", "gaussian", "poly_n 7"])
def test_transposed_frames_have_the_transposed_flow(variant: str) -> None:
    estimator = on(variant=variant)
    prev, following = turning_frames(2)
    turned = estimator(prev.T.copy(), following.T.copy())
    flow = estimator(prev, following)
    assert endpoint_error(turned.swapaxes(0, 1)[..., ::-1], flow).max() < 1e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_frames_have_the_mirrored_flow(axis: int) -> None:
    estimator = on(variant="one level")
    prev, following = turning_frames(2, 97, 65)
    mirrored = estimator(np.flip(prev, axis).copy(), np.flip(following, axis).copy())
    mirrored = np.flip(mirrored, axis) * np.float32((1, -1) if axis == 0 else (-1, 1))
    # The border is not alike on both sides: what lies on the last row or column counts as outside.
    error = endpoint_error(mirrored, estimator(prev, following))
    assert error[28:-28, 28:-28].max() < 1e-3


@settings(deadline=None, max_examples=40)
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
    flow = FarnebackTorch(parameters)(prev, following)
    assert flow.shape == (*size, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


# ---- batches

VIDEO = turning_frames(9, 83, 70)
OTHER_VIDEO = turning_frames(6, 48, 64)


def assert_same(found: list[FlowPair], expected: list[FlowPair]) -> None:
    assert [pair.index for pair in found] == [pair.index for pair in expected]
    for one, other in zip(found, expected, strict=True):
        for direction in DIRECTIONS:
            field, wanted = getattr(one, direction), getattr(other, direction)
            assert (field is None) == (wanted is None)
            if field is not None:
                np.testing.assert_allclose(field, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", ["default", "denseflow"])
@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("batch_pairs", [None, 1, 3, 8])
def test_batches_of_any_size_give_the_single_calls(
    batch_pairs: int | None, step: int, variant: str
) -> None:
    estimator = on(variant=variant)
    expected = [
        FlowPair(t, estimator(VIDEO[t], VIDEO[t + step]), estimator(VIDEO[t + step], VIDEO[t]))
        for t in range(len(VIDEO) - step)
    ]
    assert_same(list(on("cpu", batch_pairs, variant).pairs(iter(VIDEO), step=step)), expected)


@pytest.mark.parametrize("directions", [("forward",), ("backward",), ()])
def test_only_the_directions_that_are_asked_for_are_computed(
    directions: tuple[Direction, ...],
) -> None:
    expected = [
        FlowPair(
            pair.index,
            pair.forward if "forward" in directions else None,
            pair.backward if "backward" in directions else None,
        )
        for pair in on().pairs(VIDEO[:4])
    ]
    assert_same(list(on(batch_pairs=2).pairs(VIDEO[:4], directions=directions)), expected)


@pytest.mark.parametrize(("num_frames", "step"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_too_few_frames_give_no_pair(num_frames: int, step: int) -> None:
    assert list(on(batch_pairs=4).pairs(VIDEO[:num_frames], step=step)) == []


def test_sizes_may_change_from_video_to_video() -> None:
    shared = on(batch_pairs=2)
    for video in (VIDEO[:4], OTHER_VIDEO, VIDEO[:4]):
        assert_same(list(shared.pairs(video)), list(on().pairs(video)))
    streams = list(zip(shared.pairs(VIDEO[:6]), shared.pairs(OTHER_VIDEO), strict=True))
    for found, video in zip(zip(*streams, strict=True), (VIDEO[:6], OTHER_VIDEO), strict=True):
        assert_same(list(found), list(on().pairs(video)))


def test_frames_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="of one size"):
        on()(VIDEO[0], OTHER_VIDEO[0])


class SmallMemory(FarnebackTorch):
    """Farneback on a device with memory for the expansions of some frames only."""

    max_frames: int
    num_frames: list[int]

    def _prepare(self, plan: Any, images: torch.Tensor) -> list[torch.Tensor]:
        if len(images) > self.max_frames:
            raise torch.cuda.OutOfMemoryError("tried to allocate")
        self.num_frames.append(len(images))
        return super()._prepare(plan, images)


def test_memory_that_does_not_suffice_halves_the_batch() -> None:
    estimator = SmallMemory(FarnebackParameters(), batch_pairs=8)
    estimator.max_frames, estimator.num_frames = 4, []
    assert_same(list(estimator.pairs(VIDEO)), list(on().pairs(VIDEO)))
    # 9 and 5 frames are too many; then come 3, and 2 more for each of the other batches.
    assert estimator.num_frames == [3, 2, 2, 2]
    estimator.max_frames = 1
    with pytest.raises(VideoError, match="memory for one pair of frames of 83x70 px"):
        list(estimator.pairs(VIDEO))


# ---- GPUs


@needs_cuda
@pytest.mark.parametrize("variant", ["default", "denseflow"])
def test_nothing_waits_for_the_device_inside_a_batch(variant: str) -> None:
    expected = list(on(variant=variant).pairs(VIDEO))
    estimator = on("cuda", 3, variant)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(estimator.pairs(VIDEO))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        assert one.forward is not None
        assert other.forward is not None
        assert endpoint_error(one.forward, other.forward).mean() < 1e-3
