"""Clips are what the transforms make of stored fields; samples follow from seed and position."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.dataset.layout import shard_name
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo, VideoList
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn import data
from flowprep.learn.clips import indices as clip_choice
from flowprep.learn.clips import transforms
from flowprep.learn.clips.streaming import StreamingClips, streaming_loader
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.config import (
    VIEWS,
    AugmentSpec,
    ClipSpec,
    StackName,
    TrainConfig,
    ViewSpec,
)
from flowprep.learn.data import TestViews, TrainingClips, load_clip, load_views, training_loader
from flowprep.machine import usable_cores

FLOW = ClipSpec("flow", 4, crop_px=32, normalization="tsn-resnet")
RGB = ClipSpec("rgb", 2, crop_px=32, normalization="tsn-resnet")
CONFIG = TrainConfig(clip=FLOW, seed=3)
SLICE, MIRRORED = Crop(9, 4, 32, 32), Crop(9, 4, 32, 32, flip=True)
RESAMPLED = Crop(3.5, 1.25, 44, 40.5, flip=True)


@pytest.fixture
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


# ---- clips


def composed(
    dataset: FlowDataset,
    video: StoredVideo,
    indices: list[int],
    crop: Crop,
    clip: ClipSpec,
    layout: str,
) -> NDArray[np.float32]:
    """What `load_clip` returns, by one transform after the other."""
    if clip.stream == "rgb":
        frames = transforms.crop_frames(dataset.frames(video.key, indices), crop, clip.crop_px)
        x = transforms.normalize_frames(frames, clip.normalization)
    else:
        stored = {
            direction: dataset.flow(video.key, 0, video.num_flows, direction)
            for direction in dataset.config.encode.directions
        }
        if clip.stack == "bidirectional":
            both = clip_choice.bidirectional_indices(np.array([indices]), video.num_flows)
            flow = np.concatenate([stored["forward"][both[0][0]], stored["backward"][both[1][0]]])
        else:
            flow = stored["forward"][indices]
        flow = np.ascontiguousarray(flow.transpose(0, 3, 1, 2))
        if clip.stack == "trajectory":
            flow = transforms.trajectory_stack(flow)
        if clip.subtract_mean_flow:
            flow = transforms.subtract_mean_flow(flow)
        x = transforms.crop_flow(flow, crop, clip.crop_px, scale_vectors=clip.scale_vectors)
        x = transforms.normalize_flow(x, clip.normalization, dataset.config.flow)
    return transforms.to_stack(x) if layout == "stack" else transforms.to_volume(x)


@pytest.mark.parametrize("layout", ["stack", "volume"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
@pytest.mark.parametrize("subtract", [False, True], ids=["", "mean"])
@pytest.mark.parametrize("stack", ["plain", "bidirectional", "trajectory"])
def test_a_flow_clip_is_what_the_transforms_make(
    dataset: FlowDataset, stack: StackName, subtract: bool, crop: Crop, layout: Any
) -> None:
    clip = dataclasses.replace(FLOW, stack=stack, subtract_mean_flow=subtract, scale_vectors=True)
    for video, indices in ((dataset.videos[0], [3, 4, 5, 6]), (dataset.videos[5], [11, 12, 0, 1])):
        found = load_clip(dataset, video, indices, crop, clip, layout)
        expected = composed(dataset, video, indices, crop, clip, layout)
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["stack", "volume"])
@pytest.mark.parametrize("crop", [SLICE, MIRRORED, RESAMPLED], ids=["slice", "flip", "resampled"])
def test_an_rgb_clip_is_what_the_transforms_make(
    dataset: FlowDataset, crop: Crop, layout: Any
) -> None:
    video = dataset.videos[2]
    found = load_clip(dataset, video, [13, 4], crop, RGB, layout)
    np.testing.assert_array_equal(found, composed(dataset, video, [13, 4], crop, RGB, layout))


def test_indices_may_repeat_leave_gaps_and_go_back(dataset: FlowDataset) -> None:
    video = dataset.videos[1]
    indices = [5, 1, 5, 12, 0, 1, 2]
    whole = load_clip(dataset, video, range(13), SLICE, FLOW, "volume")
    found = load_clip(dataset, video, indices, SLICE, FLOW, "volume")
    np.testing.assert_array_equal(found, whole[:, indices])


def test_crops_of_a_clip_take_one_decoding(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    planes = FlowDataset.planes

    def counted(self: FlowDataset, key: str, *args: Any, **options: Any) -> NDArray[np.uint8]:
        reads.append(key)
        return planes(self, key, *args, **options)

    monkeypatch.setattr(FlowDataset, "planes", counted)
    video = dataset.videos[0]
    crops = [*transforms.test_crops(64, 48, FLOW, 10), RESAMPLED]
    views = load_views(dataset, video, range(4), crops, FLOW, "stack")
    assert reads == [video.key]
    for view, crop in zip(views, crops, strict=True):
        alone = load_clip(dataset, video, range(4), crop, FLOW, "stack")
        np.testing.assert_allclose(view, alone, atol=1e-6)


def test_clips_of_what_is_not_there_are_refused(dataset: FlowDataset) -> None:
    video = dataset.videos[0]
    with pytest.raises(DatasetError, match=r"has flows 0 to 12, got 13$"):
        load_clip(dataset, video, [12, 13], SLICE, FLOW, "stack")
    with pytest.raises(DatasetError, match=r"has frames 0 to 13, got -1$"):
        load_clip(dataset, video, [-1, 3], SLICE, RGB, "stack")


# ---- training samples


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
    samples = TrainingClips([dataset], CONFIG, "stack")
    seen = []
    for position in range(24):
        sample = samples[position]
        task, video = samples.find(position)
        assert (sample["task"], sample["label"]) == (task, video.label) == (0, video.label)
        assert sample["clip"].shape == (1, 8, 32, 32)
        x = sample["clip"].numpy().reshape(4, 2, 32, 32)
        places = places_of(dataset, video, x)
        assert places
        if len(places) == 1:
            seen += places
    # Unless a video stands still, there is one place; and all kinds of them come.
    assert len(seen) > 12
    for number in range(4):
        assert len({place[number] for place in seen}) > (1 if number == 3 else 4)


def test_an_epoch_is_every_video_once_in_its_own_order(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, "stack")
    assert samples.num_videos == len(samples) == 16
    epochs = [
        [samples.find(16 * epoch + place)[1].key for place in range(16)] for epoch in range(4)
    ]
    train = sorted(video.key for video in dataset.videos if video.split == "train")
    for keys in epochs:
        assert sorted(keys) == train
    assert len({tuple(keys) for keys in epochs}) == 4
    again = TrainingClips([dataset], CONFIG, "stack")
    assert [again.find(30 - n)[1].key for n in range(30)] == [
        samples.find(30 - n)[1].key for n in range(30)
    ]
    other = TrainingClips([dataset], dataclasses.replace(CONFIG, seed=4), "stack")
    assert [other.find(n)[1].key for n in range(16)] != epochs[0]


def test_several_data_sets_are_mixed(motion: Path, other_motion: Path) -> None:
    datasets = [open_dataset(motion), open_dataset(other_motion)]
    samples = TrainingClips(datasets, CONFIG, "stack")
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
    clip = TrainingClips([dataset], config, "volume")[0]["clip"]
    assert clip.shape == (1, 2, 30, 32, 32)
    assert torch.equal(clip[:, :, 13:26], clip[:, :, :13])
    assert torch.equal(clip[:, :, 26:], clip[:, :, :4])


def test_segments_share_crop_and_come_in_order(dataset: FlowDataset) -> None:
    clip = dataclasses.replace(FLOW, num_frames=2, num_segments=3)
    samples = TrainingClips([dataset], TrainConfig(clip=clip), "stack")
    places = []
    for position in range(12):
        segments = samples[position]["clip"]
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


def with_videos(dataset: FlowDataset, **changes: Any) -> FlowDataset:
    """The data set with its first 3 videos changed."""
    videos = list(dataset.videos)
    videos[:3] = [dataclasses.replace(video, **changes) for video in videos[:3]]
    dataset.videos = VideoList(videos)
    return dataset


@pytest.mark.parametrize("labels", [(), (0, 1)])
def test_videos_without_one_label_are_skipped_and_counted(
    dataset: FlowDataset, labels: tuple[int, ...]
) -> None:
    num_train = sum(video.split == "train" for video in dataset.videos[:3])
    samples = TrainingClips([with_videos(dataset, labels=labels)], CONFIG, "stack")
    assert (samples.num_videos, samples.num_skipped) == (16 - num_train, num_train)
    assert all(samples.find(n)[1].label is not None for n in range(samples.num_videos))


def test_a_split_that_is_not_there_is_refused(dataset: FlowDataset) -> None:
    with pytest.raises(DatasetError) as caught:
        TrainingClips([dataset], dataclasses.replace(CONFIG, train_split="dev"), "stack")
    assert str(caught.value) == (
        f"{dataset!r} holds no video of split 'dev', it holds 16 of train, 8 of test; "
        "choose another split, or `all`"
    )
    everything = dataclasses.replace(CONFIG, train_split="all")
    assert TrainingClips([dataset], everything, "stack").num_videos == 24
    dataset.videos = VideoList([dataclasses.replace(v, labels=()) for v in dataset.videos])
    with pytest.raises(DatasetError, match=r"none of the 16 videos of split 'train' has exactly"):
        TrainingClips([dataset], CONFIG, "stack")


def test_what_clips_cannot_be_made_of_is_refused_before_they_are(dataset: FlowDataset) -> None:
    small = dataclasses.replace(CONFIG, clip=dataclasses.replace(FLOW, crop_px=64))
    with pytest.raises(ConfigError, match="crop_px must be <= the short side"):
        TrainingClips([dataset], small, "stack")
    with pytest.raises(ConfigError, match="crop_px must be <= the short side"):
        TestViews(dataset, small.clip, "stack", VIEWS["center"])
    encode = dataclasses.replace(dataset.config.encode, directions=("forward",), keep_rgb=False)
    dataset.config = dataclasses.replace(dataset.config, encode=encode)
    both = dataclasses.replace(CONFIG, clip=dataclasses.replace(FLOW, stack="bidirectional"))
    with pytest.raises(ConfigError, match="holds no backward flow, which stack bidirectional"):
        TrainingClips([dataset], both, "stack")
    with pytest.raises(ConfigError, match="holds no RGB frames"):
        TestViews(dataset, RGB, "stack", VIEWS["center"])


# ---- loaders


def batches(samples: TrainingClips, **options: Any) -> list[dict[str, torch.Tensor]]:
    return list(training_loader(samples, **{"batch_size": 8, "first_step": 0} | options))


def test_a_batch_is_the_samples_of_its_positions(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, "volume")
    (batch,) = batches(samples, first_step=4, num_steps=5)
    assert batch["clip"].shape == (8, 1, 2, 4, 32, 32)
    for place in range(8):
        sample = samples[32 + place]
        assert torch.equal(batch["clip"][place], sample["clip"])
        assert (batch["label"][place], batch["task"][place]) == (sample["label"], sample["task"])


def test_more_loaders_than_cores_are_nothing_to_warn_of(dataset: FlowDataset) -> None:
    # A warning would be an error here. Without a look at the batches no process starts.
    number = 1 + max(usable_cores(), os.cpu_count() or 1)
    samples = TrainingClips([dataset], CONFIG, "stack")
    for loader in (
        training_loader(samples, batch_size=2, first_step=0, num_steps=5, num_loaders=number),
        streaming_loader(
            StreamingClips(dataset, CONFIG, "stack"), batch_size=2, num_loaders=number
        ),
    ):
        assert loader.num_workers == number


def test_every_split_of_the_work_gives_the_same_bits(motion: Path, other_motion: Path) -> None:
    augment = AugmentSpec("corners", (1.0, 0.8))
    config = dataclasses.replace(CONFIG, augment=augment)
    samples = TrainingClips([open_dataset(motion), open_dataset(other_motion)], config, "stack")
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
            for name, tensor in expected[step].items():
                assert torch.equal(torch.cat([share[name] for share in shares]), tensor)
    # Nor does it touch what dropout draws from.
    torch.manual_seed(0)
    batches(samples, num_steps=1)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.rand(1) == drawn


def test_what_is_kept_of_batches_stays_as_it_is(motion: Path) -> None:
    samples = TrainingClips([open_dataset(motion)], CONFIG, "stack")
    expected = batches(samples, num_steps=14, batch_size=4)
    kept = []
    loader = training_loader(samples, batch_size=4, first_step=0, num_steps=14, num_loaders=1)
    for step, batch in enumerate(loader):
        # Of some all, of some a part, and of some nothing.
        kept.append((batch["clip"], batch["clip"][1:, :, 3], None)[step % 3])
        del batch
    for step, (found, wanted) in enumerate(zip(kept, expected, strict=True)):
        if found is not None:
            assert torch.equal(found, (wanted["clip"], wanted["clip"][1:, :, 3])[step % 3])
    # Whoever keeps nothing gets the same few places again and again.
    kept.clear()
    places = {batch["clip"].data_ptr() for batch in loader}
    assert len(places) <= 4


class Surroundings(torch.utils.data.Dataset[str]):
    """What a loader process finds in its environment."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> str:
        return os.environ.get("FLOWPREP_TEST_SECRET", "nothing")


