"""Classes of which appearance gives one half and motion the other: only both streams tell them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.read import FlowDataset
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.scores import Scores
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.run.driver import run_extract
from flowprep.synthetic import write_action_dataset
from tests.learn.two_towers import two_towers
from tests.torch_devices import one_thread

__all__ = ["one_thread", "two_towers"]

ACTIONS, LOOKS = ("move_left", "move_right"), ("red", "blue")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> FlowDataset:
    """Two actions in two looks: 4 classes of 6 training videos and 2 test videos."""
    root = tmp_path_factory.mktemp("halves")
    write_action_dataset(
        root,
        num_videos_per_class=8,
        num_frames=9,
        width=64,
        height=48,
        actions=ACTIONS,
        looks=LOOKS,
    )
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")),
        FlowSpec("farneback"),
        EncodeSpec(directions=("forward",)),
    )
    manifest = collect_videos(root / "videos", annotations=root / "annotations")
    options = RunOptions(executor="inline", progress=False)
    assert run_extract(manifest, str(root / "out"), config, options).is_complete
    return flowprep.open_dataset(root / "out")


def learned(
    dataset: FlowDataset, run: Path, model: str, stream: StreamName, num_frames: int, width: float
) -> Scores:
    """Trains a network and returns its scores of the test videos."""
    config = TrainConfig(
        ModelSpec(model, width=width),
        ClipSpec(stream, num_frames, crop_px=40),
        AugmentSpec("random", flip=False),
        OptimizationSpec(
            num_steps=50, batch_size=12, optimizer="adamw", learning_rate=0.01, warmup=0.2
        ),
        test_split="none",
    )
    options = TrainOptions(num_loaders=0, device="cpu", tensorboard=False)
    train([dataset], run, config, options)
    checkpoint = load_checkpoint(run / "last.pt")
    scores, _ = evaluate(dataset, checkpoint, ViewSpec(3, 1), device="cpu", num_loaders=0)
    return scores


def test_both_streams_tell_what_neither_does_alone(
    halves: FlowDataset, two_towers: str, tmp_path: Path
) -> None:
    flow = learned(halves, tmp_path / "flow", "resnet18", "flow", 4, 0.125)
    rgb = learned(halves, tmp_path / "rgb", "resnet18", "rgb", 1, 0.125)
    both = learned(halves, tmp_path / "both", two_towers, "both", 4, 0.25)
    assert len(both.keys) == 8
    assert flow.metrics()["top1"] <= 0.6
    assert rgb.metrics()["top1"] <= 0.6
    assert both.metrics()["top1"] >= 0.95
    assert fuse_scores([flow, rgb]).metrics()["top1"] >= 0.95

    # Each stream alone has learned its half.
    names = np.array([name.split("_", 1) for name in flow.class_names])
    for scores, half in ((rgb, 0), (flow, 1)):
        found = names[scores.logits.argmax(1), half]
        assert np.mean(found == names[scores.labels, half]) >= 0.95
