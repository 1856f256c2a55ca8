"""Orders are truths about counts: nobody is left out, and nobody comes more often."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flowprep.dataset.read import FlowDataset
from flowprep.learn.clips.order import BalancedOrder, EpochOrder
from flowprep.learn.clips.training import TrainingClips
from tests.learn.clips.samples import CONFIG, FLOW, taken, with_videos

CLASSES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=20)


@given(CLASSES, st.integers(0, 5))
def test_every_class_comes_once_in_a_round_and_every_video_before_one_comes_again(
    classes: list[tuple[int, int]], seed: int
) -> None:
    order = BalancedOrder(classes, seed)
    num_classes, num_rounds = len(set(classes)), 2 * len(classes)
    found = [order.find(position) for position in range(num_classes * num_rounds)]
    for begin in range(0, len(found), num_classes):
        chosen = [classes[video] for video in found[begin : begin + num_classes]]
        assert sorted(chosen) == sorted(set(classes))
    counts = Counter(found)
    for one in set(classes):
        of_class = [counts[video] for video, other in enumerate(classes) if other == one]
        assert max(of_class) - min(of_class) <= 1
        assert sum(of_class) == num_rounds


@given(CLASSES, st.integers(0, 5), st.permutations(range(30)))
def test_positions_may_be_asked_for_in_any_order(
    classes: list[tuple[int, int]], seed: int, positions: list[int]
) -> None:
    for kind in (lambda: BalancedOrder(classes, seed), lambda: EpochOrder(len(classes), seed)):
        asked, straight = kind(), kind()
        found = {position: asked.find(position) for position in positions}
        assert [found[position] for position in range(30)] == [
            straight.find(position) for position in range(30)
        ]


def test_balanced_samples_follow_from_seed_and_position(dataset: FlowDataset) -> None:
    # Three videos of one class and one of each other.
    changed = with_videos(dataset, labels=(0,))
    samples = TrainingClips([changed], replace(CONFIG, balance=True), [taken(FLOW)])
    num_classes = len(set(samples.classes))
    rounds = [samples[position]["label"] for position in range(2 * num_classes)]
    assert sorted(rounds[:num_classes]) == sorted(rounds[num_classes:])
    assert len(set(rounds)) == num_classes < samples.num_videos
    copied = pickle.loads(pickle.dumps(samples))
    assert copied.find(5 * num_classes) == samples.find(5 * num_classes)
    other = TrainingClips([changed], replace(CONFIG, balance=True, seed=4), [taken(FLOW)])
    assert [other.find(n) for n in range(20)] != [samples.find(n) for n in range(20)]
