"""Reading gives back exactly what the estimator, the quantiser and JPEG made of the video."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import flowprep
from flowprep.config import DIRECTIONS, Direction, ExtractConfig, FlowSpec
from flowprep.dataset.layout import shard_name, sidecar_name
from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo, VideoList
from flowprep.errors import ConfigError, DatasetError
from flowprep.inputs.manifest import Manifest
from flowprep.storage import Storage
from tests.dataset.conftest import CONFIG, FORWARD_ONLY, HEIGHT, WIDTH, Truth

TruthOf = Callable[[str, ExtractConfig], Truth]
LONG_KEY = f"Dr%2E%20No/{'x' * 120}"


@pytest.fixture
def dataset(made_once: Path) -> FlowDataset:
    return flowprep.open_dataset(made_once)


# ---- the list


def test_every_stored_video_is_listed(dataset: FlowDataset, videos: Manifest) -> None:
    assert [video.key for video in dataset.videos] == ["jump/a", "walk/b", LONG_KEY, "walk/d"]
    assert len(dataset.videos) == 4
    assert [video.num_frames for video in dataset.videos] == [6, 5, 7, 4]
    given = {video.key: video for video in videos.videos}
    for video in dataset.videos:
        assert video.labels == given[video.key].labels
        assert video.split == given[video.key].split
        assert (video.width, video.height, video.fps) == (WIDTH, HEIGHT, 25.0)
        assert video.num_flows == video.num_frames - 1
        assert not video.is_partial
    assert [video.label for video in dataset.videos] == [0, 1, None, 1]
    assert dataset.class_names == ("jump", "walk")
    assert dataset.config == CONFIG


def test_a_video_is_found_by_position_and_by_key(dataset: FlowDataset) -> None:
    assert dataset.videos[1] is dataset.videos["walk/b"]
    assert dataset.videos[-1].key == "walk/d"
    assert [video.key for video in dataset.videos[:2]] == ["jump/a", "walk/b"]
    assert "walk/b" in dataset.videos
    assert dataset.videos[0] in dataset.videos
    assert "jump/broken" not in dataset.videos
    with pytest.raises(IndexError):
        dataset.videos[4]
    with pytest.raises(DatasetError, match=r"^no video has the key 'jump/broken'; "):
        dataset.videos["jump/broken"]


def test_keys_of_one_checksum_are_told_apart() -> None:
    """The list finds keys by CRC-32, which these two share."""
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    made = VideoList(
        StoredVideo(key, (), None, 2, 1, 8, 8, None, False, 0, {"json": (0, 1)})
        for key in ("plumless", "other", "buckeroo")
    )
    assert [made.position(key) for key in ("plumless", "other", "buckeroo")] == [0, 1, 2]
    assert "buckeros" not in made


@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_list_gives_back_the_videos_that_it_was_made_of(
    dataset: FlowDataset, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.dataset.video_list._VIDEO_CACHE", 7)
    wanted = [
        dataclasses.replace(
            dataset.videos[number % 4],
            key=f"ключ/{number}",
            labels=tuple(range(number % 3)),
            split=(None, "train", "test")[number % 3],
            fps=(None, 25.0, 1e-3)[number % 3],
            is_partial=number % 2 == 1,
            shard=number,
            members={f"m{n}": (2**40 + n, number) for n in range(number % 5)},
        )
        for number in range(count)
    ]
    made = VideoList(iter(wanted))
    for videos in (made, pickle.loads(pickle.dumps(made))):
        assert list(videos) == wanted
        assert len(videos) == count
        for number, video in enumerate(wanted):
            assert videos[number] == videos[number - count] == videos[video.key] == video
            assert videos.position(video.key) == number
            assert video in videos
            assert video.key in videos
            assert dataclasses.replace(video, num_flows=99) not in videos
        assert list(videos[5:290:30]) == wanted[5:290:30]
        assert "absent" not in videos
        assert 3 not in videos
        with pytest.raises(IndexError):
            videos[count]


# ---- the numbers


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("key", ["jump/a", "walk/b", LONG_KEY, "walk/d"])
def test_whole_videos_are_what_was_computed(
    dataset: FlowDataset, truth: TruthOf, key: str, direction: Direction
) -> None:
    expected = truth(key, CONFIG)
    num_flows = dataset.videos[key].num_flows
    levels = dataset.quantized(key, 0, num_flows, direction)
    np.testing.assert_array_equal(levels, expected.stored[direction])
    flow = dataset.flow(key, 0, num_flows, direction)
    assert (flow.shape, flow.dtype) == ((num_flows, HEIGHT, WIDTH, 2), np.float32)
    np.testing.assert_array_equal(flow, flowprep.dequantize(levels, CONFIG.flow))


def test_every_clip_is_a_slice_of_the_whole(dataset: FlowDataset) -> None:
    whole = dataset.quantized("walk/b", 0, 4)
    for start in range(4):
        for length in range(1, 5 - start):
            clip = dataset.quantized("walk/b", start, length)
            np.testing.assert_array_equal(clip, whole[start : start + length])


def test_directions_are_not_each_other(dataset: FlowDataset) -> None:
    # The scene moves by (1.6, -0.9) px a frame.
    forward = dataset.flow("jump/a", 0, 5).mean(axis=(0, 1, 2))
    backward = dataset.flow("jump/a", 0, 5, "backward").mean(axis=(0, 1, 2))
    np.testing.assert_allclose(forward, (1.6, -0.9), atol=0.25)
    np.testing.assert_allclose(backward, (-1.6, 0.9), atol=0.25)


def test_frames_are_rgb_in_the_order_asked_for(dataset: FlowDataset, truth: TruthOf) -> None:
    expected = truth(LONG_KEY, CONFIG).rgb
    np.testing.assert_array_equal(dataset.frames(LONG_KEY, range(7)), expected)
    np.testing.assert_array_equal(dataset.frames(LONG_KEY, [5, 0, 5, 2]), expected[[5, 0, 5, 2]])
    np.testing.assert_array_equal(dataset.frames(LONG_KEY, np.array([3])), expected[[3]])
    empty = dataset.frames(LONG_KEY, [])
    assert (empty.shape, empty.dtype) == ((0, HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_planes_are_the_fields_with_x_and_y_apart(
    dataset: FlowDataset, direction: Direction
) -> None:
    whole = dataset.quantized(LONG_KEY, 0, 6, direction).transpose(0, 3, 1, 2)
    for indices in ([0, 1, 2, 3, 4, 5], [3], [1, 3, 5], [5, 0, 5, 5, 2], np.array([4, 2])):
        planes = dataset.planes(LONG_KEY, indices, direction)
        assert (planes.dtype, planes.flags.c_contiguous) == (np.uint8, True)
        np.testing.assert_array_equal(planes, whole[indices])
        part = dataset.planes(LONG_KEY, indices, direction, box=(13, 7, 30, 25))
        np.testing.assert_array_equal(part, whole[indices][..., 7:32, 13:43])


@pytest.mark.parametrize("key", ["jump/a", "walk/d"])
def test_another_spec_is_read_by_its_own(forward_only: Path, truth: TruthOf, key: str) -> None:
    dataset = flowprep.open_dataset(forward_only)
    expected = truth(key, FORWARD_ONLY)
    video = dataset.videos[key]
    assert video.num_flows == video.num_frames - 2
    levels = dataset.quantized(key, 0, video.num_flows)
    np.testing.assert_array_equal(levels, expected.stored["forward"])
    np.testing.assert_array_equal(
        dataset.flow(key, 0, video.num_flows), (levels - np.float32(128)) * np.float32(8 / 128)
    )


# ---- one read a stream


class CountingStorage(Storage):
    """Counts the ranges that are read, as one request each."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.ranges: list[tuple[int, int]] = []

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        self.ranges.append((offset, length))
        return super().read_range(name, offset, length)


