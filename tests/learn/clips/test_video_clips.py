"""VideoClips draws other clips in each epoch, and equal seeds agree, under any loader."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn import StreamedClips, VideoClips, collate
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.indices import test_indices as view_indices
from flowprep.learn.clips.loader import loader_options
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec, TrainConfig
from tests.learn.clips.samples import BOTH, CONFIG, FLOW, taken

INPUTS = [taken(FLOW)]


def made(dataset: FlowDataset | Path, **options: Any) -> VideoClips:
    return VideoClips(dataset, CONFIG, INPUTS, **options)


def epoch_of(loader: DataLoader[Any]) -> dict[int, torch.Tensor]:
    """Reads a loader once; returns each video's clip. No video comes twice."""
    found: dict[int, torch.Tensor] = {}
    for batch in loader:
        for number, video in enumerate(batch["video"].tolist()):
            assert video not in found
            found[video] = batch["clips"]["flow"][number].clone()
    return found


def num_equal(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> int:
    assert one.keys() == other.keys()
    return sum(torch.equal(clip, other[video]) for video, clip in one.items())


def test_the_trainers_own_clips_repeat_in_each_epoch_and_say_so(dataset: FlowDataset) -> None:
    clips = TrainingClips([dataset], CONFIG, INPUTS)
    first, second = ([clips[n]["clips"]["flow"] for n in range(len(clips))] for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert "`VideoClips` is for that" in " ".join((TrainingClips.__doc__ or "").split())


@pytest.mark.parametrize(
    ("kind", "names_epochs"),
    [("alone", True), ("alone", False), ("stays", True), ("forkserver", False), ("spawn", False)],
)
def test_epochs_differ_and_equal_seeds_agree(
    dataset: FlowDataset, kind: str, names_epochs: bool
) -> None:
    clips = made(dataset)
    options: dict[str, Any] = {}
    if kind != "alone":
        # The fork server has imported PyTorch, which takes seconds in a new process.
        context = loader_options(1)["multiprocessing_context"] if kind != "spawn" else "spawn"
        options = {"num_workers": 2, "multiprocessing_context": context}
        options["persistent_workers"] = kind != "forkserver"
    loader: DataLoader[Any] = DataLoader(clips, batch_size=4, shuffle=True, **options)
    epochs = []
    for epoch in range(2):
        if names_epochs:
            clips.set_epoch(epoch)
        epochs.append(epoch_of(loader))
    del loader
    assert len(epochs[0]) == len(clips) == 16
    assert num_equal(*epochs) == 0
    # One process, in the order of the videos, with the same seed.
    again = made(dataset)
    for epoch, expected in enumerate(epochs):
        if names_epochs:
            again.set_epoch(epoch)
        assert num_equal(epoch_of(DataLoader(again, batch_size=3)), expected) == 16
    other = made(dataset, seed=CONFIG.seed + 1)
    assert num_equal(epoch_of(DataLoader(other)), epochs[0]) == 0
    if names_epochs:
        # An epoch that is read again is the same.
        again.set_epoch(0)
        assert num_equal(epoch_of(DataLoader(again)), epochs[0]) == 16


def test_ranks_share_an_epoch_without_loss(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [made(dataset) for _ in range(2)]
    samplers = [DistributedSampler(one, num_replicas=2, rank=r) for r, one in enumerate(ranks)]
    epochs = []
    for epoch in range(3):
        together: dict[int, torch.Tensor] = {}
        for rank, (clips, sampler) in enumerate(zip(ranks, samplers, strict=True)):
            # As Lightning does: the sampler alone is told.
            sampler.set_epoch(epoch)
            place = (rank, 2)
            monkeypatch.setattr("flowprep.learn.clips.video_clips.own_place", lambda p=place: p)
            part = epoch_of(DataLoader(clips, batch_size=2, sampler=sampler))
            assert len(part) == 8
            assert not part.keys() & together.keys()
            together |= part
        epochs.append(together)
    # A video that goes to the other rank for the first time gets another clip all the same.
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert num_equal(epochs[one], epochs[other]) == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clips: pickle.loads(pickle.dumps(clips))])
def test_a_copy_counts_by_itself(dataset: FlowDataset, copied: Any) -> None:
    clips = made(dataset)
    other = copied(clips)
    assert other._epoch._numbers.is_shared()
    first = clips[0]["clips"]["flow"]
    assert torch.equal(other[0]["clips"]["flow"], first)
    assert not torch.equal(other[0]["clips"]["flow"], first)


def test_a_video_gives_random_clips_within_an_epoch(dataset: FlowDataset) -> None:
    clips = made(dataset)
    clips.set_epoch(4)
    drawn = [clips[5]["clips"]["flow"] for _ in range(4)]
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
    clips.set_epoch(4)
    assert torch.equal(clips[5 - len(clips)]["clips"]["flow"], drawn[0])


def test_the_middle_is_the_view_of_a_test(dataset: FlowDataset) -> None:
    clips = made(dataset, split="test", random=False)
    assert len(clips) == 8
    for number, sample in enumerate(clips):  # type: ignore[arg-type]
        video = clips.video(number)
        assert (video.split, video.label) == ("test", sample["label"])
        assert dataset.videos[sample["video"]] == video
        (indices,) = view_indices(video.num_frames, video.num_flows, INPUTS, FLOW, 1)
        (crop,) = view_crops(video.width, video.height, FLOW, 1)
        expected = load_clip(dataset, video, indices[0], crop, FLOW, INPUTS[0])
        np.testing.assert_array_equal(sample["clips"]["flow"][0].numpy(), expected)


def test_several_inputs_arrive_in_the_order_of_the_network(dataset: FlowDataset) -> None:
    clips = VideoClips(dataset, CONFIG, BOTH)
    loader: DataLoader[Any] = DataLoader(clips, batch_size=3, collate_fn=collate)
    inputs, labels = next(iter(loader))
    assert [tuple(one.shape) for one in inputs] == [(3, 8, 32, 32), (3, 3, 3, 32, 32)]
    assert labels.tolist() == clips.labels[:3].tolist()
    assert labels.dtype == torch.int64
    segments = dataclasses.replace(CONFIG, clip=dataclasses.replace(FLOW, num_segments=2))
    (flow,), _ = collate([VideoClips(dataset, segments, INPUTS)[0]])
    assert flow.shape == (1, 2, 8, 32, 32)
    with pytest.raises(ConfigError, match="samples must be one or more"):
        collate([])


def test_the_networks_inputs_are_the_default_and_a_transform_is_last(motion: Path) -> None:
    config = TrainConfig(clip=ClipSpec("flow", 5, crop_px=32))
    plain = VideoClips(motion, config)
    doubled = VideoClips(
        motion, config, transform=lambda clips: {name: 2 * x for name, x in clips.items()}
    )
    assert plain[0]["clips"]["flow"].shape == (1, 10, 32, 32)
    assert torch.equal(doubled[0]["clips"]["flow"], 2 * plain_again(motion, config))
    streamed = [
        next(iter(StreamedClips(motion, config, buffer=1, transform=transform)))["clips"]["flow"]
        for transform in (None, lambda clips: {name: -x for name, x in clips.items()})
    ]
    assert torch.equal(streamed[0], -streamed[1])


def plain_again(motion: Path, config: TrainConfig) -> torch.Tensor:
    clip: torch.Tensor = VideoClips(motion, config)[0]["clips"]["flow"]
    return clip


def test_what_is_not_there_is_said(dataset: FlowDataset) -> None:
    clips = made(dataset)
    with pytest.raises(IndexError, match="there are 16 videos, got item 16"):
        clips[16]
    with pytest.raises(ConfigError, match="found by its number, got a value of type str"):
        clips["a"]  # type: ignore[index]
    with pytest.raises(ConfigError, match="epoch must be >= 0, got -1"):
        clips.set_epoch(-1)
    with pytest.raises(DatasetError, match="no video of split val"):
        made(dataset, split="val")
