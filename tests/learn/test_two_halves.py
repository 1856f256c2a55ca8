"""Classes of which appearance gives one half and motion the other: only both streams tell them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.read import FlowDataset
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.config import ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.network_options import TwoStreamFusionOptions
from flowprep.learn.networks import NETWORKS
from flowprep.learn.recipes import default_config
from flowprep.learn.scores import Scores
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.run.driver import run_extract
from flowprep.synthetic import write_action_dataset
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

ACTIONS, LOOKS = ("move_left", "move_right"), ("red", "blue")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> FlowDataset:
    """Two actions in two looks: 4 classes of 12 training videos and 4 test videos."""
    root = tmp_path_factory.mktemp("halves")
    write_action_dataset(
        root,
        num_videos_per_class=16,
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
    dataset: FlowDataset,
    run: Path,
    spec: ModelSpec,
    stream: StreamName,
    num_frames: int,
    learning_rate: float = 0.01,
) -> Scores:
    """Trains a network and returns its scores of the test videos."""
    clip = default_config(spec.model, stream).clip
    config = TrainConfig(
        spec,
        dataclasses.replace(
            clip,
            num_frames=num_frames,
            frame_stride=1,
            crop_px=44,
            resize_short_px=None,
            subtract_mean_flow=False,
        ),
        AugmentSpec("random", flip=False),
        OptimizationSpec(
            num_steps=50,
            batch_size=12,
            optimizer="adamw",
            learning_rate=learning_rate,
            warmup=0.2,
        ),
        test_split="none",
    )
    options = TrainOptions(num_loaders=0, device="cpu", tensorboard=False)
    train([dataset], run, config, options)
    checkpoint = load_checkpoint(run / "last.pt")
    scores, _ = evaluate(dataset, checkpoint, ViewSpec(3, 1), device="cpu", num_loaders=0)
    return scores


@pytest.fixture(scope="module")
def alone(halves: FlowDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scores, Scores]:
    """The scores of a network over frames, and of one over flow."""
    root = tmp_path_factory.mktemp("alone")
    spec = ModelSpec("resnet18", width=0.125)
    rgb = learned(halves, root / "rgb", spec, "rgb", 1)
    return rgb, learned(halves, root / "flow", spec, "flow", 4)


def test_each_stream_alone_learns_its_half(alone: tuple[Scores, Scores]) -> None:
    for half, scores in enumerate(alone):
        assert scores.metrics()["top1"] <= 0.6
        names = np.array([name.split("_", 1) for name in scores.class_names])
        found = names[scores.logits.argmax(1), half]
        assert np.mean(found == names[scores.labels, half]) >= 0.95
    assert fuse_scores(list(alone)).metrics()["top1"] >= 0.95


BOTH = {
    "two-stream-fusion": ModelSpec(
        "two-stream-fusion",
        width=0.1,
        dropout=0.2,
        options=TwoStreamFusionOptions(backbone="cnn-m-2048"),
    ),
    "i3d-fused": ModelSpec("i3d-fused", width=0.125, dropout=0.2),
}


def test_every_network_of_both_streams_is_here() -> None:
    assert set(BOTH) == {name for name, entry in NETWORKS.items() if "both" in entry.inputs}


@pytest.mark.parametrize("name", BOTH)
def test_both_streams_tell_what_neither_does_alone(
    halves: FlowDataset, alone: tuple[Scores, Scores], name: str, tmp_path: Path
) -> None:
    both = learned(halves, tmp_path / "both", BOTH[name], "both", 3, learning_rate=0.004)
    assert len(both.keys) == 16
    assert both.metrics()["top1"] >= 0.95
    assert all(scores.metrics()["top1"] <= 0.6 for scores in alone)
