"""The videos of a data set, in a few arrays: made of its sidecars, found by position or by key.

A hundred thousand objects would be 150 MB, and a process that looks at them after a fork would copy
them all. Records are checked a shard at a time, so that a million of them are read in seconds.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, get_args, overload

import numpy as np
from numpy.typing import NDArray

from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    VideoRecord,
    VideoStatus,
    read_sidecar,
    read_sidecar_values,
    sidecar_name,
    stream_names,
)
from flowprep.dataset.storage import Storage
from flowprep.errors import DatasetError
from flowprep.garbage import collector_paused
from flowprep.video.keys import are_plain_keys, check_key

__all__ = ["StoredVideo", "VideoList", "read_videos", "size_problem"]

# T.81 has 16 bits for a side. Of the area, a frame has 16384 x 16384 px at most (MAX_SIDE_PX).
_MAX_JPEG_SIDE_PX = 65535
_MAX_PIXELS = 1 << 28

# Videos that are kept as objects, twice each.
_VIDEO_CACHE = 512
# Sidecars that are asked for at the same time from an object store.
_NUM_REQUESTS = 16


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

    def __init__(self, videos: Iterable[StoredVideo] = ()) -> None:
        columns = _Columns()
        columns.add_videos(list(videos))
        self._fill(columns)

    @classmethod
    def _of_columns(cls, columns: _Columns) -> VideoList:
        videos = cls.__new__(cls)
        videos._fill(columns)
        return videos

    def _fill(self, columns: _Columns) -> None:
        # The columns' own memory, not a copy of it.
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
    def __getitem__(self, index: int | str) -> StoredVideo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredVideo]: ...
    def __getitem__(self, index: int | str | slice) -> StoredVideo | Sequence[StoredVideo]:
        """Returns the video at a position or with a key; raises DatasetError for an unknown key."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if (video := self._recent.get(index)) is not None:
            return video
        position = range(len(self))[self.position(index) if isinstance(index, str) else index]
        video = self._recent.get(position) or self._build(position)
        recent = self._recent if len(self._recent) < _VIDEO_CACHE else {}
        recent[position] = recent[video.key] = video
        self._recent = recent
        return video

    def position(self, key: str) -> int:
        """Returns the position of the video with a key; raises DatasetError where there is none."""
        encoded = key.encode()
        wanted = zlib.crc32(encoded)
        place = int(np.searchsorted(self._hashes, np.uint32(wanted)))
        while place < len(self) and self._hashes[place] == wanted:
            position = int(self._order[place])
            if self._key(position) == encoded:
                return position
            place += 1
        raise DatasetError(f"no video has the key {key!r}")

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
"""Columns of the array that holds what is one integer for each video."""


class _Columns:
    """What a VideoList is made of, while it grows."""

    def __init__(self) -> None:
        self.keys = bytearray()
        self.key_ends = array("q")
        self.hashes = array("I")
        self.labels = array("q")
        self.label_ends = array("q")
        self.numbers = array("q")
        self.rates = array("d")
        self.members = array("q")
        # Few different ones: splits, and the names of the members.
        self.splits: dict[str | None, int] = {}
        self.names: dict[tuple[str, ...], int] = {}

    def add_videos(self, videos: Sequence[StoredVideo]) -> None:
        """Adds videos of any shards."""
        places = [place for video in videos for place in video.members.values()]
        self._add(
            [video.key for video in videos],
            [video.labels for video in videos],
            [video.split for video in videos],
            [video.fps for video in videos],
            [tuple(video.members) for video in videos],
            np.array(places, np.int64).reshape(-1),
            [
                [getattr(video, name) for video in videos]
                for name in ("num_frames", "num_flows", "width", "height", "is_partial")
            ],
            [video.shard for video in videos],
        )

    def add_records(
        self, records: Sequence[Mapping[str, Any]], shard: int, config: ExtractConfig
    ) -> bool:
        """Adds a sidecar's records of videos that gave flow, as they are in its JSON.

        Adds nothing and returns False where anything is not as it must be: the caller looks at each
        record then, to say what. Here all of a shard's are compared at once.
        """
        if not set(map(type, records)) <= {dict} or not set().union(*records) <= _FIELDS:
            return False
        statuses = _column(records, "status", None)
        if not set(map(type, statuses)) <= {str} or not _STATUSES.issuperset(statuses):
            return False
        if "failed" in statuses:
            records = [record for record in records if record["status"] != "failed"]
            statuses = [status for status in statuses if status != "failed"]
        keys = _column(records, "key", None)
        labels = _column(records, "labels", [])
        splits = _column(records, "split", None)
        rates = _column(records, "fps", None)
        members = _column(records, "members", None)
        if not (
            set(map(type, keys)) <= {str}
            and set(map(type, labels)) <= {list}
            and set(map(type, splits)) <= {str, type(None)}
            and set(map(type, _column(records, "message", None))) <= {str, type(None)}
            and set(map(type, rates)) <= {int, float, type(None)}
            and set(map(type, members)) <= {dict}
        ):
            return False
        places = list(itertools.chain.from_iterable(map(dict.values, members)))
        if not set(map(type, places)) <= {list} or not set(map(len, places)) <= {2}:
            return False
        names = list(map(tuple, members))
        wanted = {"json", *stream_names(config.encode)}
        if any(set(item) != wanted for item in set(names)):
            return False
        counts = ("num_frames", "num_flows", "width", "height", "num_values", "num_clipped")
        columns: list[Iterable[Any]] = [_column(records, name, 0) for name in counts]
        columns += [_column(records, "attempts", 1), *labels, *places]
        integers = list(itertools.chain.from_iterable(columns))
        # Not isinstance: True is none, and 1e300 no integer that fits where this goes.
        if not set(map(type, integers)) <= {int}:
            return False
        try:
            values = np.fromiter(integers, np.int64, len(integers))
        except OverflowError:
            return False
        if len(values) and not 0 <= values.min() <= values.max() < 1 << 62:
            return False
        sizes = values[: 4 * len(records)].reshape(4, -1)
        num_frames, num_flows, width, height = sizes
        if not (
            (num_flows > 0).all()
            and (num_frames - num_flows == config.flow.step).all()
            and (np.minimum(width, height) > 0).all()
            and (np.maximum(width, height) <= _MAX_JPEG_SIDE_PX).all()
            and (width * height <= _MAX_PIXELS).all()
            and all(rate is None or 0 < rate <= sys.float_info.max for rate in set(rates))
        ):
            return False
        if not are_plain_keys(keys):
            for key in keys:
                check_key(key)
        self._add(
            keys,
            labels,
            splits,
            rates,
            names,
            values[len(values) - 2 * len(places) :],
            [*sizes, [status == "partial" for status in statuses]],
            [shard] * len(records),
        )
        return True

    def _add(
        self,
        keys: Sequence[str],
        labels: Sequence[Sequence[int]],
        splits: Sequence[str | None],
        rates: Sequence[float | None],
        names: Sequence[tuple[str, ...]],
        places: NDArray[np.int64],
        numbers: Sequence[Any],
        shards: Sequence[int],
    ) -> None:
        """Adds videos by column.

        `names` are those of their members, `places` the members' offsets and sizes, one after the
        other; `numbers` are the columns frames, flows, width, height and is_partial.
        """
        encoded = [key.encode() for key in keys]
        _extend(self.key_ends, _ends(encoded, len(self.keys)))
        self.keys += b"".join(encoded)
        self.hashes.extend(map(zlib.crc32, encoded))
        _extend(self.label_ends, _ends(labels, len(self.labels)))
        self.labels.extend(itertools.chain.from_iterable(labels))
        # None becomes NaN.
        self.rates.frombytes(np.array(rates, np.float64).tobytes())
        for split in set(splits):
            self.splits.setdefault(split, len(self.splits))
        for item in set(names):
            self.names.setdefault(item, len(self.names))
        ends = 2 * _ends(names, 0)
        begins = len(self.members) + np.concatenate(([0], ends[:-1])) if len(ends) else ends
        _extend(self.members, places)
        columns = (
            *numbers,
            list(map(self.splits.__getitem__, splits)),
            list(map(self.names.__getitem__, names)),
            begins,
            shards,
        )
        table = np.empty((len(keys), len(_NUMBERS)), np.int64)
        for index, column in enumerate(columns):
            table[:, index] = column
        _extend(self.numbers, table)


