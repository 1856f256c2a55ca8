"""Measures by hand, and files that survive or say what is wrong with them."""

from __future__ import annotations

import csv
import io
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowprep.errors import DatasetError
from flowprep.learn.confusion import confusion_csv, confusion_png
from flowprep.learn.scores import Scores, softmax, write_scores

NAMES = ("climb", "dive", "fall", "jump", "run", "stand", "swim")


def make_scores(
    probabilities: list[list[float]], labels: list[int], names: tuple[str, ...] = NAMES
) -> Scores:
    values = np.array(probabilities)
    keys = tuple(f"video{number}" for number in range(len(labels)))
    return Scores(
        keys, np.array(labels), np.log(values + 1e-9), values, names, "flow", {"split": "test"}
    )


@pytest.fixture
def scores() -> Scores:
    """Four videos of class 0 (right, second, sixth, right), one of class 2 (last), one unknown."""
    return make_scores(
        [
            [0.40, 0.20, 0.10, 0.10, 0.10, 0.05, 0.05],
            [0.30, 0.40, 0.10, 0.10, 0.05, 0.03, 0.02],
            [0.05, 0.30, 0.20, 0.20, 0.12, 0.10, 0.03],
            [0.90, 0.02, 0.02, 0.02, 0.02, 0.01, 0.01],
            [0.50, 0.20, 0.01, 0.09, 0.08, 0.07, 0.05],
            [0.10, 0.10, 0.10, 0.40, 0.10, 0.10, 0.10],
        ],
        [0, 0, 0, 0, 2, -1],
    )


def test_measures_by_hand(scores: Scores) -> None:
    assert scores.predictions.tolist() == [0, 1, 1, 0, 0, 3]
    assert scores.metrics() == {
        "top1": 2 / 5,
        "top5": 3 / 5,
        "mean_class_accuracy": (2 / 4 + 0) / 2,
    }
    expected = np.zeros((7, 7), np.int64)
    expected[0, :2] = 2
    expected[2, 0] = 1
    np.testing.assert_array_equal(scores.confusion(), expected)
    assert scores.confusion().dtype == np.int64


def test_top5_of_two_classes_is_everything() -> None:
    scores = make_scores([[0.9, 0.1], [0.8, 0.2]], [1, 0], ("a", "b"))
    assert scores.metrics() == {"top1": 0.5, "top5": 1.0, "mean_class_accuracy": 0.5}


def test_of_equal_classes_the_first_counts() -> None:
    # A network that says nothing must not be right about everything.
    scores = make_scores([[0.25] * 4] * 4, [0, 1, 2, 3], ("a", "b", "c", "d"))
    assert scores.metrics()["top1"] == 1 / 4


def test_summary(scores: Scores) -> None:
    assert scores.summary().splitlines() == [
        "  videos               6, 5 of them with a label and measured",
        "  top-1                40.0 %",
        "  top-5                60.0 %",
        "  mean class accuracy  25.0 %",
        "  worst classes",
        "      0.0 %  fall (0 of 1)",
        "     50.0 %  climb (2 of 4)",
        "  most frequent confusions",
        "        2    climb taken for dive",
        "        1    fall taken for climb",
    ]
    perfect = make_scores([[0.9, 0.1], [0.2, 0.8]], [0, 1], ("a", "b"))
    assert perfect.summary().splitlines() == [
        "  videos               2",
        "  top-1                100.0 %",
        "  top-5                100.0 %",
        "  mean class accuracy  100.0 %",
    ]
    assert make_scores([[0.9, 0.1]], [-1], ("a", "b")).summary() == (
        "  videos               1, 0 of them with a label and measured"
    )


def test_softmax() -> None:
    values = softmax(np.array([[0.0, np.log(3)], [1000.0, 1000.0], [-1e9, 0.0]]))
    np.testing.assert_allclose(values, [[0.25, 0.75], [0.5, 0.5], [0, 1]], atol=1e-12)


