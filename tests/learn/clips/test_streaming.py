"""Streaming gives the samples of a data set, each video once, by few long reads."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flowprep.dataset.layout import shard_name
from flowprep.dataset.read import open_dataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.clips.loader import loader_options
from flowprep.learn.clips.streaming import StreamedClips, streaming_loader
from flowprep.learn.clips.training import fill_sample, sample_shapes
from flowprep.learn.config import ClipSpec, StackName, TrainConfig
from flowprep.storage import Storage
from tests.learn.clips.samples import BOTH, taken

FLOW = ClipSpec("flow", 4, crop_px=32)
CONFIG = TrainConfig(clip=FLOW, seed=5)


@pytest.fixture
def memory(motion: Path) -> Iterator[str]:
    """URL of the data set `motion` in fsspec's memory, which behaves as an object store does."""
    files = fsspec.filesystem("memory")
    files.put(str(motion) + "/", "/flowprep-stream/", recursive=True)
    yield "memory://flowprep-stream"
    files.rm("/flowprep-stream", recursive=True)


def ordered(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(samples, key=lambda sample: int(sample["video"]))


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["video"] == expected["video"]
    assert (found["label"], found["task"]) == (expected["label"], expected["task"])
    assert found["clips"].keys() == expected["clips"].keys()
    for name, clips in found["clips"].items():
        assert torch.equal(clips, expected["clips"][name])


def test_balance_is_refused(motion: Path) -> None:
    with pytest.raises(ConfigError, match="balance must be False here"):
        StreamedClips(motion, dataclasses.replace(CONFIG, balance=True), (taken(FLOW),))


@pytest.mark.parametrize(
    ("clip", "is_both"),
    [
        (FLOW, False),
        (dataclasses.replace(FLOW, stack="bidirectional", num_segments=2), False),
        (ClipSpec("rgb", 2, crop_px=32), False),
        (ClipSpec("rgb-difference", 2, crop_px=32), False),
        (dataclasses.replace(FLOW, stack="bidirectional", num_segments=2), True),
    ],
    ids=["flow", "bidirectional", "rgb", "rgb-difference", "both"],
)
def test_a_store_and_a_disk_give_the_clips_of_the_data_set(
    motion: Path, memory: str, clip: ClipSpec, is_both: bool
) -> None:
    config = dataclasses.replace(CONFIG, clip=clip)
    dataset = open_dataset(motion)
    inputs = BOTH if is_both else (taken(clip, "volume"),)
    streamed = list(StreamedClips(memory, config, inputs))
    for found, other in zip(streamed, StreamedClips(motion, config, inputs), strict=True):
        assert_same(found, other)
    train = [n for n, video in enumerate(dataset.videos) if video.split == "train"]
    assert [sample["video"] for sample in ordered(streamed)] == train
    for sample in streamed:
        video = dataset.videos[sample["video"]]
        assert (sample["label"], sample["task"]) == (video.label, 0)
        # The same draws lead to the same clip of the data set itself.
        rng = np.random.default_rng((CONFIG.seed, 4, 0, sample["video"]))
        expected = {
            name: np.empty(shape, np.float32) for name, shape in sample_shapes(clip, inputs).items()
        }
        fill_sample(dataset, video, config, inputs, rng, expected)
        assert sample["clips"].keys() == expected.keys()
        for name, clips in expected.items():
            np.testing.assert_array_equal(sample["clips"][name].numpy(), clips)


@pytest.mark.parametrize(("world_size", "buffer"), [(1, 3), (2, 1), (3, 128)])
def test_ranks_share_an_epoch(motion: Path, world_size: int, buffer: int) -> None:
    options: dict[str, Any] = {"buffer": buffer, "first_epoch": 2, "world_size": world_size}
    alone = ordered(list(StreamedClips(motion, CONFIG, [taken(FLOW)], first_epoch=2)))
    parts = [
        list(StreamedClips(motion, CONFIG, [taken(FLOW)], rank=r, **options))
        for r in range(world_size)
    ]
    together = ordered([sample for part in parts for sample in part])
    assert len(together) == 16
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)


def test_loaders_share_an_epoch(motion: Path) -> None:
    clips = StreamedClips(motion, CONFIG, [taken(FLOW)], num_epochs=2)
    expected = list(clips)
    first, second = ordered(expected[:16]), ordered(expected[16:])
    found: list[dict[str, Any]] = []
    for batch in streaming_loader(clips, batch_size=3, num_loaders=2):
        assert batch["clips"]["flow"].shape[1:] == (1, 8, 32, 32)
        found += [
            {
                **{name: batch[name][n] for name in ("label", "task", "video")},
                "clips": {name: clips[n] for name, clips in batch["clips"].items()},
            }
            for n in range(len(batch["label"]))
        ]
    assert len(found) == 32
    by_video = {
        video: [sample for sample in found if sample["video"] == video] for video in range(24)
    }
    for one, two in zip(first, second, strict=True):
        both = by_video[one["video"]]
        assert len(both) == 2
        assert_same(both[0], one)
        assert_same(both[1], two)


def test_epochs_and_seeds_differ_in_order_and_clips(motion: Path) -> None:
    def run(seed: int, epoch: int) -> list[dict[str, Any]]:
        return list(StreamedClips(motion, CONFIG, [taken(FLOW)], seed=seed, first_epoch=epoch))

    runs = [run(0, 0), run(0, 1), run(1, 0)]
    orders = [tuple(sample["video"] for sample in samples) for samples in runs]
    assert len(set(orders)) == 3
    clips = [ordered(samples)[0]["clips"]["flow"] for samples in runs]
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])
    for found, expected in zip(run(0, 0), runs[0], strict=True):
        assert_same(found, expected)


