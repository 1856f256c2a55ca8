"""Inputs of one clip are of the same moment, in the same crop, mirrored together.

The frames here say their number and the place of each pixel, and so does the flow, so that it can
be read off the tensors which moment and which crop they are, and whether they are mirrored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import VideoList
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.indices import test_indices as view_indices
from flowprep.learn.clips.indices import training_indices
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec, TrainConfig, ViewSpec
from flowprep.learn.training_specs import AugmentSpec
from tests.learn.clips.samples import BOTH

CROP_PX = 32
# A level with a sign, so that a negated u shows.
_ZERO = 129


class Encoded(FlowDataset):
    """Frames whose red is their number, green x and blue y, and fields that say the same.

    Their u is x, and v is their number in even columns and y in odd ones; with `numbers` False it
    is y in all of them.
    """

    def __init__(
        self, like: FlowDataset, num_frames: int, step: int, *, numbers: bool = True
    ) -> None:
        self.__dict__.update(like.__dict__)
        self.numbers = numbers
        self.videos = VideoList(
            [
                dataclasses.replace(video, num_frames=num_frames, num_flows=num_frames - step)
                for video in like.videos
            ]
        )

    def frames(self, key: str, indices: Any) -> NDArray[np.uint8]:
        video = self.videos[key]
        assert 0 <= min(indices) <= max(indices) < video.num_frames
        frames = np.empty((len(indices), video.height, video.width, 3), np.uint8)
        frames[..., 0] = np.asarray(indices)[:, None, None]
        frames[..., 1] = np.arange(video.width)
        frames[..., 2] = np.arange(video.height)[:, None]
        return frames

    def planes(
        self, key: str, indices: Any, direction: str = "forward", *, box: Any = None
    ) -> NDArray[np.uint8]:
        video = self.videos[key]
        assert 0 <= min(indices) <= max(indices) < video.num_flows
        planes = np.empty((len(indices), 2, video.height, video.width), np.uint8)
        planes[:, 0] = _ZERO + np.arange(video.width)
        planes[:, 1] = _ZERO + np.arange(video.height)[:, None]
        if self.numbers:
            planes[:, 1, :, ::2] = _ZERO + np.asarray(indices)[:, None, None]
        if box is not None:
            x, y, width, height = box
            planes = planes[:, :, y : y + height, x : x + width]
        return planes


@dataclasses.dataclass
class Seen:
    """What an input shows."""

    moments: NDArray[np.int64]
    """Of its fields or frames."""
    x: NDArray[np.int64]
    """Of its columns, in the frame as stored."""
    y: NDArray[np.int64]
    flip: bool


def levels_of(
    array: NDArray[np.float32], one: ClipInput, dataset: FlowDataset
) -> NDArray[np.float64]:
    """The stored numbers of an input that was normalized by `unit`, (L, channels, H, W)."""
    channels = 2 if one.stream == "flow" else 3
    if one.form == "volume":
        array = array.swapaxes(0, 1)
    planes = np.asarray(array, np.float64).reshape(-1, channels, CROP_PX, CROP_PX)
    if one.stream == "rgb":
        return (planes + 1) * 127.5
    spec = dataset.config.flow
    levels = planes * spec.bound_px / spec.px_per_level
    return levels + spec.center_level - _ZERO


def seen(array: NDArray[np.float32], one: ClipInput, dataset: FlowDataset) -> Seen:
    """Reads an input of a clip."""
    levels = levels_of(array, one, dataset)
    if one.stream == "rgb":
        moments, x, y = np.rint(levels[:, 0]), np.rint(levels[:, 1]), np.rint(levels[:, 2])
        flip = bool(x[0, 0, 0] > x[0, 0, -1])
    else:
        # u is negated in a mirrored clip: -(129 + x) about the level of 0 px.
        zero = dataset.config.flow.center_level - _ZERO
        flip = bool(levels[0, 0].max() < zero)
        x = np.rint(2 * zero - levels[:, 0] if flip else levels[:, 0])
        even = int(x[0, 0, 0]) % 2
        moments = np.rint(levels[:, 1, :, even::2])
        y = np.rint(levels[:, 1, :, 1 - even :: 2])
    # All fields or frames of an input are in one crop, and each is of one moment.
    for numbers, first in ((x, x[:1, :1]), (y, y[:1, :, :1]), (moments, moments[:, :1, :1])):
        assert (numbers == first).all()
    return Seen(moments[:, 0, 0].astype(int), x[0, 0].astype(int), y[0, :, 0].astype(int), flip)


def lasts(one: ClipInput, step: int) -> int:
    """How many frames later than its first frame a field or a difference ends."""
    return {"flow": step, "rgb": 0, "rgb-difference": 1}[one.stream]


def middle(indices: NDArray[np.int64], one: ClipInput, step: int) -> float:
    """The middle of a clip in frames: fields last from a frame to the one `step` later."""
    return float(indices[0] + indices[-1] + lasts(one, step)) / 2


def check_moments(
    clips: Sequence[NDArray[np.int64]], inputs: Sequence[ClipInput], num_frames: int, step: int
) -> None:
    """Asserts the rules of (L,) indices of the same clip, of each input."""
    counts = {"flow": num_frames - step, "rgb": num_frames, "rgb-difference": num_frames - 1}
    for indices, one in zip(clips, inputs, strict=True):
        assert len(indices) == one.num_frames
        assert 0 <= indices.min() <= indices.max() < counts[one.stream]
    regular = [
        (np.diff(indices) == one.frame_stride).all()
        for indices, one in zip(clips, inputs, strict=True)
    ]
    period = min(counts[one.stream] for one in inputs)
    extents = [(one.num_frames - 1) * one.frame_stride + lasts(one, step) for one in inputs]
    if max(extents) <= num_frames - 1 and all(regular):
        middles = [middle(indices, one, step) for indices, one in zip(clips, inputs, strict=True)]
        assert max(middles) - min(middles) <= 0.5
        return
    # Too long: all go on at the beginning, at the same frame, and begin as far apart as ever.
    longest = extents.index(max(extents))
    start = int(clips[longest][0])
    for indices, one, extent in zip(clips, inputs, extents, strict=True):
        shift = extents[longest] - extent
        wanted = [
            [(start + offset + n * one.frame_stride) % period for n in range(one.num_frames)]
            for offset in (shift // 2, -(-shift // 2))
        ]
        assert indices.tolist() in wanted


def drawn_inputs(*streams: str) -> st.SearchStrategy[tuple[ClipInput, ...]]:
    return st.lists(
        st.tuples(st.sampled_from(streams), st.integers(1, 12), st.integers(1, 4)),
        min_size=1,
        max_size=3,
    ).map(
        lambda drawn: tuple(
            ClipInput(f"{stream}{n}", stream, "stack", num_frames, stride)  # type: ignore[arg-type]
            for n, (stream, num_frames, stride) in enumerate(drawn)
        )
    )


all_inputs = drawn_inputs("flow", "rgb", "rgb-difference")
# What the pixels of these say of themselves can be read.
inputs_strategy = drawn_inputs("flow", "rgb")
clips_strategy = st.builds(
    ClipSpec,
    st.just("both"),
    num_segments=st.integers(1, 4),
    sampling=st.sampled_from(["segments", "dense"]),
)


@settings(max_examples=300, deadline=None)
@given(
    all_inputs, clips_strategy, st.integers(2, 120), st.integers(1, 3), st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_middles_coincide_whatever_lengths_and_strides(
    inputs: tuple[ClipInput, ...],
    clip: ClipSpec,
    num_frames: int,
    step: int,
    num_clips: int,
    seed: int,
) -> None:
    num_frames = max(num_frames, step + 1)
    rng = np.random.default_rng(seed)
    trained = training_indices(num_frames, num_frames - step, inputs, clip, rng)
    tested = view_indices(num_frames, num_frames - step, inputs, clip, num_clips)
    for found, count in ((trained, clip.num_segments), (tested, num_clips)):
        assert [len(indices) for indices in found] == [count] * len(inputs)
        for clips in zip(*found, strict=True):
            check_moments(clips, inputs, num_frames, step)


def test_an_input_beside_another_is_where_it_is_alone() -> None:
    """The longest is drawn as if it were alone, so that a network's flow does not change."""
    flow, rgb = ClipInput("flow", "flow", "stack", 10), ClipInput("rgb", "rgb", "stack", 1)
    clip = ClipSpec("both", num_segments=3)
    alone = training_indices(50, 49, [flow], clip, np.random.default_rng(5))
    beside = training_indices(50, 49, [rgb, flow], clip, np.random.default_rng(5))
    np.testing.assert_array_equal(beside[1], alone[0])
    # 10 fields from frame a last to frame a + 10: frame a + 5 is their middle.
    np.testing.assert_array_equal(beside[0][:, 0], alone[0][:, 0] + 5)


