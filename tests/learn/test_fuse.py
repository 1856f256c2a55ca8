"""Fusions against numbers by hand, and a set that only the SVM can solve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.config import FUSION_METHODS
from flowprep.learn.fuse import align_scores, fuse_scores
from flowprep.learn.scores import Scores, softmax

KEYS = ("a", "b", "c")


def make_scores(
    logits: ArrayLike,
    stream: str,
    keys: Sequence[str] = KEYS,
    labels: Sequence[int] = (0, 1, 1),
    names: Sequence[str] = ("left", "right"),
) -> Scores:
    values = np.array(logits, np.float64)
    return Scores(
        tuple(keys), np.array(labels), values, softmax(values), tuple(names), stream, {"split": "x"}
    )


@pytest.fixture
def streams() -> list[Scores]:
    """rgb gives class 0 odds of 3:1, 1:1, 1:9; flow of 1:1, 9:1, 3:1, in another order."""
    rgb = make_scores(np.log([[3, 1], [1, 1], [1, 9]]), "rgb")
    flow = make_scores(np.log([[3, 1], [1, 1], [9, 1]]), "flow", "cab", (1, 0, 1))
    return [rgb, flow]


def test_mean_of_softmax_by_hand(streams: list[Scores]) -> None:
    fused = fuse_scores(streams)
    # (3/4 + 1/2) / 2, (1/2 + 9/10) / 2, (1/10 + 3/4) / 2
    np.testing.assert_allclose(fused.probabilities[:, 0], [0.625, 0.7, 0.425])
    np.testing.assert_allclose(fused.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(softmax(fused.logits), fused.probabilities)
    assert (fused.keys, fused.labels.tolist(), fused.stream) == (KEYS, [0, 1, 1], "rgb+flow")
    assert fused.metrics()["top1"] == pytest.approx(2 / 3)
    fused = fuse_scores(streams, weights=[3, 1])
    np.testing.assert_allclose(fused.probabilities[:, 0], [0.6875, 0.6, 0.2625])


def test_weighted_before_softmax_by_hand(streams: list[Scores]) -> None:
    fused = fuse_scores(streams, "weighted")
    # TSN: odds of rgb times odds of flow to the power of 1.5.
    odds = np.array([3 * 1, 1 * 27, 3**1.5 / 9])
    np.testing.assert_allclose(fused.probabilities[:, 0], odds / (1 + odds))
    assert fused.source["weights"] == [1.0, 1.5]
    # Weights belong to streams, whatever their order.
    turned = fuse_scores(streams[::-1], "weighted")
    assert turned.source["weights"] == [1.5, 1.0]
    place = [turned.keys.index(key) for key in KEYS]
    np.testing.assert_allclose(turned.logits[place], fused.logits)
    np.testing.assert_allclose(
        fuse_scores(streams, "weighted", weights=[2, 0]).logits, 2 * streams[0].logits
    )


def test_sum_of_logits_by_hand(streams: list[Scores]) -> None:
    fused = fuse_scores(streams, "logits")
    np.testing.assert_allclose(fused.logits, np.log([[3, 1], [9, 1], [3, 9]]))
    np.testing.assert_allclose(fused.probabilities[:, 0], [3 / 4, 9 / 10, 1 / 4])


def test_three_streams(streams: list[Scores]) -> None:
    fused = fuse_scores([*streams, streams[0]])
    expected = 2 / 3 * streams[0].probabilities[0] + 1 / 3 * np.array([0.5, 0.5])
    np.testing.assert_allclose(fused.probabilities[0], expected)
    assert fused.stream == "rgb+flow+rgb"


def test_probability_zero_stays_finite() -> None:
    sure = make_scores([[2000.0, 0]] * 3, "rgb")
    fused = fuse_scores([sure, sure])
    assert np.isfinite(fused.logits).all()
    np.testing.assert_array_equal(fused.probabilities, [[1, 0]] * 3)


def confused(stream: str, num_videos: int, first: int, seed: int, turned: bool) -> Scores:
    """Three classes; if `turned`, the scores of 0 and 1 have changed places, and are sure of it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_videos) % 3
    logits = rng.normal(0, 0.5, (num_videos, 3))
    shown = np.array([1, 0, 2])[labels] if turned else labels
    logits[np.arange(num_videos), shown] += 4 if turned else 1
    keys = [f"video{first + number}" for number in range(num_videos)]
    return make_scores(logits, stream, keys, labels.tolist(), ("a", "b", "c"))


def test_svm_learns_what_averaging_cannot() -> None:
    test = [confused("rgb", 60, 0, 0, True), confused("flow", 60, 0, 1, False)]
    train = [confused("rgb", 90, 100, 2, True), confused("flow", 90, 100, 3, False)]
    for method in ("mean", "weighted", "logits"):
        assert fuse_scores(test, method).metrics()["top1"] < 0.5
    fused = fuse_scores(test, "svm", train=train)
    assert fused.metrics()["top1"] == 1
    np.testing.assert_allclose(fused.probabilities.sum(axis=1), 1)
    # Of training scores in another order of videos the same is learnt.
    shuffled = [train[0], train[1].select(np.random.default_rng(4).permutation(90))]
    np.testing.assert_allclose(
        fuse_scores(test, "svm", train=shuffled).logits, fused.logits, atol=1e-9
    )