@pytest.fixture
def counted(
    videos: Manifest, memory: str, truth: TruthOf
) -> tuple[FlowDataset, list[tuple[int, int]]]:
    """A data set in a store whose requests are counted."""
    flowprep.extract(videos, memory, CONFIG, executor="inline")
    dataset = flowprep.open_dataset(memory)
    storage = CountingStorage(memory)
    return dataset.read_through(storage), storage.ranges


def test_another_storage_gives_the_same_and_shares_nothing_that_was_read(made_once: Path) -> None:
    dataset = flowprep.open_dataset(made_once)
    flow = dataset.flow("jump/a", 0, 2)
    storage = CountingStorage(made_once)
    storage.is_local = False
    other = dataset.read_through(storage)
    assert (dataset.storage, other.storage) != (storage, dataset.storage)
    assert other.storage is storage
    assert other.videos is dataset.videos
    np.testing.assert_array_equal(other.flow("jump/a", 0, 2), flow)
    # KEY.json too, which the first of the two knows already.
    assert len(storage.ranges) == 3
    assert repr(other) == repr(dataset)


def test_a_clip_takes_one_read_a_stream(
    counted: tuple[FlowDataset, list[tuple[int, int]]], truth: TruthOf
) -> None:
    dataset, ranges = counted
    clip = dataset.quantized("jump/a", 1, 3)
    np.testing.assert_array_equal(clip, truth("jump/a", CONFIG).stored["forward"][1:4])
    # KEY.json once, then x and y.
    assert len(ranges) == 3
    sizes = dataset.metadata("jump/a").sizes
    assert [size for _, size in ranges[1:]] == [
        sum(sizes["flow_x"][1:4]), sum(sizes["flow_y"][1:4]),
    ]  # fmt: skip
    ranges.clear()
    dataset.flow("jump/a", 0, 5, "backward")
    assert len(ranges) == 2
    ranges.clear()
    np.testing.assert_array_equal(
        dataset.frames("jump/a", [4, 2]), truth("jump/a", CONFIG).rgb[[4, 2]]
    )
    assert [size for _, size in ranges] == [sum(sizes["rgb"][2:5])]


