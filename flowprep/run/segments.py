"""Long videos are cut into segments: how segments are stored, joined and found again.

driver    CutVideos            .parts/SHARD/INDEX.cut
worker    write_segment        .parts/SHARD/INDEX.START-STOP.mjpg, then INDEX.START-STOP.segment
worker    join_segments        .parts/SHARD/INDEX.tar, as for any video
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from flowprep.dataset.foreign import SegmentSuffix
from flowprep.dataset.layout import Count, Seconds, VideoRecord
from flowprep.dataset.metadata import SegmentMetadata, VideoMetadata, read_histogram
from flowprep.dataset.parts import part_index, part_name, parts_folder
from flowprep.dataset.rebuild import record_from_metadata
from flowprep.dataset.write import COPY_BYTES, ByteSink, WritableStream, write_sample
from flowprep.errors import VideoError
from flowprep.storage import Storage
from flowprep.video.segments import Segment, VideoCut

__all__ = [
    "CutVideos",
    "join_segments",
    "read_segment_record",
    "segment_name",
    "write_segment",
]

# The fields of the metadata that may differ between the segments of one video.
_MAY_DIFFER = frozenset(
    [
        *("num_frames", "num_flows", "num_frames_decoded", "num_damaged", "frame_counts", "notes"),
        *("flow", "sizes", "edges", "device", "estimator", "homographies"),
    ]
)


class _StoredSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metadata: SegmentMetadata
    members: dict[str, tuple[Count, Count]]
    """Offset and size of each stream in the segment's file."""
    seconds: dict[str, Seconds]
    attempts: Count

    def to_json(self) -> bytes:
        values = msgspec.structs.asdict(self) | {"metadata": self.metadata.to_dict()}
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, content: bytes) -> _StoredSegment:
        """Raises ValueError if the content is damaged."""
        return msgspec.convert(json.loads(content), cls, dec_hook=read_histogram)

    def record(self) -> VideoRecord:
        return record_from_metadata(self.metadata, self.members, self.seconds, self.attempts)


@dataclass(frozen=True)
class _JoinedStream:
    """A stream whose bytes are spread over the files of several segments."""

    storage: Storage
    places: list[tuple[str, int, int]]
    """Name of the file, offset and size of each piece, in order."""

    @property
    def num_bytes(self) -> int:
        return sum(size for _, _, size in self.places)

    def copy_to(self, file: ByteSink) -> None:
        for name, offset, size in self.places:
            for begin in range(0, size, COPY_BYTES):
                length = min(COPY_BYTES, size - begin)
                file.write(self.storage.read_range(name, offset + begin, length))


def segment_name(shard: int, index: int, segment: Segment, suffix: SegmentSuffix) -> str:
    """Returns the name of a segment's file, which exists until the video is joined.

    The name holds the first and the end frame of the segment.
    """
    part = part_name(shard, index, "cut").removesuffix("cut")
    return f"{part}{segment.start:09d}-{segment.stop:09d}.{suffix}"


def write_segment(
    storage: Storage,
    shard: int,
    index: int,
    segment: Segment,
    metadata: SegmentMetadata,
    streams: Mapping[str, WritableStream],
    seconds: Mapping[str, float],
    attempt: int,
) -> VideoRecord:
    """Stores a segment: first its streams, then the record that says that they are whole."""
    began = time.perf_counter()
    members = {}
    with storage.atomic_file(segment_name(shard, index, segment, "mjpg"), lasting=False) as file:
        for name, stream in streams.items():
            members[name] = (file.tell(), stream.num_bytes)
            stream.copy_to(file)
    spent = dict(seconds) | {"write": time.perf_counter() - began}
    stored = _StoredSegment(metadata, members, spent, attempt)
    name = segment_name(shard, index, segment, "segment")
    storage.write_bytes(name, stored.to_json(), lasting=False)
    return stored.record()


def read_segment_record(
    storage: Storage, shard: int, index: int, segment: Segment
) -> VideoRecord | None:
    """Returns a segment's record, as if it were a video's, or None if it is not finished."""
    content = storage.read_if_there(segment_name(shard, index, segment, "segment"))
    try:
        return None if content is None else _StoredSegment.from_json(content).record()
    except (ValueError, RecursionError):
        return None


def join_segments(storage: Storage, *, shard: int, index: int, cut: VideoCut) -> VideoRecord:
    """Joins a video's segments into its part. An uncut extraction would write the same part.

    Raises VideoError if the segments do not fit together, StorageError if storage fails.
    """
    began = time.perf_counter()
    found = []
    for segment in cut.segments:
        name = segment_name(shard, index, segment, "segment")
        try:
            found.append(_StoredSegment.from_json(storage.read_bytes(name)))
        except (ValueError, RecursionError) as error:
            raise VideoError("damaged", f"{name} is damaged: {error}") from error
        expected = sum(size for _, size in found[-1].members.values())
        name = segment_name(shard, index, segment, "mjpg")
        if (size := storage.size(name)) != expected:
            raise VideoError("damaged", f"{name} has {size} bytes, its record says {expected}")
    metadata = _joined_metadata([stored.metadata for stored in found], cut)
    streams = {
        name: _JoinedStream(
            storage,
            [
                (segment_name(shard, index, segment, "mjpg"), *stored.members[name])
                for segment, stored in zip(cut.segments, found, strict=True)
            ],
        )
        for name in found[0].members
    }
    with storage.atomic_file(part_name(shard, index, "tar"), lasting=False) as file:
        members = write_sample(file, metadata, streams)
    seconds = {name: sum(stored.seconds[name] for stored in found) for name in found[0].seconds}
    seconds["write"] += time.perf_counter() - began
    rounded = {name: round(value, 4) for name, value in seconds.items()}
    attempts = max(stored.attempts for stored in found)
    return record_from_metadata(metadata, members, rounded, attempts)


