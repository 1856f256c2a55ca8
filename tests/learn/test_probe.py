"""A linear classifier on features: its numbers, its data, and what it says of bad data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]
from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits

from flowprep.dataset.read import open_dataset
from flowprep.dataset.relabel import label_dataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn import linear_classifier
from flowprep.learn.features_files import VideoFeatures
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.probe import default_probe_folder, probe, write_probe
from flowprep.learn.probe_spec import ClassifierName, ProbeSpec
from flowprep.learn.scores import Scores

CLASSES = ("run", "walk", "sit")


class Features:
    """Features in memory, for what only reads them."""

    def __init__(
        self,
        videos: Sequence[VideoFeatures],
        class_names: Sequence[str] = CLASSES,
        data: str | None = None,
    ) -> None:
        self._videos = videos
        self.class_names = tuple(class_names)
        self.location = "features"
        self.streams = tuple(videos[0].features) if videos else ("flow",)
        self.config = {"window": 16}
        self.content = {} if data is None else {"data": data}

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._videos)


def video(
    key: str,
    features: Mapping[str, NDArray[np.float64]],
    labels: tuple[int, ...] = (),
    split: str | None = None,
) -> VideoFeatures:
    count = len(next(iter(features.values())))
    times = np.arange(count, dtype=np.float64)
    arrays = {name: array.astype(np.float32) for name, array in features.items()}
    return VideoFeatures(key, arrays, times, times + 1, labels, split)


def blobs(
    num_per_class: int = 8, *, seed: int = 0, noise: float = 0.3, num_classes: int = 3
) -> list[VideoFeatures]:
    """Videos whose flow tells the class and whose rgb does not. Every fourth is for the test."""
    rng = np.random.default_rng(seed)
    centers = 3 * np.eye(num_classes, 10)
    return [
        video(
            f"{CLASSES[label]}/v_{label}_g{n // 2 + 1:02d}_c{n % 2 + 1:02d}",
            {
                "flow": centers[label] + noise * rng.normal(size=(rng.integers(1, 6), 10)),
                "rgb": rng.normal(size=(4, 5)),
            },
            (label,),
            "test" if n % 4 == 3 else "train",
        )
        for label in range(num_classes)
        for n in range(num_per_class)
    ]


def probed(videos: Sequence[VideoFeatures], spec: ProbeSpec | None = None, **options: object):  # type: ignore[no-untyped-def]
    features = Features(videos)
    return probe(features, spec, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Features may be in memory. Tiny problems of linear algebra take one thread."""
    monkeypatch.setattr("flowprep.learn.probe.FeatureSet", Features)
    with threadpool_limits(1):
        yield


@pytest.mark.parametrize(("classifier", "c"), [("svm", 1.0), ("svm", None), ("logistic", 1.0)])
def test_classes_that_features_tell(classifier: ClassifierName, c: float | None) -> None:
    result = probed(blobs(), ProbeSpec(classifier, c=c), stream="flow")
    assert result.metrics == {"top1": 1.0, "top5": 1.0, "mean_class_accuracy": 1.0}
    assert result.train_accuracy == 1
    assert (result.num_train, len(result.scores.keys)) == (18, 6)
    np.testing.assert_allclose(result.scores.probabilities.sum(axis=1), 1)
    # Of equal ones, the strongest regularization.
    if c is None:
        assert result.cross_validation is not None
        best = max(result.cross_validation.values())
        assert result.c == min(k for k, v in result.cross_validation.items() if v == best)


def test_protocol_of_c3d_by_hand() -> None:
    videos = blobs(noise=2.0)

    def vector(one: VideoFeatures) -> NDArray[np.float64]:
        streams = [np.asarray(x, np.float64).mean(axis=0) for x in one.features.values()]
        return np.concatenate([x / np.linalg.norm(x) for x in streams])

    train = [one for one in videos if one.split == "train"]
    test = [one for one in videos if one.split == "test"]
    svm = LinearSVC(C=1.0, dual="auto", max_iter=10000, random_state=0)
    svm.fit([vector(one) for one in train], [one.labels[0] for one in train])
    result = probed(videos)
    assert result.scores.keys == tuple(one.key for one in test)
    assert result.scores.stream == "flow+rgb"
    expected = svm.decision_function([vector(one) for one in test])
    np.testing.assert_allclose(result.scores.logits, expected, rtol=1e-6)