def test_a_clip_takes_one_system_call_a_stream_on_disk(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    pread = os.pread

    def counted_pread(descriptor: int, size: int, offset: int) -> bytes:
        calls.append((offset, size))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted_pread)
    dataset.flow("walk/b", 0, 4)
    assert len(calls) == 3
    dataset.flow("walk/b", 2, 2)
    assert len(calls) == 5


def test_planes_take_one_read_a_stream_and_each_jpeg_once(
    counted: tuple[FlowDataset, list[tuple[int, int]]],
) -> None:
    dataset, ranges = counted
    sizes = dataset.metadata("jump/a").sizes
    ranges.clear()
    dataset.planes("jump/a", [3, 1, 3, 1], "backward")
    assert [size for _, size in ranges] == [sum(sizes["back_x"][1:4]), sum(sizes["back_y"][1:4])]


def test_metadata_is_kept_for_some_videos_only(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.dataset.read._METADATA_CACHE", 2)
    monkeypatch.setattr("flowprep.dataset.read._OFFSETS_CACHE", 3)
    monkeypatch.setattr("flowprep.dataset.read._FILE_CACHE", 1)
    expected = {video.key: dataset.quantized(video.key, 0, 1) for video in dataset.videos}
    for _ in range(2):
        for key, levels in expected.items():
            np.testing.assert_array_equal(dataset.quantized(key, 0, 1), levels)
            assert len(dataset._metadata) <= 2
            assert len(dataset._offsets) <= 3
            assert len(dataset._files) <= 1


# ---- processes


def test_a_data_set_pickles(dataset: FlowDataset) -> None:
    expected = dataset.quantized("jump/a", 0, 5)
    again = pickle.loads(pickle.dumps(dataset))
    assert again._files == {}
    np.testing.assert_array_equal(again.quantized("jump/a", 0, 5), expected)
    assert [video.key for video in again.videos] == [video.key for video in dataset.videos]
    dataset.close()
    np.testing.assert_array_equal(again.quantized("jump/a", 0, 5), expected)


def _read_in_child(dataset: FlowDataset, key: str, queue: Any) -> None:
    cv2.setNumThreads(1)
    queue.put([dataset.quantized(key, start % 3, 2).tobytes() for start in range(60)])


# Python 3.12 warns of a fork in a process with threads; the child here uses no lock of theirs.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_data_set_is_read_by_forked_children_at_once(dataset: FlowDataset) -> None:
    expected = {
        key: [dataset.quantized(key, start % 3, 2).tobytes() for start in range(60)]
        for key in ("jump/a", "walk/b")
    }
    assert dataset._files
    context = multiprocessing.get_context("fork")
    queues = {key: context.Queue() for key in expected}
    children = [
        context.Process(target=_read_in_child, args=(dataset, key, queue))
        for key, queue in queues.items()
    ]
    for child in children:
        child.start()
    for key, queue in queues.items():
        assert queue.get() == expected[key]
    for child in children:
        child.join()
        assert child.exitcode == 0
    # The children's end has not closed the parent's files.
    assert dataset.quantized("jump/a", 0, 2).tobytes() == expected["jump/a"][0]


def test_closing_frees_the_files_and_reading_opens_them_again(dataset: FlowDataset) -> None:
    expected = dataset.flow("jump/a", 0, 1)
    before = len(os.listdir("/proc/self/fd"))
    dataset.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    dataset.close()
    np.testing.assert_array_equal(dataset.flow("jump/a", 0, 1), expected)


def test_a_data_set_shows_where_it_is(dataset: FlowDataset, made_once: Path) -> None:
    assert repr(dataset) == f"FlowDataset({str(made_once)!r}, 4 videos)"


# ---- what goes wrong


@pytest.mark.parametrize(("start", "length"), [(0, 0), (-1, 2), (0, 6), (5, 1), (4, 2), (2, -1)])
def test_a_clip_outside_of_the_video_is_refused(
    dataset: FlowDataset, start: int, length: int
) -> None:
    with pytest.raises(DatasetError) as caught:
        dataset.flow("jump/a", start, length)
    assert str(caught.value) == f"jump/a has flows 0 to 4, got start {start} and length {length}"


@pytest.mark.parametrize(("indices", "named"), [([0, 6], 6), ([-1], -1), ([7, -2], -2)])
def test_a_frame_outside_of_the_video_is_refused(
    dataset: FlowDataset, indices: list[int], named: int
) -> None:
    with pytest.raises(DatasetError) as caught:
        dataset.frames("jump/a", indices)
    assert str(caught.value) == f"jump/a has frames 0 to 5, got {named}"


def test_an_unknown_key_is_refused(dataset: FlowDataset) -> None:
    for read in (
        lambda: dataset.flow("x", 0, 1),
        lambda: dataset.frames("x", [0]),
        lambda: dataset.metadata("x"),
    ):
        with pytest.raises(DatasetError, match=r"^no video has the key 'x'; "):
            read()


def test_what_a_data_set_does_not_hold_is_refused(forward_only: Path) -> None:
    dataset = flowprep.open_dataset(forward_only)
    with pytest.raises(ConfigError) as caught:
        dataset.quantized("jump/a", 0, 1, "backward")
    assert str(caught.value) == f"{forward_only} holds no backward flow; it has forward"
    with pytest.raises(ConfigError) as caught:
        dataset.frames("jump/a", [0])
    assert str(caught.value) == (
        f"{forward_only} holds no RGB frames; extract into another folder without --no-rgb"
    )


def test_an_unknown_direction_is_refused(dataset: FlowDataset) -> None:
    with pytest.raises(ConfigError) as caught:
        dataset.flow("jump/a", 0, 1, "sideways")  # type: ignore[arg-type]
    assert str(caught.value) == "direction must be one of forward, backward, got 'sideways'"


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a flowprep data set: no dataset\.json; name"):
        flowprep.open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"is not a flowprep data set: no dataset\.json; name"):
        flowprep.open_dataset(tmp_path / "absent")