def test_loaders_have_the_environment_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that they are forked from was started with another one."""
    for value in ("first", "second"):
        monkeypatch.setenv("FLOWPREP_TEST_SECRET", value)
        loader = torch.utils.data.DataLoader(Surroundings(), **data.loader_options(1))
        assert list(loader) == [value]


def test_more_shared_memory_than_there_is_is_refused(motion: Path) -> None:
    clip = dataclasses.replace(FLOW, num_frames=64, num_segments=100)
    samples = TrainingClips([open_dataset(motion)], TrainConfig(clip=clip), "stack")
    with pytest.raises(ConfigError, match=r"^2 loaders need \d+ MB of shared memory, but /dev/shm"):
        training_loader(samples, batch_size=8000, first_step=0, num_steps=1, num_loaders=2)


def test_a_batch_that_cannot_be_parted_is_refused(dataset: FlowDataset) -> None:
    samples = TrainingClips([dataset], CONFIG, "stack")
    with pytest.raises(ConfigError) as caught:
        training_loader(samples, batch_size=8, first_step=0, num_steps=1, world_size=3)
    assert str(caught.value) == (
        "batch_size must be a multiple of the number of processes, got 8 and 3"
    )


@pytest.mark.parametrize("num_loaders", [0, 1])
def test_an_error_in_a_loader_arrives_in_its_own_words(motion: Path, num_loaders: int) -> None:
    samples = TrainingClips([open_dataset(motion)], CONFIG, "stack")
    key = samples.find(2)[1].key
    videos = [
        dataclasses.replace(video, shard=7) if video.key == key else video
        for video in samples.datasets[0].videos
    ]
    samples.datasets[0].videos = VideoList(videos)
    loader = iter(
        training_loader(samples, batch_size=2, first_step=0, num_steps=2, num_loaders=num_loaders)
    )
    next(loader)
    with pytest.raises(DatasetError) as caught:
        next(loader)
    assert str(caught.value) == (
        f"cannot read {shard_name(7)}: No such file or directory; run `flowprep verify`"
    )


def resident_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if "VmRSS" in line)


def test_a_loader_s_memory_does_not_grow(motion: Path) -> None:
    samples = TrainingClips([open_dataset(motion)], CONFIG, "stack")
    before = set(multiprocessing.active_children())
    loader = iter(
        training_loader(samples, batch_size=4, first_step=0, num_steps=600, num_loaders=1)
    )
    sizes: list[int] = []
    for step in range(600):
        next(loader)
        (worker,) = set(multiprocessing.active_children()) - before
        if step in (100, 599):
            assert worker.pid is not None
            sizes.append(resident_kb(worker.pid))
    # 2000 samples of 32 kB went by.
    assert sizes[1] - sizes[0] < 4000


def test_what_loaders_are_sent_is_small(dataset: FlowDataset) -> None:
    videos = [
        dataclasses.replace(dataset.videos[n % 24], key=f"class/v_name_g01_c{n:06d}", split="train")
        for n in range(20000)
    ]
    dataset.videos = VideoList(videos)
    samples = TrainingClips([dataset], CONFIG, "stack")
    sent = pickle.dumps(samples)
    # Keys of 25 bytes, 11 places of members and ten numbers: no objects.
    assert len(sent) < 320 * len(videos)
    again = pickle.loads(sent)
    for position in (0, 7, 31234):
        assert again.find(position) == samples.find(position)
    assert again.datasets[0].videos["class/v_name_g01_c012345"] == videos[12345]


# ---- test views


def test_views_are_all_crops_of_all_clips_of_all_videos(dataset: FlowDataset) -> None:
    views = TestViews(dataset, FLOW, "stack", ViewSpec(3, 10))
    assert (views.num_videos, views.num_clips, len(views)) == (8, 3, 24)
    wanted = [video for video in dataset.videos if video.split == "test"]
    assert views.keys == [video.key for video in wanted]
    np.testing.assert_array_equal(views.labels, [video.label for video in wanted])
    crops = transforms.test_crops(64, 48, FLOW, 10)
    starts = clip_choice.test_indices(13, FLOW, 3)
    for item in (0, 4, 23):
        found = views[item]
        number, place = divmod(item, 3)
        assert (found["video"], found["label"]) == (number, wanted[number].label)
        assert found["views"].shape == (10, 8, 32, 32)
        for view, crop in zip(found["views"], crops, strict=True):
            expected = load_clip(dataset, wanted[number], starts[place], crop, FLOW, "stack")
            np.testing.assert_allclose(view.numpy(), expected, atol=1e-6)
    with pytest.raises(IndexError):
        views[24]


def test_views_of_chosen_videos_come_in_their_order(dataset: FlowDataset) -> None:
    keys = [dataset.videos[9].key, dataset.videos[2].key]
    changed = with_videos(dataset, labels=(1, 2))
    views = TestViews(changed, FLOW, "volume", VIEWS["center"], videos=keys)
    assert views.keys == keys
    assert [views[item]["label"] for item in range(2)] == [dataset.videos[9].label, -1]
    assert views[0]["views"].shape == (1, 2, 4, 32, 32)
    with pytest.raises(DatasetError, match="no video has the key 'x'"):
        TestViews(dataset, FLOW, "stack", VIEWS["center"], videos=["x"])


def test_ranks_and_loaders_share_whole_videos(motion: Path) -> None:
    views = TestViews(open_dataset(motion), RGB, "stack", ViewSpec(2, 3))
    expected = [views[item] for item in range(len(views))]
    for world_size, num_loaders in ((1, 0), (4, 0), (1, 2)):
        seen: dict[tuple[int, int], torch.Tensor] = {}
        for rank in range(world_size):
            loader = data.test_loader(
                views, num_loaders=num_loaders, rank=rank, world_size=world_size
            )
            items = list(loader)
            assert [item["video"] % world_size for item in items] == [rank] * len(items)
            for place, item in enumerate(items):
                seen[item["video"], place % 2] = item["views"]
        assert len(seen) == len(expected) == 16
        for item, found in enumerate(expected):
            assert torch.equal(seen[found["video"], item % 2], found["views"])


@pytest.fixture(autouse=True)
def _no_loader_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before