def test_a_map_counts_as_its_mean() -> None:
    pooled = blobs()
    maps = [
        video(
            one.key,
            # The mean over 2 places is the vector itself.
            {"flow": np.stack([one.features["flow"] - 1.0, one.features["flow"] + 1.0], axis=2)},
            one.labels,
            one.split,
        )
        for one in pooled
    ]
    np.testing.assert_allclose(
        probed(maps).scores.logits, probed(pooled, stream="flow").scores.logits, atol=1e-5
    )


def test_equal_seeds_agree_and_scores_fuse(tmp_path: Path) -> None:
    videos = blobs(noise=1.5)
    first, second = (probed(videos, ProbeSpec(c=None, seed=3), stream="flow") for _ in range(2))
    np.testing.assert_array_equal(first.scores.logits, second.scores.logits)
    assert first.cross_validation == second.cross_validation
    write_probe(first, tmp_path / "flow")
    write_probe(probed(videos, stream="rgb"), tmp_path / "rgb")
    fused = fuse_scores([Scores.load(tmp_path / name) for name in ("flow", "rgb")], "weighted")
    assert fused.stream == "flow+rgb"
    values = json.loads((tmp_path / "flow/results.json").read_text())
    assert values["metrics"] == first.metrics
    assert values["c"] == first.c
    assert values["cross_validation"] == {f"{c:g}": v for c, v in first.cross_validation.items()}
    assert (tmp_path / "flow/confusion.csv").exists()
    assert default_probe_folder(first) == "features/probe-svm-flow"


def test_two_classes_and_a_class_that_is_only_tested() -> None:
    videos = blobs(num_classes=2)
    for classifier in ("svm", "logistic"):
        result = probed(videos, ProbeSpec(classifier), stream="flow")  # type: ignore[arg-type]
        assert result.metrics["top1"] == 1
        assert (result.scores.predictions < 2).all()
        assert result.notes == ()
    extra = video("sit/x", {name: x * 0 for name, x in videos[0].features.items()}, (2,), "test")
    result = probed([*videos, extra])
    assert result.notes == ("no training video shows sit; test videos of it cannot be told",)


def test_parts_of_a_recording_are_in_one_fold() -> None:
    videos = [one for one in blobs() if one.split == "train"]
    targets = np.eye(3, dtype=bool)[[one.labels[0] for one in videos]]
    keys = [one.key for one in videos]
    folds = list(linear_classifier._folds(targets, keys, 0, False))
    assert len(folds) > 1
    for train, test in folds:
        recordings = [{keys[row].rpartition("_")[0] for row in rows} for rows in (train, test)]
        assert not recordings[0] & recordings[1]
        assert sorted([*train, *test]) == list(range(len(keys)))


@pytest.mark.parametrize(("classifier", "c"), [("svm", 1.0), ("svm", None), ("logistic", 1.0)])
def test_several_labels(classifier: ClassifierName, c: float | None) -> None:
    rng = np.random.default_rng(0)
    has = rng.random((60, 3)) < 0.4
    x = 3 * has @ np.eye(3, 6) + rng.normal(size=(60, 6))
    videos = [
        video(
            f"v{n}",
            {"flow": x[n][None]},
            tuple(np.flatnonzero(has[n]).tolist()),
            "test" if n >= 40 else "train",
        )
        for n in range(60)
    ]
    result = probed(videos, ProbeSpec(classifier, c=c))
    assert result.metrics["mean_average_precision"] > 0.85
    # A video without a label is scored, and measured by nothing.
    assert len(result.scores.keys) == 20
    known = has[40:].any(axis=1)
    assert not known.all()
    for label in range(3):
        scores = result.scores.logits[known, label]
        expected = average_precision_score(has[40:][known, label], scores)
        assert result.precisions[label] == pytest.approx(expected)
    assert set(result.to_dict()["average_precision"]) == set(CLASSES)
    assert "mAP" in result.summary()
    assert ((result.scores.probabilities > 0) & (result.scores.probabilities < 1)).all()


