"""Windows over whole videos: where they lie, and that a video need not be held for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.indices import indices_at, sliding_starts
from flowprep.learn.clips.sliding import LatestJpegs
from flowprep.learn.clips.windows import Windows

FLOW = ClipInput("flow", "flow", "volume", 8, 2)
RGB = ClipInput("rgb", "rgb", "stack", 1)

some_inputs = st.lists(
    st.builds(
        ClipInput,
        st.just("one"),
        st.sampled_from(["flow", "rgb"]),
        st.just("volume"),
        st.integers(1, 9),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def test_starts() -> None:
    # 8 fields, two apart, are 15 long; 30 fields have 16 places for them.
    assert sliding_starts(31, 30, [FLOW], 6).tolist() == [0, 6, 12]
    assert sliding_starts(31, 30, [FLOW], 6, keeps_tail=True).tolist() == [0, 6, 12, 15]
    assert sliding_starts(31, 30, [FLOW], 5, keeps_tail=True).tolist() == [0, 5, 10, 15]
    assert sliding_starts(10, 9, [FLOW], 5, keeps_tail=True).tolist() == [0]
    with pytest.raises(ConfigError, match="at least one field or frame"):
        sliding_starts(1, 0, [FLOW], 1)


def test_a_short_video_is_repeated() -> None:
    (indices,) = indices_at(6, 5, [FLOW], [0])
    assert indices.tolist() == [[0, 2, 4, 1, 3, 0, 2, 4]]
    windows = Windows((FLOW,), 16, "drop", 1)
    # 15 fields lie between 16 frames.
    assert windows.num_needed == 16
    assert Windows((FLOW, RGB), 16, "drop", 2).num_needed == 17
    assert Windows((RGB,), 16, "drop", 2).num_needed == 1
    assert windows.frames(windows.starts(6), 6).tolist() == [[0, 6]]


def test_what_no_window_has() -> None:
    windows = Windows((FLOW,), 6, "drop", 1)
    # The last window begins at 12, and could begin at 15.
    assert windows.num_left(31) == 3
    assert Windows((FLOW,), 6, "last", 1).num_left(31) == 0
    assert windows.length == 16


@given(
    inputs=some_inputs,
    step=st.integers(1, 3),
    num_frames=st.integers(4, 60),
    stride=st.integers(1, 25),
    tail=st.sampled_from(["drop", "last"]),
)
def test_windows_are_ready_in_time(
    inputs: tuple[ClipInput, ...], step: int, num_frames: int, stride: int, tail: str
) -> None:
    """Frame by frame, a stream finds the windows of the whole video, and never looks ahead."""
    windows = Windows(inputs, stride, tail, step)  # type: ignore[arg-type]
    starts = windows.starts(num_frames).tolist()
    found, following = [], 0
    for known in range(step + 1, num_frames + 1):
        while windows.is_ready(following, known, known - step):
            now = indices_at(known, known - step, inputs, [following])
            whole = indices_at(num_frames, num_frames - step, inputs, [following])
            for one, indices, same in zip(inputs, now, whole, strict=True):
                np.testing.assert_array_equal(indices, same)
                assert indices.max() < (known - step if one.stream == "flow" else known)
                assert indices.min() >= following
            found.append(following)
            following += stride
    if num_frames < windows.num_needed:
        assert (found, starts) == ([], [0])
        return
    regular = [start for start in starts if start % stride == 0]
    assert found == regular
    assert windows.num_left(num_frames) >= 0
    # What is left is what the window that ends with the video needs.
    assert starts[len(regular) :] == ([] if len(starts) == len(regular) else [starts[-1]])
    for one, indices in zip(
        inputs, indices_at(num_frames, num_frames - step, inputs, [starts[-1]]), strict=True
    ):
        assert indices.max() < (num_frames - step if one.stream == "flow" else num_frames)
        assert indices.min() >= num_frames - windows.length - step or starts[-1] % stride == 0


def test_only_the_latest_jpegs_are_kept() -> None:
    stream = LatestJpegs(90)
    for number in range(10):
        stream.append_jpeg(bytes([number]))
        stream.drop_before(number - 2)
    assert len(stream) == 10
    assert stream.between(7, 3) == [b"\7", b"\10", b"\11"]
    with pytest.raises(AssertionError):
        stream.between(6, 2)
    stream.drop_before(99)
    stream.append_jpeg(b"later")
    assert len(stream) == 11
    stream.close()
