"""A network of flow and frames together: trained, gone on with, tested and used on raw videos."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import build_model, load_checkpoint, restore_model
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.indices import test_indices as view_indices
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate, score_videos
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.predict import Predictor, plan_extractions
from flowprep.learn.scores import Scores
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from tests.learn.small import RGB, make_checkpoint
from tests.learn.two_towers import two_towers
from tests.torch_devices import one_thread

__all__ = ["one_thread", "two_towers"]

QUIET = TrainOptions(num_loaders=0, device="cpu", log_every=1, tensorboard=False)
CLIP = ClipSpec("both", 4, crop_px=32, subtract_mean_flow=True)
VIEWS = ViewSpec(3, 10)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture
def config(two_towers: str) -> TrainConfig:
    return TrainConfig(
        ModelSpec(two_towers, width=0.25, dropout=0.3),
        CLIP,
        AugmentSpec(),
        OptimizationSpec(8, num_steps=6, learning_rate=0.05, accumulate=2),
    )


def test_it_trains_and_goes_on_as_if_it_had_not_been_stopped(
    dataset: FlowDataset, config: TrainConfig, tmp_path: Path
) -> None:
    report = train([dataset], tmp_path / "whole", config, QUIET)
    assert (report.num_steps, report.num_videos) == (6, 16)
    asked = iter([False, False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train([dataset], tmp_path / "parts", config, QUIET, is_stop_asked=lambda: next(asked))
    # Who reads the clips makes no difference.
    loaders = dataclasses.replace(QUIET, num_loaders=1)
    assert train([dataset], tmp_path / "parts", config, loaders).num_new_steps == 3
    whole, parts = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert whole.config == parts.config == config
    for name, tensor in whole.model.items():
        assert torch.equal(tensor, parts.model[name]), name
    # Both towers learn.
    torch.manual_seed(config.seed)
    begun = build_model(config, [8]).state_dict()
    for name in ("flow.weight", "rgb.weight"):
        assert not torch.equal(begun[name], whole.model[name])
    with open(tmp_path / "whole/metrics.csv", encoding="utf-8", newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"train", "test"}


def test_scores_are_the_mean_over_views_of_both(
    dataset: FlowDataset, config: TrainConfig, tmp_path: Path
) -> None:
    train([dataset], tmp_path, config, QUIET)
    checkpoint = load_checkpoint(tmp_path / "best.pt")
    scores, notes = evaluate(dataset, checkpoint, VIEWS, num_loaders=0, progress=False)
    assert (notes, scores.stream) == ([], "both")
    network = restore_model(checkpoint)
    video = dataset.videos[scores.keys[2]]
    clips = view_indices(video.num_frames, video.num_flows, network.inputs, CLIP, 3)
    logits = []
    for number in range(3):
        for crop in view_crops(video.width, video.height, CLIP, 10):
            tensors = [
                torch.from_numpy(load_clip(dataset, video, own[number], crop, CLIP, one))[None]
                for one, own in zip(network.inputs, clips, strict=True)
            ]
            with torch.no_grad():
                logits.append(network(*tensors)[0].double().numpy())
    np.testing.assert_allclose(scores.logits[2], np.mean(logits, 0), atol=1e-5)
    assert np.ptp(logits, axis=0).max() > 1e-3
    views = TestViews(dataset, CLIP, network.inputs, VIEWS)
    for chunk_size, num_loaders in ((1, 0), (7, 1)):
        again = score_videos(
            network, views, device="cpu", chunk_size=chunk_size, num_loaders=num_loaders
        )
        np.testing.assert_allclose(again.logits, scores.logits, atol=1e-5)
    scores.save(tmp_path / "scores.npz")
    assert Scores.load(tmp_path / "scores.npz").stream == "both"
    other, _ = evaluate(
        dataset, make_checkpoint(dataset, clip=RGB), VIEWS, num_loaders=0, progress=False
    )
    assert fuse_scores([scores, other]).stream == "both+rgb"
    with pytest.raises(ConfigError, match="weights must be given for the streams both, rgb"):
        fuse_scores([scores, other], "weighted")


def test_raw_videos_give_the_scores_of_a_data_set(
    motion: Path, dataset: FlowDataset, config: TrainConfig, tmp_path: Path
) -> None:
    train([dataset], tmp_path, config, QUIET)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    scores, _ = evaluate(dataset, checkpoint, VIEWS, split="all", num_loaders=0, progress=False)
    rgb = make_checkpoint(dataset, clip=RGB)
    for checkpoints in ([checkpoint], [checkpoint, rgb]):
        predictor = Predictor(checkpoints, VIEWS)
        # The frames of both networks are those of one extraction.
        assert len(predictor.extractions) == 1
        (prediction,) = predictor.predict(motion.parent / "videos" / f"{scores.keys[4]}.mp4")
        assert prediction.scores is not None
        assert prediction.scores.stream == "+".join(["both", "rgb"][: len(checkpoints)])
        if len(checkpoints) == 1:
            np.testing.assert_allclose(
                prediction.scores.probabilities[0], scores.probabilities[4], atol=1e-5
            )


def test_both_is_extracted_with_flow_and_frames(dataset: FlowDataset) -> None:
    config = dataset.config
    other = dataclasses.replace(
        config, encode=dataclasses.replace(config.encode, rgb_jpeg_quality=50)
    )
    (made,), places = plan_extractions(
        [(config, "rgb", "plain"), (config, "both", "bidirectional"), (config, "flow", "plain")]
    )
    assert places == [0, 0, 0]
    assert (made.flow, made.encode.keep_rgb) == (config.flow, True)
    assert set(made.encode.directions) == {"forward", "backward"}
    _, places = plan_extractions([(config, "both", "plain"), (other, "both", "plain")])
    assert places == [0, 1]


def test_what_both_cannot_be_made_of_is_refused(
    motion: Path, config: TrainConfig, tmp_path: Path
) -> None:
    dataset = open_dataset(motion)
    with pytest.raises(
        ConfigError, match="stream must be both or motion for two-towers, got 'flow'"
    ):
        dataclasses.replace(config, clip=dataclasses.replace(CLIP, stream="flow"))
    with pytest.raises(
        ConfigError, match="normalization px is for stream flow or motion; with stream both"
    ):
        dataclasses.replace(CLIP, normalization="px")
    odd = dataclasses.replace(CLIP, num_frames=5, stack="bidirectional")
    with pytest.raises(ConfigError, match="num_frames must be even for stack bidirectional, got 5"):
        train([dataset], tmp_path, dataclasses.replace(config, clip=odd), QUIET)
    for changes, message in (
        ({"keep_rgb": False}, "holds no RGB frames, which stream both needs"),
        ({"directions": ("backward",)}, "holds no forward flow"),
    ):
        encode = dataclasses.replace(open_dataset(motion).config.encode, **changes)
        dataset.config = dataclasses.replace(dataset.config, encode=encode)
        with pytest.raises(ConfigError, match=message):
            train([dataset], tmp_path, config, QUIET)


def test_towers_that_become_one_learn_by_both_losses(dataset: FlowDataset, tmp_path: Path) -> None:
    config = TrainConfig(
        ModelSpec("two-stream-fusion", width=1 / 32, dropout=0.0),
        ClipSpec("both", 2, 2, crop_px=32),
        AugmentSpec(random_strides=(1, 3)),
        OptimizationSpec(4, num_steps=2, learning_rate=1e-3),
    )

    train([dataset], tmp_path, config, QUIET)

    with open(tmp_path / "metrics.csv", encoding="utf-8", newline="") as file:
        first = next(csv.DictReader(file))
    # A classifier begins near zero, so that each loss is that of eight equal classes.
    assert float(first["loss"]) == pytest.approx(2 * np.log(8), rel=0.05)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.config == config
    scores, _ = evaluate(dataset, checkpoint, ViewSpec(1, 1), num_loaders=0, progress=False)
    network = restore_model(checkpoint)
    video = dataset.videos[scores.keys[0]]
    indices = view_indices(video.num_frames, video.num_flows, network.inputs, config.clip, 1)
    (crop,) = view_crops(video.width, video.height, config.clip, 1)
    tensors = [
        torch.from_numpy(load_clip(dataset, video, own[0], crop, config.clip, one))[None]
        for one, own in zip(network.inputs, indices, strict=True)
    ]
    assert [tuple(one.shape) for one in tensors] == [(1, 3, 2, 32, 32), (1, 20, 2, 32, 32)]
    with torch.no_grad():
        answers = network.answer(network.extract_features(*tensors))  # type: ignore[operator]
    np.testing.assert_allclose(scores.logits[0], answers[0].mean(0).numpy(), atol=1e-5)