def test_a_data_set_without_a_published_shard_is_empty(copied: Path) -> None:
    for sidecar in (copied / "shards").glob("*.json"):
        sidecar.unlink()
    assert list(flowprep.open_dataset(copied).videos) == []


def test_shards_are_read_in_the_order_of_their_numbers(copied: Path) -> None:
    storage = Storage(copied)
    for suffix in ("tar", "json"):
        (copied / "shards" / f"000000.{suffix}").rename(copied / "shards" / f"1000000.{suffix}")
    text = storage.read_bytes(sidecar_name(1000000))
    storage.write_bytes(sidecar_name(1000000), text.replace(b'"shard": 0', b'"shard": 1000000'))
    keys = [video.key for video in flowprep.open_dataset(copied).videos]
    assert keys == ["walk/b", LONG_KEY, "walk/d", "jump/a"]


def test_a_cut_tar_is_refused(copied: Path) -> None:
    dataset = flowprep.open_dataset(copied)
    video = dataset.videos["jump/a"]
    offset, size = video.members["flow_y"]
    os.truncate(copied / shard_name(0), offset + size - 1)
    with pytest.raises(DatasetError) as caught:
        dataset.flow("jump/a", 0, 5)
    assert str(caught.value) == (
        f"shards/000000.tar is cut off: it has no bytes {offset + size - 1} to "
        f"{offset + size - 1}; run `flowprep verify`"
    )
    # What lies before the cut is still there.
    assert dataset.flow("jump/a", 0, 4).shape == (4, HEIGHT, WIDTH, 2)


