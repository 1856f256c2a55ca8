"""The whole way: clips in classes that only motion tells apart, extracted, sharded, learnt.

The temporal stream must tell the classes apart and the spatial stream must not. The way is proved
by what breaks it: channels in another order, and mirrored flow whose u is not negated, must cost
the temporal stream dearly; otherwise the test would not see such mistakes anywhere on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import flowprep
from flowprep.config import DecodeSpec, ExtractConfig, Resize, RunOptions
from flowprep.dataset.read import FlowDataset
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import load_checkpoint, restore_model
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.evaluate import score_videos
from flowprep.learn.features import extract_features
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.probe import probe
from flowprep.learn.probe_spec import ClassifierName, ProbeSpec
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.run.driver import run_extract
from flowprep.synthetic import ACTIONS, write_action_dataset
from tests.learn.clips.samples import taken
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

# No mirrored ones, in which left is right.
VIEWS = ViewSpec(3, 1)

HALF_WIDE = ModelSpec("resnet18", width=0.5)
NUM_FRAMES: dict[StreamName, int] = {"flow": 10, "rgb": 1, "motion": 5}

MIRRORED = {
    "move_left": "move_right",
    "move_right": "move_left",
    "rotate_clockwise": "rotate_counterclockwise",
    "rotate_counterclockwise": "rotate_clockwise",
}
"""What an action is in a mirror; the others stay what they are."""


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> FlowDataset:
    """A data set of all actions, by TV-L1, from video files to shards."""
    root = tmp_path_factory.mktemp("actions")
    write_action_dataset(root, num_videos_per_class=14, num_frames=13, width=80, height=64)
    manifest = collect_videos(root / "videos", annotations=root / "annotations")
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")))
    report = run_extract(manifest, str(root / "out"), config, RunOptions(executor="inline"))
    assert report.is_complete
    return flowprep.open_dataset(root / "out")


@pytest.fixture(scope="module")
def flow_run(actions: FlowDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_stream(actions, "flow", tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def rgb_run(actions: FlowDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_stream(actions, "rgb", tmp_path_factory.mktemp("rgb"))


def train_stream(
    dataset: FlowDataset, stream: StreamName, run: Path, spec: ModelSpec = HALF_WIDE
) -> Path:
    """Trains a ResNet-18, of half the width, for 60 steps, as the command line would."""
    config = TrainConfig(
        spec,
        ClipSpec(stream, NUM_FRAMES[stream], crop_px=56),
        AugmentSpec("random", flip=False),
        OptimizationSpec(num_steps=60, optimizer="adamw", learning_rate=0.004, warmup=0.2),
        test_split="none",
    )
    train([dataset], run, config, TrainOptions(num_loaders=0, tensorboard=False))
    return run / "last.pt"


def accuracy(
    model: torch.nn.Module,
    views: TestViews,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    labels: NDArray[np.int64] | None = None,
) -> float:
    """Returns the share of test videos that the network tells right, after a change of its input.

    `change` takes and returns stacks (N, 2 L, H, W).
    """

    changing = model.register_forward_pre_hook(lambda module, clips: (change(clips[0]),))
    model.eval()
    scores = score_videos(model, views, device="cpu")
    changing.remove()
    expected = scores.labels if labels is None else labels
    return float(np.mean(scores.logits.argmax(1) == expected))


def mirror(x: torch.Tensor) -> torch.Tensor:
    """Mirrors stacks, the right way: u is negated."""
    return without_negation(x) * torch.tensor([-1.0, 1.0]).repeat(x.shape[1] // 2)[:, None, None]


def without_negation(x: torch.Tensor) -> torch.Tensor:
    """Mirrors stacks as if they were pictures."""
    return x.flip(3)


def turned_pairs(x: torch.Tensor) -> torch.Tensor:
    """Changes the order of the two frames of each pair."""
    return x.unflatten(1, (-1, 2, 3)).flip(2).flatten(1, 3)


def all_x_then_all_y(x: torch.Tensor) -> torch.Tensor:
    """Orders the channels x1, x2, ..., y1, y2, ... instead of x1, y1, x2, y2, ..."""
    return torch.cat([x[:, 0::2], x[:, 1::2]], 1)


def test_only_flow_tells_motion_and_only_the_right_flow(
    actions: FlowDataset, flow_run: Path
) -> None:
    model = restore_model(load_checkpoint(flow_run))
    flow = ClipSpec(crop_px=56)
    views = TestViews(actions, flow, [taken(flow)], VIEWS)
    assert views.num_videos == 4 * len(ACTIONS)
    assert accuracy(model, views) >= 0.95

    # Each mistake must cost 20 points of them.
    assert accuracy(model, views, all_x_then_all_y) <= 0.75

    names = [MIRRORED.get(name, name) for name in actions.class_names]
    labels = np.array([names.index(actions.class_names[label]) for label in views.labels])
    assert accuracy(model, views, mirror, labels) >= 0.95
    assert accuracy(model, views, without_negation, labels) <= 0.75


def test_a_single_frame_does_not_tell_motion(actions: FlowDataset, rgb_run: Path) -> None:
    model = restore_model(load_checkpoint(rgb_run))
    rgb = ClipSpec("rgb", 1, crop_px=56)
    views = TestViews(actions, rgb, [taken(rgb)], VIEWS)
    # Of 32 videos, chance finds 4; 10 or more come once in 200 times.
    assert accuracy(model, views) <= 0.3


def test_a_network_finds_the_motion_of_frames_by_itself(
    actions: FlowDataset, tmp_path: Path
) -> None:
    """With TV-L1 as its first layer, from frames that alone tell nothing."""
    spec = ModelSpec("resnet18", width=0.25, motion=MotionSpec(motion_iterations=20))
    model = restore_model(load_checkpoint(train_stream(actions, "motion", tmp_path, spec)))
    clip = ClipSpec("motion", 5, crop_px=56)
    views = TestViews(actions, clip, model.inputs, VIEWS)
    assert accuracy(model, views) >= 0.95

    # With the frames of each pair in the other order, the motion is that of the other class.
    pairs = list(ACTIONS)
    names = [pairs[pairs.index(actions.class_names[label]) ^ 1] for label in views.labels]
    labels = np.array([actions.class_names.index(name) for name in names])
    assert accuracy(model, views, turned_pairs, labels) >= 0.8


def test_a_linear_classifier_finds_motion_in_features_of_flow_alone(
    actions: FlowDataset, flow_run: Path, rgb_run: Path, tmp_path: Path
) -> None:
    for stream, run in (("flow", flow_run), ("rgb", rgb_run)):
        report = extract_features(actions, tmp_path / stream, checkpoint=run, num_loaders=0)
        assert report.is_complete
    for classifier in get_args(ClassifierName):
        spec = ProbeSpec(classifier)
        flow = probe(tmp_path / "flow", spec)
        assert flow.metrics["top1"] == 1
        assert len(flow.scores.keys) == 4 * len(ACTIONS)
        rgb = probe(tmp_path / "rgb", spec)
        # It learns the training videos by heart, and is at chance, as the network itself above.
        assert rgb.train_accuracy > 0.9
        assert rgb.metrics["top1"] <= 0.3
