"""Indices of clips: lists worked out by hand, and rules that hold for every video."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips import indices as clip_choice
from flowprep.learn.config import ClipSpec, TrainConfig
from flowprep.learn.training_specs import AugmentSpec
from tests.learn.clips.samples import training_indices, view_indices


def starts(indices: NDArray[np.int64]) -> list[int]:
    return indices[:, 0].tolist()


def draws(num_fields: int, clip: ClipSpec, count: int = 2000) -> NDArray[np.int64]:
    """Starts of many training clips, (count, S)."""
    rng = np.random.default_rng(0)
    return np.stack([training_indices(num_fields, clip, rng)[:, 0] for _ in range(count)])


clip_specs = st.builds(
    ClipSpec,
    num_frames=st.integers(1, 20),
    frame_stride=st.integers(1, 4),
    num_segments=st.integers(1, 9),
    sampling=st.sampled_from(["segments", "dense"]),
)


# ---- every video


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), clip_specs, st.integers(0, 2**32 - 1))
def test_training_clips_lie_in_the_video_in_order(
    num_fields: int, clip: ClipSpec, seed: int
) -> None:
    indices = training_indices(num_fields, clip, np.random.default_rng(seed))
    check(indices, num_fields, clip, clip.num_segments)
    again = training_indices(num_fields, clip, np.random.default_rng(seed))
    np.testing.assert_array_equal(indices, again)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), clip_specs, st.integers(1, 40))
def test_test_clips_lie_in_the_video_in_order(
    num_fields: int, clip: ClipSpec, num_clips: int
) -> None:
    check(view_indices(num_fields, clip, num_clips), num_fields, clip, num_clips)


def check(indices: NDArray[np.int64], num_fields: int, clip: ClipSpec, num_clips: int) -> None:
    assert indices.dtype == np.int64
    assert indices.shape == (num_clips, clip.num_frames)
    assert indices.min() >= 0
    assert indices.max() < num_fields
    # From each to the next is the stride, or round the end of the video.
    assert (np.diff(indices, axis=1) % num_fields == clip.frame_stride % num_fields).all()
    span = (clip.num_frames - 1) * clip.frame_stride + 1
    if clip.sampling == "segments":
        assert (np.diff(indices[:, 0]) >= 0).all()
        if num_fields >= span:
            assert (np.diff(indices, axis=1) == clip.frame_stride).all()
    elif num_fields >= 64 + span:
        # A dense window is longer than 64 by less than a clip; no clip needs to loop.
        assert (np.diff(indices, axis=1) == clip.frame_stride).all()


@settings(deadline=None)
@given(st.integers(1, 300), clip_specs)
def test_tsn_trains_on_one_clip_in_each_equal_segment(num_fields: int, clip: ClipSpec) -> None:
    segments = clip.num_segments
    length = (num_fields - (clip.num_frames - 1) * clip.frame_stride) // segments
    if clip.sampling == "segments" and length > 0:
        indices = training_indices(num_fields, clip, np.random.default_rng(0))
        assert [start // length for start in starts(indices)] == list(range(segments))


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(2, 9), st.integers(1, 30))
def test_tsn_tests_as_its_authors_do(
    num_fields: int, num_frames: int, segments: int, num_clips: int
) -> None:
    clip = ClipSpec(num_frames=num_frames, num_segments=segments)
    num_starts = num_fields - num_frames + 1
    tick = num_starts / num_clips
    # yjxiong/tsn-pytorch, dataset.py, _get_test_indices; what is shorter than a clip loops instead.
    expected = [int(tick / 2 + tick * x) if num_starts > 0 else 0 for x in range(num_clips)]
    actual = starts(view_indices(num_fields, clip, num_clips))
    # Its floats fall just short of some whole numbers.
    assert np.abs(np.array(actual) - expected).max() <= 1
    exact = [(2 * x + 1) * num_starts % (2 * num_clips) == 0 for x in range(num_clips)]
    assert all(a == e for a, e, x in zip(actual, expected, exact, strict=True) if not x)


# ---- which starts


def test_every_start_is_drawn_alike() -> None:
    # 12 fields of a clip of 4 with stride 2: starts 0 to 5.
    counts = np.bincount(draws(12, ClipSpec(num_frames=4, frame_stride=2), 6000)[:, 0])
    assert len(counts) == 6
    # Binomial: a deviation of 29; four of them.
    assert np.abs(counts - 1000).max() < 116


def test_every_start_of_every_segment_is_drawn_alike() -> None:
    # 31 fields, clips of 5: 27 starts, 9 in each segment.
    drawn = draws(31, ClipSpec(num_frames=5, num_segments=3), 9000)
    for segment in range(3):
        values, counts = np.unique(drawn[:, segment], return_counts=True)
        assert values.tolist() == list(range(9 * segment, 9 * segment + 9))
        assert np.abs(counts - 1000).max() < 120
    # Each segment draws for itself.
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.05


def test_fewer_starts_than_segments_are_drawn_in_order() -> None:
    # 6 fields, clips of 5: starts 0 and 1 for three segments.
    drawn = draws(6, ClipSpec(num_frames=5, num_segments=3))
    assert sorted(set(map(tuple, drawn.tolist()))) == [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]


def test_dense_clips_share_a_window_of_64() -> None:
    # TSM on 100 frames: 8 frames, 8 apart, from any of 37 places.
    drawn = draws(100, ClipSpec("rgb", 1, num_segments=8, sampling="dense"), 4000)
    assert (drawn - drawn[:, :1] == np.arange(0, 64, 8)).all()
    assert np.unique(drawn[:, 0]).tolist() == list(range(37))


def test_a_dense_window_grows_where_its_clips_need_it() -> None:
    # 8 clips of 10: the last begins 56 after the first and ends 66 after it.
    drawn = draws(70, ClipSpec(num_frames=10, num_segments=8, sampling="dense"))
    assert np.unique(drawn[:, 0]).tolist() == [0, 1, 2, 3, 4]


# ---- golden lists


@pytest.mark.parametrize(
    ("num_fields", "num_frames", "num_clips", "expected"),
    [
        (250, 10, 25, list(range(0, 241, 10))),
        # 90 / 24 = 3.75 apart; halves go to the even number.
        (
            100,
            10,
            25,
            [
                *(0, 4, 8, 11, 15, 19, 22, 26, 30, 34, 38, 41),
                *(45, 49, 52, 56, 60, 64, 68, 71, 75, 79, 82, 86, 90),
            ],
        ),
        (12, 10, 25, [0] * 7 + [1] * 11 + [2] * 7),
        (100, 10, 10, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (73, 64, 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (77, 64, 10, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]),
        (100, 10, 1, [45]),
        (11, 10, 1, [0]),
        (10, 10, 1, [0]),
        (4, 10, 3, [0, 0, 0]),
    ],
)
def test_test_clips_are_equally_spaced(
    num_fields: int, num_frames: int, num_clips: int, expected: list[int]
) -> None:
    indices = view_indices(num_fields, ClipSpec(num_frames=num_frames), num_clips)
    assert starts(indices) == expected


def test_stride_shortens_what_is_left_for_starts() -> None:
    indices = view_indices(20, ClipSpec(num_frames=4, frame_stride=3), 3)
    assert indices.tolist() == [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]


def test_tsn_tests_the_middle_of_each_segment() -> None:
    # 30 fields, clips of 5: 26 starts, 26 / 3 = 8.67 to a segment, middles 4.33, 13 and 21.67.
    clip = ClipSpec(num_frames=5, num_segments=3)
    assert view_indices(30, clip, 3).tolist() == [
        [4, 5, 6, 7, 8],
        [13, 14, 15, 16, 17],
        [21, 22, 23, 24, 25],
    ]
    assert starts(view_indices(104, clip, 25)) == list(range(2, 100, 4))


def test_dense_tests_ten_windows() -> None:
    clip = ClipSpec("rgb", 1, num_segments=8, sampling="dense")
    # 100 frames: window starts 0, 4, ..., 36.
    expected = [start + offset for start in range(0, 37, 4) for offset in range(0, 64, 8)]
    assert view_indices(100, clip, 80)[:, 0].tolist() == expected
    # 300 frames: 236 / 9 = 26.2 apart, cut down.
    windows = starts(view_indices(300, clip, 80))[::8]
    assert windows == [0, 26, 52, 78, 104, 131, 157, 183, 209, 236]
    # mmaction2's I3D: one clip of 32 with stride 2 in each.
    clip = ClipSpec("rgb", 32, frame_stride=2, sampling="dense")
    assert starts(view_indices(300, clip, 10)) == windows


def test_dense_takes_equally_spaced_clips_where_windows_hold_too_many() -> None:
    clip = ClipSpec("rgb", 1, num_segments=4, sampling="dense")
    # One window of 4 in the middle of 37, at 18, 34, 50, 66; one clip, or two, of it.
    assert starts(view_indices(100, clip, 1)) == [34]
    assert starts(view_indices(100, clip, 2)) == [18, 66]


@pytest.mark.parametrize(
    ("clip", "num_fields", "expected"),
    [
        (ClipSpec(num_frames=8), 3, [[0, 1, 2, 0, 1, 2, 0, 1]]),
        (ClipSpec(num_frames=4, frame_stride=2), 5, [[0, 2, 4, 1]]),
        (ClipSpec(num_frames=5), 1, [[0, 0, 0, 0, 0]]),
        (ClipSpec(num_frames=3, num_segments=2), 2, [[0, 1, 0], [0, 1, 0]]),
        (
            ClipSpec("rgb", 1, num_segments=8, sampling="dense"),
            40,
            [[0], [8], [16], [24], [32], [0], [8], [16]],
        ),
    ],
)
def test_short_videos_loop(clip: ClipSpec, num_fields: int, expected: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    assert training_indices(num_fields, clip, rng).tolist() == expected
    assert view_indices(num_fields, clip, clip.num_segments).tolist() == expected


# ---- bidirectional


def test_halves_go_outwards_from_the_centre() -> None:
    # Fields 3 to 8, centred on frame 6.
    forward, backward = clip_choice.bidirectional_indices(np.arange(3, 9)[None], 20)
    assert forward.tolist() == [[6, 7, 8]]
    assert backward.tolist() == [[5, 4, 3]]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 8), st.data())
def test_a_reversed_video_swaps_the_halves(num_fields: int, half: int, data: Any) -> None:
    # Field t of a video played backwards is the other direction's num_fields - 1 - t, and its frame
    # tau is frame num_fields - tau.
    center = data.draw(st.integers(0, num_fields - 1))
    window = (center - half + np.arange(2 * half)) % num_fields
    mirrored = (num_fields - center - half + np.arange(2 * half)) % num_fields
    forward, backward = clip_choice.bidirectional_indices(window[None], num_fields)
    assert forward[0, 0] == center
    other_forward, other_backward = clip_choice.bidirectional_indices(mirrored[None], num_fields)
    np.testing.assert_array_equal(other_forward, num_fields - 1 - backward)
    np.testing.assert_array_equal(other_backward, num_fields - 1 - forward)


def test_both_halves_of_a_long_video_come_from_the_window() -> None:
    clip = ClipSpec(num_frames=10, stack="bidirectional", num_segments=3)
    indices = training_indices(60, clip, np.random.default_rng(2))
    halves = clip_choice.bidirectional_indices(indices, 60)
    np.testing.assert_array_equal(np.sort(np.concatenate(halves, axis=1)), indices)


# ---- spread over a video


@pytest.mark.parametrize("num_frames", [1, 3, 8, 9, 40, 97])
def test_a_spread_clip_has_a_frame_of_each_part(num_frames: int) -> None:
    """As datasets/ssv2.py of facebookresearch/TimeSformer, written as its loop."""
    spec = ClipInput("rgb", "rgb", "volume", 8, 32)
    clip = ClipSpec("rgb", 8, 32, sampling="spread")
    parts = [
        (int(np.round((num_frames - 1) / 8 * i)), int(np.round((num_frames - 1) / 8 * (i + 1))))
        for i in range(8)
    ]
    (tested,) = clip_choice.test_indices(num_frames, num_frames - 1, [spec], clip, 1)
    assert tested.tolist() == [[(first + last) // 2 for first, last in parts]]

    rng = np.random.default_rng(5)
    drawn = np.concatenate(
        [
            clip_choice.training_indices(num_frames, num_frames - 1, [spec], clip, rng)[0]
            for _ in range(400)
        ]
    )
    for place, (first, last) in enumerate(parts):
        assert set(drawn[:, place].tolist()) == set(range(first, last + 1))
    # Several clips of a test have places of their own, in order.
    (several,) = clip_choice.test_indices(num_frames, num_frames - 1, [spec], clip, 3)
    for place, (first, last) in enumerate(parts):
        assert several[:, place].tolist() == sorted(several[:, place].tolist())
        assert first <= several[0, place] <= several[2, place] <= last


def test_inputs_that_are_spread_share_their_moments() -> None:
    """A slow and a fast input, as in facebookresearch/SlowFast: the slow one has some of them."""
    inputs = [ClipInput("slow", "rgb", "volume", 3, 8), ClipInput("fast", "rgb", "volume", 9, 2)]
    clip = ClipSpec("rgb", 3, 8, sampling="spread")
    slow, fast = clip_choice.training_indices(50, 49, inputs, clip, np.random.default_rng(6))
    assert slow.tolist() == fast[:, [0, 4, 8]].tolist()


def test_spread_clips_are_of_one_segment_and_one_stride() -> None:
    with pytest.raises(ConfigError, match=r"sampling spread is for one segment .* num_segments 3"):
        ClipSpec(num_segments=3, sampling="spread")
    with pytest.raises(ConfigError, match=r"sampling spread .* stack trajectory"):
        ClipSpec(stack="trajectory", sampling="spread")
    config = TrainConfig(clip=ClipSpec(sampling="spread"))
    with pytest.raises(ConfigError, match="random_strides do not apply to sampling spread"):
        dataclasses.replace(config, augment=AugmentSpec(random_strides=(1, 2)))


# ---- mistakes


def test_a_video_without_fields_has_no_clips() -> None:
    with pytest.raises(ConfigError, match="at least one field or frame, got 0"):
        training_indices(0, ClipSpec(), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="at least one field or frame, got 0"):
        view_indices(0, ClipSpec(), 1)


def test_a_test_has_clips() -> None:
    with pytest.raises(ConfigError, match="num_clips must be >= 1, got 0"):
        view_indices(10, ClipSpec(), 0)
