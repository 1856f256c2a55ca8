"""Features on disk: what `flowprep features` writes, and how to read it.

    features.json                 how the features were made; the same for every format
    npy          KEY_flow.npy     the array of a stream, and KEY_rgb.npy; joined: KEY.npy
                 KEY_fps.npy, KEY_timestamps_ms.npy    as video_features writes them
                 KEY_windows.json                      times, labels, notes; written last
    h5           features.h5      a group KEY for each video, with the arrays of its streams
    webdataset   features-000000.tar, ...              KEY.flow.npy, KEY.rgb.npy, KEY.json

`open_features` reads all of them. The names of npy files and their (T, C) are those of
v-iashin/video_features (models/i3d/extract_i3d.py, utils/utils.py), and of ActionFormer's loaders
(libs/datasets). (C, T) and KEY.npy are those of MS-TCN (batch_gen.py). Keys have no dots, so no
file of one video can have the name of another video's file.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import DatasetError, StorageError
from flowprep.extras import extra_needed
from flowprep.inputs.keys import check_key
from flowprep.learn.features_config import AxesName, FeatureFormat
from flowprep.storage import Storage

__all__ = [
    "CONFIG_FILE",
    "FORMAT",
    "FORMAT_VERSION",
    "H5_FILE",
    "JOINED",
    "WINDOWS_SUFFIX",
    "FeatureSet",
    "VideoFeatures",
    "array_bytes",
    "is_shard",
    "list_keys",
    "open_features",
    "read_config",
    "read_npy_video",
    "read_record",
    "stored_arrays",
    "video_record",
]

CONFIG_FILE = "features.json"
FORMAT = "flowprep-features"
FORMAT_VERSION = 1
H5_FILE = "features.h5"
WINDOWS_SUFFIX = "_windows.json"
JOINED = "features"
"""The name of the array that holds all streams, where they are joined."""


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video: a row for each window, in the order of time."""

    key: str
    """Key of the video in its data set."""
    features: Mapping[str, NDArray[np.float32]]
    """Stream (`flow`, `rgb`, or `both` of a network that sees both) -> (windows, C); for maps
    (windows, C, ...)."""
    start_seconds: NDArray[np.float64]
    """(windows,) time of the first frame of each window. NaN where the video has no frame rate."""
    end_seconds: NDArray[np.float64]
    """(windows,) time at which the last frame of each window ends."""
    labels: tuple[int, ...] = ()
    """Class numbers, 0-based. Empty for a video without a label."""
    split: str | None = None
    """`train`, `test`, ... None if there is none."""
    notes: tuple[str, ...] = ()
    """What a user must know of this video, as sentences."""
    fps: float | None = None
    """Frames per second. None where the video has no frame rate."""
    num_frames: int = 0
    """Number of frames that the video gave."""
    source: str = ""
    """Path or URL of the video, or of the data set that it is in."""
    frames: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    """(windows, 2) the first frame of each window, and the frame after its last."""

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self.start_seconds)