def test_svm_of_two_classes(streams: list[Scores]) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    keys = [f"train{number}" for number in range(40)]
    # rgb is right and flow means the opposite.
    rgb = rng.normal(0, 0.1, (40, 2)) + np.eye(2)[labels]
    train = [make_scores(2 * rgb, "rgb", keys, labels), make_scores(-2 * rgb, "flow", keys, labels)]
    sure = [
        make_scores([[2, 0], [0, 2], [0, 2]], "rgb"),
        make_scores([[0, 2], [2, 0], [2, 0]], "flow"),
    ]
    fused = fuse_scores(sure, "svm", train=train)
    assert fused.predictions.tolist() == [0, 1, 1]
    np.testing.assert_allclose(fused.logits.sum(axis=1), 0, atol=1e-12)


def test_svm_without_examples_of_a_class() -> None:
    test = [confused(stream, 9, 0, 5, False) for stream in ("rgb", "flow")]
    train = [confused(stream, 60, 100, 6, False) for stream in ("rgb", "flow")]
    rows = np.flatnonzero(train[0].labels != 2)
    fused = fuse_scores(test, "svm", train=[scores.select(rows) for scores in train])
    assert not (fused.predictions == 2).any()
    np.testing.assert_array_equal(fused.logits[:, 2], -1)
    one = np.flatnonzero(train[0].labels == 1)
    with pytest.raises(DatasetError, match="two classes or more, got 1"):
        fuse_scores(test, "svm", train=[scores.select(one) for scores in train])


def test_videos_are_matched_by_key(streams: list[Scores]) -> None:
    rgb, flow = align_scores(streams)
    assert rgb is streams[0]
    assert flow.keys == KEYS
    np.testing.assert_allclose(flow.logits, np.log([[1, 1], [9, 1], [3, 1]]))
    assert flow.labels.tolist() == [0, 1, 1]


def test_missing_videos_are_named(streams: list[Scores]) -> None:
    rgb, flow = streams
    message = (
        "stream flow has no scores for 1 of the videos of stream rgb: b; test both on the same "
        "videos"
    )
    with pytest.raises(DatasetError, match=message):
        fuse_scores([rgb, flow.select([0, 1])])
    with pytest.raises(
        DatasetError, match="stream flow has no scores for 1 of the videos of stream rgb: b"
    ):
        fuse_scores([flow.select([0, 1]), rgb])
    many = make_scores(np.zeros((9, 2)), "rgb", "abcdefghi", [0] * 9)
    with pytest.raises(DatasetError, match=r"has no scores for 6 .*: d, e, f, g, h and 1 more"):
        fuse_scores([many, rgb])


def test_disagreement_is_refused(streams: list[Scores]) -> None:
    rgb = streams[0]
    other = make_scores(rgb.logits, "flow", labels=(0, 0, 1))
    message = "differ in the labels of 1 videos: b has right and left"
    with pytest.raises(DatasetError, match=message):
        fuse_scores([rgb, other])
    other = make_scores(rgb.logits, "flow", labels=(0, -1, 1))
    with pytest.raises(DatasetError, match="b has right and none"):
        fuse_scores([rgb, other])
    other = make_scores(rgb.logits, "flow", names=("right", "left"))
    with pytest.raises(DatasetError, match="class 0 is left in stream rgb and right in stream fl"):
        fuse_scores([rgb, other])
    other = make_scores(np.zeros((3, 3)), "flow", names=("left", "right", "up"))
    with pytest.raises(DatasetError, match="stream rgb has 2 classes and stream flow 3"):
        fuse_scores([rgb, other])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("median", {}, "method must be one of mean, weighted, logits, svm, got 'median'"),
        ("mean", {"weights": [1]}, "weights must be one for each of the 2 streams, got 1"),
        ("mean", {"weights": [1, -1]}, "weights must be >= 0 and not all 0"),
        ("weighted", {"weights": [0, 0]}, "weights must be >= 0 and not all 0"),
        ("mean", {"weights": [1, float("nan")]}, "weights must be >= 0 and not all 0"),
        ("logits", {"weights": [1, 2]}, "weights are for methods mean and weighted, not for l"),
        ("svm", {}, "train-scores must be given for method svm"),
    ],
)
def test_wrong_options(
    streams: list[Scores], method: str, options: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fuse_scores(streams, method, **options)  # type: ignore[arg-type]


def test_weights_of_unknown_streams_must_be_given(streams: list[Scores]) -> None:
    rgb, flow = streams
    with pytest.raises(ConfigError, match="weights must be given for the streams flow, flow"):
        fuse_scores([flow, flow], "weighted")
    fuse_scores([flow, flow], "weighted", weights=[1, 1])
    with pytest.raises(ConfigError, match="two streams or more, got 1"):
        fuse_scores([rgb])


def test_wrong_training_scores(streams: list[Scores]) -> None:
    labels = [0, 1, 0, 1]
    train = [make_scores(np.zeros((4, 2)), name, "stuv", labels) for name in ("rgb", "flow")]
    with pytest.raises(ConfigError, match="one for each of the 2 streams, got 1"):
        fuse_scores(streams, "svm", train=train[:1])
    with pytest.raises(ConfigError, match="in the order of the streams, got flow for rgb"):
        fuse_scores(streams, "svm", train=train[::-1])
    with pytest.raises(DatasetError, match=r"3 videos are in the training scores .*: a, b, c; "):
        fuse_scores(streams, "svm", train=streams)
    assert list(FUSION_METHODS) == ["mean", "weighted", "logits", "svm"]
