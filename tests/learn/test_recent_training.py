"""Trainings with everything that recent recipes have: interrupted, tested, and gone on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigMismatchError, WeightsError
from flowprep.learn.checkpoint import load_checkpoint, save_checkpoint
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.evaluate import evaluate
from flowprep.learn.recipes import VIEWS
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from tests.learn.test_train import QUIET, assert_equal, change, metrics, stop_after, weights
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

RECENT = TrainConfig(
    ModelSpec("resnet18", width=0.0625),
    ClipSpec("rgb", 1, crop_px=32),
    AugmentSpec(rand_augment=(2, 9), random_erasing=0.5, mixup=0.8, cutmix=1.0),
    OptimizationSpec(
        8,
        accumulate=2,
        num_steps=4,
        learning_rate=0.05,
        label_smoothing=0.1,
        class_weights="inverse",
        layer_decay=0.7,
        classifier_rate=2.0,
        drop_path=0.3,
        ema_decay=0.6,
    ),
)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture(scope="module")
def whole(dataset: FlowDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("recent")
    train([dataset], run, RECENT, QUIET)
    return run


def test_no_interruption_shows(dataset: FlowDataset, whole: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train([dataset], tmp_path, RECENT, QUIET, is_stop_asked=stop_after(number))
    train([dataset], tmp_path, RECENT, QUIET)
    for name in ("last.pt", "best.pt"):
        assert_equal(weights(tmp_path, name), weights(whole, name))
    one, other = (load_checkpoint(run / "last.pt").training for run in (tmp_path, whole))
    assert one is not None
    assert other is not None
    assert one.raw is not None
    assert other.raw is not None
    assert_equal(one.raw, other.raw)
    assert metrics(tmp_path) == metrics(whole)


def test_tests_and_later_commands_take_the_average(dataset: FlowDataset, whole: Path) -> None:
    last = load_checkpoint(whole / "last.pt")
    assert last.training is not None
    assert last.training.raw is not None
    assert not torch.equal(last.training.raw["fc.weight"], last.model["fc.weight"])
    scores, notes = evaluate(
        dataset, last, VIEWS["center"], device="cpu", num_loaders=0, progress=False
    )
    assert [note for note in notes if "average over the training (--ema-decay 0.6)" in note]
    right = (scores.logits.argmax(1) == scores.labels).mean()
    tested = [row for row in metrics(whole) if row["split"] == "test" and row["step"] == "4"]
    assert float(tested[0]["top1"]) == pytest.approx(right, abs=1e-6)
    lacking = dataclasses.replace(last, training=dataclasses.replace(last.training, raw=None))
    save_checkpoint(whole / "lacking.pt", lacking)
    with pytest.raises(WeightsError, match="training must have raw weights"):
        load_checkpoint(whole / "lacking.pt")


@pytest.mark.parametrize(
    ("name", "value"),
    [("mixup", 0.0), ("rand_augment", (1, 9)), ("drop_path", 0.1), ("ema_decay", None)],
)
def test_other_values_are_refused_with_both(
    dataset: FlowDataset, whole: Path, name: str, value: object
) -> None:
    with pytest.raises(ConfigMismatchError) as caught:
        train([dataset], whole, change(RECENT, **{name: value}), QUIET)
    (found,) = caught.value.differences
    assert found.endswith(name)


def test_clips_of_several_labels_and_heads_are_mixed(dataset: FlowDataset, tmp_path: Path) -> None:
    spec = OptimizationSpec(8, num_steps=2, learning_rate=0.01, loss="bce")
    config = TrainConfig(
        ModelSpec("resnet18", width=0.0625),
        ClipSpec("flow", 2, crop_px=32),
        AugmentSpec(mixup=0.8, cutmix=1.0, random_erasing=0.5),
        spec,
    )
    samples = TrainingClips([dataset], config, config.inputs, losses=["bce"]).batch(range(4))
    assert samples["partner"]["targets"][0].shape == samples["targets"][0].shape == (4, 8)
    both = [dataset, open_dataset(dataset.location)]
    report = train(both, tmp_path, config, QUIET)
    assert report.num_steps == 2
    assert report.loss is not None
    # Two heads of sigmoids at about one half.
    assert 0.5 < report.loss < 3
