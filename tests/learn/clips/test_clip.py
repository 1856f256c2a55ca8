"""A clip is what the transforms make of stored fields and frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.clip_inputs import ClipInput, NormalizationName
from flowprep.learn.clips import indices as clip_choice
from flowprep.learn.clips import transforms
from flowprep.learn.clips.clip import load_clip, load_views
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.config import ClipSpec, StackName
from tests.learn.clips.samples import FLOW, MIRRORED, RESAMPLED, RGB, SLICE, taken


def composed(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: list[int],
    crop: Crop,
    clip: ClipSpec,
    form: str,
) -> NDArray[np.float32]:
    """What `load_clip` returns, by one transform after the other."""
    if clip.stream == "rgb":
        frames = transforms.crop_frames(dataset.frames(video.key, indices), crop, clip.crop_px)
        x = transforms.normalize_frames(frames, clip.normalization)
    else:
        stored = {
            direction: dataset.flow(video.key, 0, video.num_flows, direction)
            for direction in dataset.config.encode.directions
        }
        if clip.stack == "bidirectional":
            both = clip_choice.bidirectional_indices(np.array([indices]), video.num_flows)
            flow = np.concatenate([stored["forward"][both[0][0]], stored["backward"][both[1][0]]])
        else:
            flow = stored["forward"][indices]
        flow = np.ascontiguousarray(flow.transpose(0, 3, 1, 2))
        if clip.stack == "trajectory":
            flow = transforms.trajectory_stack(flow)
        if clip.subtract_mean_flow:
            flow = transforms.subtract_mean_flow(flow)
        x = transforms.crop_flow(flow, crop, clip.crop_px, scale_vectors=clip.scale_vectors)
        x = transforms.normalize_flow(x, clip.normalization, dataset.config.flow)
    return transforms.to_stack(x) if form == "stack" else transforms.to_volume(x)


@pytest.mark.parametrize("form", ["stack", "volume"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
@pytest.mark.parametrize("subtract", [False, True], ids=["", "mean"])
@pytest.mark.parametrize("stack", ["plain", "bidirectional", "trajectory"])
def test_a_flow_clip_is_what_the_transforms_make(
    dataset: FlowDataset, stack: StackName, subtract: bool, crop: Crop, form: Any
) -> None:
    clip = dataclasses.replace(FLOW, stack=stack, subtract_mean_flow=subtract, scale_vectors=True)
    for video, indices in ((dataset.videos[0], [3, 4, 5, 6]), (dataset.videos[5], [11, 12, 0, 1])):
        found = load_clip(dataset, video, indices, crop, clip, taken(clip, form))
        expected = composed(dataset, video, indices, crop, clip, form)
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["stack", "volume"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_the_magnitude_is_a_third_channel(dataset: FlowDataset, crop: Crop, form: Any) -> None:
    video, indices = dataset.videos[0], [3, 4, 5, 6]
    bound_px = dataset.config.flow.bound_px
    clip = dataclasses.replace(FLOW, normalization="px")
    plain = load_clip(dataset, video, indices, crop, clip, taken(clip, "volume"))
    three = dataclasses.replace(taken(clip, form), has_magnitude=True)
    found = load_clip(dataset, video, indices, crop, clip, three)
    assert found.shape == three.shape(clip.crop_px)
    if form == "stack":
        found = found.reshape(4, 3, *found.shape[1:]).transpose(1, 0, 2, 3)
    # x and y are as without it, up to the rounding of another way.
    np.testing.assert_allclose(found[:2], plain, atol=1e-5)
    lengths = np.minimum(np.hypot(*plain.astype(np.float64)), bound_px)
    np.testing.assert_allclose(found[2], lengths, atol=1e-5)
    assert lengths.max() > 0.5
    # LRCN's levels, 16 v + 128 of a bound of 8 px: no motion is the middle for all three.
    levels = transforms.normalize_flow(found, "mmaction2", dataset.config.flow)
    np.testing.assert_allclose(levels[2], (lengths / bound_px * 127.5 - 0.5) / 128, atol=1e-5)


@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
@pytest.mark.parametrize("has_magnitude", [False, True], ids=["", "magnitude"])
def test_a_stack_in_groups_has_all_x_before_all_y(
    dataset: FlowDataset, has_magnitude: bool, crop: Crop
) -> None:
    video, indices = dataset.videos[0], [3, 4, 5, 6]
    given = dataclasses.replace(taken(FLOW), has_magnitude=has_magnitude)
    grouped = dataclasses.replace(FLOW, channel_order="grouped")
    usual = load_clip(dataset, video, indices, crop, FLOW, given)

    found = load_clip(dataset, video, indices, crop, grouped, given)

    assert found.shape == usual.shape == given.shape(32)
    num = 2 + has_magnitude
    order = [num * field + channel for channel in range(num) for field in range(4)]
    assert order[:5] == ([0, 3, 6, 9, 1] if has_magnitude else [0, 2, 4, 6, 1])
    assert np.array_equal(found, usual[order])
    assert not np.array_equal(found, usual)


@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_each_stack_along_time_has_all_x_before_all_y(dataset: FlowDataset, crop: Crop) -> None:
    video, indices = dataset.videos[0], [3, 4, 5, 6, 7, 8]
    given = ClipInput("flow", "flow", "volume", 2, 3, stack_length=3)
    usual = load_clip(dataset, video, indices, crop, FLOW, given)  # (6, 2, H, W)
    grouped = dataclasses.replace(FLOW, channel_order="grouped")

    found = load_clip(dataset, video, indices, crop, grouped, given)

    assert np.array_equal(found, usual[[0, 2, 4, 1, 3, 5]])
    assert not np.array_equal(found, usual)


def test_only_flow_has_a_magnitude() -> None:
    with pytest.raises(ConfigError, match="has_magnitude is for stream flow; with stream rgb"):
        ClipInput("rgb", "rgb", "stack", 1, has_magnitude=True)


@pytest.mark.parametrize("form", ["stack", "volume"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_an_rgb_clip_is_what_the_transforms_make(
    dataset: FlowDataset, crop: Crop, form: Any
) -> None:
    video = dataset.videos[2]
    found = load_clip(dataset, video, [13, 4], crop, RGB, taken(RGB, form))
    np.testing.assert_array_equal(found, composed(dataset, video, [13, 4], crop, RGB, form))


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_fovea_and_context_show_the_center_and_all_at_half_the_resolution(
    dataset: FlowDataset, crop: Crop, stream: Any
) -> None:
    video = dataset.videos[0]
    clip = dataclasses.replace({"rgb": RGB, "flow": FLOW}[stream], num_frames=1)
    whole = load_clip(dataset, video, [3], crop, clip, taken(clip))
    parts = {name: dataclasses.replace(taken(clip), view=name) for name in ("fovea", "context")}
    views = {name: load_clip(dataset, video, [3], crop, clip, one) for name, one in parts.items()}
    assert views["fovea"].shape == views["context"].shape == (len(whole), 16, 16)
    # A resampled picture is rounded to levels before its center is cut out, or after.
    atol = 0.02 if stream == "rgb" else 1e-4
    np.testing.assert_allclose(views["fovea"], whole[:, 8:24, 8:24], atol=atol)
    small = dataclasses.replace(clip, crop_px=16)
    context = load_clip(dataset, video, [3], crop, small, taken(small))
    np.testing.assert_allclose(views["context"], context, atol=1e-6)
    # It is all of the crop, and mirrored with it.
    halved = whole.reshape(-1, 16, 2, 16, 2).mean((2, 4))
    assert np.abs(views["context"] - halved).mean() < 0.25 * np.abs(halved - halved.mean()).mean()


@pytest.mark.parametrize("name", ["tsn", "unit", "mmaction2"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_differences_are_those_of_normalized_frames(
    dataset: FlowDataset, crop: Crop, name: NormalizationName
) -> None:
    clip = ClipSpec("rgb-difference", 5, crop_px=32, normalization=name)
    video = dataset.videos[2]
    found = load_clip(dataset, video, range(3, 8), crop, clip, taken(clip))
    frames = ClipSpec("rgb", 6, crop_px=32, normalization=name)
    six = load_clip(dataset, video, range(3, 9), crop, frames, taken(frames))
    # 5 differences of 6 frames, 3 channels each, in the order of the frames.
    six = six.reshape(6, 3, 32, 32)
    np.testing.assert_allclose(found.reshape(5, 3, 32, 32), six[1:] - six[:-1], atol=2e-5)
    assert found.shape == (15, 32, 32)
    assert np.abs(found).max() > 0
    # One that begins again at the beginning is a clip of whole differences all the same.
    around = load_clip(dataset, video, [12, 0], crop, clip, taken(clip))
    last, first = (load_clip(dataset, video, [n], crop, clip, taken(clip)) for n in (12, 0))
    np.testing.assert_array_equal(around, np.concatenate([last, first]))


def test_tsn_trains_on_differences_of_levels_from_0_to_1(dataset: FlowDataset) -> None:
    clip = ClipSpec("rgb-difference", 1, crop_px=32, normalization="tsn-resnet")
    video = dataset.videos[2]
    found = load_clip(dataset, video, [4], SLICE, clip, taken(clip))
    frames = dataset.frames(video.key, [4, 5]).astype(np.float64) / 255
    cut = transforms.crop_frames(frames[1] - frames[0][None], SLICE, 32)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, cut[0].transpose(2, 0, 1), atol=1e-6)


def test_indices_may_repeat_leave_gaps_and_go_back(dataset: FlowDataset) -> None:
    video = dataset.videos[1]
    indices = [5, 1, 5, 12, 0, 1, 2]
    whole = load_clip(dataset, video, range(13), SLICE, FLOW, taken(FLOW, "volume"))
    found = load_clip(dataset, video, indices, SLICE, FLOW, taken(FLOW, "volume"))
    np.testing.assert_array_equal(found, whole[:, indices])


def test_crops_of_a_clip_take_one_decoding(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    planes = FlowDataset.planes

    def counted(self: FlowDataset, key: str, *args: Any, **options: Any) -> NDArray[np.uint8]:
        reads.append(key)
        return planes(self, key, *args, **options)

    monkeypatch.setattr(FlowDataset, "planes", counted)
    video = dataset.videos[0]
    crops = [*transforms.test_crops(64, 48, FLOW, 10), RESAMPLED]
    views = load_views(dataset, video, range(4), crops, FLOW, taken(FLOW, "stack"))
    assert reads == [video.key]
    for view, crop in zip(views, crops, strict=True):
        alone = load_clip(dataset, video, range(4), crop, FLOW, taken(FLOW, "stack"))
        np.testing.assert_allclose(view, alone, atol=1e-6)


def test_clips_of_what_is_not_there_are_refused(dataset: FlowDataset) -> None:
    video = dataset.videos[0]
    with pytest.raises(DatasetError, match=r"has flows 0 to 12, got 13$"):
        load_clip(dataset, video, [12, 13], SLICE, FLOW, taken(FLOW, "stack"))
    with pytest.raises(DatasetError, match=r"has frames 0 to 13, got -1$"):
        load_clip(dataset, video, [-1, 3], SLICE, RGB, taken(RGB, "stack"))
