"""Windows over a video: every frame is covered, and times follow the frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.errors import ConfigError
from flowprep.learn.clips.window_spans import cut_windows, frame_borders, num_positions

numbers = st.integers(1, 40)


@given(numbers, numbers, numbers)
def test_every_position_is_in_a_window(count: int, length: int, stride: int) -> None:
    windows = cut_windows(count, length=length, stride=stride)
    covered = {
        p
        for start, stop in zip(windows.starts, windows.stops, strict=True)
        for p in range(start, stop)
    }
    # A stride above the length leaves gaps between windows, and never at the end.
    assert windows.num_dropped == 0
    assert {0, count - 1} <= covered <= set(range(count))
    if stride <= length:
        assert covered == set(range(count))
    assert (np.diff(windows.starts) > 0).all()
    assert (windows.stops - windows.starts == min(length, count)).all()
    assert (windows.starts[:-1] == stride * np.arange(len(windows) - 1)).all()
    assert windows.is_short == (count < length)


@given(numbers, numbers, numbers)
def test_tail_is_one_window_or_none(count: int, length: int, stride: int) -> None:
    shifted = cut_windows(count, length=length, stride=stride)
    dropped = cut_windows(count, length=length, stride=stride, tail="drop")
    assert len(dropped) >= 1
    assert dropped.num_dropped == count - dropped.stops[-1]
    assert len(shifted) - len(dropped) == (dropped.num_dropped > 0)
    np.testing.assert_array_equal(shifted.starts[: len(dropped)], dropped.starts)
    assert (dropped.starts % stride == 0).all()


def test_picture_of_the_docstring() -> None:
    windows = cut_windows(11, length=4, stride=3)
    assert windows.starts.tolist() == [0, 3, 6, 7]
    assert windows.stops.tolist() == [4, 7, 10, 11]
    assert cut_windows(11, length=4, stride=3, tail="drop").starts.tolist() == [0, 3, 6]


def test_positions_of_all_streams_agree() -> None:
    assert num_positions(31, 30, ["rgb"]) == 31
    assert num_positions(31, 30, ["flow"]) == num_positions(31, 30, ["rgb", "flow"]) == 30
    assert num_positions(31, 30, ["both"]) == 30


def test_times() -> None:
    assert frame_borders(100, fps=25.0)[[0, 25, 100]].tolist() == [0, 1, 4]
    # Frames of a variable rate: the second half at half the speed.
    stamps = np.concatenate((np.arange(50) * 0.04, 2 + np.arange(50) * 0.08))
    borders = frame_borders(100, fps=25.0, frame_seconds=stamps)
    np.testing.assert_allclose(borders[[0, 25, 50, 75, 100]], [0, 1, 2, 4, 6])
    # Flow ends a step before the frames do, and the last field ends with its second frame.
    assert frame_borders(99, fps=None, frame_seconds=stamps).tolist() == stamps.tolist()
    assert all(map(math.isnan, frame_borders(3, fps=None)))
    assert frame_borders(1, fps=10.0, frame_seconds=np.array([3.0])).tolist() == [3, 3.1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"length": 0, "stride": 1}, "window must be at least 1, got 0"),
        ({"length": 4, "stride": -1}, "stride must be at least 1, got -1"),
        ({"length": 4, "stride": 1, "tail": "pad"}, "tail must be"),
    ],
)
def test_what_is_no_window(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cut_windows(10, **values)  # type: ignore[arg-type]


def test_video_without_frames() -> None:
    with pytest.raises(ConfigError, match="at least one field or frame, got 0"):
        cut_windows(0, length=4, stride=1)