_FIELDS = frozenset(item.name for item in fields(VideoRecord))
_STATUSES = frozenset(get_args(VideoStatus))


def _column(records: Sequence[Mapping[str, Any]], name: str, default: Any) -> list[Any]:
    """Returns a field of all records; what says nothing was left out of their JSON."""
    try:
        return list(map(operator.itemgetter(name), records))
    except KeyError:
        return [record.get(name, default) for record in records]


def _extend(column: array[int], values: NDArray[np.int64]) -> None:
    column.frombytes(values.tobytes())


def _ends(parts: Sequence[Any], begin: int) -> NDArray[np.int64]:
    return begin + np.cumsum(list(map(len, parts)), dtype=np.int64)


def read_videos(storage: Storage, shards: Sequence[int], config: ExtractConfig) -> VideoList:
    """Returns the videos of published shards; raises DatasetError for a damaged sidecar."""
    columns = _Columns()
    with collector_paused():
        for shard, values in _read_ahead(storage, shards):
            if not columns.add_records(values["videos"], shard, config):
                _refuse(storage, shard, config)
    return VideoList._of_columns(columns)


def _read_ahead(storage: Storage, shards: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the sidecars in order; all of them together take many times what is kept of them."""
    if storage.is_local:
        yield from ((shard, read_sidecar_values(storage, shard)) for shard in shards)
        return
    # A request waits for tens of milliseconds, and thousands of them one after the other for
    # minutes.
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        for begin in range(0, len(shards), 4 * _NUM_REQUESTS):
            part = shards[begin : begin + 4 * _NUM_REQUESTS]
            found = pool.map(functools.partial(read_sidecar_values, storage), part)
            yield from zip(part, found, strict=True)


def _refuse(storage: Storage, shard: int, config: ExtractConfig) -> None:
    """Raises DatasetError with what is wrong in a sidecar."""
    for record in read_sidecar(storage, shard).videos:
        check_key(record.key)
        if record.status != "failed" and (problem := _record_problem(record, config)):
            raise DatasetError(
                f"{sidecar_name(shard)}: {record.key}: {problem}; run `flowprep verify`"
            )
    raise DatasetError(f"{sidecar_name(shard)} is damaged; run `flowprep verify`")


def size_problem(width: int, height: int) -> str | None:
    """Says that a frame cannot be so large; None where it can."""
    if 0 < min(width, height) <= max(width, height) <= _MAX_JPEG_SIDE_PX and (
        width * height <= _MAX_PIXELS
    ):
        return None
    return f"no frame is {width}x{height}"


def _record_problem(record: VideoRecord, config: ExtractConfig) -> str | None:
    """Says what cannot be in a record whose types are right; a forged one is not read on."""
    if (problem := size_problem(record.width, record.height)) is not None:
        return problem
    if not 0 < record.num_flows == record.num_frames - config.flow.step:
        return f"{record.num_frames} frames do not give {record.num_flows} flows"
    if set(record.members) != {"json", *stream_names(config.encode)}:
        return f"its members are {', '.join(record.members)}"
    return None
