"""Networks that join segments are tested with their segments, in whatever parts memory allows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.learn import evaluate as evaluate_module
from flowprep.learn.checkpoint import Checkpoint, load_checkpoint, restore_model
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate, score_videos
from flowprep.learn.forward import group_size
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.tsn import TSN
from flowprep.learn.network_options import TSNOptions
from flowprep.learn.predict import Predictor
from flowprep.learn.recipes import VIEWS
from flowprep.learn.scores import softmax
from flowprep.learn.train import train
from flowprep.learn.training_specs import OptimizationSpec
from tests.learn.clips.samples import taken, view_indices
from tests.learn.small import make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

CLIP = ClipSpec("flow", 2, num_segments=3, crop_px=32)
QUIET = TrainOptions(num_loaders=0, device="cpu", log_every=1, tensorboard=False)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


def joining(
    consensus: Any, *datasets: FlowDataset, clip: ClipSpec = CLIP, weights: Any = None
) -> Checkpoint:
    """An untrained TSN; `weights` are those of its segments, set by hand."""
    checkpoint = make_checkpoint(*datasets, clip=clip, model="tsn-resnet18")
    model = dict(checkpoint.model)
    if weights is not None:
        prefix = "model." if len(datasets) > 1 else ""
        model[f"{prefix}segment_weight"] = torch.tensor(weights)
    spec = dataclasses.replace(checkpoint.config.model, options=TSNOptions(consensus))
    config = dataclasses.replace(checkpoint.config, model=spec)
    return dataclasses.replace(checkpoint, config=config, model=model)


def snippets(
    dataset: FlowDataset, checkpoint: Checkpoint, key: str, spec: ViewSpec, num_clips: int
) -> np.ndarray[Any, Any]:
    """The logits of each clip by itself, (num_clips, num_crops, K)."""
    plain = joining("avg", dataset)
    model = {name: value for name, value in checkpoint.model.items() if "segment" not in name}
    network = restore_model(dataclasses.replace(plain, model=model))
    video, clip = dataset.videos[key], checkpoint.config.clip
    rows = []
    for indices in view_indices(video.num_flows, clip, num_clips):
        crops = view_crops(video.width, video.height, clip, spec.num_crops)
        views = [load_clip(dataset, video, indices, crop, clip, taken(clip)) for crop in crops]
        with torch.no_grad():
            rows.append(network(torch.from_numpy(np.stack(views))[:, None]).double().numpy())
    return np.array(rows)


def scores_of(
    dataset: FlowDataset, checkpoint: Checkpoint, spec: ViewSpec, **options: Any
) -> tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A test video's key, logits and probabilities."""
    network = restore_model(checkpoint)
    keys = [video.key for video in dataset.videos if video.split == "test"]
    views = TestViews(
        dataset,
        checkpoint.config.clip,
        network.inputs,
        spec,
        videos=keys[:2],
        group_size=group_size(network),
    )
    scores = score_videos(network, views, device="cpu", **options)
    return scores.keys[1], scores.logits[1], scores.probabilities[1]