STACKS = (
    ClipInput("rgb", "rgb", "volume", 3, 4),
    ClipInput("flow", "flow", "volume", 3, 4, stack_length=6),
)
"""Three frames, and the six fields around each, as fusions of two towers take them."""


def test_stacks_along_time_are_centered_on_the_frames() -> None:
    """Fields tau - 3 to tau + 2 around frame tau, as cnn_ucf101_get_im_flow_batch.m stacks them."""
    clip = ClipSpec("both")
    for frames, fields in (
        training_indices(40, 39, STACKS, clip, np.random.default_rng(3)),
        view_indices(40, 39, STACKS, clip, 4),
    ):
        around = fields.reshape(len(fields), 3, 6)
        np.testing.assert_array_equal(around, frames[..., None] + np.arange(-3, 3))
        assert np.all(np.diff(frames) == 4)
        assert fields.min() >= 0
        assert fields.max() <= 38
    # Every start comes: 2 * 4 + 6 fields have 26 places among 39.
    starts = view_indices(40, 39, STACKS, clip, 26)[1][:, 0]
    assert starts.tolist() == list(range(26))
    # A video that is too short for a clip is repeated.
    _, fields = view_indices(10, 9, STACKS, clip, 1)
    assert fields[0].tolist() == [(4 * place + step) % 9 for place in range(3) for step in range(6)]