def test_a_cut_tar_in_a_store_is_refused(memory: str, made_once: Path) -> None:
    storage = Storage(memory)
    for name in ("dataset.json", "shards/000000.json"):
        storage.write_bytes(name, (made_once / name).read_bytes())
    tar = (made_once / shard_name(0)).read_bytes()
    storage.write_bytes(shard_name(0), tar[: len(tar) - 4000])
    dataset = flowprep.open_dataset(memory)
    with pytest.raises(
        DatasetError,
        match=rf"^shards/000000\.tar is cut off: it has no bytes {len(tar) - 4000} to ",
    ):
        dataset.frames("jump/a", range(6))


def test_a_lost_tar_is_refused(copied: Path) -> None:
    dataset = flowprep.open_dataset(copied)
    (copied / shard_name(0)).unlink()
    with pytest.raises(DatasetError) as caught:
        dataset.flow("jump/a", 0, 1)
    assert str(caught.value) == (
        "cannot read shards/000000.tar: No such file or directory; run `flowprep verify`"
    )


def patch(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_bytes_that_are_no_jpeg_are_refused(copied: Path) -> None:
    dataset = flowprep.open_dataset(copied)
    video = dataset.videos["jump/a"]
    sizes = dataset.metadata("jump/a").sizes["flow_y"]
    offset = video.members["flow_y"][0] + sum(sizes[:2])
    patch(copied / shard_name(0), offset, bytes(sizes[2]))
    with pytest.raises(DatasetError) as caught:
        dataset.flow("jump/a", 1, 4)
    assert str(caught.value) == ("jump/a: flow_y 2 is not a JPEG; run `flowprep verify --deep`")
    dataset.flow("jump/a", 0, 2)


def test_a_jpeg_of_another_kind_is_read_by_opencv(copied: Path) -> None:
    dataset = flowprep.open_dataset(copied)
    expected = dataset.planes("jump/a", [0, 1, 2])
    offset, size = dataset.videos["jump/a"].members["flow_x"]
    tar = (copied / shard_name(0)).read_bytes()
    # The header of an extended JPEG: the same pixels, but not the kind that is written here.
    patch(copied / shard_name(0), tar.index(b"\xff\xc0", offset, offset + size), b"\xff\xc1")
    for indices in ([0, 1, 2], [2, 0], [0]):
        np.testing.assert_array_equal(dataset.planes("jump/a", indices), expected[indices])
    box = dataset.planes("jump/a", [0, 1], box=(5, 6, 20, 30))
    np.testing.assert_array_equal(box, expected[:2, :, 6:36, 5:25])


def test_planes_that_are_not_there_are_refused(copied: Path) -> None:
    dataset = flowprep.open_dataset(copied)
    for indices, named in (([0, 5], 5), ([-1, 2], -1)):
        with pytest.raises(DatasetError, match=rf"^jump/a has flows 0 to 4, got {named}$"):
            dataset.planes("jump/a", indices)
    with pytest.raises(DatasetError, match=r"indices must be one or more, got none"):
        dataset.planes("jump/a", [])
    for box in ((-1, 0, 5, 5), (0, 0, WIDTH + 1, 5), (3, 3, 0, 5), (0, HEIGHT, 5, 1)):
        with pytest.raises(DatasetError, match=rf"jump/a, which is {WIDTH}x{HEIGHT} px, got"):
            dataset.planes("jump/a", [0], box=box)
    offset, size = dataset.videos["jump/a"].members["flow_y"]
    patch(copied / shard_name(0), offset, bytes(size))
    with pytest.raises(DatasetError, match=r"^jump/a: flow_y 1 is not a JPEG; run "):
        dataset.planes("jump/a", [2, 1])


def test_a_jpeg_of_another_size_is_refused(copied: Path) -> None:
    dataset = flowprep.open_dataset(copied)
    video = dataset.videos["jump/a"]
    offset, size = video.members["flow_x"]
    tar = (copied / shard_name(0)).read_bytes()
    header = tar.index(b"\xff\xc0", offset, offset + size)
    patch(copied / shard_name(0), header + 5, (24).to_bytes(2, "big") + (32).to_bytes(2, "big"))
    with pytest.raises(DatasetError) as caught:
        dataset.quantized("jump/a", 0, 1)
    assert str(caught.value) == (
        f"jump/a: flow_x 0 is 32x24, but the index says {WIDTH}x{HEIGHT}; run `flowprep verify "
        "--deep`"
    )


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        (b'{"key"', b'["key"', "JSONDecodeError: "),
        (b'"key":"jump/a"', b'"key":"jump/b"', "ValueError: it is of jump/b"),
        (b'"sizes":', b'"sizez":', "ValidationError: Object missing required field `sizes`"),
        (b'"sizes":{"flow_x":', b'"sizes":{"flow_z":', "ValueError: flow_x is not 5 JPEGs in "),
    ],
)
def test_damaged_metadata_is_refused(copied: Path, old: bytes, new: bytes, detail: str) -> None:
    tar = (copied / shard_name(0)).read_bytes()
    assert tar.count(old) == 1
    (copied / shard_name(0)).write_bytes(tar.replace(old, new))
    dataset = flowprep.open_dataset(copied)
    with pytest.raises(
        DatasetError,
        match=rf"^shards/000000\.tar: jump/a\.json is damaged: {detail}.*; run `flowprep verify`$",
    ):
        dataset.flow("jump/a", 0, 1)


