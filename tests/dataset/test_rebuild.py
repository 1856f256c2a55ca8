"""A lost sidecar comes back from its tar as it was, but for what only the run knew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from flowprep.dataset.layout import (
    DatasetHeader,
    Sidecar,
    read_failures,
    read_manifest,
    read_sidecar,
    shard_name,
)
from flowprep.dataset.rebuild import rebuild_sidecar
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
        (b'"flow":{', b'"flew":{'),
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