class FeatureSet:
    """The features that a command wrote. Iterating reads one video after the other."""

    def __init__(self, storage: Storage, config: dict[str, Any], h5: str | None = None) -> None:
        self._storage = storage
        self.content = config
        """The whole content of features.json."""
        self._h5 = h5

    @property
    def location(self) -> str:
        """The folder or URL."""
        return self._storage.location

    @property
    def config(self) -> dict[str, Any]:
        """How the features were made: networks, window, stride, layer, crops, flow."""
        return dict(self.content["config"])

    @property
    def format(self) -> FeatureFormat:
        """`npy`, `h5` or `webdataset`."""
        kind: FeatureFormat = self.content["config"]["format"]
        return kind

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the index is the class number. Empty if there are none."""
        return tuple(self.content["class_names"])

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of each video, such as `rgb` and `flow`."""
        return tuple(self.content["streams"])

    def keys(self) -> list[str]:
        """Returns the keys of the videos, sorted. For `webdataset`, this reads all shards."""
        if self.format == "npy":
            return list_keys(self._storage)
        return sorted(record["key"] for record in self.records())

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields what is stored of each video beside its arrays."""
        config = self.content["config"]
        if self.format == "npy":
            yield from map(partial(read_record, self._storage), list_keys(self._storage))
        elif self.format == "h5":
            for record, _ in _read_h5(self._storage, self._h5 or H5_FILE, config, arrays=False):
                yield record
        else:
            for name in filter(is_shard, self._storage.list_names()):
                for record, _ in _read_shard(self._storage, name, arrays=False):
                    yield record

    def __iter__(self) -> Iterator[VideoFeatures]:
        """Yields each video. Raises DatasetError for a damaged file."""
        config = self.content["config"]
        if self.format == "npy":
            for key in list_keys(self._storage):
                yield read_npy_video(self._storage, key, config)
            return
        if self.format == "h5":
            found = _read_h5(self._storage, self._h5 or H5_FILE, config)
        else:
            shards = filter(is_shard, self._storage.list_names())
            found = (one for name in shards for one in _read_shard(self._storage, name))
        for record, stored in found:
            with _damage(f"{self.location}, {record['key']}"):
                video = _video(record, stored, config)
            yield video

    def __repr__(self) -> str:
        return f"FeatureSet({self.location!r}, {self.format}, {'+'.join(self.streams)})"


def open_features(place: str | os.PathLike[str]) -> FeatureSet:
    """Opens features: the folder or URL that `flowprep features` wrote, or its .h5 file or shard.

    Raises DatasetError if there are none, and if they are damaged or of a newer flowprep.
    """
    folder, name = os.fspath(place), None
    if folder.endswith((".h5", ".tar")):
        folder, name = os.path.split(folder)
    storage = Storage(folder or ".")
    config = read_config(storage)
    if config is None:
        raise DatasetError(
            f"no features at {os.fspath(place)}: it has no {CONFIG_FILE}; name a folder that "
            "`flowprep features` wrote"
        )
    return FeatureSet(storage, config, name if name and name.endswith(".h5") else None)


def read_config(storage: Storage) -> dict[str, Any] | None:
    """Returns the content of features.json, or None if there is no such file.

    Raises DatasetError if it is damaged or of a newer flowprep.
    """
    data = storage.read_if_there(CONFIG_FILE)
    if data is None:
        return None
    where = storage.full_name(CONFIG_FILE)
    with _damage(where):
        content: dict[str, Any] = json.loads(data)
        if content["format"] != FORMAT:
            raise ValueError("it is not of flowprep")
        if content["format_version"] != FORMAT_VERSION:
            raise DatasetError(
                f"{where} has format version {content['format_version']}, this flowprep reads "
                f"version {FORMAT_VERSION}; install a newer flowprep"
            )
        for name, kind in (("config", dict), ("class_names", list), ("streams", list)):
            if not isinstance(content[name], kind):
                raise ValueError(f"{name} must be a {kind.__name__}")
        for name in ("format", "axes", "joined"):
            content["config"][name]
    return content


# ---- what is stored of one video


def video_record(video: VideoFeatures) -> dict[str, Any]:
    """Returns everything but the arrays as JSON values."""
    return {
        "key": video.key,
        "labels": list(video.labels),
        "split": video.split,
        "notes": list(video.notes),
        "source": video.source,
        "fps": video.fps,
        "num_frames": video.num_frames,
        "num_windows": video.num_windows,
        "channels": {name: int(array.shape[1]) for name, array in video.features.items()},
        "frames": video.frames.tolist(),
        "start_seconds": _times(video.start_seconds),
        "end_seconds": _times(video.end_seconds),
    }


def stored_arrays(
    video: VideoFeatures, *, axes: AxesName, joined: bool
) -> dict[str, NDArray[np.float32]]:
    """Returns the arrays that a file stores, by name: with `axes` ct (C, T, ...).

    If `joined`, the streams lie one after the other along C, in the order of `features`.
    """
    arrays = dict(video.features)
    if joined:
        arrays = {JOINED: np.concatenate(list(arrays.values()), axis=1)}
    if axes == "ct":
        arrays = {name: np.swapaxes(array, 0, 1) for name, array in arrays.items()}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def array_bytes(array: NDArray[Any]) -> bytes:
    """Returns the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def is_shard(name: str) -> bool:
    """Whether a file is a shard of features."""
    return name.startswith("features-") and name.endswith(".tar")


def list_keys(storage: Storage, folder: str = "") -> list[str]:
    """Returns the keys of the videos whose npy files are complete, sorted."""
    keys = []
    for entry in storage.list_entries(folder):
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_folder:
            if not entry.name.startswith("."):
                keys += list_keys(storage, name)
        elif name.endswith(WINDOWS_SUFFIX):
            keys.append(name.removesuffix(WINDOWS_SUFFIX))
    return sorted(keys)


def read_record(storage: Storage, key: str) -> dict[str, Any]:
    """Reads what is stored of a video beside its npy files; raises DatasetError for damage."""
    name = key + WINDOWS_SUFFIX
    with _damage(storage.full_name(name)):
        record: dict[str, Any] = json.loads(storage.read_bytes(name))
        if record["key"] != key:
            raise ValueError(f"it is of {record['key']!r}")
    return record


