"""Testing: the mean over views, whoever goes through them and in however many parts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.config import RunOptions
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, ConfigMismatchError, DatasetError
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import load_checkpoint, restore_model, save_checkpoint
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec, ViewSpec
from flowprep.learn.evaluate import (
    checkpoint_file,
    default_folder,
    evaluate,
    score_videos,
    task_place,
)
from flowprep.learn.forward import group_size
from flowprep.learn.placement import resolve_device
from flowprep.learn.recipes import VIEWS
from flowprep.learn.scores import Scores, softmax
from flowprep.learn.training_specs import AugmentSpec
from flowprep.run.driver import run_extract
from tests.learn.clips.samples import taken, view_indices
from tests.learn.small import FLOW, RGB, extract_clips, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

FEW_VIEWS = ViewSpec(3, 3)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


def score(
    dataset: FlowDataset, model: str = "resnet18", clip: ClipSpec = FLOW, **options: object
) -> Scores:
    """The scores of the test split by an untrained network."""
    network = restore_model(make_checkpoint(dataset, clip=clip, model=model))
    views = TestViews(dataset, clip, network.inputs, FEW_VIEWS, group_size=group_size(network))
    return score_videos(network, views, device="cpu", **options)  # type: ignore[arg-type]


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Alike to rounding in float32, 1e-5 of the largest."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("model", "clip", "spec"),
    [
        ("resnet18", FLOW, VIEWS["250"]),
        ("resnet18", dataclasses.replace(FLOW, num_frames=4, stack="bidirectional"), FEW_VIEWS),
        ("tsn-resnet18", dataclasses.replace(RGB, num_segments=3), FEW_VIEWS),
        ("i3d", dataclasses.replace(FLOW, num_frames=8), ViewSpec(2, 1)),
    ],
)
def test_score_is_the_mean_over_views(
    dataset: FlowDataset, model: str, clip: ClipSpec, spec: ViewSpec
) -> None:
    network = restore_model(make_checkpoint(dataset, clip=clip, model=model))
    key = next(video.key for video in dataset.videos if video.split == "test")
    views = TestViews(
        dataset, clip, network.inputs, spec, videos=[key], group_size=group_size(network)
    )
    scores = score_videos(network, views, device="cpu")
    video = dataset.videos[key]
    number = video.num_flows if clip.stream == "flow" else video.num_frames
    logits = []
    for indices in view_indices(number, clip, spec.num_clips):
        for crop in view_crops(video.width, video.height, clip, spec.num_crops):
            view = load_clip(dataset, video, indices, crop, clip, *network.inputs)
            with torch.no_grad():
                logits.append(network(torch.from_numpy(view)[None])[0].double().numpy())
    assert len(logits) == spec.num_clips * spec.num_crops
    assert np.ptp(logits, axis=0).max() > 1e-3 or spec.num_crops == 1
    assert_near(scores.logits[0], np.mean(logits, axis=0))
    joined = np.reshape(logits, (spec.num_clips, spec.num_crops, -1))
    if network.joins_segments:
        # The scores of a crop of all clips are joined, here by their mean, before their softmax.
        joined = joined.mean(axis=0, keepdims=True)
    expected = softmax(joined).mean(axis=(0, 1))
    assert_near(scores.probabilities[0], expected)
    assert (scores.keys, scores.stream) == ((key,), clip.stream)
    assert scores.labels.tolist() == [video.label]
    assert scores.class_names == dataset.class_names


@pytest.mark.parametrize("model", ["resnet18", "i3d"])
def test_scores_do_not_depend_on_chunks(dataset: FlowDataset, model: str) -> None:
    clip = dataclasses.replace(FLOW, num_frames=8) if model == "i3d" else FLOW
    first = score(dataset, model, clip)
    assert np.ptp(first.probabilities, axis=0).max() > 1e-3
    for chunk_size in (1, 7, 1000):
        other = score(dataset, model, clip, chunk_size=chunk_size)
        assert_near(other.logits, first.logits)
        assert_near(other.probabilities, first.probabilities)


def test_scores_do_not_depend_on_loaders(dataset: FlowDataset) -> None:
    np.testing.assert_array_equal(score(dataset, num_loaders=2).logits, score(dataset).logits)


@pytest.mark.parametrize("world_size", [3, 11])
def test_parts_of_several_processes_are_the_whole(dataset: FlowDataset, world_size: int) -> None:
    whole = score(dataset)
    parts = [score(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [len(part.keys) for part in parts] == [
        len(range(rank, len(whole.keys), world_size)) for rank in range(world_size)
    ]
    joined = Scores.interleave(parts)
    assert joined.keys == whole.keys
    np.testing.assert_array_equal(joined.labels, whole.labels)
    assert_near(joined.logits, whole.logits)


def test_network_is_left_as_it_was(dataset: FlowDataset) -> None:
    network = restore_model(make_checkpoint(dataset))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    views = TestViews(dataset, FLOW, [taken(FLOW)], VIEWS["center"])
    for is_training in (True, False):
        network.train(is_training)
        scores = score_videos(network, views, device="cpu")
        assert network.training is is_training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    np.testing.assert_allclose(
        score_videos(network.eval(), views, device="cpu").logits, scores.logits
    )


def test_low_precision_is_near(dataset: FlowDataset) -> None:
    exact, rough = score(dataset), score(dataset, precision="bf16")
    difference = np.abs(exact.probabilities - rough.probabilities).max()
    assert 0 < difference < 0.03


def test_task_picks_the_head(dataset: FlowDataset, other_motion: Path) -> None:
    checkpoint = make_checkpoint(dataset, open_dataset(other_motion))
    views = ViewSpec(1, 1)
    scores = {
        name: evaluate(dataset, checkpoint, views, task=name, num_loaders=0, progress=False)[0]
        for name in ("motion", "other-motion")
    }
    assert np.abs(scores["motion"].logits - scores["other-motion"].logits).min() > 0
    network = restore_model(checkpoint)
    batch = torch.stack([item["views"]["flow"][0] for item in views_of(dataset, views)])
    with torch.no_grad():
        heads = network(batch)
    assert_near(scores["motion"].logits, heads[0].numpy())
    assert_near(scores["other-motion"].logits, heads[1].numpy())
    with pytest.raises(ConfigError, match=r"task must be named .* one of motion, other-motion"):
        task_place(checkpoint, None)
    with pytest.raises(ConfigError, match="task must be one of motion, other-motion, got 'third'"):
        task_place(checkpoint, "third")


def views_of(dataset: FlowDataset, spec: ViewSpec) -> list[dict[str, torch.Tensor]]:
    views = TestViews(dataset, FLOW, [taken(FLOW)], spec)
    return [views[item] for item in range(len(views))]


def test_evaluate_says_where_scores_come_from(dataset: FlowDataset, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", make_checkpoint(dataset))
    file = checkpoint_file(tmp_path)
    assert file == tmp_path / "best.pt" == checkpoint_file(tmp_path / "best.pt")
    scores, notes = evaluate(
        dataset, load_checkpoint(file), VIEWS["center"], num_loaders=0, origin=str(file)
    )
    assert notes == []
    assert len(scores.keys) == 8
    assert scores.source["checkpoint"] == str(file)
    assert (scores.source["split"], scores.source["task"]) == ("test", "motion")
    assert scores.source["views"] == {"num_clips": 1, "num_crops": 1}
    assert scores.source["versions"]["torch"] == torch.__version__
    everything, _ = evaluate(
        dataset, load_checkpoint(file), VIEWS["center"], split="all", num_loaders=0
    )
    assert set(everything.keys) == {video.key for video in dataset.videos}
    with pytest.raises(DatasetError, match="no video of split validation"):
        evaluate(dataset, load_checkpoint(file), VIEWS["center"], split="validation", num_loaders=0)


def test_mirrored_views_are_noted_where_training_had_none(dataset: FlowDataset) -> None:
    trained = make_checkpoint(dataset)
    config = dataclasses.replace(trained.config, augment=AugmentSpec(flip=False))
    unmirrored = dataclasses.replace(trained, config=config)
    for checkpoint, num_crops, wanted in (
        (trained, 10, False),
        (unmirrored, 5, False),
        (unmirrored, 10, True),
    ):
        _, notes = evaluate(dataset, checkpoint, ViewSpec(1, num_crops), num_loaders=0)
        assert ["--crops 5" in note for note in notes] == [True] * wanted


def test_other_data_are_refused(motion: Path, dataset: FlowDataset, tmp_path: Path) -> None:
    flow = dataclasses.replace(dataset.config.flow, bound_px=12.0)
    config = dataclasses.replace(dataset.config, flow=flow)
    other = extract_clips(motion.parent, tmp_path / "other", config)
    checkpoint = make_checkpoint(dataset)
    with pytest.raises(ConfigMismatchError, match=r"flow.bound_px: 20.0 in training, 12.0 here"):
        evaluate(other, checkpoint, VIEWS["center"], num_loaders=0)
    scores, _ = evaluate(other, checkpoint, VIEWS["center"], num_loaders=0, force=True)
    assert len(scores.keys) == 8
    # The bound means nothing to a network that looks at frames.
    evaluate(other, make_checkpoint(dataset, clip=RGB), VIEWS["center"], num_loaders=0)


def test_videos_without_a_label_are_scored_and_not_measured(
    motion: Path, dataset: FlowDataset, tmp_path: Path
) -> None:
    shutil.copy(next(motion.parent.glob("videos/*/*.mp4")), tmp_path / "a.mp4")
    options = RunOptions(executor="inline", progress=False)
    manifest = collect_videos(tmp_path / "a.mp4")
    assert run_extract(manifest, str(tmp_path / "out"), dataset.config, options).is_complete
    scores, _ = evaluate(
        open_dataset(tmp_path / "out"),
        make_checkpoint(dataset),
        VIEWS["center"],
        split="all",
        num_loaders=0,
    )
    assert scores.labels.tolist() == [-1]
    assert scores.logits.shape == (1, 8)
    with pytest.raises(DatasetError, match="no video has a label"):
        scores.metrics()


def test_device_that_is_not_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99", "cpu:x"):
        with pytest.raises(ConfigError, match=rf"device must be .*, got '{name}': "):
            resolve_device(name)


@pytest.mark.parametrize(
    ("file", "spec", "split", "task", "folder"),
    [
        ("run/best.pt", ViewSpec(25, 10), "test", None, "run/test-250"),
        ("run/best.pt", ViewSpec(10, 3), "train", None, "run/train-30"),
        ("run/best.pt", ViewSpec(1, 1), "all", None, "run/all-center"),
        ("run/best.pt", ViewSpec(5, 3), "test", "ucf101", "run/ucf101-test-5x3"),
        ("run/last.pt", ViewSpec(25, 10), "test", None, "run/last-test-250"),
    ],
)
def test_default_folder(
    file: str, spec: ViewSpec, split: str, task: str | None, folder: str
) -> None:
    assert default_folder(Path(file), spec, split, task) == Path(folder)
