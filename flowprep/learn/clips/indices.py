"""Which fields or frames make a clip, in training and in tests, as arrays of indices.

    training_indices        a random clip in each segment of a video        (S, L) of each input
    test_indices            clips at fixed places of a video                (num_clips, L) of each
    bidirectional_indices   the forward and the backward half of clips      (S, L/2) twice

An index t of flow is the stored field t, from frame t to frame t + step; of RGB, frame t. Clips
that run over the end of a video go on at its beginning, however often that takes: index modulo
length, as I3D repeats short videos (Carreira and Zisserman 2017, section 3). (TSN repeats the last
field instead.)

    num_fields = 12, 4 fields of stride 2, span = 7: starts 0 to 5

    0  1  2  3  4  5  6  7  8  9 10 11
    x     x     x     x                     start 0
                   x     x     x     x      start 5

A network may take several inputs of each clip. The one that lasts longest is placed as if it were
alone, and the middles of the others coincide with its middle, to within half a frame. L fields last
from their first frame to the second frame of the last field, L frames from the first to the last:

    frames        0  1  2  3  4  5  6
    4 fields         >--o--o--o--<          1 to 5
    1 frame                o                3

Where such a clip is longer than the video, all of its inputs go on at the beginning at the same
frame, which is that of the first field where one of them is flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.config import ClipSpec

__all__ = ["bidirectional_indices", "test_indices", "training_indices"]

# Fields that dense clips spread over: TSM's ops/dataset.py (dense_sample), mmaction2's
# DenseSampleFrames (sample_range).
_DENSE_WINDOW = 64


def training_indices(
    num_frames: int,
    num_flows: int,
    inputs: Sequence[ClipInput],
    clip: ClipSpec,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], ...]:
    """Draws a clip in each segment of a video of so many frames and fields of flow.

    Returns (S, L) int64 for each input; S is `clip.num_segments`, L the input's `num_frames`, one
    index every `frame_stride`; the clips come in the order of their starts. The sampling `segments`
    is TSN's (yjxiong/tsn-pytorch, dataset.py): the places where a clip can start are cut into S
    equal parts, each gives one, and the fewer than S places that are over at the end give none;
    with fewer places than segments they are drawn from all of them (TSN takes the first where there
    are not more fields than segments). `dense` is TSM's: starts 64 // S apart in a window of 64,
    which may lie anywhere. Raises ConfigError for a video without fields or frames.
    """
    window = _Window.of(num_frames, num_flows, inputs)
    segments = clip.num_segments
    num_starts = window.num_starts
    starts: NDArray[np.int64]
    if clip.sampling == "dense":
        # Both sources never draw the last place; here every one can come.
        first = rng.integers(_num_dense_windows(window, segments))
        starts = first + np.arange(segments) * _dense_interval(segments)
    elif (length := num_starts // segments) > 0:
        starts = np.arange(segments) * length + rng.integers(length, size=segments)
    else:
        starts = np.sort(rng.integers(num_starts, size=segments))
    return window.clips_at(starts)


def test_indices(
    num_frames: int, num_flows: int, inputs: Sequence[ClipInput], clip: ClipSpec, num_clips: int
) -> tuple[NDArray[np.int64], ...]:
    """Returns the clips of a video that a test looks at, (num_clips, L) int64 for each input.

    They come in the order of time, `dense` ones window by window. With one segment, starts are
    equally spaced from the first place to the last, and one clip is in the middle (Simonyan and
    Zisserman 2014, section 4; rounded as mmaction2's SampleFrames). With more, one is in the middle
    of each of `num_clips` equal parts (TSN's test). `dense` takes windows of 64 with equally spaced
    starts, and in each of them `clip.num_segments` clips (TSM: ten windows, so num_clips = 10 x
    num_segments); where that makes more than `num_clips`, equally spaced ones of them. Raises
    ConfigError for a video without fields or frames, and for num_clips < 1.
    """
    window = _Window.of(num_frames, num_flows, inputs)
    if num_clips < 1:
        raise ConfigError(f"num_clips must be >= 1, got {num_clips}")
    segments = clip.num_segments
    if clip.sampling == "dense":
        num_windows = -(-num_clips // segments)
        window_starts = _spread(_num_dense_windows(window, segments) - 1, num_windows)
        offsets = np.arange(segments) * _dense_interval(segments)
        # Cut down, as the sources' np.linspace(..., dtype=int) does.
        starts = (window_starts.astype(np.int64)[:, None] + offsets).ravel()
        starts = starts[_spread(len(starts) - 1, num_clips).astype(np.int64)]
    elif segments > 1:
        starts = (2 * np.arange(num_clips) + 1) * window.num_starts // (2 * num_clips)
    else:
        starts = np.rint(_spread(window.num_starts - 1, num_clips)).astype(np.int64)
    return window.clips_at(starts)


def bidirectional_indices(
    indices: NDArray[np.int64], num_fields: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits clips (S, L) of following fields into halves: forward (S, L/2), backward (S, L/2).

    The clip of the fields a to a + L - 1 is centered on frame tau = a + L/2. Its forward half are
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


# ---- where the inputs lie beside each other


@dataclass(frozen=True)
class _Window:
    """The longest input's window in a video, and where those of all inputs begin in it."""

    num_fields: int
    """Fields or frames of the video, those that the longest input is made of."""
    span: int
    """Fields or frames from the longest input's first to its last."""
    inputs: tuple[ClipInput, ...]
    offsets: tuple[int, ...]
    """Of each input's first index from the longest one's."""
    period: int
    """Where clips that are too long for the video begin again."""

    @classmethod
    def of(cls, num_frames: int, num_flows: int, inputs: Sequence[ClipInput]) -> _Window:
        """Raises ConfigError where the video has no field or frame."""
        # How many fields or frames there are to choose from, and how long each lasts in frames.
        counts = {"flow": num_flows, "rgb": num_frames}
        lasts = {"flow": num_frames - num_flows, "rgb": 0}
        spans = [(one.num_frames - 1) * one.frame_stride + 1 for one in inputs]
        extents = [span - 1 + lasts[one.stream] for one, span in zip(inputs, spans, strict=True)]
        longest = extents.index(max(extents))
        num_fields = counts[inputs[longest].stream]
        period = min(counts[one.stream] for one in inputs)
        if period < 1:
            raise ConfigError(f"a clip needs a video of at least one field or frame, got {period}")
        offsets = tuple((extents[longest] - extent) // 2 for extent in extents)
        return cls(num_fields, spans[longest], tuple(inputs), offsets, period)

    @property
    def num_starts(self) -> int:
        """How many places a clip can start at; one for a video that is too short for a clip."""
        return max(1, self.num_fields - self.span + 1)

    def clips_at(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Returns the indices of each input, (len(starts), L), of clips that start there."""
        is_too_long = (starts + self.span > self.num_fields)[:, None]
        clips = []
        for one, offset in zip(self.inputs, self.offsets, strict=True):
            steps = offset + np.arange(one.num_frames, dtype=np.int64) * one.frame_stride
            indices = starts[:, None] + steps
            clips.append(np.where(is_too_long, indices % self.period, indices))
        return tuple(clips)


def _dense_interval(segments: int) -> int:
    return max(1, _DENSE_WINDOW // segments)


def _num_dense_windows(window: _Window, segments: int) -> int:
    # The sources' window is 64 whatever it holds, and long clips loop at the end of videos that
    # have room for them; where its clips need more, the window is longer here.
    needed = (segments - 1) * _dense_interval(segments) + window.span
    return max(1, window.num_fields - max(_DENSE_WINDOW, needed) + 1)


def _spread(last: int, count: int) -> NDArray[np.float64]:
    """Returns `count` equally spaced numbers from 0 to `last`; one is the middle, rounded down."""
    if count == 1:
        return np.array([last // 2], np.float64)
    # Divided last, so that numbers that ought to be whole are.
    return np.arange(count) * last / (count - 1)
