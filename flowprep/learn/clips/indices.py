"""Which fields or frames make a clip, in training and in tests, as arrays of indices.

    training_indices        a random clip in each segment of a video        (S, L)
    test_indices            clips at fixed places of a video                (num_clips, L)
    bidirectional_indices   the forward and the backward half of clips      (S, L/2) twice

An index t of flow is the stored field t; of frames, frame t. Clips that run over the end of a
video go on at its beginning, however often that takes: index modulo length, as I3D repeats short
videos (Carreira and Zisserman 2017, section 3). (TSN repeats the last field instead.)

    num_fields = 12, 4 fields of stride 2, span = 7: starts 0 to 5

    0  1  2  3  4  5  6  7  8  9 10 11
    x     x     x     x                     start 0
                   x     x     x     x      start 5
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.learn.config import ClipSpec

__all__ = ["bidirectional_indices", "test_indices", "training_indices"]

# Fields that dense clips spread over: TSM's ops/dataset.py (dense_sample), mmaction2's
# DenseSampleFrames (sample_range).
_DENSE_WINDOW = 64


def training_indices(
    num_fields: int, clip: ClipSpec, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws a clip in each segment of a video: (S, L) int64 in [0, num_fields).

    S is `clip.num_segments`, L `clip.num_frames`, one index every `clip.frame_stride`; the clips
    come in the order of their starts. The sampling `segments` is TSN's (yjxiong/tsn-pytorch,
    dataset.py): the places where a clip can start are cut into S equal parts, each gives one, and
    the fewer than S places that are over at the end give none; with fewer places than segments they
    are drawn from all of them (TSN takes the first where there are not more fields than segments).
    `dense` is TSM's: starts 64 // S apart in a window of 64, which may lie anywhere. Raises
    ConfigError for a video without fields.
    """
    _check_num_fields(num_fields)
    segments = clip.num_segments
    num_starts = _num_starts(num_fields, clip)
    starts: NDArray[np.int64]
    if clip.sampling == "dense":
        # Both sources never draw the last place; here every one can come.
        window_start = rng.integers(_num_windows(num_fields, clip))
        starts = window_start + np.arange(segments) * _dense_interval(clip)
    elif (length := num_starts // segments) > 0:
        starts = np.arange(segments) * length + rng.integers(length, size=segments)
    else:
        starts = np.sort(rng.integers(num_starts, size=segments))
    return _clips_at(starts, num_fields, clip)


def test_indices(num_fields: int, clip: ClipSpec, num_clips: int) -> NDArray[np.int64]:
    """Returns the clips of a video that a test looks at: (num_clips, L) int64 in [0, num_fields).

    They come in the order of time, `dense` ones window by window. With one segment, starts are
    equally spaced from the first place to the last, and one clip is in the middle (Simonyan and
    Zisserman 2014, section 4; rounded as mmaction2's SampleFrames). With more, one is in the middle
    of each of `num_clips` equal parts (TSN's test). `dense` takes windows of 64 with equally spaced
    starts, and in each of them `clip.num_segments` clips (TSM: ten windows, so num_clips = 10 x
    num_segments); where that makes more than `num_clips`, equally spaced ones of them. Raises
    ConfigError for a video without fields, and for num_clips < 1.
    """
    _check_num_fields(num_fields)
    if num_clips < 1:
        raise ConfigError(f"num_clips must be >= 1, got {num_clips}")
    num_starts = _num_starts(num_fields, clip)
    if clip.sampling == "dense":
        num_windows = -(-num_clips // clip.num_segments)
        window_starts = _spread(_num_windows(num_fields, clip) - 1, num_windows)
        offsets = np.arange(clip.num_segments) * _dense_interval(clip)
        # Cut down, as the sources' np.linspace(..., dtype=int) does.
        starts = (window_starts.astype(np.int64)[:, None] + offsets).ravel()
        starts = starts[_spread(len(starts) - 1, num_clips).astype(np.int64)]
    elif clip.num_segments > 1:
        starts = (2 * np.arange(num_clips) + 1) * num_starts // (2 * num_clips)
    else:
        starts = np.rint(_spread(num_starts - 1, num_clips)).astype(np.int64)
    return _clips_at(starts, num_fields, clip)


def bidirectional_indices(
    indices: NDArray[np.int64], num_fields: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits clips (S, L) of following fields into halves: forward (S, L/2), backward (S, L/2).

    The clip of the fields a to a + L - 1 is centred on frame tau = a + L/2. Its forward half are
    the stored forward fields tau, tau + 1, ..., its backward half the stored backward fields
    tau - 1, tau - 2, ...: outwards both, so that a video played backwards swaps the halves
    (Simonyan and Zisserman 2014, section 3.1). Stored backward field t goes from frame t + step to
    frame t; at step 1 both halves begin at frame tau, at larger ones the backward half step - 1
    frames after it.

    indices     a ... tau-1 tau ... a+L-1
    forward               -> -> ->
    backward    <- <- <-
    """
    half = indices.shape[1] // 2
    center = indices[:, half : half + 1]
    steps = np.arange(half)
    return (center + steps) % num_fields, (center - 1 - steps) % num_fields


def _check_num_fields(num_fields: int) -> None:
    if num_fields < 1:
        raise ConfigError(f"a clip needs a video of at least one field or frame, got {num_fields}")


def _span(clip: ClipSpec) -> int:
    return (clip.num_frames - 1) * clip.frame_stride + 1


def _num_starts(num_fields: int, clip: ClipSpec) -> int:
    """Returns how many places a clip can start at; one for a video that is too short for a clip."""
    return max(1, num_fields - _span(clip) + 1)


def _dense_interval(clip: ClipSpec) -> int:
    return max(1, _DENSE_WINDOW // clip.num_segments)


def _num_windows(num_fields: int, clip: ClipSpec) -> int:
    # The sources' window is 64 whatever it holds, and long clips loop at the end of videos that
    # have room for them; where its clips need more, the window is longer here.
    needed = (clip.num_segments - 1) * _dense_interval(clip) + _span(clip)
    return max(1, num_fields - max(_DENSE_WINDOW, needed) + 1)


def _spread(last: int, count: int) -> NDArray[np.float64]:
    """Returns `count` equally spaced numbers from 0 to `last`; one is the middle, rounded down."""
    if count == 1:
        return np.array([last // 2], np.float64)
    # Divided last, so that numbers that ought to be whole are.
    return np.arange(count) * last / (count - 1)


def _clips_at(starts: NDArray[np.int64], num_fields: int, clip: ClipSpec) -> NDArray[np.int64]:
    steps = np.arange(clip.num_frames, dtype=np.int64) * clip.frame_stride
    return (starts[:, None] + steps) % num_fields
