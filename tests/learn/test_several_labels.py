"""Videos that show two motions: trained with all labels at once, or with a head for each kind."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep import open_dataset
from flowprep.cli import main
from flowprep.errors import ConfigError, ConfigMismatchError
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions
from flowprep.learn.head_scores import joint_accuracy
from flowprep.learn.scores import Scores
from flowprep.learn.train import train
from flowprep.learn.train_report import TrainReport
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from tests.learn.several_labels import MOVES, ZOOMS, extract_pairs
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

OPTIONS = TrainOptions(
    num_loaders=0, device="cpu", log_every=10, test_every_epochs=100, tensorboard=False
)
CONFIG = TrainConfig(
    ModelSpec("resnet18", width=0.25),
    ClipSpec("flow", 6, crop_px=40),
    AugmentSpec(flip=False),
    OptimizationSpec(16, num_steps=40, optimizer="adamw", learning_rate=0.004, warmup=0.2),
)
SHORT = dataclasses.replace(
    CONFIG, optimization=dataclasses.replace(CONFIG.optimization, num_steps=4, batch_size=4)
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_pairs(tmp_path_factory.mktemp("pairs"), num_videos_per_pair=8, alone=2)


@pytest.fixture(scope="module")
def both(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainReport]:
    run = tmp_path_factory.mktemp("both") / "run"
    options = dataclasses.replace(OPTIONS, tensorboard=True)
    return run, train([open_dataset(pairs, labels="both")], run, CONFIG, options)


@pytest.fixture(scope="module")
def heads(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("heads") / "run"
    train([open_dataset(pairs, labels=name) for name in ("move", "zoom")], run, CONFIG, OPTIONS)
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def call(*arguments: object, code: int = 0) -> str:
    """Runs `flowprep ARGUMENTS...` in this process; returns stdout, or stderr of a failure."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as end,
    ):
        main([str(argument) for argument in arguments])
    assert end.value.code == code, stderr.getvalue()
    return stderr.getvalue() if code else stdout.getvalue()


# ---- several labels


def test_two_labels_train_to_a_high_map(both: tuple[Path, TrainReport]) -> None:
    run, report = both
    assert report.score is not None
    assert report.score > 0.95
    assert (report.measure, report.top1, report.best_score) == ("mAP", None, report.score)
    assert any("have several labels" in note for note in report.notes)
    assert "test mAP      " in report.summary()
    assert report.num_videos == 4 * 6 + 4 * 2
    last = rows(run)[-1]
    assert (last["split"], last["top1"], float(last["mAP"])) == ("test", "", report.score)
    assert all(row["mAP"] == row["top1"] == "" for row in rows(run) if row["split"] == "train")

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("test/mAP")] == pytest.approx([report.score])
    assert "test/top1" not in events.Tags()["scalars"]


def test_evaluate_predict_and_fuse_say_all_labels(
    both: tuple[Path, TrainReport], pairs: Path, tmp_path: Path
) -> None:
    run, report = both
    task = load_checkpoint(run / "best.pt").tasks[0]
    assert (task.loss, task.labels, task.data) == ("bce", "both", None)
    center = ("--views", "center", "--loaders", 0, "--device", "cpu")
    told = call("evaluate", pairs, "--checkpoint", run, "--labels", "both", *center)
    scores = Scores.load(run / "both-test-center")
    assert scores.targets is not None
    assert scores.targets.sum() == 2 * 8
    assert scores.metrics()["mean_average_precision"] == report.score
    assert f"mAP                  {100 * scores.metrics()['mean_average_precision']:.1f} %" in told
    assert "top-1" not in told
    names = sorted(path.name for path in (run / "both-test-center").iterdir())
    assert names == ["average_precision.csv", "scores.csv", "scores.npz"]
    with open(run / "both-test-center/scores.csv", newline="") as file:
        labels = {row["label"] for row in csv.DictReader(file)}
    assert labels == {f"{move}; {zoom}" for move in MOVES for zoom in ZOOMS}
    expected = 1 / (1 + np.exp(-scores.logits))
    np.testing.assert_allclose(scores.probabilities, expected, rtol=1e-6)  # of one view

    folder = run / "both-test-center"
    fused = call("fuse", folder, folder, "--method", "all", "--weights", "1,2", "--to", tmp_path)
    assert "mAP  weighted mAP" in fused
    mean = Scores.load(tmp_path / "mean")
    np.testing.assert_allclose(mean.probabilities, scores.probabilities, rtol=1e-12)
    np.testing.assert_allclose(1 / (1 + np.exp(-mean.logits)), mean.probabilities, rtol=1e-9)

    video = pairs.parent / "videos/000.mp4"
    predict = ("predict", video, "--checkpoint", run, "--views", "center", "--device", "cpu")
    said = json.loads(call(*predict, "--json"))
    shares = [one["probability"] for one in said[0]["classes"]]
    assert {one["name"] for one in said[0]["classes"][:2]} == {"move_left", "zoom_in"}
    assert sum(shares) > 1.2  # a softmax would sum to 1
    told = call(*predict, "--threshold", ".5")
    assert len(told.splitlines()) == 1 + sum(share >= 0.5 for share in shares)


