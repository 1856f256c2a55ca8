"""`flowprep fuse`: a table of the streams and their fusions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowprep.learn.fuse import fuse_scores
from flowprep.learn.scores import Scores, softmax, write_scores
from tests.cli.conftest import Command

NAMES = ("fall", "run", "stand")
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes scores of 30 videos that are right more often than not; returns their folder."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, stream: str, seed: int, prefix: str = "v", labelled: bool = True) -> Path:
        rng = np.random.default_rng(seed)
        labels = np.arange(30) % 3
        logits = rng.normal(0, 1, (30, 3)) + 2 * np.eye(3)[labels]
        keys = tuple(f"{prefix}{number:02d}" for number in range(30))
        known = labels if labelled else np.full(30, -1)
        write_scores(Scores(keys, known, logits, softmax(logits), NAMES, stream), name)
        return Path(name)

    return write


def row(scores: Scores) -> str:
    values = scores.metrics()
    return (
        f"  {100 * values['top1']:5.1f} %  {100 * values['top5']:5.1f} %"
        f"     {100 * values['mean_class_accuracy']:5.1f} %"
    )


def test_table_of_streams_and_mean(flowprep: Command, make: Make, tmp_path: Path) -> None:
    rgb, flow = make("rgb", "rgb", 0), make("flow", "flow", 1)
    result = flowprep("fuse", rgb, flow / "scores.npz")
    assert (result.code, result.stderr) == (0, "")
    streams = [Scores.load(rgb), Scores.load(flow)]
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["30", "videos", "top-1", "top-5", "mean", "class"]
    assert [line.split("  ")[0] for line in lines] == ["rgb", "flow", "mean"]
    for line, scores in zip(lines, [*streams, fuse_scores(streams)], strict=True):
        assert line.endswith(row(scores))
    assert {len(line) for line in lines} == {len(head)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow", "rgb"]


def test_all_methods_are_written(flowprep: Command, make: Make) -> None:
    streams = [make("rgb", "rgb", 0), make("flow", "flow", 1)]
    train = [make("rgb-train", "rgb", 2, "t"), make("flow-train", "flow", 3, "t")]
    options = [word for path in train for word in ("--train-scores", path)]
    result = flowprep("fuse", *streams, "--method", "all", *options, "--to", "out")
    assert (result.code, result.stderr) == (0, "")
    loaded = [Scores.load(path) for path in streams]
    for method in ("mean", "weighted", "logits", "svm"):
        written = Scores.load(f"out/{method}")
        expected = fuse_scores(loaded, method, train=[Scores.load(path) for path in train])  # type: ignore[arg-type]
        np.testing.assert_allclose(written.logits, expected.logits)
        assert written.source["fusion"] == method
        assert [part["file"] for part in written.source["streams"]] == ["rgb", "flow"]
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{method}  ")]
        assert line.endswith(row(expected))
        assert Path(f"out/{method}/confusion.png").exists()
        assert f"{method} written to out/{method}\n" in result.stdout


def test_all_leaves_out_what_cannot_be_computed(flowprep: Command, make: Make) -> None:
    streams = [make("one", "flow", 0), make("two", "flow", 1)]
    result = flowprep("fuse", *streams, "--method", "all")
    assert result.code == 0
    notes = result.stderr.splitlines()
    assert notes[0].startswith("note: weighted is left out: --weights must be given for ")
    assert notes[1].startswith("note: svm is left out: --train-scores must be given for ")
    assert len(notes) == 2
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert names[1:] == ["flow", "flow", "mean", "logits"]


def test_weights(flowprep: Command, make: Make) -> None:
    streams = [make("rgb", "rgb", 0), make("flow", "flow", 1)]
    loaded = [Scores.load(path) for path in streams]
    for method in ("mean", "weighted"):
        options = ("--method", method, "--weights", "1,2.5", "--to", "out")
        assert flowprep("fuse", *streams, *options).code == 0
        expected = fuse_scores(loaded, method, weights=[1, 2.5])  # type: ignore[arg-type]
        np.testing.assert_allclose(Scores.load("out").probabilities, expected.probabilities)


def test_without_labels_there_is_no_table(flowprep: Command, make: Make) -> None:
    streams = [make(name, name, 0, labelled=False) for name in ("rgb", "flow")]
    result = flowprep("fuse", *streams, "--to", "out")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == (
        "30 videos, none of them with a label: nothing can be measured\nmean written to out\n"
    )
    assert Scores.load("out").stream == "rgb+flow"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("rgb",), 2, "Error: a fusion needs the scores of two streams or more, got 1"),
        (("rgb", "no"), 1, "Error: no scores at no; name a folder that `flowprep evaluate` wrote"),
        (
            ("rgb", "other"),
            1,
            "Error: other (flow) has no scores for 30 of the videos of rgb (rgb): v00, v01",
        ),
        (("rgb", "flow", "--method", "svm"), 2, "Error: --train-scores must be given for method"),
        (("rgb", "flow", "--weights", "1"), 2, "Error: --weights must be one for each of the 2"),
        (("rgb", "flow", "--weights", "a,b"), 2, "is not numbers with commas between"),
        (("rgb", "flow", "--method", "men"), 2, "did you mean mean?"),
        ((), 2, "Missing argument 'SCORES...'"),
    ],
)
def test_mistakes(
    flowprep: Command, make: Make, arguments: tuple[str, ...], code: int, message: str
) -> None:
    make("rgb", "rgb", 0)
    make("flow", "flow", 1)
    make("other", "flow", 1, "w")
    result = flowprep("fuse", *arguments)
    assert (result.code, result.stdout) == (code, "")
    assert message in result.stderr


def test_damaged_scores(flowprep: Command, make: Make) -> None:
    rgb, flow = make("rgb", "rgb", 0), make("flow", "flow", 1)
    data = (flow / "scores.npz").read_bytes()
    (flow / "scores.npz").write_bytes(data[:-100])
    result = flowprep("fuse", rgb, flow)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: flow is damaged, or not scores of flowprep: ")
