"""Training samples and batches follow from seed and position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips import transforms
from flowprep.learn.clips.training import TrainingClips, training_loader
from flowprep.learn.config import TrainConfig
from flowprep.learn.training_specs import AugmentSpec
from tests.learn.clips.samples import BOTH, CONFIG, FLOW, batches, taken


def places_of(dataset: FlowDataset, video: StoredVideo, x: NDArray[np.float32]) -> list[Any]:
    """Every (start, y, x, flip) at which the video holds the flow of a sample (L, 2, h, w)."""
    fields = dataset.flow(video.key, 0, video.num_flows).transpose(0, 3, 1, 2)
    found = []
    for flip in (False, True):
        # Undone by itself.
        wanted = transforms.flip_flow(x) if flip else x
        fields_at = transforms.normalize_flow(fields, FLOW.normalization, dataset.config.flow)
        rows = np.lib.stride_tricks.sliding_window_view(fields_at[:, 0], x.shape[2:], axis=(1, 2))
        for start in range(len(fields) - len(x) + 1):
            near = np.abs(rows[start] - wanted[0, 0]).max(axis=(2, 3)) < 1e-4
            for top, left in np.argwhere(near).tolist():
                box = fields_at[start : start + len(x), :, top : top + 32, left : left + 32]
                if np.abs(box - wanted).max() < 1e-4:
                    found.append((start, top, left, flip))
    return found


def test_samples_are_crops_of_clips_of_their_videos(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    seen = []
    for position in range(24):
        sample = samples[position]
        task, video = samples.find(position)
        assert (sample["task"], sample["label"]) == (task, video.label) == (0, video.label)
        assert sample["clips"]["flow"].shape == (1, 8, 32, 32)
        x = sample["clips"]["flow"].numpy().reshape(4, 2, 32, 32)
        places = places_of(dataset, video, x)
        assert places
        if len(places) == 1:
            seen += places
    # Unless a video stands still, there is one place; and all kinds of them come.
    assert len(seen) > 12
    for number in range(4):
        assert len({place[number] for place in seen}) > (1 if number == 3 else 4)


def test_an_epoch_is_every_video_once_in_its_own_order(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    assert samples.num_videos == len(samples) == 16
    epochs = [
        [samples.find(16 * epoch + place)[1].key for place in range(16)] for epoch in range(4)
    ]
    train = sorted(video.key for video in dataset.videos if video.split == "train")
    for keys in epochs:
        assert sorted(keys) == train
    assert len({tuple(keys) for keys in epochs}) == 4
    again = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    assert [again.find(30 - n)[1].key for n in range(30)] == [
        samples.find(30 - n)[1].key for n in range(30)
    ]
    other = TrainingClips([dataset], dataclasses.replace(CONFIG, seed=4), [taken(FLOW)])
    assert [other.find(n)[1].key for n in range(16)] != epochs[0]


def test_several_data_sets_are_mixed(motion: Path, other_motion: Path) -> None:
    datasets = [open_dataset(motion), open_dataset(other_motion)]
    samples = TrainingClips(datasets, CONFIG, [taken(FLOW, "stack")])
    assert samples.num_videos == 32
    tasks = [samples.find(position)[0] for position in range(32)]
    assert sorted(tasks) == [0] * 16 + [1] * 16
    assert tasks != sorted(tasks)
    for position in range(24):
        task, video = samples.find(position)
        assert video in datasets[task].videos
        assert samples[position]["task"] == task


def test_short_videos_are_looped(dataset: FlowDataset) -> None:
    config = TrainConfig(clip=dataclasses.replace(FLOW, num_frames=30))
    clip = TrainingClips([dataset], config, [taken(config.clip, "volume")])[0]["clips"]["flow"]
    assert clip.shape == (1, 2, 30, 32, 32)
    assert torch.equal(clip[:, :, 13:26], clip[:, :, :13])
    assert torch.equal(clip[:, :, 26:], clip[:, :, :4])


def test_segments_share_crop_and_come_in_order(dataset: FlowDataset) -> None:
    clip = dataclasses.replace(FLOW, num_frames=2, num_segments=3)
    samples = TrainingClips([dataset], TrainConfig(clip=clip), [taken(clip)])
    places = []
    for position in range(12):
        segments = samples[position]["clips"]["flow"]
        assert segments.shape == (3, 4, 32, 32)
        video = samples.find(position)[1]
        each = [
            places_of(dataset, video, segment.numpy().reshape(2, 2, 32, 32)) for segment in segments
        ]
        if all(len(found) == 1 for found in each):
            places.append([found[0] for found in each])
    assert len(places) > 4
    for first, second, third in places:
        assert first[0] < second[0] < third[0]
        assert first[1:] == second[1:] == third[1:]


def test_a_batch_is_the_samples_of_its_positions(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "volume")])
    (batch,) = batches(samples, first_step=4, num_steps=5)
    assert batch["clips"]["flow"].shape == (8, 1, 2, 4, 32, 32)
    for place in range(8):
        sample = samples[32 + place]
        assert torch.equal(batch["clips"]["flow"][place], sample["clips"]["flow"])
        assert (batch["label"][place], batch["task"][place]) == (sample["label"], sample["task"])


def flat(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A batch's tensors, the inputs among them."""
    return {
        **{f"clips.{name}": clips for name, clips in batch["clips"].items()},
        **{name: tensor for name, tensor in batch.items() if name != "clips"},
    }


@pytest.mark.parametrize("inputs", [[taken(FLOW)], BOTH], ids=["flow", "both"])
def test_every_split_of_the_work_gives_the_same_bits(
    motion: Path, other_motion: Path, inputs: Sequence[ClipInput]
) -> None:
    augment = AugmentSpec("corners", (1.0, 0.8))
    config = dataclasses.replace(CONFIG, augment=augment)
    samples = TrainingClips([open_dataset(motion), open_dataset(other_motion)], config, inputs)
    expected = batches(samples, num_steps=5)
    assert len(expected) == 5
    for num_loaders, world_size, first_step in ((2, 1, 0), (1, 2, 2), (0, 4, 3)):
        parts = [
            batches(
                samples, num_steps=5, first_step=first_step, num_loaders=num_loaders,
                rank=rank, world_size=world_size,
            )
            for rank in range(world_size)
        ]  # fmt: skip
        assert [len(part) for part in parts] == [5 - first_step] * world_size
        for step, shares in enumerate(zip(*parts, strict=True), start=first_step):
            parted = [flat(share) for share in shares]
            for name, tensor in flat(expected[step]).items():
                assert torch.equal(torch.cat([share[name] for share in parted]), tensor)
    # Nor does it touch what dropout draws from.
    torch.manual_seed(0)
    batches(samples, num_steps=1)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == drawn


def test_a_batch_that_cannot_be_parted_is_refused(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    with pytest.raises(ConfigError) as caught:
        training_loader(samples, batch_size=8, first_step=0, num_steps=1, world_size=3)
    assert str(caught.value) == (
        "batch_size must be a multiple of the number of processes, got 8 and 3"
    )