def test_cross_entropy_leaves_out_videos_with_several_labels(pairs: Path, tmp_path: Path) -> None:
    spec = dataclasses.replace(SHORT.optimization, loss="cross-entropy")
    config = dataclasses.replace(SHORT, optimization=spec, test_split="none")
    report = train([open_dataset(pairs, labels="both")], tmp_path / "one", config, OPTIONS)
    assert report.num_videos == 8
    assert "left out 24 videos of the training split without a label or with several" in "".join(
        report.notes
    )
    spec = dataclasses.replace(SHORT.optimization, loss="bce")
    config = dataclasses.replace(SHORT, optimization=spec)
    report = train([open_dataset(pairs, labels="move")], tmp_path / "bce", config, OPTIONS)
    assert report.measure == "mAP"
    assert not any("several labels, so" in note for note in report.notes)


@pytest.mark.parametrize(
    ("balance", "weights", "name"), [(True, None, "balance"), (False, "inverse", "class_weights")]
)
def test_what_needs_one_label_is_refused(
    pairs: Path, tmp_path: Path, balance: bool, weights: str | None, name: str
) -> None:
    spec = dataclasses.replace(SHORT.optimization, class_weights=weights)
    config = dataclasses.replace(SHORT, optimization=spec, balance=balance)
    with pytest.raises(ConfigError, match=f"{name} needs one label for each video"):
        train([open_dataset(pairs, labels="both")], tmp_path, config, OPTIONS)


# ---- several heads


def test_heads_share_the_clips_and_their_losses_are_added(heads: Path) -> None:
    checkpoint = load_checkpoint(heads / "last.pt")
    assert [(task.name, task.labels, task.data) for task in checkpoint.tasks] == [
        ("move", "move", "pairs"),
        ("zoom", "zoom", "pairs"),
    ]
    tests = {row["data"]: row for row in rows(heads) if row["split"] == "test"}
    assert list(tests) == ["move", "zoom", "move+zoom"]
    losses = {name: float(row["loss"]) for name, row in tests.items()}
    assert losses["move+zoom"] == pytest.approx(losses["move"] + losses["zoom"], rel=1e-4)
    shares = {name: float(row["top1"]) for name, row in tests.items()}
    assert max(0.7, shares["move"] + shares["zoom"] - 1) <= shares["move+zoom"] + 1e-9
    assert shares["move+zoom"] <= min(shares["move"], shares["zoom"])
    (first, *_) = (float(row["top1"]) for row in rows(heads) if row["split"] == "train")
    assert 0.2 < first < 1  # both right


def test_evaluate_and_predict_say_every_head(heads: Path, pairs: Path) -> None:
    center = ("--views", "center", "--loaders", 0, "--device", "cpu")
    told = call("evaluate", pairs, "--checkpoint", heads, *center)
    scores = [Scores.load(heads / "test-center" / name) for name in ("move", "zoom")]
    assert [one.class_names for one in scores] == [MOVES, ZOOMS]
    action = joint_accuracy(scores)
    last = [row for row in rows(heads) if row["split"] == "test"][-1]
    assert float(last["top1"]) == pytest.approx(action)
    assert f"move and zoom\n  all right            {100 * action:.1f} %" in told
    with open(heads / "test-center/all.csv", newline="") as file:
        right = [row["right"] for row in csv.DictReader(file)]
    assert right.count("yes") / len(right) == pytest.approx(action)
    call("evaluate", pairs, "--checkpoint", heads, "--task", "zoom", *center)
    alone = Scores.load(heads / "zoom-test-center")
    np.testing.assert_allclose(alone.logits, scores[1].logits, rtol=1e-6)

    video = pairs.parent / "videos/000.mp4"
    predict = ("predict", video, "--checkpoint", heads, "--views", "center", "--device", "cpu")
    lines = call(*predict).splitlines()
    assert [lines[1], lines[4]] == [" move", " zoom"]
    assert {lines[2].split()[-1], lines[3].split()[-1]} == set(MOVES)
    said = json.loads(call(*predict, "--task", "zoom", "--json"))
    assert {one["name"] for one in said[0]["classes"]} == set(ZOOMS)


def test_another_number_of_labels_is_refused(heads: Path, pairs: Path) -> None:
    told = call("evaluate", pairs, "--checkpoint", heads, "--labels", "both", code=2)
    assert "one name for each of the network's label sets (move, zoom)" in told


# ---- going on


@pytest.mark.parametrize("names", [("both",), ("move", "zoom")])
def test_an_interrupted_training_ends_with_the_same_weights(
    pairs: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    datasets = [open_dataset(pairs, labels=name) for name in names]
    train(datasets, tmp_path / "whole", SHORT, OPTIONS)
    asked = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        train(
            *(datasets, tmp_path / "cut", SHORT, OPTIONS), is_stop_asked=lambda: next(asked, True)
        )
    assert 0 < load_checkpoint(tmp_path / "cut/last.pt").step < 4
    train(datasets, tmp_path / "cut", SHORT, OPTIONS)
    whole, cut = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert all(torch.equal(cut.model[name], value) for name, value in whole.model.items())
    drop = ("clips_per_second", "seconds")
    assert [{k: v for k, v in row.items() if k not in drop} for row in rows(tmp_path / "cut")] == [
        {k: v for k, v in row.items() if k not in drop} for row in rows(tmp_path / "whole")
    ]
    other = [open_dataset(pairs, labels=name) for name in reversed((*names, "both")[:2])]
    with pytest.raises(ConfigMismatchError):
        train(other, tmp_path / "cut", SHORT, OPTIONS)
