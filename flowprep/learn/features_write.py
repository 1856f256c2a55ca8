"""Writes features so that a stopped command goes on: video by video, then the files of many.

    npy                  write_video: the files of each video, at once in their place
    h5, webdataset       write_video: the same files in .parts; join_videos makes the files of many

A video counts as finished when its record is there, which is written last. All files appear whole
or not at all. Their bytes depend on the videos alone, not on the order in which they were finished.
"""

from __future__ import annotations

import heapq
import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flowprep.dataset.layout import PARTS_FOLDER
from flowprep.errors import DatasetError
from flowprep.learn.features_files import (
    CONFIG_FILE,
    FORMAT,
    FORMAT_VERSION,
    H5_FILE,
    JOINED,
    WINDOWS_SUFFIX,
    FeatureSet,
    VideoFeatures,
    array_bytes,
    is_shard,
    list_keys,
    read_npy_video,
    read_record,
    stored_arrays,
    video_record,
)
from flowprep.storage import Storage

__all__ = ["finished_videos", "join_videos", "parts_storage", "write_config", "write_video"]

VIDEOS_PER_SHARD = 100
"""Videos in each tar of `webdataset`."""
_REQUESTS = 16
_PLAIN: dict[str, Any] = {"axes": "tc", "joined": False}
"""How the parts of h5 and webdataset are stored."""


def write_config(storage: Storage, content: Mapping[str, Any]) -> None:
    """Writes features.json."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    storage.write_bytes(CONFIG_FILE, (json.dumps(content, indent=2) + "\n").encode())


def parts_storage(storage: Storage, config: Mapping[str, Any]) -> Storage:
    """Returns where the files of each video go: for formats of many videos, a folder beside."""
    if config["format"] == "npy":
        return storage
    return Storage(f"{storage.location.rstrip('/')}/{PARTS_FOLDER}")


def write_video(storage: Storage, video: VideoFeatures, config: Mapping[str, Any]) -> None:
    """Writes the files of a video. `config` is that of features.json."""
    is_npy = config["format"] == "npy"
    form = config if is_npy else _PLAIN
    place = parts_storage(storage, config)
    folder = video.key.rpartition("/")[0]
    place.make_folder(folder)
    arrays = stored_arrays(video, axes=form["axes"], joined=form["joined"])
    for name, array in arrays.items():
        file = f"{video.key}.npy" if name == JOINED else f"{video.key}_{name}.npy"
        place.write_bytes(file, array_bytes(array))
    if is_npy and not form["joined"] and video.fps is not None:
        # v-iashin/video_features writes these; the time is that of a window's end, in ms.
        place.write_bytes(f"{video.key}_fps.npy", array_bytes(np.array(video.fps)))
        times = array_bytes(video.end_seconds * 1000)
        place.write_bytes(f"{video.key}_timestamps_ms.npy", times)
    place.write_bytes(video.key + WINDOWS_SUFFIX, (json.dumps(video_record(video)) + "\n").encode())


def finished_videos(storage: Storage, content: Mapping[str, Any]) -> dict[str, str]:
    """Returns the source of each video that is finished, by key."""
    place = parts_storage(storage, content["config"])
    keys = list_keys(place)
    found: dict[str, str] = {}
    if place is not storage:
        done = FeatureSet(storage, dict(content))
        if content["config"]["format"] != "h5" or storage.exists(H5_FILE):
            found = {record["key"]: record["source"] for record in done.records()}
    if storage.is_local:
        records = list(map(partial(read_record, place), keys))
    else:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            records = list(pool.map(partial(read_record, place), keys))
    return found | {record["key"]: record["source"] for record in records}


def join_videos(storage: Storage, content: Mapping[str, Any]) -> None:
    """Puts finished videos into the files of many, for the formats that have them.

    An h5 file is written anew with all videos. Shards that are there stay, and new videos come into
    further shards.
    """
    config = content["config"]
    if config["format"] == "npy":
        return
    parts = parts_storage(storage, config)
    keys = list_keys(parts)
    if config["format"] == "h5":
        if keys:
            _write_h5(storage, _with_old(storage, content, parts, keys), config)
    else:
        old = {record["key"] for record in FeatureSet(storage, dict(content)).records()}
        new = [key for key in keys if key not in old]
        number = len([name for name in storage.list_names() if is_shard(name)])
        for begin in range(0, len(new), VIDEOS_PER_SHARD):
            chosen = new[begin : begin + VIDEOS_PER_SHARD]
            videos = (read_npy_video(parts, key, _PLAIN) for key in chosen)
            _write_shard(storage, f"features-{number:06d}.tar", videos, config)
            number += 1
    storage.remove(PARTS_FOLDER)


def _with_old(
    storage: Storage, content: Mapping[str, Any], parts: Storage, keys: list[str]
) -> Iterator[VideoFeatures]:
    """Yields the videos of the file that is there and those of the parts, by key."""
    new = (read_npy_video(parts, key, _PLAIN) for key in keys)
    if not storage.exists(H5_FILE):
        return new
    own = set(keys)
    old = (video for video in FeatureSet(storage, dict(content)) if video.key not in own)
    return heapq.merge(old, new, key=lambda video: video.key)


def _write_h5(storage: Storage, videos: Iterable[VideoFeatures], config: Mapping[str, Any]) -> None:
    import h5py

    with tempfile.TemporaryDirectory(prefix="flowprep-") as folder:
        path = Path(folder, H5_FILE)
        with h5py.File(path, "w") as file:
            for video in videos:
                group = file.require_group(video.key)
                group.attrs[FORMAT] = FORMAT_VERSION
                # Not an attribute, because those hold 64 kB at most.
                group.create_dataset("json", data=json.dumps(video_record(video)))
                arrays: dict[str, Any] = dict(
                    stored_arrays(video, axes=config["axes"], joined=config["joined"])
                )
                arrays |= {"start_seconds": video.start_seconds, "end_seconds": video.end_seconds}
                for name, array in arrays.items():
                    if name in group:
                        raise DatasetError(
                            f"the video {video.key} and the videos in the folder {video.key} "
                            f"share the name {name} in {H5_FILE}; take --format npy"
                        )
                    group.create_dataset(name, data=array)
        with open(path, "rb") as made, storage.atomic_file(H5_FILE) as target:
            while block := made.read(1 << 22):
                target.write(block)


def _write_shard(
    storage: Storage, name: str, videos: Iterable[VideoFeatures], config: Mapping[str, Any]
) -> None:
    with (
        storage.atomic_file(name) as target,
        tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for video in videos:
            arrays = stored_arrays(video, axes=config["axes"], joined=config["joined"])
            _add(tar, f"{video.key}.json", json.dumps(video_record(video)).encode())
            for stream, array in arrays.items():
                _add(tar, f"{video.key}.{stream}.npy", array_bytes(array))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(data))