def test_labels_of_a_data_set(motion: Path, tmp_path: Path) -> None:
    dataset = open_dataset(motion)
    rng = np.random.default_rng(0)
    turned = {name: f"any {n // 4}" for n, name in enumerate(dataset.class_names)}
    label_dataset(str(motion), "coarse-probe", rename=turned)
    videos = [
        video(one.key, {"flow": np.eye(2, 4)[one.label // 4] + 0.1 * rng.normal(size=(2, 4))})
        for one in dataset.videos
        if one.label is not None
    ]
    stranger = video("not/there", {"flow": np.ones((1, 4))})
    features = Features([*videos, stranger], ())
    result = probe(features, dataset=motion, labels="coarse-probe")  # type: ignore[arg-type]
    assert result.scores.class_names == ("any 0", "any 1")
    assert result.metrics["top1"] == 1
    assert result.notes[-1].startswith("1 video of features left out, because ")
    assert result.scores.source["labels"] == "coarse-probe"
    # The features know the data set that they were made from.
    known = Features(videos, (), str(motion))
    again = probe(known, labels="coarse-probe")  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.scores.logits, result.scores.logits)
    with pytest.raises(ConfigError, match="was made from raw videos; add --dataset OUT"):
        probe(features, labels="coarse-probe")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="holds none of the videos of features"):
        probe(Features([stranger]), dataset=motion)  # type: ignore[arg-type]


def without(videos: Sequence[VideoFeatures], split: str | None, *, labels: bool):  # type: ignore[no-untyped-def]
    """Returns the videos with this split, if it is not None, and perhaps without labels."""
    return [
        video(one.key, one.features, one.labels if labels else (), split)  # type: ignore[arg-type]
        for one in videos
    ]


def test_what_lacks_labels_or_splits() -> None:
    videos = blobs()
    cases: list[tuple[list[VideoFeatures], str]] = [
        (
            without(videos, None, labels=True),
            "has no video of split train, it has 24 of no split; choose another split by "
            "--train-split, or name a data set with splits by --dataset",
        ),
        (
            without(videos, "train", labels=True),
            "has no video of split test, it has 24 of train; choose another split by --test-split",
        ),
        (
            without(videos[:20], "train", labels=False) + without(videos[20:], "test", labels=True),
            "none of the 20 videos of split train has a label in features; name a data set",
        ),
        (
            without(videos[:20], "train", labels=True) + without(videos[20:], "test", labels=False),
            "none of the 4 videos of split test has a label",
        ),
        (
            without(videos[:8], "train", labels=True) + without(videos[20:], "test", labels=True),
            "needs training videos of two classes or more, got 1",
        ),
    ]
    for found, words in cases:
        with pytest.raises(DatasetError) as error:
            probed(found)
        assert words in str(error.value)
    with pytest.raises(ConfigError, match=r"test_split must hold other videos .* got 18 videos"):
        probed(videos, ProbeSpec(test_split="all"))
    some = [*videos, *without([video("x", videos[0].features)], "train", labels=False)]  # type: ignore[arg-type]
    assert probed(some).notes == (
        "1 video of split train left out: no label; give them one by `flowprep label`",
    )


def test_what_is_no_feature_or_option() -> None:
    videos = blobs()
    with pytest.raises(ConfigError, match="stream must be of flow, rgb, which features holds"):
        probed(videos, stream="audio")
    bad = video("bad", {name: x * np.nan for name, x in videos[0].features.items()}, (0,), "train")
    with pytest.raises(DatasetError, match="the flow features of bad are not finite"):
        probed([*videos, bad])
    with pytest.raises(DatasetError, match="holds no video"):
        probed([])
    with pytest.raises(ConfigError, match="c must be > 0, or cv"):
        ProbeSpec(c=0.0)
    with pytest.raises(ConfigError, match="seed must be from 0"):
        ProbeSpec(seed=-1)
    single = [one for one in videos if one.labels != (2,)] + [
        one for one in videos if one.labels == (2,) and (one.split == "test")
    ]
    single.append(video("sit/one", videos[-1].features, (2,), "train"))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="got a class with one; give c a number"):
        probed(single, ProbeSpec(c=None))