def assert_near(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def check(found: Any, groups: np.ndarray[Any, Any]) -> None:
    """Compares logits and probabilities with (groups, num_crops, K) logits of each group."""
    assert_near(found[1], groups.mean((0, 1)))
    assert_near(found[2], softmax(groups).mean((0, 1)))


def test_the_average_of_25_clips_is_that_of_single_clips(dataset: FlowDataset) -> None:
    checkpoint, spec = joining("avg", dataset), ViewSpec(25, 3)
    found = scores_of(dataset, checkpoint, spec)
    alone = snippets(dataset, checkpoint, found[0], spec, 25)
    assert_near(found[1], alone.mean((0, 1)))
    check(found, alone.mean(0, keepdims=True))


def test_the_highest_score_counts(dataset: FlowDataset) -> None:
    checkpoint, spec = joining("max", dataset), ViewSpec(7, 3)
    found = scores_of(dataset, checkpoint, spec)
    alone = snippets(dataset, checkpoint, found[0], spec, 7)
    check(found, alone.max(0, keepdims=True))
    assert np.abs(found[1] - alone.mean((0, 1))).max() > 1e-2 * np.ptp(alone)


@pytest.mark.parametrize("sampling", ["segments", "dense"])
def test_the_weights_of_segments_count(dataset: FlowDataset, sampling: Any) -> None:
    clip = dataclasses.replace(CLIP, sampling=sampling)
    weights = [2.0, 0.0, -3.0]
    checkpoint = joining("weighted", dataset, clip=clip, weights=weights)
    spec = ViewSpec(7, 3)
    found = scores_of(dataset, checkpoint, spec)
    # 7 clips are 3 groups of 3.
    alone = snippets(dataset, checkpoint, found[0], spec, 9)
    by_segment = alone.reshape(3, 3, 3, -1)  # segment, group, crop; dense: group, segment, crop
    if sampling == "dense":
        by_segment = by_segment.swapaxes(0, 1)
    shares = np.exp(weights) / np.exp(weights).sum()
    check(found, np.tensordot(shares, by_segment, 1))
    # Snippets one at a time say something else.
    assert np.abs(found[1] - alone.mean((0, 1))).max() > 1e-3 * np.ptp(alone)


@pytest.mark.parametrize("consensus", ["avg", "max", "weighted"])
def test_scores_do_not_depend_on_chunks_and_heads(
    dataset: FlowDataset, other_motion: Path, consensus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [2.0, 0.0, -3.0] if consensus == "weighted" else None
    checkpoint = joining(consensus, dataset, open_dataset(other_motion), weights=weights)
    spec = ViewSpec(4, 3)
    whole = scores_of(dataset, checkpoint, spec, task=1, chunk_size=1000)
    sizes: list[int] = []
    features = TSN.extract_features

    def watched(self: TSN, x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.numel())
        return features(self, x)

    monkeypatch.setattr(TSN, "extract_features", watched)
    network = restore_model(checkpoint)
    assert isinstance(network, MultiTask)
    clip_values = 4 * 32 * 32
    # What has to be looked at together is one clip, or the clips of all segments.
    together = clip_values * (3 if consensus == "weighted" else 1)
    for num_values, num_loaders in ((1, 0), (5 * together, 1)):
        monkeypatch.setattr(evaluate_module, "_CHUNK_VALUES", num_values)
        sizes.clear()
        found = scores_of(dataset, checkpoint, spec, task=1, num_loaders=num_loaders)
        assert_near(found[1], whole[1])
        assert_near(found[2], whole[2])
        assert max(sizes) == max(num_values, together)


def test_a_test_takes_whole_groups_and_says_so(motion: Path, dataset: FlowDataset) -> None:
    for consensus, spec, num_clips in (
        ("weighted", ViewSpec(25, 1), 27),
        ("weighted", ViewSpec(1, 1), 3),
        ("max", ViewSpec(1, 1), 3),
        ("avg", ViewSpec(25, 1), 25),
    ):
        weights = [0.0, 0.0, 0.0] if consensus == "weighted" else None
        checkpoint = joining(consensus, dataset, weights=weights)
        video = next(video.key for video in dataset.videos if video.split == "test")
        _, notes = evaluate(dataset, checkpoint, spec, num_loaders=0, progress=False)
        assert [f"{num_clips} clips of each video" in note for note in notes] == [True] * (
            num_clips != spec.num_clips
        )
        if consensus == "max":
            predictor = Predictor([checkpoint], spec)
            (prediction,) = predictor.predict(motion.parent / "videos" / f"{video}.mp4")
            assert prediction.scores is not None
            alone = snippets(dataset, checkpoint, video, spec, 3)
            expected = alone.max(0, keepdims=True).mean((0, 1))
            np.testing.assert_allclose(prediction.scores.logits[0], expected, atol=1e-4)
            assert notes == predictor.notes


@pytest.mark.parametrize("consensus", ["max", "weighted"])
def test_the_best_weights_are_those_that_test_best_with_segments(
    dataset: FlowDataset, tmp_path: Path, consensus: Any
) -> None:
    config = TrainConfig(
        ModelSpec("tsn-resnet18", width=0.0625, options=TSNOptions(consensus)),
        CLIP,
        optimization=OptimizationSpec(8, num_steps=4, learning_rate=0.2),
    )
    report = train([dataset], tmp_path, config, QUIET)
    best = load_checkpoint(tmp_path / "best.pt")
    scores, _ = evaluate(dataset, best, VIEWS["center"], num_loaders=0, progress=False)
    assert scores.metrics()["top1"] == report.best_top1
    views = TestViews(dataset, CLIP, restore_model(best).inputs, VIEWS["center"])
    with pytest.raises(ValueError, match="group_size must be"):
        score_videos(restore_model(best), views, device="cpu")