def test_files_round_trip(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "scores.npz")
    for path in (tmp_path, tmp_path / "scores.npz"):
        read = Scores.load(path)
        assert (read.keys, read.class_names, read.stream) == (scores.keys, NAMES, "flow")
        assert read.source == {"split": "test"}
        np.testing.assert_array_equal(read.labels, scores.labels)
        np.testing.assert_array_equal(read.logits, scores.logits)
        np.testing.assert_array_equal(read.probabilities, scores.probabilities)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no scores at .*nowhere; name a folder that"):
        Scores.load(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no scores at"):
        Scores.load(tmp_path)


def test_damaged_file_says_so(scores: Scores, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    scores.save(path)
    data = path.read_bytes()
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        with pytest.raises(DatasetError, match=r"scores\.npz is damaged, or not scores"):
            Scores.load(path)
    for place in range(0, len(data), 41):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        # A byte that nobody looks at may differ; otherwise it is found out.
        try:
            read = Scores.load(path)
        except DatasetError:
            continue
        np.testing.assert_array_equal(read.logits, scores.logits)


def test_foreign_files_are_refused(scores: Scores, tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(DatasetError, match="is damaged, or not scores"):
        Scores.load(path)
    path.write_bytes(pickle.dumps({"keys": []}))
    with pytest.raises(DatasetError, match="is damaged, or not scores"):
        Scores.load(path)
    np.savez(path, header=np.array([{"format": "flowprep-scores"}], dtype=object))
    with pytest.raises(DatasetError, match="is damaged, or not scores"):
        Scores.load(path)
    header = {"format": "flowprep-scores", "format_version": 2}
    np.savez(path, header=np.array(json.dumps(header)))
    with pytest.raises(DatasetError, match="format version 2, this flowprep reads version 1"):
        Scores.load(path)


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "message"),
    [
        ([0, 2], [[0.5, 0.5]] * 2, ("a", "b"), "labels must be < 2, .* got 2 for video1"),
        ([0], [[0.5, 0.5]], ("a", "b", "c"), "must be for the 3 named classes, got 2"),
        ([0, 1], [[0.5, 0.5]], ("a", "b"), r"logits must be \(2, classes\), got \(1, 2\)"),
    ],
)
def test_what_does_not_fit(
    labels: list[int], probabilities: list[list[float]], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        make_scores(probabilities, labels, names)


def test_written_files(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "to")
    names = {path.name for path in (tmp_path / "to").iterdir()}
    assert names == {"scores.npz", "scores.csv", "confusion.csv", "confusion.png"}
    rows = list(csv.DictReader((tmp_path / "to/scores.csv").open()))
    assert rows[1] == {
        "key": "video1",
        "label": "climb",
        "prediction": "dive",
        "probability": "0.400000",
        "label_probability": "0.300000",
    }
    assert (rows[5]["label"], rows[5]["label_probability"]) == ("", "")
    table = list(csv.reader((tmp_path / "to/confusion.csv").open()))
    assert table[0] == ["label", *NAMES]
    assert table[1] == ["climb", "2", "2", "0", "0", "0", "0", "0"]
    unknown = make_scores([[0.9, 0.1]], [-1], ("a", "b"))
    write_scores(unknown, tmp_path / "unknown")
    names = {path.name for path in (tmp_path / "unknown").iterdir()}
    assert names == {"scores.npz", "scores.csv"}


def test_names_survive_csv() -> None:
    names = ['a, "b"', "c\nd"]
    table = list(csv.reader(io.StringIO(confusion_csv(np.eye(2, dtype=np.int64), names))))
    # A line feed is shown, and breaks no line.
    shown = [names[0], r"c\nd"]
    assert table == [["label", *shown], [shown[0], "1", "0"], [shown[1], "0", "1"]]


@pytest.mark.parametrize("num_classes", [2, 8, 101])
def test_picture_shows_the_shares(num_classes: int) -> None:
    # A ring: every label is taken for the next class, but for the last, which has no video.
    counts = np.roll(np.eye(num_classes, dtype=np.int64), 1, axis=1) * 3
    counts[-1] = 0
    names = [f"class_{number}" for number in range(num_classes)]
    names[0] = "$odd_{name"  # which is no formula
    names[1] = "動作"
    png = confusion_png(counts, names, "flow: top-1 0.0 % of 24 videos")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    assert min(height, width) > 9 * num_classes
    assert max(height, width) < 3000
    is_dark_blue = (image[..., 0] > 80) & (image[..., 2] < 40)
    rows, columns = np.nonzero(is_dark_blue)
    # The colour bar, beside many classes, is right of the matrix.
    is_matrix = columns < 0.95 * width
    slope = np.polyfit(columns[is_matrix], rows[is_matrix], 1)[0]
    assert num_classes == 2 or slope == pytest.approx(1, abs=0.1)
    cell = is_dark_blue[:, : int(0.95 * width)].sum() / (num_classes - 1)
    assert cell > 9**2
