"""Frames that are prepared once: neither order nor kept memory shows in a field."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flowprep.flow.brox import Brox
from flowprep.flow.farneback import Farneback
from flowprep.flow.parameters import BroxParameters, FarnebackParameters, TVL1Parameters
from flowprep.flow.prepared import PreparedEstimator
from flowprep.flow.tvl1 import TVL1
from tests.flow.scenes import turning_frames

Make = Callable[[], PreparedEstimator[Any]]

each = pytest.mark.parametrize(
    "make",
    [
        lambda: TVL1(TVL1Parameters()),
        lambda: Farneback(FarnebackParameters()),
        lambda: Brox(BroxParameters()),
    ],
    ids=["tvl1", "farneback", "brox"],
)


def count_prepared(estimator: PreparedEstimator[Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets an entry for each frame that is prepared: its memory."""
    prepared: list[int] = []
    prepare = estimator._prepare

    def counted(frame: Any, memory: Any) -> None:
        prepared.append(id(memory))
        prepare(frame, memory)

    monkeypatch.setattr(estimator, "_prepare", counted)
    return prepared


@each
def test_single_calls_of_a_video_prepare_each_frame_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, estimator = turning_frames(6), make()
    expected = [make()(*pair) for pair in itertools.pairwise(video)]
    prepared = count_prepared(estimator, monkeypatch)
    found = [estimator(*pair) for pair in itertools.pairwise(video)]
    assert len(prepared) == 6
    assert len(set(prepared)) == 2  # two frames' memory serves them all
    np.testing.assert_array_equal(found, expected)


@each
def test_a_frame_that_changed_in_its_place_is_another(make: Make) -> None:
    first, second, third = turning_frames(3)
    estimator, reused = make(), second.copy()
    estimator(first, reused)
    reused[:] = third
    np.testing.assert_array_equal(estimator(reused, first), make()(third, first))
    np.testing.assert_array_equal(estimator(first, first), make()(first, first))


def test_a_frame_of_another_type_is_another() -> None:
    # To Brox, 1 is white in a float frame, and nearly black in one of bytes.
    levels = [(frame > 127).astype(np.uint8) for frame in turning_frames(2)]
    floats = [frame.astype(np.float32) for frame in levels]
    estimator = Brox(BroxParameters())
    estimator(floats[1], levels[0])
    np.testing.assert_array_equal(
        estimator(floats[0], floats[1]), Brox(BroxParameters())(floats[0], floats[1])
    )


@each
def test_videos_and_single_calls_of_other_sizes_do_not_mix(make: Make) -> None:
    video, other = turning_frames(5), turning_frames(4, 50, 40)
    expected = [(p.forward, p.backward) for p in make().pairs(video)]
    small = [(p.forward, p.backward) for p in make().pairs(other)]
    estimator = make()
    both = zip(estimator.pairs(video), estimator.pairs(other), strict=False)
    for number, (one, two) in enumerate(both):
        estimator(other[0], other[1])
        np.testing.assert_array_equal((one.forward, one.backward), expected[number])
        np.testing.assert_array_equal((two.forward, two.backward), small[number])


@each
def test_a_video_takes_the_memory_of_the_one_before(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, estimator = turning_frames(5), make()
    prepared = count_prepared(estimator, monkeypatch)
    for _ in range(3):
        list(estimator.pairs(video))
    # A video that is broken off gives its memory back too.
    next(estimator.pairs(video))
    list(estimator.pairs(video))
    assert len(set(prepared)) == 2
