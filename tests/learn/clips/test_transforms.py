"""Crops, flips, stacks and ranges, against closed forms and against extraction itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowDataset, FlowSpec, dequantize
from flowprep.config import Resize
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import NormalizationName
from flowprep.learn.clips import indices as clip_indices
from flowprep.learn.clips import transforms
from flowprep.learn.clips.transforms import Crop, crop_flow, crop_frames, flip_flow, flip_frames
from flowprep.learn.config import ClipSpec
from flowprep.learn.normalizations import NORMALIZATIONS
from flowprep.learn.training_specs import AugmentSpec
from flowprep.synthetic import Layer, Motion, Scene, action_scene, write_video
from tests.learn.clips.samples import view_indices

# Older OpenCV interpolates at points that are rounded to 1/32 px.
POINT_PX = 2e-4 if int(cv2.__version__.split(".")[0]) >= 5 else 1 / 64 + 1e-4


def random_flow(length: int = 3, height: int = 40, width: int = 52) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    return rng.normal(0, 4, (length, 2, height, width)).astype(np.float32)


def random_frames(count: int = 2, height: int = 40, width: int = 52) -> NDArray[np.uint8]:
    return np.random.default_rng(6).integers(0, 256, (count, height, width, 3), np.uint8)


def ramp(
    height: int, width: int, slope_x: float, slope_y: float, level: float = 0.0
) -> NDArray[np.float32]:
    """One plane whose value at (x, y) px from the first centre is level + slope . (x, y)."""
    y, x = np.mgrid[:height, :width]
    return (level + slope_x * x + slope_y * y).astype(np.float32)


def mirrored(crop: Crop, width: int) -> Crop:
    return dataclasses.replace(crop, x=width - crop.x - crop.width)


# ---- boxes


def drawn(
    width: int, height: int, clip: ClipSpec, augment: AugmentSpec, count: int = 4000
) -> list[Crop]:
    rng = np.random.default_rng(0)
    return [transforms.training_crop(width, height, clip, augment, rng) for _ in range(count)]


def test_tsn_draws_every_pair_of_neighbouring_sides() -> None:
    augment = AugmentSpec("corners-13", (1.0, 0.875, 0.75, 0.66), flip=False)
    crops = drawn(340, 256, ClipSpec(), augment, 8000)
    sides = [256, 224, 192, 168]
    pairs = [(w, h) for i, w in enumerate(sides) for j, h in enumerate(sides) if abs(i - j) <= 1]
    assert len(pairs) == 10
    sizes = [(crop.width, crop.height) for crop in crops]
    assert set(sizes) == set(pairs)
    # Binomial: a deviation of 27; five of them.
    assert max(abs(sizes.count(pair) - 800) for pair in pairs) < 135
    # Flow leaves out the last.
    augment = AugmentSpec("corners-13", (1.0, 0.875, 0.75))
    assert {crop.width for crop in drawn(340, 256, ClipSpec(), augment)} == {256, 224, 192}


@pytest.mark.parametrize("width", [256, 224, 192, 168])
def test_tsn_offsets_at_340x256(width: int) -> None:
    # yjxiong/tsn-pytorch, transforms.py, fill_fix_offset: multiples of a fourth of the room.
    fourth_x, fourth_y = (340 - width) // 4, (256 - width) // 4
    fourths = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
    more = [(0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
    places: dict[Any, list[tuple[int, int]]] = {"corners": fourths, "corners-13": fourths + more}
    for name, expected in places.items():
        scales = (1.0, 0.875, 0.75, 0.66)
        crops = drawn(340, 256, ClipSpec(), AugmentSpec(name, scales, flip=False))
        offsets = {(crop.x, crop.y) for crop in crops if (crop.width, crop.height) == (width,) * 2}
        assert offsets == {(i * fourth_x, j * fourth_y) for i, j in expected}


def test_corners_are_the_corners_of_frames_of_any_size() -> None:
    # 99 and 30 px of room, no multiples of 4.
    clip, augment = ClipSpec(crop_px=224), AugmentSpec("corners-13", flip=False)
    offsets = {(crop.x, crop.y) for crop in drawn(323, 254, clip, augment)}
    assert len(offsets) == 13
    assert {(0, 0), (99, 0), (0, 30), (99, 30), (49, 15), (24, 7), (75, 23)} <= offsets


def test_random_crops_lie_everywhere_alike() -> None:
    crops = drawn(20, 17, ClipSpec(crop_px=16), AugmentSpec("random"), 10000)
    assert {(crop.width, crop.height) for crop in crops} == {(16, 16)}
    places, counts = np.unique([(c.x, c.y, c.flip) for c in crops], axis=0, return_counts=True)
    assert len(places) == 5 * 2 * 2
    assert np.abs(counts - 500).max() < 110


def test_center_is_the_centre() -> None:
    clip, augment = ClipSpec(crop_px=16), AugmentSpec("center", flip=False)
    assert set(drawn(24, 20, clip, augment, 5)) == {Crop(4, 2, 16, 16)}


def test_half_of_the_crops_are_mirrored_unless_told_otherwise() -> None:
    clip = ClipSpec(crop_px=16)
    flips = [crop.flip for crop in drawn(24, 20, clip, AugmentSpec())]
    assert abs(np.mean(flips) - 0.5) < 0.04
    assert not any(crop.flip for crop in drawn(24, 20, clip, AugmentSpec(flip=False), 200))


def test_a_crop_of_nearly_the_networks_size_is_that() -> None:
    # 240 x .94 = 225.6: TSN takes 224 as it is within 3 px; 240 x .95 = 228 is not.
    for scale, side in ((0.94, 224), (0.95, 228)):
        augment = AugmentSpec("center", (scale,), flip=False)
        assert drawn(320, 240, ClipSpec(), augment, 1)[0].width == side


def test_five_and_ten_crops() -> None:
    boxes = [(0, 0), (116, 0), (0, 32), (116, 32), (58, 16)]
    expected = [Crop(x, y, 224, 224, flip) for flip in (False, True) for x, y in boxes]
    assert transforms.test_crops(340, 256, ClipSpec(), 10) == expected
    assert transforms.test_crops(340, 256, ClipSpec(), 5) == expected[:5]


def test_three_crops_go_along_the_longer_side() -> None:
    expected = [Crop(x, 16, 224, 224) for x in (0, 58, 116)]
    assert transforms.test_crops(340, 256, ClipSpec(), 3) == expected
    expected = [Crop(16, y, 224, 224) for y in (0, 58, 116)]
    assert transforms.test_crops(256, 340, ClipSpec(), 3) == expected


def test_one_crop_is_the_centre() -> None:
    assert transforms.test_crops(340, 256, ClipSpec(), 1) == [Crop(58, 16, 224, 224)]


def test_a_resized_frame_is_cropped_in_stored_px() -> None:
    # 320x240 counts as 341x256: a px of that is 320 / 341 and 240 / 256 stored px.
    clip = ClipSpec(resize_short_px=256)
    (center,) = transforms.test_crops(320, 240, clip, 1)
    assert center == Crop(58 * 320 / 341, 15, 224 * 320 / 341, 210)
    last = transforms.test_crops(320, 240, clip, 10)[3]
    assert last.x + last.width == pytest.approx(320, abs=1e-9)
    assert last.y + last.height == pytest.approx(240, abs=1e-9)
    # As it is stored: whole px.
    assert transforms.test_crops(340, 256, clip, 1) == [Crop(58, 16, 224, 224)]


@settings(deadline=None)
@given(
    st.integers(16, 400),
    st.integers(16, 400),
    st.one_of(st.none(), st.integers(16, 300)),
    st.sampled_from(["random", "center", "corners", "corners-13"]),
    st.sampled_from([(1.0,), (1.0, 0.875, 0.75, 0.66), (0.9, 0.5)]),
    st.integers(0, 2**32 - 1),
)
def test_crops_lie_within_every_frame(
    width: int, height: int, short: int | None, name: Any, scales: tuple[float, ...], seed: int
) -> None:
    clip = ClipSpec(crop_px=16, resize_short_px=short)
    augment = AugmentSpec(name, scales)
    crops = [transforms.training_crop(width, height, clip, augment, np.random.default_rng(seed))]
    for num_crops in (1, 3, 5, 10):
        crops += transforms.test_crops(width, height, clip, num_crops)
    for crop in crops:
        assert crop.x >= 0
        assert crop.y >= 0
        assert crop.x + crop.width <= width + 1e-9
        assert crop.y + crop.height <= height + 1e-9


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.875)])
def test_a_network_that_sees_more_than_the_frame_is_refused(scales: tuple[float, ...]) -> None:
    clip = ClipSpec(crop_px=224)
    message = r"got 224 for 160x120; take --crop 120 or less, or .* --resize-short 224"
    with pytest.raises(ConfigError, match=message):
        transforms.training_crop(
            160, 120, clip, AugmentSpec(scales=scales), np.random.default_rng()
        )
    with pytest.raises(ConfigError, match=message):
        transforms.test_crops(160, 120, clip, 1)


def test_other_numbers_of_crops_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_crops must be 1, 3, 5 or 10, got 4"):
        transforms.test_crops(340, 256, ClipSpec(), 4)


# ---- resampling


def test_a_crop_at_scale_1_is_a_slice() -> None:
    flow, frames = random_flow(), random_frames()
    crop = Crop(7.0, 5, 32, 32.0)
    np.testing.assert_array_equal(
        crop_flow(flow, crop, 32, scale_vectors=False), flow[:, :, 5:37, 7:39]
    )
    # Vectors are not scaled by 1 either.
    np.testing.assert_array_equal(
        crop_flow(flow, crop, 32, scale_vectors=True), flow[:, :, 5:37, 7:39]
    )
    np.testing.assert_array_equal(crop_frames(frames, crop, 32), frames[:, 5:37, 7:39])
    # On every way through OpenCV as well: half a px beside it, it would be a blur.
    nearly = Crop(7 + 1e-9, 5, 32, 32)
    actual = crop_flow(flow, nearly, 32, scale_vectors=False)
    np.testing.assert_allclose(actual, flow[:, :, 5:37, 7:39], atol=1e-4)


def test_nothing_changes_its_input() -> None:
    flow, frames = random_flow(), random_frames()
    kept, kept_frames = flow.copy(), frames.copy()
    for crop in (Crop(0, 0, 32, 32), Crop(3.5, 2, 30, 31), Crop(0, 0, 32, 32, flip=True)):
        crop_flow(flow, crop, 32, scale_vectors=True)[:] = 0
        crop_frames(frames, crop, 32)[:] = 0
    transforms.resize_flow(flow, 52, 40, scale_vectors=True)[:] = 0
    transforms.normalize_flow(flow, "px", FlowSpec())[:] = 0
    transforms.normalize_flow(flow, "tsn", FlowSpec())
    transforms.subtract_mean_flow(flow)
    transforms.trajectory_stack(flow)
    np.testing.assert_array_equal(flow, kept)
    np.testing.assert_array_equal(frames, kept_frames)


boxes = st.tuples(
    st.floats(8, 40), st.floats(8, 36), st.floats(0, 1), st.floats(0, 1), st.booleans()
).map(lambda v: Crop(v[2] * (52 - v[0]), v[3] * (40 - v[1]), v[0], v[1], v[4]))
"""Boxes of any place in a frame of 52x40."""


@settings(max_examples=60, deadline=None)
@given(boxes, st.integers(28, 70))
def test_a_ramp_stays_the_ramp(crop: Crop, out_px: int) -> None:
    slopes = ((0.5, -0.25, 3.0), (-0.125, 1.0, -7.0))
    flow = np.stack([ramp(40, 52, *slope) for slope in slopes])[None]
    actual = crop_flow(flow, dataclasses.replace(crop, flip=False), out_px, scale_vectors=False)
    # [x, x + w) covers the output's [0, out): pixel k of it is around k + .5.
    points = np.arange(out_px) + 0.5
    x = np.clip(crop.x + points * crop.width / out_px - 0.5, 0, 51)
    y = np.clip(crop.y + points * crop.height / out_px - 0.5, 0, 39)
    for component, (slope_x, slope_y, level) in enumerate(slopes):
        expected = level + slope_x * x[None, :] + slope_y * y[:, None]
        # Beyond the outermost centres of the frame is no ramp: the border's values, as clipped.
        error = np.abs(actual[0, component] - expected)
        assert error.max() < 1.5 * POINT_PX


@settings(max_examples=60, deadline=None)
@given(boxes, st.integers(10, 70))
def test_cropping_a_mirrored_clip_mirrors_the_mirrored_crop(crop: Crop, out_px: int) -> None:
    flow, frames = random_flow(), random_frames()
    across = mirrored(crop, 52)
    opposite = dataclasses.replace(across, flip=not crop.flip)
    for scale_vectors in (False, True):
        one = crop_flow(flip_flow(flow), crop, out_px, scale_vectors=scale_vectors)
        other = crop_flow(flow, opposite, out_px, scale_vectors=scale_vectors)
        # Random flow has slopes of 20 and more from px to px.
        np.testing.assert_allclose(one, other, atol=100 * POINT_PX)
    one_frames = crop_frames(flip_frames(frames), crop, out_px).astype(int)
    other_frames = crop_frames(frames, opposite, out_px).astype(int)
    assert np.abs(one_frames - other_frames).max() <= 1 + 1500 * POINT_PX


def test_a_mirrored_crop_negates_u_and_not_v() -> None:
    flow = random_flow()
    crop = Crop(3, 2, 32, 32)
    plain = crop_flow(flow, crop, 32, scale_vectors=False)
    turned = crop_flow(flow, dataclasses.replace(crop, flip=True), 32, scale_vectors=False)
    np.testing.assert_array_equal(turned[:, 0], -plain[:, 0, :, ::-1])
    np.testing.assert_array_equal(turned[:, 1], plain[:, 1, :, ::-1])
    np.testing.assert_array_equal(flip_flow(flip_flow(flow)), flow)
    frames = random_frames()
    np.testing.assert_array_equal(flip_frames(frames), frames[:, :, ::-1])
    np.testing.assert_array_equal(flip_frames(flip_frames(frames)), frames)


def test_resize_and_crop_in_one_is_resize_then_crop() -> None:
    # 52x40 to 78x60, then 44 of it: also at the box's edges, where its neighbours take part.
    clip = ClipSpec(crop_px=44, resize_short_px=60)
    flow, frames = random_flow(), random_frames()
    resized = transforms.resize_flow(flow, 78, 60, scale_vectors=False)
    big_frames = [cv2.resize(frame, (78, 60)).astype(int) for frame in frames]
    for x, y, crop in zip(
        (0, 34, 0, 34, 17), (0, 0, 16, 16, 8), transforms.test_crops(52, 40, clip, 10), strict=False
    ):
        actual = crop_flow(flow, crop, 44, scale_vectors=False)
        np.testing.assert_allclose(
            actual, resized[:, :, y : y + 44, x : x + 44], atol=30 * POINT_PX
        )
        for frame, big in zip(crop_frames(frames, crop, 44), big_frames, strict=True):
            # OpenCV's resize rounds its weights.
            assert np.abs(frame - big[y : y + 44, x : x + 44]).max() <= 1 + 200 * POINT_PX


def test_resize_is_opencvs_bilinear_one() -> None:
    flow = random_flow(1)
    for width, height in ((78, 60), (61, 47), (45, 35)):
        actual = transforms.resize_flow(flow, width, height, scale_vectors=False)
        for plane, resized in zip(flow[0], actual[0], strict=True):
            np.testing.assert_allclose(
                resized, cv2.resize(plane, (width, height)), atol=30 * POINT_PX
            )


def test_strong_shrinking_takes_means() -> None:
    flow = random_flow(2)
    blocks = flow.reshape(2, 2, 20, 2, 26, 2).mean(axis=(3, 5))
    half = transforms.resize_flow(flow, 26, 20, scale_vectors=False)
    np.testing.assert_allclose(half, blocks, atol=1e-5)
    # Cut out of it, too; and with short side 20.
    crop = crop_flow(flow, Crop(4, 2, 32, 32), 16, scale_vectors=False)
    np.testing.assert_allclose(crop, blocks[:, :, 1:17, 2:18], atol=1e-4)
    clip = ClipSpec(crop_px=16, resize_short_px=20)
    (center,) = transforms.test_crops(52, 40, clip, 1)
    center_flow = crop_flow(flow, center, 16, scale_vectors=False)
    np.testing.assert_allclose(center_flow, blocks[:, :, 2:18, 5:21], atol=1e-4)


@pytest.mark.parametrize("side", [33, 37, 40])
def test_what_is_too_fine_for_the_result_goes(side: int) -> None:
    # A chessboard of px has no place in a result of half the size.
    board = np.where(np.indices((40, 52)).sum(axis=0) % 2, 1, -1).astype(np.float32)
    flow = np.broadcast_to(board, (1, 2, 40, 52))
    shrunk = crop_flow(flow, Crop(1.3, 0, side, side), 16, scale_vectors=False)
    assert np.abs(shrunk).max() < 0.3
    assert np.abs(shrunk).mean() < 0.1
    frames = np.repeat(((board + 1) * 127.5).astype(np.uint8)[None, :, :, None], 3, axis=3)
    gray = crop_frames(frames, Crop(1.3, 0, side, side), 16)
    assert np.abs(gray.astype(int) - 127).max() < 40


def test_a_ramp_shrunk_much_stays_it_about() -> None:
    flow = np.stack([ramp(40, 52, 1, 0), ramp(40, 52, 0, 1)])[None]
    crop = Crop(4.4, 3.3, 35, 31)
    actual = crop_flow(flow, crop, 14, scale_vectors=False)
    points = np.arange(14) + 0.5
    assert np.abs(actual[0, 0] - (crop.x + points * 35 / 14 - 0.5)).max() < 0.15
    assert np.abs(actual[0, 1].T - (crop.y + points * 31 / 14 - 0.5)).max() < 0.15


def test_one_side_may_grow_while_the_other_shrinks_much() -> None:
    flow = np.stack([ramp(40, 52, 1, 0), ramp(40, 52, 0, 1)])[None]
    actual = crop_flow(flow, Crop(2, 10, 48, 12), 24, scale_vectors=False)
    np.testing.assert_allclose(actual[0, 0, 0], 2.5 + 2 * np.arange(24), atol=0.02)
    expected = 10 + (np.arange(24) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(actual[0, 1, :, 0], expected, atol=2 * POINT_PX)
    # Stripes of a px, of which three go into one.
    stripes = np.broadcast_to(np.float32([1, -1] * 26), (1, 2, 52, 52))
    for fine, crop in (
        (stripes, Crop(0, 10, 48, 12)),
        (stripes.swapaxes(2, 3), Crop(10, 0, 12, 48)),
    ):
        assert np.abs(crop_flow(fine, crop, 16, scale_vectors=False)).max() < 0.35


def test_scaled_vectors_are_px_of_the_result() -> None:
    flow = np.broadcast_to(np.float32([3, -2])[:, None, None], (2, 2, 40, 52))
    scaled = crop_flow(flow, Crop(0, 0, 20, 10), 40, scale_vectors=True)
    np.testing.assert_allclose(scaled[:, 0], 6, atol=1e-5)
    np.testing.assert_allclose(scaled[:, 1], -8, atol=1e-5)
    kept = crop_flow(flow, Crop(0, 0, 20, 10), 40, scale_vectors=False)
    np.testing.assert_allclose(kept[:, 0], 3, atol=1e-5)
    turned = crop_flow(flow, Crop(0, 0, 20, 10, flip=True), 40, scale_vectors=True)
    np.testing.assert_allclose(turned[:, 0], -6, atol=1e-5)
    half = transforms.resize_flow(flow, 26, 10, scale_vectors=True)
    assert half.shape == (2, 2, 10, 26)
    np.testing.assert_allclose(half[:, 0], 1.5, atol=1e-5)
    np.testing.assert_allclose(half[:, 1], -0.5, atol=1e-5)


@pytest.mark.parametrize(
    "crop", [Crop(-1, 0, 20, 20), Crop(0, 30, 20, 20), Crop(40, 0, 20, 20), Crop(0, 0, 0, 20)]
)
def test_a_box_outside_of_the_frame_is_refused(crop: Crop) -> None:
    with pytest.raises(ConfigError, match=r"must lie within the frame of 52x40 px, got Crop"):
        crop_flow(random_flow(), crop, 20, scale_vectors=False)
    with pytest.raises(ConfigError, match=r"must lie within the frame of 52x40 px, got Crop"):
        crop_frames(random_frames(), crop, 20)


# ---- flow in px


def test_without_its_mean_a_constant_is_nothing() -> None:
    flow = random_flow()
    centered = transforms.subtract_mean_flow(flow)
    assert centered.dtype == np.float32
    assert np.abs(centered.mean(axis=(2, 3), dtype=np.float64)).max() < 1e-6
    moved = flow + np.float32([[5, -3], [1, 2], [-8, 0]])[:, :, None, None]
    np.testing.assert_allclose(transforms.subtract_mean_flow(moved), centered, atol=1e-5)
    # Each field has its own: what a field is more than its mean stays.
    np.testing.assert_allclose(np.diff(centered), np.diff(flow), atol=1e-5)


def test_trajectories_of_constant_flow_are_the_plain_stack() -> None:
    flow = np.empty((6, 2, 24, 32), np.float32)
    flow[:] = np.random.default_rng(1).normal(0, 4, (6, 2, 1, 1))
    np.testing.assert_allclose(transforms.trajectory_stack(flow), flow, atol=1e-6)


def test_the_first_field_of_a_trajectory_is_itself() -> None:
    flow = random_flow()
    np.testing.assert_array_equal(transforms.trajectory_stack(flow)[0], flow[0])


def test_trajectories_of_shear() -> None:
    # d_1 = (y / 4, 0), d_2 = (0, x / 2), d_3 = (x, y): p_2 = (x + y / 4, y), which the right border
    # holds, p_3 = (p_2.x, y + p_2.x / 2), which the lower one does.
    height, width = 24, 32
    nothing = np.zeros((height, width), np.float32)
    flow = np.stack(
        [
            np.stack([ramp(height, width, 0, 0.25), nothing]),
            np.stack([nothing, ramp(height, width, 0.5, 0)]),
            np.stack([ramp(height, width, 1, 0), ramp(height, width, 0, 1)]),
        ]
    )
    y, x = np.mgrid[:height, :width].astype(float)
    x_2 = np.minimum(x + y / 4, width - 1)
    y_3 = np.minimum(y + x_2 / 2, height - 1)
    actual = transforms.trajectory_stack(flow)
    np.testing.assert_allclose(actual[1, 0], 0, atol=1e-6)
    np.testing.assert_allclose(actual[1, 1], x_2 / 2, atol=POINT_PX)
    np.testing.assert_allclose(actual[2], [x_2, y_3], atol=3 * POINT_PX)


def test_trajectories_of_growth() -> None:
    # d = (x - c) / 8 about a point carries p to c + (x - c) 9/8, and so on.
    height, width = 33, 49
    plane = np.stack([ramp(height, width, 1 / 8, 0, -3), ramp(height, width, 0, 1 / 8, -2)])
    actual = transforms.trajectory_stack(np.stack([plane] * 4))
    for number in range(4):
        inner = np.s_[:, 8:25, 14:35]
        expected = plane * (9 / 8) ** number
        np.testing.assert_allclose(actual[number][inner], expected[inner], atol=2 * POINT_PX)


def test_a_point_that_leaves_stays_on_the_border() -> None:
    # 10 px to the right each time, but for the last column, where it is 1.
    flow = np.zeros((4, 2, 8, 16), np.float32)
    flow[:, 0] = 10
    flow[:, 0, :, -1] = 1
    actual = transforms.trajectory_stack(flow)[:, 0, 4]
    assert actual[:, 0].tolist() == [10, 10, 1, 1]
    assert actual[:, 15].tolist() == [1, 1, 1, 1]


# ---- ranges


# What the consumers compute from a stored level q.
FLOW_FORMULAS = {
    "unit": lambda q: q / 127.5 - 1,
    "tsn": lambda q: q - 128,
    "tsn-rgb": lambda q: q - 128,
    "tsn-pytorch": lambda q: q - 128,
    # Its own levels are truncated, which is half a level less.
    "mars": lambda q: q - 0.5 - 127.5,
    "torchvision-video": lambda q: q / 127.5 - 1,
    "slowfast": lambda q: q / 127.5 - 1,
    "tsn-resnet": lambda q: (q / 255 - 0.5) / 0.226,
    "mmaction2": lambda q: (q - 128) / 128,
    "pytorch-i3d": lambda q: q / 255 * 2 - 1,
    # 16 px + 128 of a bound of 8 px, minus 128: 127.5 px / 8 scaled by 128 / 127.5.
    "lrcn": lambda q: (q / 127.5 - 1) * 128,
    "c3d": lambda q: q / 127.5 - 1,
    "mmaction2-c3d": lambda q: q / 127.5 - 1,
    "deepvideo": lambda q: q / 127.5 - 1,
    "timesformer-ssv2": lambda q: q / 127.5 - 1,
}
RGB_FORMULAS = {
    "unit": lambda q: q / 127.5 - 1,
    "tsn": lambda q: q[..., ::-1] - [104, 117, 123],
    "tsn-rgb": lambda q: q - [123, 117, 104],
    "tsn-pytorch": lambda q: q - [128, 117, 104],
    "mars": lambda q: q - [114.7748, 107.7354, 99.475],
    "vmz": lambda q: (q - [110.201, 100.64, 95.9966]) / [58.1489, 56.4701, 55.3324],
    "torchvision-video": lambda q: (
        (q / 255 - [0.43216, 0.394666, 0.37645]) / [0.22803, 0.22145, 0.216989]
    ),
    "slowfast": lambda q: (q / 255 - 0.45) / 0.225,
    "tsn-resnet": lambda q: (q / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "mmaction2": lambda q: (q - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375],
    "pytorch-i3d": lambda q: q / 255 * 2 - 1,
    "lrcn": lambda q: q - [128.68, 116.779, 103.939],
    "c3d": lambda q: q[..., ::-1] - [90, 98, 102],
    "mmaction2-c3d": lambda q: q - [104, 117, 128],
    "deepvideo": lambda q: q - 117,
    "timesformer-ssv2": lambda q: (q[..., ::-1] / 255 - 0.45) / 0.225,
}


def test_every_name_has_its_numbers() -> None:
    names = set(get_args(NormalizationName))
    assert set(NORMALIZATIONS) == names
    assert set(RGB_FORMULAS) == names - {"px"}
    assert set(FLOW_FORMULAS) == names - {"px", "vmz"}


def test_vmz_takes_px_and_has_numbers_for_x_and_for_y() -> None:
    flow = random_flow()
    found = transforms.normalize_flow(flow, "vmz", FlowSpec(bound_px=7.0))
    means = np.array([0.0046635, 0.0046261])[:, None, None]
    stds = np.array([0.972347, 0.755146])[:, None, None]
    np.testing.assert_allclose(found, (flow - means) / stds, atol=1e-5)
    assert found.dtype == np.float32
    with pytest.raises(ConfigError, match="vmz has numbers for x and y alone"):
        transforms.normalize_flow(flow[:, :1].repeat(3, 1), "vmz", FlowSpec())


@pytest.mark.parametrize("name", FLOW_FORMULAS)
@pytest.mark.parametrize("bound", [20.0, 7.3])
def test_stored_levels_become_the_consumers_numbers(name: Any, bound: float) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(2, axis=1)
    spec = FlowSpec("farneback", bound_px=bound)
    actual = transforms.normalize_flow(dequantize(levels, spec), name, spec)
    assert actual.dtype == np.float32
    expected = FLOW_FORMULAS[name](levels.astype(np.float64))
    # 1e-6 of the range, which is 2 for most and 255 for tsn.
    np.testing.assert_allclose(actual, expected, atol=5e-7 * np.ptp(expected))


@pytest.mark.parametrize("quantizer", ["round", "floor", "centered"])
@pytest.mark.parametrize("name", FLOW_FORMULAS)
def test_px_mean_the_same_whatever_the_quantizer(name: Any, quantizer: Any) -> None:
    spec = FlowSpec("farneback", bound_px=16.0, quantizer=quantizer)
    flow = np.float32([0, 16, -16]).reshape(3, 1, 1, 1)
    low, middle, high = (FLOW_FORMULAS[name](q) for q in (0.0, 127.5, 255.0))
    actual = transforms.normalize_flow(flow, name, spec).ravel()
    np.testing.assert_allclose(actual, [middle, high, low], rtol=1e-6, atol=1e-7)


def test_px_stay_px() -> None:
    flow = random_flow()
    np.testing.assert_array_equal(transforms.normalize_flow(flow, "px", FlowSpec()), flow)


@pytest.mark.parametrize("name", RGB_FORMULAS)
def test_frames_become_the_consumers_numbers(name: Any) -> None:
    frames = random_frames()
    actual = transforms.normalize_frames(frames, name)
    assert actual.dtype == np.float32
    assert actual.shape == (2, 3, 40, 52)
    expected = RGB_FORMULAS[name](frames.astype(np.float64)).transpose(0, 3, 1, 2)
    # The mean is rounded to float32 too.
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=3e-7 * np.ptp(expected))


def test_unknown_ranges_are_refused() -> None:
    unknown: Any = "imagenet"
    with pytest.raises(ConfigError, match=r"must be one of px, unit, tsn, .*imagenet"):
        transforms.normalize_flow(random_flow(), unknown, FlowSpec())
    with pytest.raises(ConfigError, match=r"must be one of px, unit, tsn, .*imagenet"):
        transforms.normalize_frames(random_frames(), unknown)
    with pytest.raises(ConfigError, match="normalization px is for stream flow"):
        transforms.normalize_frames(random_frames(), "px")


# ---- channels


def test_a_stack_has_x_and_y_by_turns() -> None:
    flow = random_flow()
    stack = transforms.to_stack(flow)
    assert stack.shape == (6, 40, 52)
    for field in range(3):
        np.testing.assert_array_equal(stack[2 * field], flow[field, 0])
        np.testing.assert_array_equal(stack[2 * field + 1], flow[field, 1])


def test_a_volume_has_time_within_channels() -> None:
    flow = random_flow()
    volume = transforms.to_volume(flow)
    assert volume.shape == (2, 3, 40, 52)
    assert volume.flags.c_contiguous
    for field in range(3):
        np.testing.assert_array_equal(volume[:, field], flow[field])


# ---- against extraction itself

NUM_FRAMES = 7
BOX = Crop(24, 8, 48, 48)
VELOCITY = (1.7, -0.8)

# Share of values that may be more than a level (.16 px) off what theory says, and the mean error.
# Farneback is a sum over windows that mirror into themselves. TV-L1 is iterated, to an end that
# depends on its sweep where occlusions make several solutions as good. Measured 0 and .0003 px for
# Farneback, .013 and .028 px for TV-L1; v and u with the wrong sign are .19 px off.
OFF_SHARE = {"farneback": 0.001, "tvl1": 0.025}
OFF_PX = {"farneback": 0.002, "tvl1": 0.05}


@pytest.fixture(scope="module", params=["farneback", "tvl1"])
def extracted(request: pytest.FixtureRequest, tmp_path_factory: Any) -> FlowDataset:
    """A video, the same mirrored, reversed, cropped; and one that moves right and up."""
    root = tmp_path_factory.mktemp(request.param)
    scene = action_scene("rotate_clockwise", num_frames=20, width=96, height=64, seed=3)
    plain = [scene.frame(t) for t in range(NUM_FRAMES)]
    x, y, side = int(BOX.x), int(BOX.y), int(BOX.width)
    steady = Scene(96, 64, (Layer(7, (Motion(velocity_px=VELOCITY),)),))
    videos = {
        "plain": plain,
        "mirrored": list(flip_frames(np.stack(plain))),
        "reversed": plain[::-1],
        "cropped": [np.ascontiguousarray(f[y : y + side, x : x + side]) for f in plain],
        "steady": [steady.frame(t) for t in range(NUM_FRAMES)],
    }
    (root / "videos").mkdir()
    for name, frames in videos.items():
        # Lossless, and a colour for each px: decoded frames differ by what was done to them alone.
        path = root / "videos" / f"{name}.mkv"
        write_video(path, frames, codec="libx264", quality=0, pixel_format="yuv444p")
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")),
        FlowSpec(request.param),
        EncodeSpec(jpeg_quality=100, rgb_jpeg_quality=100),
    )
    flowprep.extract(root / "videos", root / "dataset", config, executor="inline")
    return flowprep.open_dataset(root / "dataset")


def stored_flow(dataset: FlowDataset, key: str) -> NDArray[np.float32]:
    """All forward fields of a video, (L, 2, H, W), px."""
    flow = dataset.flow(key, 0, dataset.videos[key].num_flows)
    return np.ascontiguousarray(flow.transpose(0, 3, 1, 2))


def assert_agree(
    dataset: FlowDataset, actual: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    error = np.abs(actual - expected)
    algorithm = dataset.config.flow.algorithm
    # Each was rounded to levels, so that they may be a whole one apart where they agree.
    share = (error > 1.01 * dataset.config.flow.px_per_level).mean()
    assert share <= OFF_SHARE[algorithm]


def test_the_mirrored_video_has_the_mirrored_flow(extracted: FlowDataset) -> None:
    plain, actual = stored_flow(extracted, "plain"), stored_flow(extracted, "mirrored")
    assert_agree(extracted, actual, flip_flow(plain))
    limit = OFF_PX[extracted.config.flow.algorithm]
    assert np.abs(actual - flip_flow(plain)).mean() < limit
    # Not so with u as it was, nor with v negated too.
    assert np.abs(actual - plain[..., ::-1]).mean() > 3 * limit
    assert np.abs(actual + plain[..., ::-1]).mean() > 3 * limit


def test_a_mirrored_crop_is_the_crop_of_the_mirrored_video(extracted: FlowDataset) -> None:
    plain, actual = stored_flow(extracted, "plain"), stored_flow(extracted, "mirrored")
    crop = Crop(10, 4, 40, 40, flip=True)
    across = dataclasses.replace(mirrored(crop, 96), flip=False)
    assert_agree(
        extracted,
        crop_flow(actual, across, 56, scale_vectors=False),
        crop_flow(plain, crop, 56, scale_vectors=False),
    )
    one = crop_frames(extracted.frames("mirrored", range(NUM_FRAMES)), across, 56)
    other = crop_frames(extracted.frames("plain", range(NUM_FRAMES)), crop, 56)
    # JPEG halves the resolution of colours, and rounds.
    assert np.abs(one.astype(int) - other).max() <= 8


def test_the_cropped_video_has_the_cropped_flow(extracted: FlowDataset) -> None:
    actual = stored_flow(extracted, "cropped")
    expected = crop_flow(stored_flow(extracted, "plain"), BOX, 48, scale_vectors=False)
    # Near its border the flow of a cropped video knows less.
    inner = np.s_[..., 12:-12, 12:-12]
    assert_agree(extracted, actual[inner], expected[inner])
    # A px beside it, it is another flow.
    beside = crop_flow(
        stored_flow(extracted, "plain"), Crop(BOX.x + 4, BOX.y, 48, 48), 48, scale_vectors=False
    )
    error, wrong = (np.abs(actual - flow)[inner].mean() for flow in (expected, beside))
    assert error < wrong / 2


def test_moving_right_and_up_is_a_positive_x_and_a_negative_y(extracted: FlowDataset) -> None:
    stack = transforms.to_stack(stored_flow(extracted, "steady"))
    means = stack[:, 12:-12, 12:-12].mean(axis=(1, 2))
    np.testing.assert_allclose(means[0::2], VELOCITY[0], atol=0.25)
    np.testing.assert_allclose(means[1::2], VELOCITY[1], atol=0.25)


def test_steady_motion_is_the_camera_and_its_trajectory_plain(extracted: FlowDataset) -> None:
    flow = stored_flow(extracted, "steady")
    inner = np.s_[:, :, 12:-20, 12:-20]
    assert np.abs(transforms.subtract_mean_flow(flow)[inner]).mean() < 0.2
    error = np.abs(transforms.trajectory_stack(flow) - flow)[inner]
    assert error.mean() < 0.1


def test_the_reversed_video_swaps_the_bidirectional_halves(extracted: FlowDataset) -> None:
    num_fields = NUM_FRAMES - 1
    clip = ClipSpec(num_frames=4, stack="bidirectional")
    window = view_indices(num_fields, clip, 1)
    # The same frame in the middle: 6 fields, so that the centred window mirrors into itself.
    assert window.tolist() == [[1, 2, 3, 4]]
    forward, backward = (half[0] for half in clip_indices.bidirectional_indices(window, num_fields))

    def read(key: str, indices: NDArray[np.int64], direction: Any) -> NDArray[np.uint8]:
        return np.concatenate([extracted.quantized(key, int(t), 1, direction) for t in indices])

    np.testing.assert_array_equal(
        read("reversed", forward, "forward"), read("plain", backward, "backward")
    )
    np.testing.assert_array_equal(
        read("reversed", backward, "backward"), read("plain", forward, "forward")
    )


def test_levels_negate_about_the_middle_of_the_stored_spec() -> None:
    levels = np.arange(256, dtype=np.uint8)
    flow = np.zeros((1, 2, 1, 256), np.float32)
    spec = FlowSpec("farneback")
    flow[0, 0, 0] = dequantize(levels, spec)
    # `round` is symmetric about 127.5: 255 - q is exactly the opposite.
    turned = flip_flow(flow)[0, 0, 0, ::-1]
    np.testing.assert_array_equal(turned, dequantize(255 - levels, spec))
    centers: dict[Any, int] = {"floor": 127, "centered": 128}
    for quantizer, center in centers.items():
        spec = FlowSpec("farneback", quantizer=quantizer)
        # One level at an end has no opposite; the outermost are cut to the bound.
        inner = np.arange(2, 254, dtype=np.uint8)
        opposite = dequantize((2 * center - inner.astype(int)).astype(np.uint8), spec)
        np.testing.assert_array_equal(-dequantize(inner, spec), opposite)


# ---- what it takes


def test_it_does_without_torch() -> None:
    code = (
        "import sys, flowprep.learn.clips.indices, flowprep.learn.clips.transforms; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