def test_sizes_that_are_not_the_streams_are_refused(copied: Path) -> None:
    tar = (copied / shard_name(0)).read_bytes()
    match = re.search(rb'"sizes":\{"flow_x":\[(\d+),', tar)
    assert match is not None
    digits = b"1" * len(match[1])
    (copied / shard_name(0)).write_bytes(tar[: match.start(1)] + digits + tar[match.end(1) :])
    with pytest.raises(
        DatasetError, match=r"jump/a\.json is damaged: ValueError: flow_x is not 5 "
    ):
        flowprep.open_dataset(copied).flow("jump/a", 4, 1)


def test_sizes_below_zero_are_refused(copied: Path) -> None:
    tar = (copied / shard_name(0)).read_bytes()
    match = re.search(rb'"sizes":\{"flow_x":\[(\d+),(\d+),', tar)
    assert match is not None
    first = "-" + "1" * (len(match[1]) - 1)
    both = f"{first},{int(match[1]) + int(match[2]) - int(first)}".encode()
    assert len(both) == len(match[1]) + 1 + len(match[2])
    (copied / shard_name(0)).write_bytes(tar[: match.start(1)] + both + tar[match.end(2) :])
    with pytest.raises(
        DatasetError, match=r"jump/a\.json is damaged: ValidationError: Expected `int` >= 1"
    ):
        flowprep.open_dataset(copied).flow("jump/a", 0, 1)


