"""What tests ask the server for, and what they find in the shards."""

from __future__ import annotations

from pathlib import Path

from flowprep.dataset.layout import shard_name
from flowprep.dataset.read import FlowDataset

KEY = "move_left/a"

ENDPOINTS = [
    "/",
    "/page.css",
    "/browse.css",
    "/page.js",
    "/table.js",
    "/address.js",
    "/arrows.js",
    "/browse.js",
    "/colors.js",
    "/homography.js",
    "/controls.js",
    "/findings.js",
    "/keys.js",
    "/list.js",
    "/player.js",
    "/streams.js",
    "/view.js",
    "/api/dataset",
    "/api/videos",
    "/api/survey",
    "/api/statistics",
    f"/api/findings?key={KEY}",
    f"/api/video?key={KEY}",
    f"/stream?key={KEY}&name=flow_x",
]


def member(out: Path, dataset: FlowDataset, key: str, name: str) -> bytes:
    video = dataset.videos[key]
    offset, size = video.members[name]
    return (out / shard_name(video.shard)).read_bytes()[offset : offset + size]