def test_a_volume_of_stacks_of_one_is_a_volume() -> None:
    plain, stacks = STACKS[0], STACKS[1]
    assert dataclasses.replace(stacks, stack_length=1).shape(8) == (2, 3, 8, 8)
    assert (stacks.shape(8), stacks.num_channels) == ((12, 3, 8, 8), 12)
    assert (plain.span, stacks.span, plain.extent, stacks.extent) == (9, 14, 12, 14)
    assert stacks.steps == (*range(6), *range(4, 10), *range(8, 14))
    with pytest.raises(ConfigError, match="stack_length is for form volume, got 2 for a stack"):
        ClipInput("flow", "flow", "stack", 3, stack_length=2)


@pytest.fixture(scope="module")
def stored(motion: Path) -> FlowDataset:
    return open_dataset(motion)


def check_parts(
    arrays: dict[str, NDArray[np.float32]],
    inputs: Sequence[ClipInput],
    dataset: FlowDataset,
    num_frames: int,
    step: int,
) -> Seen:
    """Asserts that the inputs of a clip are of the same moment and crop; returns the first's."""
    assert list(arrays) == [one.name for one in inputs]
    parts = [seen(arrays[one.name], one, dataset) for one in inputs]
    check_moments([part.moments for part in parts], inputs, num_frames, step)
    first = parts[0]
    for part in parts:
        np.testing.assert_array_equal(part.x, first.x)
        np.testing.assert_array_equal(part.y, first.y)
        assert part.flip == first.flip == (part.x[0] > part.x[-1])
    assert np.abs(np.diff(first.x)).tolist() == np.diff(first.y).tolist() == [1] * (CROP_PX - 1)
    return first