def _joined_metadata(parts: Sequence[SegmentMetadata], cut: VideoCut) -> VideoMetadata:
    """Returns the video's metadata from that of its segments; raises VideoError."""
    first = parts[0]
    # Some segments may come from an earlier version of flowprep than others.
    is_new = first.frame_counts is not UNSET
    fields = first.stored_fields()
    if any(part.stored_fields() != fields for part in parts) or (
        is_new != (cut.frame_counts is not None)
    ):
        raise VideoError("damaged", "the segments and their cut are of two versions of flowprep")
    for segment, before, part in zip(cut.segments[1:], parts, parts[1:], strict=False):
        if part.edges.head != before.edges.tail:
            raise VideoError(
                "damaged", f"frame {segment.start} is not the same in the segments around it"
            )
    for name in SegmentMetadata.__struct_fields__:
        if name not in _MAY_DIFFER and any(
            getattr(part, name) != getattr(first, name) for part in parts
        ):
            raise VideoError("damaged", f"the video's {name} changed while it was extracted")
    if sum(part.num_flows for part in parts) != cut.segments[-1].stop:
        raise VideoError("damaged", "the segments are not those of the cut")
    return VideoMetadata.joined(
        parts,
        num_frames=cut.segments[-1].stop + first.step,
        num_frames_decoded=cut.num_frames_decoded,
        frame_counts=cut.frame_counts,
        notes=cut.notes,
        source_sha256=cut.source_sha256,
    )


class CutVideos:
    """The videos of a run that are cut, and the segments of them that are still to do."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._cuts: dict[int, VideoCut] = {}
        self._remaining: dict[int, set[int]] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._cuts

    def __getitem__(self, index: int) -> VideoCut:
        return self._cuts[index]

    def remaining(self, index: int) -> list[Segment]:
        """Returns the unfinished segments of a video, in order."""
        starts = self._remaining[index]
        return [segment for segment in self._cuts[index].segments if segment.start in starts]

    def add(self, shard: int, index: int, cut: VideoCut) -> None:
        """Adds a video, and stores how it is cut, so that another run can continue with it."""
        content = json.dumps(cut.to_dict()).encode()
        self._storage.write_bytes(part_name(shard, index, "cut"), content, lasting=False)
        self._cuts[index] = cut
        self._remaining[index] = {segment.start for segment in cut.segments}

    def finish(self, index: int, segment: Segment) -> bool:
        """Notes that a segment is finished. Returns whether all segments of its video are."""
        self._remaining[index].discard(segment.start)
        return not self._remaining[index]

    def drop(self, shard: int, index: int) -> None:
        """Forgets a video and removes its segments."""
        cut = self._cuts.pop(index)
        del self._remaining[index]
        self._storage.remove(part_name(shard, index, "cut"))
        for segment in cut.segments:
            self.remove_files(shard, index, segment)

    def remove_files(self, shard: int, index: int, segment: Segment) -> None:
        """Removes the stored files of a segment."""
        self._storage.remove(segment_name(shard, index, segment, "segment"))
        self._storage.remove(segment_name(shard, index, segment, "mjpg"))

    def recover(self, shard: int, names: Collection[str], finished: Collection[int]) -> None:
        """Adds the videos of a shard that an earlier run has cut. Removes leftover files.

        `names` are the files in the shard's folder. `finished` are the videos that need no more
        work.
        """
        kept: set[str] = set()
        for name in names:
            index, suffix = part_index(name), name.partition(".")[2]
            if suffix != "cut" or index in finished:
                continue
            content = self._storage.read_bytes(f"{parts_folder(shard)}/{name}")
            try:
                cut = VideoCut.from_dict(json.loads(content))
            except (ValueError, KeyError, TypeError):
                # Perhaps another version of flowprep wrote this file. The video starts again.
                continue
            self._cuts[index] = cut
            self._remaining[index] = set()
            kept.add(name)
            for segment in cut.segments:
                record = segment_name(shard, index, segment, "segment").rpartition("/")[2]
                files = {record, record.removesuffix("segment") + "mjpg"}
                if files <= set(names):
                    kept |= files
                else:
                    self._remaining[index].add(segment.start)
        for name in names:
            if name.endswith((".cut", ".segment", ".mjpg")) and name not in kept:
                self._storage.remove(f"{parts_folder(shard)}/{name}")