def test_without_a_buffer_the_order_is_that_of_the_shards(motion: Path) -> None:
    videos = [sample["video"] for sample in StreamedClips(motion, CONFIG, [taken(FLOW)], buffer=1)]
    assert videos == sorted(videos)


@pytest.mark.parametrize(("stack", "share"), [("plain", 0.3), ("bidirectional", 0.5)])
def test_reads_are_few_and_leave_out_what_is_not_needed(
    motion: Path, monkeypatch: pytest.MonkeyPatch, stack: StackName, share: float
) -> None:
    ranges: list[tuple[int, int]] = []
    read_range = Storage.read_range

    def counted(self: Storage, name: str, offset: int, length: int) -> bytes:
        if type(self) is Storage:
            ranges.append((offset, length))
        return read_range(self, name, offset, length)

    monkeypatch.setattr(Storage, "read_range", counted)
    config = dataclasses.replace(CONFIG, clip=dataclasses.replace(FLOW, stack=stack))
    list(StreamedClips(motion, config, [taken(config.clip, "stack")]))
    assert len(ranges) == 1
    # Where gaps are not worth reading, each video is one read, of its needed members.
    monkeypatch.setattr("flowprep.learn.clips.streaming._LARGEST_GAP", 2000)
    ranges.clear()
    list(StreamedClips(motion, config, [taken(config.clip, "stack")]))
    assert len(ranges) == 16
    size = (motion / shard_name(0)).stat().st_size
    assert 0 < sum(length for _, length in ranges) < share * size
    # No read is longer than it may be.
    monkeypatch.setattr("flowprep.learn.clips.streaming._LARGEST_GAP", 1 << 20)
    monkeypatch.setattr("flowprep.learn.clips.streaming._LARGEST_READ", size // 5)
    ranges.clear()
    list(StreamedClips(motion, config, [taken(config.clip, "stack")]))
    assert 3 < len(ranges) < 8
    assert max(length for _, length in ranges) <= size // 5


def test_it_pickles(motion: Path) -> None:
    clips = StreamedClips(motion, CONFIG, [taken(FLOW)])
    for found, expected in zip(pickle.loads(pickle.dumps(clips)), clips, strict=True):
        assert_same(found, expected)


def test_endless_epochs_go_on(motion: Path) -> None:
    clips = iter(StreamedClips(motion, CONFIG, [taken(FLOW)], num_epochs=None))
    videos = [next(clips)["video"] for _ in range(48)]
    assert len(set(videos[:16])) == len(set(videos[16:32])) == len(set(videos[32:])) == 16
    clips.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_loaders", [0, 1])
def test_a_cut_shard_is_refused_in_plain_words(
    motion: Path, tmp_path: Path, num_loaders: int
) -> None:
    storage = Storage(tmp_path)
    for name in ("dataset.json", "shards/000000.json"):
        storage.write_bytes(name, (motion / name).read_bytes())
    tar = (motion / shard_name(0)).read_bytes()
    storage.write_bytes(shard_name(0), tar[: len(tar) // 2])
    clips = StreamedClips(tmp_path, CONFIG, [taken(FLOW)])
    with pytest.raises(
        DatasetError, match=r"^shards/000000\.tar is cut off: it has no bytes \d+ to "
    ):
        list(streaming_loader(clips, batch_size=2, num_loaders=num_loaders))


def test_options_that_cannot_be_are_refused(motion: Path) -> None:
    with pytest.raises(ConfigError, match=r"^buffer must be >= 1, got 0$"):
        StreamedClips(motion, CONFIG, [taken(FLOW)], buffer=0)
    with pytest.raises(ConfigError, match=r"^rank must be from 0 to world_size - 1, got 2 of 2$"):
        StreamedClips(motion, CONFIG, [taken(FLOW)], rank=2, world_size=2)


@pytest.mark.parametrize("stays", [False, True])
def test_each_pass_is_the_next_epoch(motion: Path, stays: bool) -> None:
    def in_order(epoch: int) -> list[dict[str, Any]]:
        return ordered(list(StreamedClips(motion, CONFIG, [taken(FLOW)], first_epoch=epoch)))

    clips = StreamedClips(motion, CONFIG, [taken(FLOW)])
    loader: DataLoader[Any] = DataLoader(
        clips,
        batch_size=None,
        num_workers=2,
        multiprocessing_context=loader_options(1)["multiprocessing_context"],
        persistent_workers=stays,
    )
    for epoch in (0, 1, 7, 8):
        if epoch == 7:
            clips.set_epoch(7)
        for found, expected in zip(ordered(list(loader)), in_order(epoch), strict=True):
            assert_same(found, expected)
    # This process has made no pass since the epoch got its name, and loaders count apart.
    assert_same(ordered(list(clips))[0], in_order(7)[0])


def test_the_ranks_are_those_of_torch(motion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos: list[int] = []
    for rank in range(2):
        monkeypatch.setattr("flowprep.learn.clips.video_clips.own_place", lambda r=rank: (r, 2))
        clips = StreamedClips(motion, CONFIG, [taken(FLOW)])
        # A loader process asks what this process knew.
        held = pickle.loads(pickle.dumps(clips))
        monkeypatch.setattr("flowprep.learn.clips.video_clips.own_place", lambda: None)
        # Each rank gets whole reads: of a small data set, one rank may get all.
        videos += [sample["video"] for sample in held]
    alone = [s["video"] for s in StreamedClips(motion, CONFIG, [taken(FLOW)], rank=0, world_size=1)]
    assert sorted(videos) == sorted(alone)
    with pytest.raises(ConfigError, match="rank and world_size must be given together"):
        StreamedClips(motion, CONFIG, [taken(FLOW)], rank=0)
