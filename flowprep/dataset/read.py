"""Reading a data set as it lies: any clip of any video by one ranged read per stream."""

from __future__ import annotations

import contextlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.config import Direction, ExtractConfig
from flowprep.dataset.layout import (
    FLOW_STREAMS,
    RGB_STREAM,
    SHARDS_FOLDER,
    DatasetHeader,
    Sidecar,
    VideoRecord,
    read_sidecar,
    shard_name,
    stream_names,
)
from flowprep.dataset.storage import Storage
from flowprep.errors import ConfigError, DatasetError
from flowprep.flow.quantize import dequantize
from flowprep.video.keys import check_key

__all__ = ["FlowDataset", "StoredVideo", "VideoList", "open_dataset", "published_shards"]

# Frame sizes of this many videos stay in memory (about 10 kB each).
_METADATA_CACHE = 4096
# Open files; a data set of thousands of shards must not run out of file descriptors.
_FILE_CACHE = 64


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One video of a data set."""

    key: str
    labels: tuple[int, ...]
    """Class numbers, 0-based; empty where the input had none."""
    split: str | None
    num_frames: int
    num_flows: int
    """Flow fields per direction: num_frames - step."""
    width: int
    height: int
    fps: float | None
    is_partial: bool
    """The source was damaged, and this is what came before the damage."""
    shard: int
    members: Mapping[str, tuple[int, int]]
    """Byte offset and size of each member in the shard."""

    @property
    def label(self) -> int | None:
        """The only label; None where there is none or more than one."""
        return self.labels[0] if len(self.labels) == 1 else None


class VideoList(Sequence[StoredVideo]):
    """The videos of a data set, shard by shard; also found by key."""

    def __init__(self, videos: Sequence[StoredVideo]) -> None:
        self._videos = videos
        self._by_key = {video.key: video for video in videos}

    @overload
    def __getitem__(self, index: int | str) -> StoredVideo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredVideo]: ...
    def __getitem__(self, index: int | str | slice) -> StoredVideo | Sequence[StoredVideo]:
        """Returns the video at a position or with a key; raises DatasetError for an unknown key."""
        if isinstance(index, str):
            if index not in self._by_key:
                raise DatasetError(f"no video has the key {index!r}")
            return self._by_key[index]
        return self._videos[index]

    def __len__(self) -> int:
        return len(self._videos)

    def __iter__(self) -> Iterator[StoredVideo]:
        return iter(self._videos)

    def __contains__(self, item: object) -> bool:
        return item in self._by_key if isinstance(item, str) else item in self._videos


class FlowDataset:
    """A published data set; made by `open_dataset`. Pickles; safe in threads and after a fork."""

    def __init__(
        self, storage: Storage, header: DatasetHeader, sidecars: Sequence[Sidecar]
    ) -> None:
        self._storage = storage
        self.header = header
        self.config: ExtractConfig = header.config
        self.class_names: tuple[str, ...] = header.class_names
        self.videos = VideoList(
            [
                _stored(record, sidecar.shard)
                for sidecar in sidecars
                for record in sidecar.videos
                if record.status != "failed"
            ]
        )
        self._metadata: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._files: OrderedDict[int, _File] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_metadata": OrderedDict(), "_files": OrderedDict()}

    def close(self) -> None:
        """Closes the files that reading opened; the next read opens them again."""
        self._files = OrderedDict()

    def __repr__(self) -> str:
        return f"FlowDataset({self._storage.location!r}, {len(self.videos)} videos)"

    def metadata(self, key: str) -> dict[str, Any]:
        """Returns a video's `KEY.json`: source, sizes of its JPEGs, statistics, versions."""
        if (known := self._metadata.get(key)) is not None:
            return known
        video = self.videos[key]
        try:
            values: dict[str, Any] = json.loads(self._read(video.shard, *video.members["json"]))
            values["offsets"] = {
                name: np.concatenate(([0], np.cumsum(values["sizes"][name], dtype=np.int64)))
                for name in stream_names(self.config.encode)
            }
            if values["key"] != key:
                raise ValueError(f"it is of {values['key']}")
            for name, offsets in values["offsets"].items():
                wanted = video.num_frames if name == RGB_STREAM else video.num_flows
                if len(offsets) != wanted + 1 or offsets[-1] != video.members[name][1]:
                    raise ValueError(f"{name} is not {wanted} JPEGs in {video.members[name][1]} B")
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{shard_name(video.shard)}: {key}.json is damaged: {type(error).__name__}: "
                f"{error}; run `flowprep verify`"
            ) from error
        self._metadata[key] = values
        if len(self._metadata) > _METADATA_CACHE:
            self._metadata.popitem(last=False)
        return values

    def quantized(
        self, key: str, start: int, length: int, direction: Direction = "forward"
    ) -> NDArray[np.uint8]:
        """Returns `length` fields from `start` as stored: (L, H, W, 2) uint8 levels, (x, y).

        `forward` field t goes from frame t to t + step; `backward` field t from t + step to t.
        Raises DatasetError for an unknown key or a range outside [0, num_flows), ConfigError for a
        direction that the data set does not hold.
        """
        if direction not in FLOW_STREAMS:
            raise ConfigError(f"direction must be forward or backward, got {direction!r}")
        if direction not in self.config.encode.directions:
            raise ConfigError(
                f"{self._storage.location} holds no {direction} flow; "
                f"it has {', '.join(self.config.encode.directions)}"
            )
        video = self.videos[key]
        if length < 1 or start < 0 or start + length > video.num_flows:
            raise DatasetError(
                f"{key} has flows 0 to {video.num_flows - 1}, got start {start} and length {length}"
            )
        levels = np.empty((length, video.height, video.width, 2), dtype=np.uint8)
        for axis, stream in enumerate(FLOW_STREAMS[direction]):
            for number, jpeg in enumerate(self._jpegs(video, stream, start, length)):
                levels[number, ..., axis] = _decode(
                    jpeg, cv2.IMREAD_GRAYSCALE, video, f"{stream} {start + number}"
                )
        return levels

    def flow(
        self, key: str, start: int, length: int, direction: Direction = "forward"
    ) -> NDArray[np.float32]:
        """Returns `length` fields from `start` in px: (L, H, W, 2) float32, (u right, v down).

        Levels are decoded by the data set's own FlowSpec. Raises as `quantized` does.
        """
        return dequantize(self.quantized(key, start, length, direction), self.config.flow)

    def frames(self, key: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Returns RGB frames: (n, H, W, 3) uint8, in the order of `indices`; one read spans them.

        Raises DatasetError for an unknown key or an index outside [0, num_frames), ConfigError for
        a data set without RGB frames.
        """
        if not self.config.encode.keep_rgb:
            raise ConfigError(f"{self._storage.location} holds no RGB frames")
        video = self.videos[key]
        frames = np.empty((len(indices), video.height, video.width, 3), dtype=np.uint8)
        if len(indices) == 0:
            return frames
        low, high = min(indices), max(indices)
        if low < 0 or high >= video.num_frames:
            raise DatasetError(
                f"{key} has frames 0 to {video.num_frames - 1}, got {low if low < 0 else high}"
            )
        jpegs = self._jpegs(video, RGB_STREAM, low, high - low + 1)
        for number, index in enumerate(indices):
            bgr = _decode(jpegs[index - low], cv2.IMREAD_COLOR, video, f"rgb {index}")
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=frames[number])
        return frames

    def _jpegs(self, video: StoredVideo, stream: str, start: int, length: int) -> list[bytes]:
        offsets = self.metadata(video.key)["offsets"][stream]
        first, end = int(offsets[start]), int(offsets[start + length])
        begin, _ = video.members[stream]
        data = self._read(video.shard, begin + first, end - first)
        return [
            data[int(offsets[t]) - first : int(offsets[t + 1]) - first]
            for t in range(start, start + length)
        ]

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if not self._storage.is_local:
            data = self._storage.read_range(shard_name(shard), offset, size)
        else:
            file = self._file(shard)  # a reference, which keeps it open
            data = os.pread(file.descriptor, size, offset)
        if len(data) != size:
            raise DatasetError(
                f"{shard_name(shard)} is cut: it lacks bytes {offset + len(data)} to "
                f"{offset + size - 1}; run `flowprep verify`"
            )
        return data

    def _file(self, shard: int) -> _File:
        file = self._files.get(shard)
        if file is None:
            try:
                file = self._files[shard] = _File(self._storage.path(shard_name(shard)))
            except OSError as error:
                raise DatasetError(f"cannot read {shard_name(shard)}: {error.strerror}") from error
            if len(self._files) > _FILE_CACHE:
                # Another thread may have made room meanwhile.
                with contextlib.suppress(KeyError):
                    self._files.popitem(last=False)
        return file


class _File:
    """A shard, open until nobody refers to it: one thread may read it while another makes room."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def open_dataset(out: str | os.PathLike[str]) -> FlowDataset:
    """Opens the published videos of a data set; a run may still be adding to it.

    `out` is a folder or an fsspec URL. Raises DatasetError where it is not a flowprep data set, is
    of a version that this one does not know, or has a damaged sidecar.
    """
    storage = Storage(out)
    header = DatasetHeader.read(storage)
    sidecars = [read_sidecar(storage, shard) for shard in published_shards(storage)]
    for sidecar in sidecars:
        for record in sidecar.videos:
            check_key(record.key)
    return FlowDataset(storage, header, sidecars)


def published_shards(storage: Storage) -> list[int]:
    """Returns the numbers of the shards that have a sidecar, in order."""
    names = storage.list_names(SHARDS_FOLDER)
    return sorted(
        int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()
    )


def _stored(record: VideoRecord, shard: int) -> StoredVideo:
    return StoredVideo(
        key=record.key,
        labels=record.labels,
        split=record.split,
        num_frames=record.num_frames,
        num_flows=record.num_flows,
        width=record.width,
        height=record.height,
        fps=record.fps,
        is_partial=record.status == "partial",
        shard=shard,
        members=record.members,
    )


def _decode(jpeg: bytes, flags: int, video: StoredVideo, what: str) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), flags) if jpeg else None
    if image is None:
        raise DatasetError(f"{video.key}: {what} is not a JPEG; run `flowprep verify --deep`")
    if image.shape[:2] != (video.height, video.width):
        raise DatasetError(
            f"{video.key}: {what} is {image.shape[1]}x{image.shape[0]}, "
            f"the index says {video.width}x{video.height}"
        )
    return image  # type: ignore[return-value]