def test_a_key_that_leaves_the_folder_is_refused(copied: Path) -> None:
    sidecar = copied / sidecar_name(0)
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"key":"jump/a"', b'"key":"../../a"'))
    with pytest.raises(DatasetError, match=r"^malformed key '\.\./\.\./a'"):
        flowprep.open_dataset(copied)


# ---- the whole way: how far stored flow is from the estimator's


JPEG_ERROR = {
    # quality: greatest and mean error in levels that JPEG may add to this clip's flow. Measured:
    90: (6, 0.25),  # 3 and 0.175
    95: (4, 0.15),  # 2 and 0.101
    100: (1, 0.08),  # 1 and 0.046
}


@pytest.mark.parametrize("quality", list(JPEG_ERROR))
@pytest.mark.parametrize("quantizer", ["round", "floor", "centered"])
def test_stored_flow_is_within_half_a_level_and_jpegs_error(
    videos: Manifest, tmp_path: Path, truth: TruthOf, quantizer: Any, quality: int
) -> None:
    spec = FlowSpec("farneback", bound_px=4.0, quantizer=quantizer)
    encode = dataclasses.replace(CONFIG.encode, jpeg_quality=quality, keep_rgb=False)
    config = ExtractConfig(CONFIG.decode, spec, encode)
    few = dataclasses.replace(videos, videos=videos.videos[:1])
    flowprep.extract(few, tmp_path / "out", config, executor="inline")
    dataset = flowprep.open_dataset(tmp_path / "out")
    expected = truth("jump/a", config)
    most_levels, mean_levels = JPEG_ERROR[quality]
    for direction in DIRECTIONS:
        levels = dataset.quantized("jump/a", 0, 5, direction)
        jpeg_error = np.abs(levels.astype(int) - expected.levels[direction])
        assert jpeg_error.max() <= most_levels
        assert jpeg_error.mean() <= mean_levels
        wanted = np.clip(expected.flow[direction].astype(np.float64), -4, 4)
        error = np.abs(dataset.flow("jump/a", 0, 5, direction) - wanted)
        half = 1.0 if quantizer == "centered" else 0.5
        assert error.max() <= (half + jpeg_error.max()) * spec.px_per_level + 1e-6
        assert error.mean() <= (0.5 + jpeg_error.mean()) * spec.px_per_level


@pytest.mark.parametrize(
    ("algorithm", "quality"), [("tvl1", 95), ("farneback", 95), ("dis", 95), ("dis", 100)]
)
def test_the_endpoint_error_of_rubber_whale_survives_storage(
    test_data: Path, tmp_path: Path, algorithm: str, quality: int
) -> None:
    whale = test_data / "groundtruth" / "RubberWhale"
    folder = tmp_path / "videos" / "whale"
    folder.mkdir(parents=True)
    for number, name in enumerate(("frame10.png", "frame11.png"), start=1):
        (folder / f"img_{number:05d}.png").write_bytes((whale / name).read_bytes())
    config = ExtractConfig(
        CONFIG.decode,
        FlowSpec(algorithm),
        dataclasses.replace(CONFIG.encode, jpeg_quality=quality),
    )
    report = flowprep.extract(tmp_path / "videos", tmp_path / "out", config, executor="inline")
    assert report.is_complete
    dataset = flowprep.open_dataset(tmp_path / "out")
    (video,) = dataset.videos
    truth = np.asarray(cv2.readOpticalFlow(str(whale / "flow10.flo")), np.float32)
    known = np.abs(truth).max(axis=-1) < 1e9
    prev, following = (
        np.asarray(cv2.imread(str(whale / name), cv2.IMREAD_GRAYSCALE), np.uint8)
        for name in ("frame10.png", "frame11.png")
    )

    def mean_error(flow: np.ndarray[Any, Any]) -> float:
        return float(np.linalg.norm(flow - truth, axis=-1)[known].mean())

    computed = mean_error(flowprep.create_estimator(algorithm)(prev, following))
    stored = mean_error(dataset.flow(video.key, 0, 1)[0])
    assert stored == pytest.approx(computed, abs=0.03)
    # Backward flow is not forward flow: 2.3 px off.
    assert mean_error(dataset.flow(video.key, 0, 1, "backward")[0]) > 2


