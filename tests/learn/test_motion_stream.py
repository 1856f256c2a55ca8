"""A network over flow that computes it from frames: trained, gone on with, and used everywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import load_checkpoint, restore_model
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.indices import test_indices as view_indices
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate
from flowprep.learn.features import extract_features
from flowprep.learn.models.motion import MotionNetwork
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.predict import Predictor, plan_extractions
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

QUIET = TrainOptions(num_loaders=0, device="cpu", tensorboard=False)
CLIP = ClipSpec("motion", 3, crop_px=32, normalization="tsn-resnet")
CONFIG = TrainConfig(
    ModelSpec("resnet18", 1 / 16, motion=MotionSpec(motion_learns="shared", motion_iterations=4)),
    CLIP,
    AugmentSpec(),
    OptimizationSpec(4, num_steps=3, learning_rate=0.02),
)
VIEWS = ViewSpec(2, 1)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture(scope="module")
def run(dataset: FlowDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training, in two parts."""
    run = tmp_path_factory.mktemp("run")
    asked = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        train([dataset], run, CONFIG, QUIET, is_stop_asked=lambda: next(asked))
    assert train([dataset], run, CONFIG, QUIET).num_new_steps == 1
    return run


def test_it_goes_on_as_if_it_had_not_been_stopped(
    dataset: FlowDataset, run: Path, tmp_path: Path
) -> None:
    train([dataset], tmp_path, CONFIG, QUIET)
    whole, parts = load_checkpoint(tmp_path / "last.pt"), load_checkpoint(run / "last.pt")
    assert whole.config == parts.config == CONFIG
    for name, tensor in whole.model.items():
        assert torch.equal(tensor, parts.model[name]), name
    # The layer has learned.
    assert whole.model["motion.log_lambda"].item() != pytest.approx(np.log(0.15), abs=1e-7)


def test_a_clip_is_the_frames_of_each_field(dataset: FlowDataset) -> None:
    (one,) = CONFIG.inputs
    video = dataset.videos[0]
    # Each field goes from a frame to the next one, whatever lies between the fields.
    strided = dataclasses.replace(one, frame_stride=4)
    (crop,) = view_crops(video.width, video.height, CLIP, 1)
    clip = load_clip(dataset, video, [1, 5, 9], crop, CLIP, strided)
    assert clip.shape == (18, 32, 32)
    frames = dataset.frames(video.key, [1, 2, 5, 6, 9, 10])
    left, top = int(crop.x), int(crop.y)
    expected = frames[:, top : top + 32, left : left + 32].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(clip.reshape(6, 3, 32, 32), expected)
    mirrored = load_clip(dataset, video, [1, 5, 9], dataclasses.replace(crop, flip=True), CLIP, one)
    np.testing.assert_array_equal(mirrored, clip[..., ::-1])


def test_scores_are_those_of_the_network(dataset: FlowDataset, run: Path) -> None:
    checkpoint = load_checkpoint(run / "last.pt")
    scores, notes = evaluate(dataset, checkpoint, VIEWS, num_loaders=0, progress=False)
    assert (notes, scores.stream) == ([], "motion")
    network = restore_model(checkpoint)
    assert isinstance(network, MotionNetwork)
    video = dataset.videos[scores.keys[2]]
    (indices,) = view_indices(video.num_frames, video.num_flows, network.inputs, CLIP, 2)
    (crop,) = view_crops(video.width, video.height, CLIP, 1)
    clips = [
        torch.from_numpy(load_clip(dataset, video, own, crop, CLIP, network.inputs[0]))
        for own in indices
    ]
    with torch.no_grad():
        logits = network(torch.stack(clips)).mean(0)
    np.testing.assert_allclose(scores.logits[2], logits.numpy(), atol=1e-5)


def test_raw_videos_give_the_scores_of_a_data_set(
    motion: Path, dataset: FlowDataset, run: Path
) -> None:
    checkpoint = load_checkpoint(run / "last.pt")
    scores, _ = evaluate(dataset, checkpoint, VIEWS, num_loaders=0, progress=False)
    predictor = Predictor([checkpoint], VIEWS)
    (prediction,) = predictor.predict(motion.parent / "videos" / f"{scores.keys[3]}.mp4")
    assert prediction.scores is not None
    np.testing.assert_allclose(
        prediction.scores.probabilities[0], scores.probabilities[3], atol=1e-5
    )


def test_features_are_those_of_each_window(dataset: FlowDataset, run: Path, tmp_path: Path) -> None:
    report = extract_features(dataset, tmp_path, checkpoint=run / "last.pt", num_loaders=0)
    assert report.is_complete
    video = dataset.videos[0]
    (file,) = tmp_path.rglob(f"{video.key.rpartition('/')[2]}_motion.npy")
    found = np.load(file)
    # Windows of three fields of 13.
    assert found.shape[1] == 32
    network = restore_model(load_checkpoint(run / "last.pt"))
    (crop,) = view_crops(video.width, video.height, CLIP, 1)
    clip = load_clip(dataset, video, [0, 1, 2], crop, CLIP, network.inputs[0])
    with torch.no_grad():
        expected = network.extract_features(torch.from_numpy(clip)[None])
    np.testing.assert_allclose(found[0], expected[0].numpy(), atol=1e-5)


def test_only_frames_are_extracted_for_it(dataset: FlowDataset, tmp_path: Path) -> None:
    (made,), _ = plan_extractions([(dataset.config, "motion", "plain")])
    assert made.encode.keep_rgb
    assert made.flow.algorithm == "dis"
    dataset = open_dataset(dataset.location)
    encode = dataclasses.replace(dataset.config.encode, keep_rgb=False)
    dataset.config = dataclasses.replace(dataset.config, encode=encode)
    with pytest.raises(ConfigError, match="holds no RGB frames, which stream motion needs"):
        train([dataset], tmp_path, CONFIG, QUIET)
