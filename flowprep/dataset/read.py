"""Reads the shards of a data set directly: any clip of any video by one ranged read per stream."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import cv2
import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from flowprep.config import Direction, ExtractConfig, check_choice
from flowprep.dataset.foreign import foreign_notes, list_shards
from flowprep.dataset.jpeg_header import JPEG_END
from flowprep.dataset.labels import AppliedLabels, relabel_videos
from flowprep.dataset.layout import (
    FLOW_STREAMS,
    RGB_STREAM,
    DatasetHeader,
    shard_name,
    stream_names,
)
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.quantize import dequantize
from flowprep.dataset.ranges import check_indices, check_range
from flowprep.dataset.stored_jpegs import check_jpeg, decode_jpeg
from flowprep.dataset.video_list import StoredVideo, VideoList, VideoOrKey, read_videos
from flowprep.errors import ConfigError, DatasetError
from flowprep.storage import Storage
from flowprep.words import format_count

__all__ = ["FlowDataset", "open_dataset", "published_shards"]

V = TypeVar("V")

# For this many videos, the places of the JPEGs stay in memory (a few kB per video).
_OFFSETS_CACHE = 4096
# For this many videos, the whole `KEY.json` stays in memory (about ten times as much).
_METADATA_CACHE = 64
# Most open files. A data set of thousands of shards must not run out of file descriptors.
_FILE_CACHE = 64


class FlowDataset:
    """A published data set. `open_dataset` makes it. Can be pickled; is thread- and fork-safe.

    `len(dataset)`, `dataset[0]` and iteration give its videos. Each method that reads a video takes
    the video itself or its key.
    """

    def __init__(
        self,
        storage: Storage,
        header: DatasetHeader,
        videos: VideoList,
        named: AppliedLabels | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._storage = storage
        self.header = header
        self.config: ExtractConfig = header.config
        self.class_names: tuple[str, ...] = named.class_names if named else header.class_names
        self.videos = named.videos if named else videos
        self.labels_name: str | None = named.name if named else None
        """Name of the labels, splits and class names in use. None means the data set's own."""
        self.labels_sha256: str | None = named.sha256 if named else None
        """Checksum of the file of these labels."""
        self.num_unlabelled: int = named.num_unlabelled if named else 0
        """Number of videos that these labels do not contain, so without a label or split."""
        self._notes = tuple(notes)
        self._metadata: OrderedDict[str, VideoMetadata] = OrderedDict()
        self._offsets: OrderedDict[str, dict[str, NDArray[np.int64]]] = OrderedDict()
        self._files: OrderedDict[int, _File] = OrderedDict()

    @property
    def location(self) -> str:
        """The folder or URL of the data set."""
        return self._storage.location

    @property
    def notes(self) -> list[str]:
        """What a user must know of the data set, as sentences."""
        return [*self._notes, *self.labels_notes]

    @property
    def labels_notes(self) -> list[str]:
        """Sentences that a user of the named labels must know."""
        if not self.num_unlabelled:
            return []
        return [
            f"labels {self.labels_name} give no label and no split to "
            f"{format_count(self.num_unlabelled, 'video')} of {len(self.videos):,} in "
            f"{self.location}; run `flowprep label --name {self.labels_name} --replace` with a "
            "list that names them"
        ]

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_metadata", "_offsets", "_files")
        return self.__dict__ | {name: OrderedDict() for name in caches}

    @property
    def storage(self) -> Storage:
        """The storage through which the data set is read."""
        return self._storage

    def read_through(self, storage: Storage) -> FlowDataset:
        """Returns the same data set, read through `storage`, which must hold the same bytes.

        Both share the description of the data set, but nothing that was read from its shards.
        """
        other = FlowDataset.__new__(FlowDataset)
        other.__dict__.update(self.__getstate__(), _storage=storage)
        return other

    def close(self) -> None:
        """Closes the files that reading opened. The next read opens them again."""
        self._files = OrderedDict()

    def __repr__(self) -> str:
        labels = "" if self.labels_name is None else f", labels {self.labels_name}"
        return f"FlowDataset({self._storage.location!r}, {len(self.videos)} videos{labels})"

    def __len__(self) -> int:
        """The number of videos."""
        return len(self.videos)

    def __iter__(self) -> Iterator[StoredVideo]:
        return iter(self.videos)

    def __contains__(self, video: object) -> bool:
        return video in self.videos

    @overload
    def __getitem__(self, index: int | VideoOrKey) -> StoredVideo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredVideo]: ...
    def __getitem__(self, index: int | VideoOrKey | slice) -> StoredVideo | Sequence[StoredVideo]:
        """Returns the video at a position, or with a key. See `VideoList`."""
        return self.videos[index]

    def metadata(self, key: VideoOrKey) -> VideoMetadata:
        """Returns a video's `KEY.json`: source, sizes of its JPEGs, statistics, versions.

        The labels and the split are those with which the data set was opened. Raises DatasetError
        for an unknown key, and if the file is damaged.
        """
        video = self.videos.find(key)
        known = self._metadata.get(video.key)
        return self._describe(video)[0] if known is None else known

    def offsets(self, key: VideoOrKey, stream: str) -> NDArray[np.int64]:
        """Returns the begin of each JPEG of a stream and the end of the last: (N + 1,) int64.

        Raises DatasetError like `metadata`, and ConfigError for a stream that the data set does not
        hold.
        """
        self._check_stream(stream)
        return self._stream_offsets(self.videos.find(key))[stream]

    def _stream_offsets(self, video: StoredVideo) -> dict[str, NDArray[np.int64]]:
        known = self._offsets.get(video.key)
        return self._describe(video)[1] if known is None else known

    def _describe(self, video: StoredVideo) -> tuple[VideoMetadata, dict[str, NDArray[np.int64]]]:
        """Reads a video's `KEY.json`, which must agree with the index."""
        try:
            content = self._read(video.shard, *video.members["json"])
            metadata = VideoMetadata.from_json(content)
            if metadata.key != video.key:
                raise ValueError(f"it is of {metadata.key}")
            offsets = {}
            for name in stream_names(self.config.encode):
                sizes = metadata.sizes.get(name, [])
                ends = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
                wanted = video.num_frames if name == RGB_STREAM else video.num_flows
                num_bytes = video.members[name][1]
                # Each size is above zero, so a sum that overflows int64 shows as a decrease.
                if len(sizes) != wanted or ends[-1] != num_bytes or (np.diff(ends) <= 0).any():
                    raise ValueError(f"{name} is not {wanted} JPEGs in {num_bytes} B")
                offsets[name] = ends
        except ValueError as error:
            raise DatasetError(
                f"{shard_name(video.shard)}: {video.key}.json is damaged: {type(error).__name__}: "
                f"{error}; run `flowprep verify`"
            ) from error
        if self.labels_name is not None:
            metadata = msgspec.structs.replace(
                metadata, labels=list(video.labels), split=video.split
            )
        _keep(self._metadata, video.key, metadata, _METADATA_CACHE)
        _keep(self._offsets, video.key, offsets, _OFFSETS_CACHE)
        return metadata, offsets

    def member_bytes(self, key: VideoOrKey, name: str, offset: int, size: int) -> bytes:
        """Returns `size` raw bytes from `offset` of a member, such as `flow_x`, with one read.

        Raises DatasetError for an unknown key or member, or a range that is not inside the member.
        """
        video = self.videos.find(key)
        if name not in video.members:
            raise DatasetError(f"{video.key} has {', '.join(video.members)}, got {name!r}")
        begin, length = video.members[name]
        if offset < 0 or size < 0 or offset + size > length:
            raise DatasetError(
                f"{video.key}.{name} has {length} bytes, got offset {offset} and size {size}; keep "
                "within them"
            )
        return self._read(video.shard, begin + offset, size)

    def quantized(
        self,
        key: VideoOrKey,
        start: int = 0,
        length: int | None = None,
        direction: Direction = "forward",
    ) -> NDArray[np.uint8]:
        """Returns `length` fields from `start` as stored: (L, H, W, 2) uint8 levels, (x, y).

        `key` is a video of the data set or its key. The default is the whole video.
        `forward` field t goes from frame t to t + step; `backward` field t from t + step to t.
        Raises DatasetError for an unknown key or a range outside [0, num_flows), ConfigError for a
        direction that the data set does not hold.
        """
        self._check_direction(direction)
        video = self.videos.find(key)
        start, length = check_range(video.key, "flows", video.num_flows, start, length)
        levels = np.empty((length, video.height, video.width, 2), dtype=np.uint8)
        for axis, stream in enumerate(FLOW_STREAMS[direction]):
            for number, jpeg in enumerate(self._jpegs(video, stream, start, length)):
                levels[number, ..., axis] = decode_jpeg(
                    jpeg, cv2.IMREAD_GRAYSCALE, video, f"{stream} {start + number}"
                )
        return levels

    def flow(
        self,
        key: VideoOrKey,
        start: int = 0,
        length: int | None = None,
        direction: Direction = "forward",
    ) -> NDArray[np.float32]:
        """Returns `length` fields from `start` in px: (L, H, W, 2) float32, (u right, v down).

        `key` is a video of the data set or its key. The default is the whole video.
        Levels are decoded with the data set's own FlowSpec. Raises the errors of `quantized`.
        """
        return dequantize(self.quantized(key, start, length, direction), self.config.flow)

    def homographies(self, key: VideoOrKey) -> NDArray[np.float64] | None:
        """Returns the camera's motion in each pair, (num_flows, 3, 3) float64.

        The matrix of pair t takes (x, y, 1) of the background from frame t to frame t + step, in
        px, up to a factor. It is NaN for pairs whose flow still has the camera's motion. None for
        flow that was not freed of it (`--camera-motion`). Raises DatasetError like `metadata`.
        """
        stored = self.metadata(key).homographies
        if stored is UNSET:
            return None
        rows = [[np.nan] * 9 if one is None else one for one in stored]
        return np.array(rows, np.float64).reshape(-1, 3, 3)

    def planes(
        self,
        key: VideoOrKey,
        indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        direction: Direction = "forward",
        *,
        box: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Returns stored fields with x and y separate: (L, 2, H, W) uint8, in order of `indices`.

        Indices may repeat and leave gaps; the default is all fields. One read per stream covers all
        of them, and each JPEG is decoded once. With `box` = (x, y, width, height) in px, the
        result is only this part of each field, (L, 2, height, width). Raises the errors of
        `quantized`.
        """
        self._check_direction(direction)
        video = self.videos.find(key)
        wanted, low, high = check_indices(video.key, "flows", video.num_flows, indices)
        x, y, width, height = box or (0, 0, video.width, video.height)
        if not (0 <= x < x + width <= video.width and 0 <= y < y + height <= video.height):
            raise DatasetError(
                f"box must be (x, y, width, height) within {video.key}, which is "
                f"{video.width}x{video.height} px, got {box}"
            )
        # numba is imported here, because it takes half a second and single fields do not need it.
        from flowprep.dataset.jpeg import decode_planes

        planes = np.empty((wanted.size, 2, height, width), np.uint8)
        if np.array_equal(wanted, np.arange(low, low + wanted.size)):
            unique, places = wanted, np.arange(wanted.size)
            copies = places
        else:
            unique, places, copies = np.unique(wanted, return_index=True, return_inverse=True)
        for axis, stream in enumerate(FLOW_STREAMS[direction]):
            data, offsets = self._stream(video, stream, low, high - low + 1)
            starts, ends = offsets[unique - low], offsets[unique - low + 1]
            targets = (2 * places + axis) * (height * width)
            done = 0
            while done < unique.size:
                done += decode_planes(
                    data,
                    starts[done:],
                    ends[done:],
                    planes,
                    targets[done:],
                    (video.width, video.height),
                    (x, y, width, height),
                )
                if done < unique.size:
                    # This is another kind of JPEG, or no JPEG. OpenCV reads it or reports an error.
                    image = decode_jpeg(
                        data[starts[done] : ends[done]],
                        cv2.IMREAD_GRAYSCALE,
                        video,
                        f"{stream} {unique[done]}",
                    )
                    planes[places[done], axis] = image[y : y + height, x : x + width]
                    done += 1
        if unique.size < wanted.size:
            for place, first in enumerate(places[copies].tolist()):
                if place != first:
                    planes[place] = planes[first]
        return planes

    def _check_direction(self, direction: Direction) -> None:
        check_choice("direction", direction, Direction)
        if direction not in self.config.encode.directions:
            raise ConfigError(
                f"{self._storage.location} holds no {direction} flow; "
                f"it has {', '.join(self.config.encode.directions)}"
            )

    def frames(
        self,
        key: VideoOrKey,
        indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.uint8]:
        """Returns RGB frames: (n, H, W, 3) uint8, in the order of `indices`, with one read.

        The default is all frames of the video.

        Raises DatasetError for an unknown key or an index outside [0, num_frames), ConfigError for
        a data set without RGB frames.
        """
        if not self.config.encode.keep_rgb:
            raise ConfigError(
                f"{self._storage.location} holds no RGB frames; extract into another folder "
                f"without --no-rgb"
            )
        video = self.videos.find(key)
        if indices is not None and np.shape(indices) == (0,):
            return np.empty((0, video.height, video.width, 3), np.uint8)
        wanted, low, high = check_indices(video.key, "frames", video.num_frames, indices)
        frames = np.empty((wanted.size, video.height, video.width, 3), np.uint8)
        jpegs = self._jpegs(video, RGB_STREAM, low, high - low + 1)
        for number, index in enumerate(wanted.tolist()):
            bgr = decode_jpeg(jpegs[index - low], cv2.IMREAD_COLOR, video, f"rgb {index}")
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=frames[number])
        return frames

    def jpegs(
        self, key: VideoOrKey, stream: str, start: int = 0, length: int | None = None
    ) -> list[bytes]:
        """Returns the stored bytes of `length` JPEG files of a stream from `start`; default all.

        `stream` is `flow_x`, `flow_y`, `back_x`, `back_y` or `rgb`. The header of each JPEG is
        compared with the index: it must have the video's size, and one component for flow. Raises
        DatasetError for an unknown key, a range outside the stream, or other JPEGs, ConfigError for
        a stream that the data set does not hold.
        """
        self._check_stream(stream)
        video = self.videos.find(key)
        total = video.num_frames if stream == RGB_STREAM else video.num_flows
        start, length = check_range(video.key, stream, total, start, length)
        jpegs = self._jpegs(video, stream, start, length)
        for number, jpeg in enumerate(jpegs, start=start):
            what = f"{stream} {number}"
            components = check_jpeg(jpeg, video, what)
            if stream != RGB_STREAM and components != 1:
                raise DatasetError(
                    f"{video.key}: {what} has {components} components, flow has 1; run "
                    f"`flowprep verify --deep`"
                )
            if not jpeg.endswith(JPEG_END):
                raise DatasetError(f"{video.key}: {what} is cut; run `flowprep verify --deep`")
        return jpegs

    def _check_stream(self, stream: str) -> None:
        if stream not in stream_names(self.config.encode):
            raise ConfigError(
                f"{self._storage.location} holds no {stream}; "
                f"it has {', '.join(stream_names(self.config.encode))}"
            )

    def _jpegs(self, video: StoredVideo, stream: str, start: int, length: int) -> list[bytes]:
        data, offsets = self._stream(video, stream, start, length)
        ends = offsets.tolist()
        return [data[begin:end] for begin, end in itertools.pairwise(ends)]

    def _stream(
        self, video: StoredVideo, stream: str, start: int, length: int
    ) -> tuple[bytes, NDArray[np.int64]]:
        """Reads JPEGs of a stream. Returns the bytes, the begin of each and the last one's end."""
        offsets = self._stream_offsets(video)[stream][start : start + length + 1]
        first = offsets[0]
        begin, _ = video.members[stream]
        data = self._read(video.shard, begin + int(first), int(offsets[-1] - first))
        return data, offsets - first

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if not self._storage.is_local:
            data = self._storage.read_range(shard_name(shard), offset, size)
        else:
            file = self._file(shard)  # a reference, which keeps it open
            # pread allocates `size` bytes before it reads, so a forged size must be limited.
            data = os.pread(file.descriptor, max(0, min(size, file.size - offset)), offset)
        if len(data) != size:
            raise DatasetError(
                f"{shard_name(shard)} is cut off: it has no bytes {offset + len(data)} to "
                f"{offset + size - 1}; run `flowprep verify`"
            )
        return data

    def _file(self, shard: int) -> _File:
        file = self._files.get(shard)
        if file is None:
            try:
                file = self._files[shard] = _File(self._storage.path(shard_name(shard)))
            except OSError as error:
                raise DatasetError(
                    f"cannot read {shard_name(shard)}: {error.strerror}; run `flowprep verify`"
                ) from error
            _make_room(self._files, _FILE_CACHE)
        return file


def _keep(cache: OrderedDict[str, V], key: str, value: V, size: int) -> None:
    cache[key] = value
    _make_room(cache, size)


def _make_room(cache: OrderedDict[Any, Any], size: int) -> None:
    if len(cache) > size:
        # Another thread may have removed the entry in the meantime.
        with contextlib.suppress(KeyError):
            cache.popitem(last=False)


class _File:
    """An open shard. It stays open while a thread reads it, even if another thread drops it."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # A shard is published whole and never changes.
        self.size = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def open_dataset(out: str | os.PathLike[str], *, labels: str | None = None) -> FlowDataset:
    """Opens the published videos of a data set, even if a run is still adding videos.

    `out` is a folder or an fsspec URL. `labels` is the name of labels that `flowprep.label` wrote.
    They replace the data set's own labels, splits and class names. Videos that they do not contain
    have neither label nor split. Raises DatasetError if `out` is not a flowprep data set, has a
    version that this flowprep does not know, or has a damaged sidecar, and if the labels do not
    exist or are damaged; ConfigError for an invalid name.
    """
    storage = Storage(out)
    header = DatasetHeader.read(storage)
    shards = list_shards(storage)
    videos = read_videos(storage, shards.published, header.config)
    named = None if labels is None else relabel_videos(storage, labels, videos)
    notes = foreign_notes(storage, shards.foreign)
    return FlowDataset(storage, header, videos, named, notes)


def published_shards(storage: Storage) -> list[int]:
    """Returns the numbers of the shards that have a sidecar, in order."""
    return list(list_shards(storage).published)