def test_threads_share_one_data_set_while_files_are_evicted(
    dataset: FlowDataset, made_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.dataset.read._FILE_CACHE", 1)
    monkeypatch.setattr("flowprep.dataset.read._METADATA_CACHE", 1)
    monkeypatch.setattr("flowprep.dataset.read._OFFSETS_CACHE", 1)
    monkeypatch.setattr("flowprep.dataset.video_list._VIDEO_CACHE", 1)
    other = flowprep.open_dataset(made_once)
    wanted = {video.key: other.quantized(video.key, 0, 2) for video in dataset.videos}
    assert len({video.shard for video in dataset.videos}) > 1
    keys = list(wanted) * 20
    with ThreadPoolExecutor(8) as pool:
        clips = pool.map(lambda key: dataset.quantized(key, 0, 2), keys)
        for key, levels in zip(keys, clips, strict=True):
            np.testing.assert_array_equal(levels, wanted[key])


def test_a_data_set_is_a_sequence_of_its_videos(dataset: FlowDataset) -> None:
    assert len(dataset) == 4
    assert dataset[0] is dataset.videos[0]
    assert dataset[-1] is dataset["walk/d"] is dataset[dataset[3]]
    assert [video.key for video in dataset] == [video.key for video in dataset.videos]
    assert [video.key for video in dataset[1:3]] == [dataset[1].key, dataset[2].key]
    assert dataset[1] in dataset
    assert "walk/b" in dataset
    assert 1 not in dataset
    with pytest.raises(IndexError, match="the data set has 4 videos, got position 4"):
        dataset[4]


def test_a_video_or_its_key_gives_the_whole_video(dataset: FlowDataset) -> None:
    for video in dataset:
        key, last = video.key, video.num_flows
        for read in (dataset.flow, dataset.quantized):
            expected = read(key, 0, last)
            np.testing.assert_array_equal(read(video), expected)
            np.testing.assert_array_equal(read(key, 1), expected[1:])
        planes = dataset.planes(key, range(last))
        np.testing.assert_array_equal(dataset.planes(video), planes)
        np.testing.assert_array_equal(dataset.frames(video), dataset.frames(key, range(last + 1)))
        assert dataset.jpegs(video, "flow_x") == dataset.jpegs(key, "flow_x", 0, last)
        assert dataset.metadata(video) == dataset.metadata(key)
        np.testing.assert_array_equal(
            dataset.offsets(video, "flow_x"), dataset.offsets(key, "flow_x")
        )
        assert dataset.videos.position(video) == dataset.videos.position(key)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda dataset: dataset.flow(0), "a video must be a video of the data set or its key, got"
         " a value of type int; take dataset[0] for the first video"),
        (lambda dataset: dataset[1.5], "a video is found by its position, its key or itself, got a"
         " value of type float; take dataset[0] for the first video"),
        (lambda dataset: dataset[[0]], "a video is found by its position, its key or itself, got a"
         " value of type list; take dataset[0] for the first video"),
        (lambda dataset: dataset.flow("jump/a", "3"), "start must be an integer, got a value of"
         " type str; the first field or frame is 0"),
        (lambda dataset: dataset.frames("jump/a", 5), "indices must be a list of integers, got a"
         " value of type int for jump/a; [5] is the sixth of its frames"),
        (lambda dataset: dataset.planes("jump/a", [0.5]), "indices must be a list of integers, got"
         " a value of type list for jump/a; [5] is the sixth of its flows"),
    ],
)  # fmt: skip
def test_a_wrong_type_gets_one_sentence(dataset: FlowDataset, ask: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(dataset)
    assert str(caught.value) == said
