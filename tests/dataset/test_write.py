"""Writing: streams of whole JPEGs, tars that any tool reads, bytes that only the input decides."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import webdataset

import flowprep
from flowprep.config import ExtractConfig
from flowprep.dataset.layout import read_sidecar, shard_name, sidecar_name
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.parts import part_name
from flowprep.dataset.rebuild import record_from_metadata
from flowprep.dataset.write import (
    BLOCK_SIZE,
    JpegStream,
    publish_shard,
    write_sample,
)
from flowprep.errors import DatasetError
from flowprep.inputs.manifest import Manifest
from flowprep.storage import Storage
from flowprep.synthetic import textured_image
from tests.dataset.conftest import CONFIG, HEIGHT, WIDTH, Truth

STREAMS = ["flow_x", "flow_y", "back_x", "back_y", "rgb"]
TruthOf = Callable[[str, ExtractConfig], Truth]


def split_jpegs(stream: bytes) -> list[bytes]:
    """Splits a Motion-JPEG stream at the images' beginnings, without any index."""
    begins = [i for i in range(len(stream)) if stream.startswith(b"\xff\xd8\xff", i)]
    return [
        stream[begin:end] for begin, end in zip(begins, [*begins[1:], len(stream)], strict=True)
    ]


def decode(jpeg: bytes) -> np.ndarray[Any, Any]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


# ---- streams


def test_a_stream_is_its_jpegs_one_after_the_other() -> None:
    images = [textured_image(24, 32, seed)[..., 0].copy() for seed in range(5)]
    stream = JpegStream(95)
    for image in images:
        stream.append(image)
    jpegs = split_jpegs(stream.read())
    assert [len(jpeg) for jpeg in jpegs] == stream.sizes
    assert stream.num_bytes == sum(stream.sizes) == len(stream.read())
    for jpeg, image in zip(jpegs, images, strict=True):
        assert np.abs(decode(jpeg).astype(int) - image).max() <= 8
    stream.close()


def test_a_stream_longer_than_its_memory_is_the_same(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)
    stream = JpegStream(100)
    for _ in range(9):
        stream.append(noise)
    assert stream.num_bytes > 8 << 20
    (size,) = set(stream.sizes)
    data = stream.read()
    assert len(data) == 9 * size
    assert data == 9 * data[:size]
    stream.close()


def test_a_higher_quality_takes_more_bytes_and_errs_less() -> None:
    image = textured_image(48, 64, 1)[..., 1].copy()
    sizes, errors = [], []
    for quality in (50, 90, 95, 100):
        stream = JpegStream(quality)
        stream.append(image)
        sizes.append(stream.num_bytes)
        errors.append(np.abs(decode(stream.read()).astype(int) - image).mean())
        stream.close()
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_metadata_is_one_line_of_json() -> None:
    metadata = msgspec.structs.replace(described("a", {}), source="/\udcff ü\n.mp4", fps=29.97)
    line = metadata.to_json()
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["source"] == "/\udcff ü\n.mp4"
    assert VideoMetadata.from_json(line) == metadata


# ---- samples


def described(key: str, sizes: dict[str, list[int]]) -> VideoMetadata:
    num_flows = max(map(len, sizes.values()), default=1)
    return VideoMetadata(
        key=key, source="", source_bytes=0, source_mtime_ns=0, start_seconds=None,
        end_seconds=None, labels=[], split=None, codec="", duration_seconds=None, source_fps=None,
        fps=None, source_width=16, source_height=16, rotation=0, width=16, height=16,
        num_frames_decoded=num_flows + 1, num_frames=num_flows + 1, num_flows=num_flows, step=1,
        versions={}, status="complete", flow={}, sizes=sizes,
    )  # fmt: skip


def sample(key: str, num_jpegs: int = 2) -> tuple[VideoMetadata, dict[str, JpegStream]]:
    streams = {"flow_x": JpegStream(95), "flow_y": JpegStream(95)}
    for seed, stream in enumerate(streams.values()):
        for t in range(num_jpegs):
            stream.append(textured_image(16, 16, 10 * seed + t)[..., 0].copy())
    return described(key, {n: s.sizes for n, s in streams.items()}), streams


