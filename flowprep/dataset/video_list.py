"""The videos of a data set in a few arrays, read from its sidecars and found by position or key.

A hundred thousand objects would take 150 MB, and a forked process that looks at them would copy all
of them. Records are checked one shard at a time, so that a million of them are read in seconds.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import operator
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    VideoRecord,
    read_sidecar,
    sidecar_name,
    stream_names,
)
from flowprep.dataset.read_ahead import read_ahead
from flowprep.errors import ConfigError, DatasetError
from flowprep.garbage import collector_paused
from flowprep.inputs.keys import are_plain_keys, check_key
from flowprep.storage import Storage

__all__ = ["StoredVideo", "VideoList", "VideoOrKey", "read_videos", "size_problem"]

# T.81 has 16 bits for each side. The area is at most 16384 x 16384 px (MAX_SIDE_PX).
_MAX_JPEG_SIDE_PX = 65535
_MAX_PIXELS = 1 << 28

# Number of videos that are kept as objects, each by position and by key.
_VIDEO_CACHE = 512


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """One video of a data set."""

    key: str
    labels: tuple[int, ...]
    """Class numbers, from 0. Empty if the input had no label."""
    split: str | None
    num_frames: int
    num_flows: int
    """Number of flow fields per direction: num_frames - step."""
    width: int
    height: int
    fps: float | None
    is_partial: bool
    """Whether the source was damaged, and only the part before the damage is stored."""
    shard: int
    members: Mapping[str, tuple[int, int]]
    """Byte offset and size of each member in the shard."""

    @property
    def label(self) -> int | None:
        """The only label, or None if there is no label or more than one."""
        return self.labels[0] if len(self.labels) == 1 else None


VideoOrKey = str | StoredVideo
"""How a user names a video of a data set: by its key, or by the video itself."""


class VideoList(Sequence[StoredVideo]):
    """The videos of a data set, shard by shard. They can also be found by key."""

    def __init__(self, videos: Iterable[StoredVideo] = ()) -> None:
        columns = _Columns()
        found = list(videos)
        columns.add(found, [video.shard for video in found])
        self._fill(columns)

    @classmethod
    def _of_columns(cls, columns: _Columns) -> VideoList:
        videos = cls.__new__(cls)
        videos._fill(columns)
        return videos

    def _fill(self, columns: _Columns) -> None:
        # This uses the memory of the columns and does not copy it.
        self._keys = bytes(columns.keys)
        self._key_ends = np.frombuffer(columns.key_ends, np.int64)
        self._labels = np.frombuffer(columns.labels, np.int64)
        self._label_ends = np.frombuffer(columns.label_ends, np.int64)
        self._numbers = np.frombuffer(columns.numbers, np.int64).reshape(-1, len(_NUMBERS))
        self._rates = np.frombuffer(columns.rates, np.float64)
        self._members = np.frombuffer(columns.members, np.int64)
        self._splits = tuple(columns.splits)
        self._names = tuple(columns.names)
        hashes = np.frombuffer(columns.hashes, np.uint32)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        # By position and by key.
        self._recent: dict[int | str, StoredVideo] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": {}}

    @overload
    def __getitem__(self, index: int | VideoOrKey) -> StoredVideo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredVideo]: ...
    def __getitem__(self, index: int | VideoOrKey | slice) -> StoredVideo | Sequence[StoredVideo]:
        """Returns the video at a position or with a key.

        Raises DatasetError for an unknown key, IndexError for a position that does not exist, and
        ConfigError for anything else.
        """
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if isinstance(index, StoredVideo):
            index = index.key
        elif not isinstance(index, str):
            index = self._checked(index)
        if (video := self._recent.get(index)) is not None:
            return video
        position = self.position(index) if isinstance(index, str) else index
        video = self._recent.get(position) or self._build(position)
        recent = self._recent if len(self._recent) < _VIDEO_CACHE else {}
        recent[position] = recent[video.key] = video
        self._recent = recent
        return video

    def find(self, video: VideoOrKey) -> StoredVideo:
        """Returns the video that a user names.

        Raises DatasetError for an unknown key, and ConfigError for what is neither.
        """
        if isinstance(video, str):
            return self[video]
        if isinstance(video, StoredVideo):
            return self[video.key]
        raise ConfigError(
            "a video must be a video of the data set or its key, got a value of type "
            f"{type(video).__name__}; dataset[0] is the first video"
        )

    def position(self, video: VideoOrKey) -> int:
        """Returns the position of a video. Raises DatasetError if no video has its key."""
        key = video.key if isinstance(video, StoredVideo) else video
        encoded = key.encode()
        wanted = zlib.crc32(encoded)
        place = int(np.searchsorted(self._hashes, np.uint32(wanted)))
        while place < len(self) and self._hashes[place] == wanted:
            position = int(self._order[place])
            if self._key(position) == encoded:
                return position
            place += 1
        raise DatasetError(f"no video has the key {key!r}; `flowprep info --videos` lists them")

    def find_positions(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Returns the positions of many keys, (N,) int64. -1 means that no video has the key."""
        encoded = [key.encode() for key in keys]
        hashes = np.fromiter(map(zlib.crc32, encoded), np.uint32, len(encoded))
        if not len(self) or not encoded:
            return np.full(len(encoded), -1, np.int64)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self) - 1)
        positions = self._order[places].astype(np.int64)
        ends = self._key_ends[positions]
        begins = np.where(positions > 0, self._key_ends[positions - 1], 0)
        stored = self._keys
        for number, (key, begin, end) in enumerate(
            zip(encoded, begins.tolist(), ends.tolist(), strict=True)
        ):
            if stored[begin:end] != key:
                # No such key, or one that shares its hash with others.
                try:
                    positions[number] = self.position(keys[number])
                except DatasetError:
                    positions[number] = -1
        return positions

    def relabeled(
        self,
        positions: NDArray[np.int64],
        label_counts: NDArray[np.int64],
        labels: NDArray[np.int64],
        split_numbers: NDArray[np.int64],
        splits: Sequence[str | None],
    ) -> VideoList:
        """Returns the same videos with other labels and splits. The other columns are shared.

        The video at `positions[i]` gets the next `label_counts[i]` of `labels`, and the split
        `splits[split_numbers[i]]`. Videos at no position get no label, and the split `splits[0]`.
        """
        order = np.argsort(positions, kind="stable")
        counts = label_counts[order]
        begins = (np.cumsum(label_counts) - label_counts)[order]
        # Where each label of the new column stands in the given one.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        per_video = np.zeros(len(self), np.int64)
        per_video[positions] = label_counts
        numbers = self._numbers.copy()
        numbers[:, _NUMBERS.index("split")] = 0
        numbers[positions, _NUMBERS.index("split")] = split_numbers
        videos = copy.copy(self)
        videos._labels = labels[np.repeat(begins, counts) + within]
        videos._label_ends = np.cumsum(per_video)
        videos._numbers = numbers
        videos._splits = tuple(splits)
        videos._recent = {}
        return videos

    def __len__(self) -> int:
        return len(self._rates)

    def __iter__(self) -> Iterator[StoredVideo]:
        return (self[position] for position in range(len(self)))

    def __contains__(self, item: object) -> bool:
        key = item.key if isinstance(item, StoredVideo) else item
        if not isinstance(key, str):
            return False
        try:
            found = self[key]
        except DatasetError:
            return False
        return item in (key, found)

    def find_impossible(self, config: ExtractConfig) -> StoredVideo | None:
        """Returns the first video that a run with `config` cannot have written, or None.

        All videos are checked together: a million of them in a tenth of a second.
        """
        num_frames, num_flows, width, height = self._numbers[:, :4].T
        wanted = {"json", *stream_names(config.encode)}
        has_wanted = np.array([set(names) == wanted for names in self._names], bool)
        possible = (
            _are_sizes(width, height)
            & _are_counts(num_frames, num_flows, config.flow.step)
            & has_wanted[self._numbers[:, _NUMBERS.index("names")]]
        )
        return None if possible.all() else self[int(np.argmin(possible))]

    def _checked(self, index: Any) -> int:
        """Returns a position as a number from 0 on; a negative one counts from the end."""
        try:
            position = operator.index(index)
        except TypeError:
            raise ConfigError(
                "a video is found by its position, its key or itself, got a value of type "
                f"{type(index).__name__}; take dataset[0] for the first video"
            ) from None
        if not -len(self) <= position < len(self):
            raise IndexError(f"the data set has {len(self):,} videos, got position {position}")
        return position + len(self) if position < 0 else position

    def _key(self, position: int) -> bytes:
        begin = self._key_ends[position - 1] if position else 0
        return self._keys[begin : self._key_ends[position]]

    def _build(self, position: int) -> StoredVideo:
        num_frames, num_flows, width, height, is_partial, split, names, first, shard = (
            self._numbers[position].tolist()
        )
        first_label = self._label_ends[position - 1] if position else 0
        fps = float(self._rates[position])
        member_names = self._names[names]
        places = self._members[first : first + 2 * len(member_names)].reshape(-1, 2).tolist()
        return StoredVideo(
            key=self._key(position).decode(),
            labels=tuple(self._labels[first_label : self._label_ends[position]].tolist()),
            split=self._splits[split],
            num_frames=num_frames,
            num_flows=num_flows,
            width=width,
            height=height,
            fps=None if math.isnan(fps) else fps,
            is_partial=bool(is_partial),
            shard=shard,
            members={name: (o, n) for name, (o, n) in zip(member_names, places, strict=True)},
        )