@settings(max_examples=80, deadline=None)
@given(
    inputs_strategy, st.integers(2, 40), st.integers(1, 2), st.integers(0, 999),
    st.integers(1, 3), st.sampled_from(["stack", "volume"]),
)  # fmt: skip
def test_samples_share_moment_crop_and_mirror(
    stored: FlowDataset,
    inputs: tuple[ClipInput, ...],
    num_frames: int,
    step: int,
    position: int,
    segments: int,
    form: Any,
) -> None:
    num_frames = max(num_frames, step + 1)
    inputs = tuple(dataclasses.replace(one, form=form) for one in inputs)
    dataset = Encoded(stored, num_frames, step)
    config = TrainConfig(clip=ClipSpec(crop_px=CROP_PX, num_segments=segments), seed=1)
    clips = TrainingClips([dataset], config, inputs)[position]["clips"]
    crops = []
    for segment in range(segments):
        arrays = {name: tensor[segment].numpy() for name, tensor in clips.items()}
        crops.append(check_parts(arrays, inputs, dataset, num_frames, step))
    # The segments of a video too.
    for crop in crops:
        assert (crop.x[0], crop.y[0], crop.flip) == (crops[0].x[0], crops[0].y[0], crops[0].flip)


@pytest.mark.parametrize("resize_short_px", [None, 60])
def test_each_place_of_a_volume_of_stacks_is_the_stack(
    stored: FlowDataset, resize_short_px: int | None
) -> None:
    """Cut out of the levels, and resampled; also where stacks overlap."""
    clip = ClipSpec("both", crop_px=CROP_PX, resize_short_px=resize_short_px)
    video = stored.videos[0]
    crop = view_crops(video.width, video.height, clip, 10)[7]
    fields = dataclasses.replace(STACKS[1], frame_stride=3)
    indices = np.array(fields.steps)
    volume = load_clip(stored, video, indices, crop, clip, fields)
    assert volume.shape == fields.shape(CROP_PX)
    for place in range(3):
        own = indices[6 * place : 6 * place + 6]
        stack = ClipInput("flow", "flow", "stack", 6)
        wanted = load_clip(stored, video, own, crop, clip, stack)
        np.testing.assert_array_equal(volume[:, place], wanted)


def test_each_clip_draws_its_stride(stored: FlowDataset) -> None:
    dataset = Encoded(stored, 40, 1)
    augment = AugmentSpec(random_strides=(2, 5))
    config = TrainConfig(clip=ClipSpec(crop_px=CROP_PX), augment=augment, seed=1)
    inputs = (STACKS[0], ClipInput("one", "rgb", "stack", 3, 8))
    samples = TrainingClips([dataset], config, inputs)
    drawn = []
    for position in range(40):
        clips = samples[position]["clips"]
        moments = [seen(clips[one.name][0].numpy(), one, dataset).moments.ravel() for one in inputs]
        strides = [np.unique(np.diff(own)) for own in moments]
        assert [len(own) for own in strides] == [1, 1]
        # The second input keeps its ratio to the first, and their middles coincide.
        assert strides[1][0] == 2 * strides[0][0]
        assert moments[0][1] == moments[1][1]
        drawn.append(int(strides[0][0]))
    assert set(drawn) == {2, 3, 4, 5}
    # Of a video of 10 frames, three frames can lie at most 4 apart, and these at most 2.
    short = TrainingClips([Encoded(stored, 10, 1)], config, inputs)
    for position in range(10):
        clips = short[position]["clips"]
        moments = seen(clips["rgb"][0].numpy(), inputs[0], dataset).moments
        assert np.diff(moments.ravel()).tolist() == [2, 2]