def read_npy_video(storage: Storage, key: str, config: Mapping[str, Any]) -> VideoFeatures:
    """Reads the npy files of one video; raises DatasetError if they are damaged."""
    record = read_record(storage, key)
    with _damage(storage.full_name(key)):
        stored = {
            one: _array(storage.read_bytes(f"{key}.npy" if one == JOINED else f"{key}_{one}.npy"))
            for one in ([JOINED] if config["joined"] else record["channels"])
        }
        return _video(record, stored, config)


# ---- reading


_Stored = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""What is stored of a video: its record, and its arrays by name."""


def _read_h5(
    storage: Storage, name: str, config: Mapping[str, Any], *, arrays: bool = True
) -> Iterator[_Stored]:
    with extra_needed("features of format h5", "export"):
        import h5py
    source: Any = storage.path(name) if storage.is_local else storage.open_read(name)
    file: Any = None
    with _damage(storage.full_name(name)):
        file = h5py.File(source, "r")
    with file:
        for key in sorted(_groups(file)):
            with _damage(f"{storage.full_name(name)}, {key}"):
                group = file[key]
                record = json.loads(group["json"][()])
                names = [JOINED] if config["joined"] else record["channels"]
                stored = {one: np.asarray(group[one]) for one in names} if arrays else {}
            yield record, stored


def _groups(file: Any) -> list[str]:
    """Returns the names of the groups that hold a video."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if FORMAT in item.attrs:
            found.append(name)

    file.visititems(visit)
    return found


def _read_shard(storage: Storage, name: str, *, arrays: bool = True) -> Iterator[_Stored]:
    where = storage.full_name(name)
    with (
        _damage(where),
        storage.open_read(name) as source,
        tarfile.open(fileobj=source, mode="r|") as tar,
    ):
        for key, members in itertools.groupby(tar, lambda one: one.name.partition(".")[0]):
            files = {}
            for member in members:
                content = tar.extractfile(member)
                if content is not None and (arrays or member.name.endswith(".json")):
                    files[member.name.removeprefix(f"{key}.")] = content.read()
            record = json.loads(files.pop("json"))
            stored = {
                one.removesuffix(".npy"): _array(data)
                for one, data in files.items()
                if one.endswith(".npy")
            }
            yield record, stored


def _video(
    record: Mapping[str, Any], stored: Mapping[str, NDArray[Any]], config: Mapping[str, Any]
) -> VideoFeatures:
    """Rebuilds a video. Raises ValueError and the like where its parts do not fit together."""
    check_key(record["key"])
    arrays = {
        name: np.swapaxes(x, 0, 1) if config["axes"] == "ct" else x for name, x in stored.items()
    }
    channels: Mapping[str, int] = record["channels"]
    if config["joined"]:
        ends = np.cumsum(list(channels.values()))
        parts = np.split(arrays[JOINED], ends[:-1], axis=1)
        arrays = dict(zip(channels, parts, strict=True))
    for name, count in channels.items():
        if arrays[name].shape[:2] != (record["num_windows"], count):
            raise ValueError(
                f"{name} must be ({record['num_windows']}, {count}), got {arrays[name].shape}"
            )
    return VideoFeatures(
        key=record["key"],
        features={name: np.ascontiguousarray(arrays[name], np.float32) for name in channels},
        start_seconds=_seconds(record["start_seconds"], record["num_windows"]),
        end_seconds=_seconds(record["end_seconds"], record["num_windows"]),
        labels=tuple(map(int, record["labels"])),
        split=record["split"],
        notes=tuple(record["notes"]),
        fps=record["fps"],
        num_frames=int(record["num_frames"]),
        source=str(record["source"]),
        frames=np.asarray(record["frames"], np.int64).reshape(record["num_windows"], 2),
    )


def _times(seconds: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in seconds]


def _seconds(values: list[float | None], count: int) -> NDArray[np.float64]:
    times = np.array([math.nan if value is None else value for value in values], np.float64)
    if times.shape != (count,):
        raise ValueError(f"there must be {count} times, got {len(values)}")
    return times


def _array(data: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim < 2 or array.dtype.kind != "f":
        raise ValueError(f"features must be (T, C) numbers, got {array.dtype} {array.shape}")
    return array


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Raises DatasetError in place of what reading damaged bytes raises."""
    try:
        yield
    except (DatasetError, StorageError):
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        EOFError,
        OSError,
        RecursionError,
        tarfile.TarError,
    ) as error:
        raise DatasetError(
            f"{where} is damaged, or not features of flowprep: {type(error).__name__}: {error}; "
            "remove it, and run `flowprep features` again"
        ) from error