@pytest.mark.parametrize("key", ["a", "walk/v_walk_g01_c01", "x%2Ey", "long/" + "y" * 150])
def test_a_sample_is_found_where_its_members_say(key: str) -> None:
    metadata, streams = sample(key)
    file = io.BytesIO()
    members = write_sample(file, metadata, streams)
    assert len(file.getvalue()) % BLOCK_SIZE == 0
    assert list(members) == ["json", "flow_x", "flow_y"]
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        names = {
            f"{key}.json": "json",
            f"{key}.flow_x.mjpg": "flow_x",
            f"{key}.flow_y.mjpg": "flow_y",
        }
        assert tar.getnames() == list(names)
        for info in tar:
            assert (info.offset_data, info.size) == members[names[info.name]]
            assert (info.mtime, info.uid, info.gid, info.uname, info.mode) == (0, 0, 0, "", 0o644)
    offset, size = members["flow_y"]
    assert file.getvalue()[offset : offset + size] == streams["flow_y"].read()


# ---- shards


def publish(storage: Storage, keys: list[str], shard: int = 0) -> None:
    records = []
    for index, key in enumerate(keys):
        metadata, streams = sample(key, index + 1)
        with storage.atomic_file(part_name(shard, index, "tar")) as file:
            members = write_sample(file, metadata, streams)
        records.append(record_from_metadata(metadata, members))
    publish_shard(storage, shard, range(len(keys)), records)


