"""Data sets whose manifest and index are whole and whose shards hold nothing: made in no time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    DatasetHeader,
    ManifestEntry,
    Sidecar,
    VideoRecord,
    shard_name,
    sidecar_name,
    write_manifest,
)
from flowprep.inputs.video import Video
from flowprep.storage import Storage

__all__ = ["make_index"]


def make_index(out: Path, videos: Sequence[Video], class_names: tuple[str, ...] = ()) -> None:
    """Writes manifest and index of a data set whose shards hold nothing."""
    storage = Storage(out)
    storage.write_bytes("dataset.json", DatasetHeader(ExtractConfig(), "x", class_names).to_json())
    write_manifest(storage, [ManifestEntry(video, 0) for video in videos])
    members = dict.fromkeys(("json", "flow_x", "flow_y", "back_x", "back_y", "rgb"), (512, 100))
    records = tuple(
        VideoRecord(v.key, "complete", v.labels, v.split, 9, 8, 32, 24, 25.0, members=members)
        for v in videos
    )
    storage.write_bytes(shard_name(0), b"\0" * 1024)
    digest = hashlib.sha256(b"\0" * 1024).hexdigest()
    storage.write_bytes(sidecar_name(0), Sidecar(0, 1024, digest, records).to_json())
