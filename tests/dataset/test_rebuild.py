"""A lost sidecar comes back from its tar as it was, but for what only the run knew."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest

import flowprep
from flowprep.dataset.layout import (
    DatasetHeader,
    Sidecar,
    read_failures,
    read_manifest,
    read_sidecar,
    shard_name,
    sidecar_name,
)
from flowprep.dataset.metadata import read_stored_config
from flowprep.dataset.rebuild import read_shard, rebuild_sidecar
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import DatasetError
from flowprep.storage import Storage

REMEDY = (
    "restore the shard from a copy, or remove its .tar and .json and run the same extract again"
)


def rebuilt(out: Path, shard: int) -> Sidecar:
    storage = Storage(out)
    entries = [entry for entry in read_manifest(storage) if entry.shard == shard]
    config = DatasetHeader.read(storage).config
    return rebuild_sidecar(storage, shard, config, entries, read_failures(storage))


def without_run(sidecar: Sidecar) -> Sidecar:
    return msgspec.structs.replace(
        sidecar,
        videos=tuple(
            msgspec.structs.replace(video, seconds={}, attempts=1) for video in sidecar.videos
        ),
    )


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_rebuilt_sidecar_is_the_old_one(made_once: Path, shard: int) -> None:
    # Shard 0 has a failed video, shard 1 a key longer than a tar header holds.
    old = read_sidecar(Storage(made_once), shard)
    assert rebuilt(made_once, shard) == without_run(old)


def test_a_rebuilt_sidecar_of_another_configuration_is_the_old_one(forward_only: Path) -> None:
    assert rebuilt(forward_only, 0) == without_run(read_sidecar(Storage(forward_only), 0))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_cut_tar_is_refused(copied: Path, share: float) -> None:
    tar = copied / shard_name(1)
    os.truncate(tar, int(tar.stat().st_size * share))
    with pytest.raises(DatasetError, match=r"^shards/000001\.tar "):
        rebuilt(copied, 1)


def test_a_tar_of_zeros_is_refused(copied: Path) -> None:
    tar = copied / shard_name(1)
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(
        DatasetError, match=r"^shards/000001\.tar has no walk/b, which the manifest "
    ):
        rebuilt(copied, 1)


def test_a_tar_without_a_video_of_the_manifest_is_refused(copied: Path) -> None:
    (copied / shard_name(0)).write_bytes((copied / shard_name(2)).read_bytes())
    with pytest.raises(DatasetError) as caught:
        rebuilt(copied, 0)
    assert str(caught.value) == (
        f"shards/000000.tar has no jump/a, which the manifest puts there; {REMEDY}"
    )


def test_a_tar_with_a_strange_video_is_refused(copied: Path) -> None:
    manifest = copied / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if '"walk/b"' not in line))
    with pytest.raises(DatasetError) as caught:
        rebuilt(copied, 1)
    assert str(caught.value) == (
        f"shards/000001.tar holds walk/b, which the manifest does not put there; {REMEDY}"
    )


def test_a_video_without_all_its_members_is_refused(copied: Path) -> None:
    header = copied / "dataset.json"
    values = json.loads(header.read_text())
    values["config"]["encode"]["keep_rgb"] = False
    header.write_text(json.dumps(values))
    with pytest.raises(DatasetError) as caught:
        rebuilt(copied, 0)
    assert str(caught.value) == (
        "shards/000000.tar: jump/a has too few members; it has only json, flow_x, flow_y, "
        f"back_x, back_y, rgb; {REMEDY}"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"num_frames":', b'"num_framez":'),
        (b',"flow":{"forward"', b',"flew":{"forward"'),
        (b'"labels":', b'"label5":'),
    ],
)
def test_damaged_metadata_is_refused(copied: Path, old: bytes, new: bytes) -> None:
    tar = copied / shard_name(0)
    data = tar.read_bytes()
    assert data.count(old) == 1
    tar.write_bytes(data.replace(old, new))
    with pytest.raises(
        DatasetError, match=r"^shards/000000\.tar: jump/a\.json is damaged: ValidationErr"
    ):
        rebuilt(copied, 0)


def pixel_place(out: Path, stream: str) -> tuple[Path, int]:
    """A byte in the middle of the entropy-coded data of a JPEG of shard 1's first video."""
    video = read_sidecar(Storage(out), 1).videos[0]
    tar = out / shard_name(1)
    data = tar.read_bytes()
    begin, size = video.members[stream]
    # After the header of the scan of the last JPEG.
    scan = data.rindex(b"\xff\xda", begin, begin + size) + 14
    return tar, (scan + begin + size) // 2


@pytest.mark.parametrize("stream", ["flow_x", "rgb"])
def test_a_pixel_that_changed_is_seen_without_the_sidecar(copied: Path, stream: str) -> None:
    tar, place = pixel_place(copied, stream)
    data = bytearray(tar.read_bytes())
    # Another bit of a coefficient: the JPEG decodes all the same, mostly without a complaint.
    data[place] ^= 0x01
    tar.write_bytes(data)
    (copied / sidecar_name(1)).unlink()
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    (problem,) = [one for one in report.problems if "cannot be rebuilt" in one]
    assert f"shards/000001.tar: walk/b.{stream} has another SHA-256 than its metadata" in problem
    assert not (copied / sidecar_name(1)).exists()


def test_each_stream_has_its_checksum(made_once: Path) -> None:
    dataset = flowprep.open_dataset(made_once)
    for video in dataset.videos:
        stored = dataset.metadata(video.key).stream_sha256
        assert stored == {
            name: hashlib.sha256(dataset.member_bytes(video.key, name, 0, size)).hexdigest()
            for name, (_, size) in video.members.items()
            if name != "json"
        }


def test_a_shard_says_alone_how_it_was_made(made_once: Path) -> None:
    content = read_shard(Storage(made_once), 0)
    header = DatasetHeader.read(Storage(made_once))
    for metadata in content.metadata.values():
        assert read_stored_config(metadata.config, header.config) == header.config
        assert metadata.implementation == header.implementation