def test_strides_that_cannot_be_drawn_are_refused() -> None:
    for wrong in ((3,), (5, 2), (0, 4), (1, 2, 3), (1.5, 3)):
        with pytest.raises(ConfigError, match="random_strides must be two whole numbers from 1 on"):
            AugmentSpec(random_strides=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="random_strides are for stack plain"):
        TrainConfig(clip=ClipSpec(stack="trajectory"), augment=AugmentSpec(random_strides=(1, 2)))


def test_every_kind_of_crop_comes(stored: FlowDataset) -> None:
    dataset = Encoded(stored, 20, 1)
    config = TrainConfig(clip=ClipSpec(crop_px=CROP_PX), seed=1)
    samples = TrainingClips([dataset], config, BOTH)
    crops = []
    for position in range(60):
        clips = samples[position]["clips"]
        arrays = {name: tensor[0].numpy() for name, tensor in clips.items()}
        crop = check_parts(arrays, BOTH, dataset, 20, 1)
        crops.append((min(crop.x), crop.y[0], crop.flip, crop.moments[0]))
    for number, few in enumerate((15, 8, 1, 8)):
        assert len({crop[number] for crop in crops}) > few


@pytest.mark.parametrize("num_frames", [3, 20])
def test_views_of_a_test_share_moment_and_crop(stored: FlowDataset, num_frames: int) -> None:
    dataset = Encoded(stored, num_frames, 1)
    views = TestViews(dataset, ClipSpec(crop_px=CROP_PX), BOTH, ViewSpec(4, 10))
    crops = set()
    for item in range(8):
        found = views[item]["views"]
        for place in range(10):
            arrays = {name: tensor[place].numpy() for name, tensor in found.items()}
            crop = check_parts(arrays, BOTH, dataset, num_frames, 1)
            crops.add((int(min(crop.x)), int(crop.y[0]), crop.flip))
    assert len(crops) == 10


def test_resampled_crops_are_the_same_too(stored: FlowDataset) -> None:
    dataset = Encoded(stored, 20, 1, numbers=False)
    augment = AugmentSpec(scales=(1.0, 0.75))
    clip = ClipSpec(crop_px=CROP_PX, resize_short_px=40, num_frames=4)
    samples = TrainingClips([dataset], TrainConfig(clip=clip, augment=augment, seed=1), BOTH)
    for position in range(20):
        clips = samples[position]["clips"]
        flow, rgb = (levels_of(clips[one.name][0].numpy(), one, dataset) for one in BOTH)
        zero = dataset.config.flow.center_level - _ZERO
        is_mirrored = flow[0, 0].max() < zero
        x = 2 * zero - flow[0, 0] if is_mirrored else flow[0, 0]
        # Frames are rounded to whole levels, twice; a pixel of the crop is 1.2 to 1.6 of the frame.
        assert np.abs(x - rgb[0, 1]).max() < 1.1
        assert np.abs(flow[0, 1] - rgb[0, 2]).max() < 1.1
        assert is_mirrored == (rgb[0, 1, 0, 0] > rgb[0, 1, 0, -1])


def test_what_is_said_of_flow_does_not_touch_frames(stored: FlowDataset) -> None:
    """Mean flow, its vectors' scale and its stack are the flow's; frames are as they are alone."""
    plain = ClipSpec(crop_px=CROP_PX, resize_short_px=60, num_frames=4)
    special = dataclasses.replace(
        plain, subtract_mean_flow=True, scale_vectors=True, stack="bidirectional"
    )
    video = stored.videos[0]
    flow, rgb = BOTH
    crop = view_crops(video.width, video.height, plain, 10)[6]
    for one, is_equal in ((flow, False), (rgb, True)):
        found = [
            load_clip(stored, video, range(one.num_frames), crop, clip, one)
            for clip in (plain, special)
        ]
        assert np.array_equal(*found) == is_equal