def test_a_shard_joins_its_parts_and_moves_their_offsets(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    publish(storage, ["a", "b", "c"])
    tar_bytes = storage.read_bytes(shard_name(0))
    sidecar = read_sidecar(storage, 0)
    assert sidecar.size == len(tar_bytes)
    assert sidecar.sha256 == hashlib.sha256(tar_bytes).hexdigest()
    assert tar_bytes.endswith(bytes(2 * BLOCK_SIZE))
    with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
        found = {info.name: (info.offset_data, info.size) for info in tar}
    for video in sidecar.videos:
        assert video.members["json"] == found[f"{video.key}.json"]
        assert video.members["flow_x"] == found[f"{video.key}.flow_x.mjpg"]


@pytest.mark.parametrize("change", [lambda data: data[:-BLOCK_SIZE], lambda data: data + b"x" * 9])
def test_a_part_that_is_not_what_its_record_says_publishes_nothing(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    storage = Storage(tmp_path)
    publish(storage, ["a"])
    (record,) = read_sidecar(storage, 0).videos
    for name in (shard_name(0), sidecar_name(0)):
        storage.remove(name)
    part = part_name(0, 0, "tar")
    storage.write_bytes(part, change(storage.read_bytes(part)))
    with pytest.raises(
        DatasetError,
        match=r"^\.parts/000000/00000000\.tar has \d+ bytes, but its record says \d+; remove it "
        r"and run the same command again$",
    ):
        publish_shard(storage, 0, [0], [record])
    assert storage.list_names("shards") == []


def test_the_same_videos_give_the_same_bytes(
    videos: Manifest, made_once: Path, tmp_path: Path
) -> None:
    flowprep.extract(videos, tmp_path / "again", CONFIG, executor="inline")
    for shard in ("000000", "000001", "000002"):
        name = f"shards/{shard}.tar"
        assert (tmp_path / "again" / name).read_bytes() == (made_once / name).read_bytes()
    for name in ("dataset.json", "manifest.jsonl", "failures.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (made_once / name).read_bytes()


def test_a_store_gets_the_same_bytes(videos: Manifest, made_once: Path, memory: str) -> None:
    flowprep.extract(videos, memory, CONFIG, executor="inline")
    storage = Storage(memory)
    assert storage.list_names("shards") == sorted(p.name for p in (made_once / "shards").iterdir())
    for shard in range(3):
        expected = (made_once / shard_name(shard)).read_bytes()
        assert storage.read_bytes(shard_name(shard)) == expected


# ---- other tools


def test_the_system_tar_lists_every_member(made_once: Path) -> None:
    listed = subprocess.run(
        ["tar", "-tf", str(made_once / "shards" / "000001.tar")],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    long_key = f"Dr%2E%20No/{'x' * 120}"
    expected = [
        f"{key}.{suffix}"
        for key in ("walk/b", long_key)
        for suffix in ("json", *(f"{name}.mjpg" for name in STREAMS))
    ]
    assert listed == expected


def test_webdataset_reads_whole_samples(made_once: Path, truth: TruthOf) -> None:
    tars = sorted(str(path) for path in (made_once / "shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    dataset = flowprep.open_dataset(made_once)
    assert [item["__key__"] for item in samples] == [video.key for video in dataset.videos]
    for item in samples:
        key = item["__key__"]
        streams = {name.removesuffix(".mjpg") for name in item if not name.startswith("__")}
        assert streams == {"json", *STREAMS}
        metadata = json.loads(item["json"])
        assert metadata["key"] == key
        expected = truth(key, CONFIG)
        for name in STREAMS:
            jpegs = split_jpegs(item[f"{name}.mjpg"])
            assert [len(jpeg) for jpeg in jpegs] == metadata["sizes"][name]
        for axis, name in enumerate(("back_x", "back_y")):
            images = [decode(jpeg) for jpeg in split_jpegs(item[f"{name}.mjpg"])]
            np.testing.assert_array_equal(images, expected.stored["backward"][..., axis])


@pytest.mark.parametrize(("stream", "channels"), [("flow_x", 1), ("back_y", 1), ("rgb", 3)])
def test_a_stream_plays_in_ffmpeg(made_once: Path, ffmpeg: str, stream: str, channels: int) -> None:
    dataset = flowprep.open_dataset(made_once)
    video = dataset.videos["jump/a"]
    offset, size = video.members[stream]
    data = (made_once / shard_name(video.shard)).read_bytes()[offset : offset + size]
    played = subprocess.run(
        [
            ffmpeg, "-v", "error", "-f", "mjpeg", "-i", "-", "-fps_mode", "passthrough",
            "-f", "rawvideo", "-pix_fmt", "gray" if channels == 1 else "bgr24", "-",
        ],
        input=data, capture_output=True, check=True,
    )  # fmt: skip
    assert played.stderr == b""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, 3)
    frames = np.frombuffer(played.stdout, np.uint8).reshape(-1, *shape)
    images = np.stack([decode(jpeg) for jpeg in split_jpegs(data)])
    assert frames.shape == images.shape
    assert len(frames) == (video.num_flows if channels == 1 else video.num_frames)
    difference = np.abs(frames.astype(int) - images)
    # Gray differs by the rounding of the transform; colour also by how chroma is enlarged.
    assert difference.mean() < (0.5 if channels == 1 else 6)
    assert channels == 3 or difference.max() <= 2


def test_metadata_says_what_was_stored(made_once: Path, videos: Manifest, truth: TruthOf) -> None:
    dataset = flowprep.open_dataset(made_once)
    given = {video.key: video for video in videos.videos}
    for video in dataset.videos:
        metadata = dataset.metadata(video.key)
        source = Path(given[video.key].source)
        assert metadata.source == str(source)
        assert metadata.source_bytes == source.stat().st_size
        assert metadata.source_mtime_ns == source.stat().st_mtime_ns
        assert (metadata.width, metadata.height) == (WIDTH, HEIGHT)
        assert metadata.num_frames == metadata.num_flows + 1 == video.num_frames
        assert metadata.source_fps == metadata.fps == 25.0
        assert metadata.step == 1
        libraries = {"flowprep", "numba", "numpy", "opencv", "jpeg", "av", "ffmpeg"}
        assert set(metadata.versions) == libraries
        for direction, flow in truth(video.key, CONFIG).flow.items():
            statistics = metadata.flow[direction]
            assert statistics.min_px == pytest.approx(float(flow.min()), abs=1e-4)
            assert statistics.max_px == pytest.approx(float(flow.max()), abs=1e-4)
            assert statistics.num_values == flow.size
            assert sum(statistics.magnitude_histogram) == flow.size // 2


def test_the_sidecar_lists_every_video_of_the_plan(made_once: Path) -> None:
    first = read_sidecar(Storage(made_once), 0)
    assert [video.key for video in first.videos] == ["jump/a", "jump/broken"]
    stored, failed = first.videos
    assert set(stored.seconds) == {"decode", "flow", "encode", "write"}
    assert msgspec.structs.replace(failed, message=None).to_dict() == {
        "key": "jump/broken", "status": "failed", "labels": (0,), "split": "test",
        "reason": "unreadable", "attempts": 1, "fault": "video",
    }  # fmt: skip