_NUMBERS = (
    *("num_frames", "num_flows", "width", "height"),
    *("is_partial", "split", "names", "first_member", "shard"),
)
"""Columns of the array with the properties that are one integer for each video."""


class _Columns:
    """The columns of a VideoList while it grows."""

    def __init__(self) -> None:
        self.keys = bytearray()
        self.key_ends = array("q")
        self.hashes = array("I")
        self.labels = array("q")
        self.label_ends = array("q")
        self.numbers = array("q")
        self.rates = array("d")
        self.members = array("q")
        # Splits and names of members have only few different values.
        self.splits: dict[str | None, int] = {}
        self.names: dict[tuple[str, ...], int] = {}

    def add(self, videos: Sequence[StoredVideo | VideoRecord], shards: Sequence[int]) -> None:
        """Adds videos with the number of each video's shard."""
        keys = [video.key.encode() for video in videos]
        _extend(self.key_ends, _ends(keys, len(self.keys)))
        self.keys += b"".join(keys)
        self.hashes.extend(map(zlib.crc32, keys))
        labels = [video.labels for video in videos]
        _extend(self.label_ends, _ends(labels, len(self.labels)))
        self.labels.extend(itertools.chain.from_iterable(labels))
        # None becomes NaN.
        rates = np.array([video.fps for video in videos], np.float64)
        self.rates.frombytes(rates.tobytes())
        splits = [video.split for video in videos]
        for split in set(splits):
            self.splits.setdefault(split, len(self.splits))
        members = [video.members for video in videos]
        names = list(map(tuple, members))
        for item in set(names):
            self.names.setdefault(item, len(self.names))
        ends = 2 * _ends(names, len(self.members) // 2)
        places = itertools.chain.from_iterable(item.values() for item in members)
        self.members.extend(itertools.chain.from_iterable(places))
        table: tuple[Any, ...] = (
            [video.num_frames for video in videos],
            [video.num_flows for video in videos],
            [video.width for video in videos],
            [video.height for video in videos],
            [video.is_partial for video in videos],
            list(map(self.splits.__getitem__, splits)),
            list(map(self.names.__getitem__, names)),
            ends - 2 * _lengths(names),
            shards,
        )
        numbers = np.empty((len(videos), len(_NUMBERS)), np.int64)
        for column, values in enumerate(table):
            numbers[:, column] = values
        _extend(self.numbers, numbers)


def _extend(column: array[int], values: NDArray[np.int64]) -> None:
    column.frombytes(values.tobytes())


def _lengths(parts: Sequence[Sized]) -> NDArray[np.int64]:
    return np.fromiter(map(len, parts), np.int64, len(parts))


def _ends(parts: Sequence[Sized], begin: int) -> NDArray[np.int64]:
    return begin + np.cumsum(_lengths(parts))


def read_videos(storage: Storage, shards: Sequence[int], config: ExtractConfig) -> VideoList:
    """Returns the videos of published shards. Raises DatasetError for a damaged sidecar."""
    columns = _Columns()
    with collector_paused():
        for sidecar in read_ahead(storage, shards, functools.partial(read_sidecar, storage)):
            found = [video for video in sidecar.videos if video.status != "failed"]
            keys = [video.key for video in found]
            if not are_plain_keys(keys):
                for key in keys:
                    check_key(key)
            columns.add(found, [sidecar.shard] * len(found))
    videos = VideoList._of_columns(columns)
    if (video := videos.find_impossible(config)) is not None:
        raise DatasetError(
            f"{sidecar_name(video.shard)}: {video.key}: {_problem(video, config)}; "
            "run `flowprep verify`"
        )
    return videos


def _are_sizes(width: Any, height: Any) -> Any:
    """Whether a frame can have this width and height in px. Takes integers or arrays of them."""
    is_side = (width > 0) & (height > 0) & (width <= _MAX_JPEG_SIDE_PX)
    return is_side & (height <= _MAX_JPEG_SIDE_PX) & (width * height <= _MAX_PIXELS)


def _are_counts(num_frames: Any, num_flows: Any, step: int) -> Any:
    """Whether `num_frames` give `num_flows`. Takes integers or arrays of them."""
    return (num_flows > 0) & (num_frames - num_flows == step)


def size_problem(width: int, height: int) -> str | None:
    """Says that a frame cannot have this size. Returns None if it can."""
    return None if _are_sizes(width, height) else f"no frame is {width}x{height}"


def _problem(video: StoredVideo, config: ExtractConfig) -> str | None:
    """Says what is impossible in a record with correct types, so that no forged one is used."""
    if (problem := size_problem(video.width, video.height)) is not None:
        return problem
    if not _are_counts(video.num_frames, video.num_flows, config.flow.step):
        return f"{video.num_frames} frames do not give {video.num_flows} flows"
    if set(video.members) != {"json", *stream_names(config.encode)}:
        return f"its members are {', '.join(video.members)}"
    return None
