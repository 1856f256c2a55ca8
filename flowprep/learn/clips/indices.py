"""Which fields or frames make a clip, in training and in tests, as index arrays.

    training_indices        a random clip in each segment of a video        (S, L) of each input
    test_indices            clips at fixed positions in a video             (num_clips, L) of each
    sliding_starts          clips at equal distances over a whole video     (num_windows,)
    indices_at              clips that begin at given places                (len(starts), L) of each
    bidirectional_indices   the forward and the backward half of clips      (S, L/2) twice

A flow index t means the stored field t, from frame t to frame t + step. An RGB index t means frame
t, and a difference t means frame t + 1 minus frame t. A clip that runs past the end of a video
continues at its beginning, as often as needed: index modulo length, as I3D repeats short videos
(Carreira and Zisserman 2017, section 3). (TSN repeats the last field instead.)

    num_fields = 12, 4 fields of stride 2, span = 7: starts 0 to 5

    0  1  2  3  4  5  6  7  8  9 10 11
    x     x     x     x                     start 0
                   x     x     x     x      start 5

A network may take several inputs from each clip. The longest input is placed as if it were alone.
The other inputs share its middle, to within half a frame. L fields last from their first frame to
the second frame of the last field. L frames last from the first frame to the last:

    frames        0  1  2  3  4  5  6
    4 fields         >--o--o--o--<          1 to 5
    1 frame                o                3

If such a clip is longer than the video, all of its inputs return to the beginning at the same
frame. If any of the inputs is flow, this is the first frame that has no field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput, InputStream
from flowprep.learn.config import ClipSpec

__all__ = [
    "bidirectional_indices",
    "frames_after",
    "indices_at",
    "sliding_starts",
    "test_indices",
    "training_indices",
]

# Number of fields in the window of dense clips: TSM's ops/dataset.py (dense_sample), mmaction2's
# DenseSampleFrames (sample_range).
_DENSE_WINDOW = 64


def training_indices(
    num_frames: int,
    num_flows: int,
    inputs: Sequence[ClipInput],
    clip: ClipSpec,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], ...]:
    """Draws a clip in each segment of a video with the given numbers of frames and flow fields.

    Returns (S, L) int64 for each input. S is `clip.num_segments`. L is the input's `num_frames`;
    neighboring indices are `frame_stride` apart. Clips are ordered by their starts. An input with
    stacks along time has L = num_frames * stack_length, stack by stack.

    The sampling `segments` is TSN's (yjxiong/tsn-pytorch, dataset.py). The possible starts of a
    clip are divided into S equal parts, and each part gives one clip. The remainder of fewer than S
    starts at the end is not used. If there are fewer starts than segments, the clips are drawn from
    all starts (TSN takes the first start if there are no more fields than segments).

    The sampling `dense` is TSM's: starts are 64 // S apart in a window of 64, and the window lies
    at a random position.

    The sampling `spread` is that of facebookresearch/TimeSformer and SlowFast for
    Something-Something (datasets/ssv2.py): the video is divided into L equal parts, and each gives
    one frame or field. Raises ConfigError for a video without fields or frames.
    """
    window = _Window.of(num_frames, num_flows, inputs)
    if clip.sampling == "spread":
        firsts, lasts = window.parts()
        return window.spread_at(rng.integers(firsts, lasts + 1)[None])
    segments = clip.num_segments
    num_starts = window.num_starts
    starts: NDArray[np.int64]
    if clip.sampling == "dense":
        # TSM and mmaction2 never draw the last position. Here every position is possible.
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
    """Returns the clips of a video for a test, (num_clips, L) int64 for each input.

    Clips are in time order; `dense` clips are in time order within each window. With one segment,
    starts are equally spaced from the first possible start to the last, and a single clip is in the
    middle (Simonyan and Zisserman 2014, section 4; rounded as in mmaction2's SampleFrames). With
    several segments, one clip is in the middle of each of `num_clips` equal parts (TSN's test).

    `dense` takes windows of 64 with equally spaced starts, and `clip.num_segments` clips in each
    window (TSM: ten windows, so num_clips = 10 x num_segments). If that makes more than `num_clips`
    clips, equally spaced ones are kept. A clip that is `spread` has the middle of each part, and
    several clips have equally spaced places in it. Raises ConfigError for a video without fields
    or frames, and for num_clips < 1.
    """
    window = _Window.of(num_frames, num_flows, inputs)
    if num_clips < 1:
        raise ConfigError(f"num_clips must be >= 1, got {num_clips}")
    if clip.sampling == "spread":
        firsts, lasts = window.parts()
        shares = 2 * np.arange(num_clips)[:, None] + 1
        return window.spread_at(firsts + (lasts - firsts) * shares // (2 * num_clips))
    segments = clip.num_segments
    if clip.sampling == "dense":
        num_windows = -(-num_clips // segments)
        window_starts = _spread(_num_dense_windows(window, segments) - 1, num_windows)
        offsets = np.arange(segments) * _dense_interval(segments)
        # Truncated, as np.linspace(..., dtype=int) does in TSM and mmaction2.
        starts = (window_starts.astype(np.int64)[:, None] + offsets).ravel()
        starts = starts[_spread(len(starts) - 1, num_clips).astype(np.int64)]
    elif segments > 1:
        starts = (2 * np.arange(num_clips) + 1) * window.num_starts // (2 * num_clips)
    else:
        starts = np.rint(_spread(window.num_starts - 1, num_clips)).astype(np.int64)
    return window.clips_at(starts)


def sliding_starts(
    num_frames: int,
    num_flows: int,
    inputs: Sequence[ClipInput],
    stride: int,
    *,
    keeps_tail: bool = False,
) -> NDArray[np.int64]:
    """Returns where the clips of a sliding window begin, `stride` apart: (num_windows,) int64.

    All clips lie within the video. Up to `stride` - 1 fields or frames at its end are in no clip.
    With `keeps_tail` there is one more clip then, which ends with the video. A video that is too
    short for a clip has one, which begins at 0 and repeats the video (`indices_at`). Raises
    ConfigError for a video without fields or frames.
    """
    last = _Window.of(num_frames, num_flows, inputs).num_starts - 1
    starts = np.arange(0, last + 1, stride, dtype=np.int64)
    if keeps_tail and starts[-1] < last:
        starts = np.append(starts, last)
    return starts


def frames_after(step: int) -> dict[InputStream, int]:
    """Returns how many frames after its own a field, a frame or a difference reaches."""
    return {"flow": step, "rgb": 0, "rgb-difference": 1, "rgb-pair": 1}


def indices_at(
    num_frames: int,
    num_flows: int,
    inputs: Sequence[ClipInput],
    starts: Sequence[int] | NDArray[np.int64],
) -> tuple[NDArray[np.int64], ...]:
    """Returns the clips that begin at `starts`, (len(starts), L) int64 for each input.

    A start is where the longest input begins. Raises ConfigError for a video without fields or
    frames.
    """
    window = _Window.of(num_frames, num_flows, inputs)
    return window.clips_at(np.asarray(starts, np.int64))


def bidirectional_indices(
    indices: NDArray[np.int64], num_fields: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits clips (S, L) of consecutive fields: forward (S, L/2), backward (S, L/2).

    The clip of the fields a to a + L - 1 is centered on frame tau = a + L/2. Its forward half is
    the stored forward fields tau, tau + 1, ... Its backward half is the stored backward fields
    tau - 1, tau - 2, ... Both halves lead away from the center, so a video played backwards swaps
    the halves (Simonyan and Zisserman 2014, section 3.1). Stored backward field t goes from frame
    t + step to frame t. At step 1 both halves begin at frame tau. At larger steps the backward half
    begins step - 1 frames later.

    indices     a ... tau-1 tau ... a+L-1
    forward               -> -> ->
    backward    <- <- <-
    """
    half = indices.shape[1] // 2
    center = indices[:, half : half + 1]
    steps = np.arange(half)
    return (center + steps) % num_fields, (center - 1 - steps) % num_fields


# ---- how the inputs are aligned with each other


@dataclass(frozen=True)
class _Window:
    """The window of the longest input in a video, and where the other inputs begin in it."""

    num_fields: int
    """Number of fields or frames in the video, of the kind that the longest input uses."""
    span: int
    """Number of fields or frames from the longest input's first to its last, both included."""
    inputs: tuple[ClipInput, ...]
    offsets: tuple[int, ...]
    """For each input: the distance from the first index of the longest input to its own."""
    period: int
    """Length after which a clip that is too long for the video starts again at the beginning."""

    @classmethod
    def of(cls, num_frames: int, num_flows: int, inputs: Sequence[ClipInput]) -> _Window:
        """Raises ConfigError if the video has no field or no frame."""
        # How many fields or frames are available, and how many frames each one spans.
        lasts = frames_after(num_frames - num_flows)
        counts = {stream: num_frames - last for stream, last in lasts.items()}
        spans = [one.span for one in inputs]
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
        """Number of possible starts of a clip; one for a video that is too short for a clip."""
        return max(1, self.num_fields - self.span + 1)

    def parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the first and the last index of each part, one for each place of the longest
        input. Neighboring parts share an index, as in datasets/ssv2.py."""
        num_places = max(one.num_frames for one in self.inputs)
        ends = np.rint(np.arange(num_places + 1) * (self.period - 1) / num_places).astype(np.int64)
        return ends[:-1], ends[1:]

    def spread_at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Returns the indices of each input for clips with these places, (clips, num_places).

        A shorter input has equally spaced ones of them, with the first and the last.
        """
        clips = []
        for one in self.inputs:
            chosen = np.linspace(0, places.shape[1] - 1, one.num_frames).astype(np.int64)
            stacks = places[:, chosen, None] + np.arange(one.stack_length)
            clips.append(stacks.reshape(len(places), -1) % self.period)
        return tuple(clips)

    def clips_at(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Returns the indices of each input, (len(starts), L), for clips with these starts."""
        is_too_long = (starts + self.span > self.num_fields)[:, None]
        clips = []
        for one, offset in zip(self.inputs, self.offsets, strict=True):
            steps = offset + np.array(one.steps, np.int64)
            indices = starts[:, None] + steps
            clips.append(np.where(is_too_long, indices % self.period, indices))
        return tuple(clips)


def _dense_interval(segments: int) -> int:
    return max(1, _DENSE_WINDOW // segments)


def _num_dense_windows(window: _Window, segments: int) -> int:
    # In TSM and mmaction2 the window is always 64, so long clips wrap around at the end of a video
    # even if the video has enough room. Here the window grows if its clips need more.
    needed = (segments - 1) * _dense_interval(segments) + window.span
    return max(1, window.num_fields - max(_DENSE_WINDOW, needed) + 1)


def _spread(last: int, count: int) -> NDArray[np.float64]:
    """Returns `count` equally spaced numbers from 0 to `last`; if 1, the middle, rounded down."""
    if count == 1:
        return np.array([last // 2], np.float64)
    # The division comes last, so that exact integers stay exact.
    return np.arange(count) * last / (count - 1)
