"""`KEY.json`: the metadata of one video, and of a segment until the segments are joined.

    extract_video, import_video    VideoMetadata.of(...)         a whole video, or a segment as one
    write_segment                  SegmentMetadata.of(...)       the same with the data for joining
    join_segments                  VideoMetadata.joined(...)     the video of the segments

Version 1 did not store all of the fields. Missing fields are UNSET in metadata of version 1 and of
imported videos.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from flowprep.config import (
    INTERCHANGEABLE_FIELDS,
    INTERCHANGEABLE_VALUES,
    Direction,
    ExtractConfig,
)
from flowprep.dataset.layout import FORMAT_MINOR, Count, StoredStatus
from flowprep.dataset.quantize import HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS, FlowStatistics
from flowprep.errors import NoteCode
from flowprep.flow.homography import Homography
from flowprep.inputs.video import Video
from flowprep.video.segments import EdgeDigests
from flowprep.video.types import FrameCounts, Provenance, VideoInfo
from flowprep.words import format_count

__all__ = [
    "FlowSummary",
    "Reading",
    "SegmentMetadata",
    "VideoMetadata",
    "read_histogram",
    "read_stored_config",
]

# A number keeps its type: 25 fps in the user's options is not stored as 25.0.
_Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0)]
_Rate: TypeAlias = Annotated[int, msgspec.Meta(gt=0)] | Annotated[float, msgspec.Meta(gt=0)]
_Px: TypeAlias = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_NumBytes: TypeAlias = Annotated[int, msgspec.Meta(gt=0, lt=1 << 62)]
_One: TypeAlias = Annotated[float, msgspec.Meta(ge=1, le=1)]
_Homography: TypeAlias = tuple[_Px, _Px, _Px, _Px, _Px, _Px, _Px, _Px, _One]
_Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Reading:
    """Facts about a video that are only known after decoding it and computing its flow."""

    counts: FrameCounts
    num_irregular_stamps: int
    num_damaged: int
    """Pictures that the decoder flagged as damaged and concealed, and that are kept."""
    notes: Mapping[NoteCode, str]
    device: str
    estimator: str
    """Name of the estimator's class."""
    damage: str | None
    """Why the video is partial. None if it is whole."""
    homographies: Sequence[Homography | None] | None = None
    """The camera's motion in each pair. None if the flow is not freed of it."""


class FlowSummary(msgspec.Struct, frozen=True):
    """The stored summary of the flow of one direction, before clipping."""

    min_px: _Px | None
    """The smallest component. None if there is no field."""
    max_px: _Px | None
    magnitude_histogram: Annotated[list[Count], msgspec.Meta(max_length=HISTOGRAM_NUM_BINS + 1)]
    """Number of vectors by length in px, up to the last bin that is not empty."""
    histogram_bin_px: Annotated[float, msgspec.Meta(gt=0)]
    num_values: Count
    num_clipped: Count
    num_invalid: Count
    num_fields: Count
    num_zero_fields: Count

    @classmethod
    def of(cls, statistics: FlowStatistics) -> FlowSummary:
        """Returns the stored summary of these statistics, with px rounded to four digits."""
        empty = statistics.num_fields == 0
        histogram = statistics.histogram
        last = 0 if empty else int(np.flatnonzero(histogram)[-1]) + 1
        return cls(
            min_px=None if empty else round(statistics.min_px, 4),
            max_px=None if empty else round(statistics.max_px, 4),
            magnitude_histogram=histogram[:last].tolist(),
            histogram_bin_px=HISTOGRAM_BIN_PX,
            num_values=statistics.num_values,
            num_clipped=statistics.num_clipped,
            num_invalid=statistics.num_invalid,
            num_fields=statistics.num_fields,
            num_zero_fields=statistics.num_zero_fields,
        )


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that a whole video and a segment share, in the order of the file."""

    key: str
    source: str
    source_bytes: Count | None
    """Size of the source. None for a folder of images."""
    source_mtime_ns: int | None
    start_seconds: _Seconds | None
    end_seconds: _Seconds | None
    labels: list[Count]
    split: str | None
    codec: str
    duration_seconds: _Seconds | None
    source_fps: _Rate | None
    fps: _Rate | None
    source_width: Count
    source_height: Count
    rotation: Count
    mirrored: bool | UnsetType = UNSET
    width: Count
    height: Count
    num_frames_decoded: Count
    num_frames: Count
    num_flows: Count
    """Number of flow fields per direction: num_frames - step."""
    step: Count
    versions: dict[str, str]
    """Versions of the libraries that affect the numbers."""
    format_minor: Count | UnsetType = UNSET
    video_stream: Count | UnsetType | None = UNSET
    pixel_aspect: tuple[Count, Count] | UnsetType = UNSET
    frame_counts: FrameCounts | UnsetType = UNSET
    num_irregular_stamps: Count | UnsetType = UNSET
    num_damaged: Count | UnsetType = UNSET
    notes: dict[NoteCode, str] | UnsetType = UNSET
    device: str | UnsetType = UNSET
    """The device that computed the flow. UNSET for imported flow, like `estimator`."""
    estimator: str | UnsetType = UNSET
    implementation: str | UnsetType = UNSET
    """As `dataset.json` has it: with `config` a shard says alone how it was made."""
    config: dict[str, Any] | UnsetType = UNSET
    """All of the configuration that the videos of one data set share."""
    status: StoredStatus
    damage: str | UnsetType = UNSET
    """Why the video is partial."""
    homographies: list[_Homography | None] | UnsetType = UNSET
    """For each pair whose flow is freed of the camera's motion, the rows of the matrix that takes
    (x, y, 1) of the background from frame t to frame t + step, px. None: the flow is plain."""

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values, in the order of the file."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_to_list)
        if self.format_minor is UNSET and self.notes is not UNSET:
            # The file of an imported video has the notes at its end.
            values["notes"] = values.pop("notes")
        return values

    def stored_fields(self) -> set[str]:
        """Returns the names of the fields that the file contains."""
        return {name for name in self.__struct_fields__ if getattr(self, name) is not UNSET}

    def _shared(self) -> dict[str, Any]:
        """Returns the fields that a whole video and its segments share."""
        return {name: getattr(self, name) for name in _Metadata.__struct_fields__}


class VideoMetadata(_Metadata, frozen=True, kw_only=True):
    """The content of `KEY.json`."""

    flow: dict[Direction, FlowSummary]
    sizes: dict[str, list[_NumBytes]]
    """Size of each JPEG of each stream in bytes."""
    source_etag: str | UnsetType | None = UNSET
    """ETag of the source, if it is an object in a store."""
    source_sha256: _Sha256 | UnsetType = UNSET
    """SHA-256 of the source file. UNSET for a folder of images and for a range of a file."""
    stream_sha256: dict[str, _Sha256] | UnsetType = UNSET
    """SHA-256 of the bytes of each stream. They are known, and written, last."""

    @classmethod
    def of(
        cls,
        video: Video,
        info: VideoInfo,
        *,
        size: tuple[int, int],
        fps: float | None,
        num_frames_decoded: int,
        num_frames: int,
        num_flows: int,
        config: ExtractConfig,
        implementation: str,
        versions: Mapping[str, str],
        statistics: Mapping[Direction, FlowStatistics],
        sizes: Mapping[str, list[int]],
        reading: Reading | None = None,
        notes: Mapping[NoteCode, str] | None = None,
    ) -> VideoMetadata:
        """Describes a video whose source is on this machine.

        `size` is the stored (width, height) in px, and `fps` the stored rate. `reading` holds the
        facts that decoding finds. Imported images have none, and may have their own `notes`.
        """
        stat = os.stat(video.source)
        metadata = cls(
            key=video.key,
            source=video.source,
            source_bytes=None if os.path.isdir(video.source) else stat.st_size,
            source_mtime_ns=stat.st_mtime_ns,
            start_seconds=video.start_seconds,
            end_seconds=video.end_seconds,
            labels=list(video.labels),
            split=video.split,
            codec=info.codec,
            duration_seconds=info.duration_seconds,
            source_fps=info.fps,
            fps=fps,
            source_width=info.width,
            source_height=info.height,
            rotation=info.rotation,
            width=size[0],
            height=size[1],
            num_frames_decoded=num_frames_decoded,
            num_frames=num_frames,
            num_flows=num_flows,
            step=config.flow.step,
            versions=dict(versions),
            implementation=implementation,
            config=stored_config(config),
            notes=dict(notes) if notes else UNSET,
            status="complete",
            flow={name: FlowSummary.of(one) for name, one in statistics.items()},
            sizes=dict(sizes),
        )
        if reading is None:
            return metadata
        homographies = UNSET if reading.homographies is None else list(reading.homographies)
        return msgspec.structs.replace(
            metadata,
            mirrored=info.is_mirrored,
            format_minor=FORMAT_MINOR,
            video_stream=info.video_stream,
            pixel_aspect=(info.pixel_aspect.numerator, info.pixel_aspect.denominator),
            frame_counts=msgspec.structs.replace(reading.counts),
            num_irregular_stamps=reading.num_irregular_stamps,
            num_damaged=reading.num_damaged,
            notes=_stored_notes(reading.notes, reading.num_damaged, homographies),
            device=reading.device,
            estimator=reading.estimator,
            status="complete" if reading.damage is None else "partial",
            damage=UNSET if reading.damage is None else reading.damage,
            homographies=homographies,
        )

    @classmethod
    def joined(
        cls,
        parts: Sequence[SegmentMetadata],
        *,
        num_frames: int,
        num_frames_decoded: int,
        frame_counts: FrameCounts | None,
        notes: Mapping[NoteCode, str],
        source_sha256: str | None,
    ) -> VideoMetadata:
        """Describes the video of these segments like an uncut extraction would.

        The values after `parts` belong to the whole video. `frame_counts` is None for a cut of
        version 1.
        """
        first = parts[0]
        shared = first._shared()
        # A cluster may have computed the segments of one video on CPUs and on GPUs.
        shared["device"] = ", ".join(sorted({str(part.device) for part in parts}))
        shared["estimator"] = ", ".join(sorted({str(part.estimator) for part in parts}))
        shared["num_frames"] = num_frames
        shared["num_flows"] = sum(part.num_flows for part in parts)
        shared["num_frames_decoded"] = num_frames_decoded
        if frame_counts is not None:
            num_damaged = sum(part.num_damaged or 0 for part in parts)
            shared["frame_counts"] = frame_counts
            shared["num_damaged"] = num_damaged
            if first.homographies is not UNSET:
                shared["homographies"] = [one for part in parts for one in part.homographies or ()]
            shared["notes"] = _stored_notes(notes, num_damaged, shared["homographies"])
        flow = {}
        for direction in first.flow:
            total = sum((part.flow[direction] for part in parts), FlowStatistics())
            flow[direction] = FlowSummary.of(total)
        sizes = {
            name: [size for part in parts for size in part.sizes[name]] for name in first.sizes
        }
        joined = cls(**shared, flow=flow, sizes=sizes, source_etag=first.source_etag)
        return joined.with_source_sha256(source_sha256)

    def fetched_from(self, provenance: Provenance) -> VideoMetadata:
        """Returns the metadata for a source that was fetched from a store."""
        return msgspec.structs.replace(
            self,
            source=provenance.source,
            source_bytes=provenance.source_bytes,
            source_mtime_ns=provenance.source_mtime_ns,
            source_etag=provenance.source_etag,
        )

    def with_source_sha256(self, source_sha256: str | None) -> VideoMetadata:
        """Returns the same with the SHA-256 of the source; None: it has none."""
        if source_sha256 is None:
            return self
        return msgspec.structs.replace(self, source_sha256=source_sha256)

    def with_checksums(self, stream_sha256: Mapping[str, str]) -> VideoMetadata:
        """Returns the same with the SHA-256 of each stream."""
        return msgspec.structs.replace(self, stream_sha256=dict(stream_sha256))

    def to_json(self) -> bytes:
        """Returns the file's content."""
        return json.dumps(self.to_dict(), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> VideoMetadata:
        """Reads the file. Raises ValueError if a field is invalid."""
        try:
            return _DECODER.decode(content)
        except (ValueError, RecursionError):
            # The name of a source need not be UTF-8, but msgspec's own reader requires UTF-8.
            try:
                return msgspec.convert(json.loads(content), cls)
            except RecursionError as error:
                raise ValueError(str(error)) from error


_DECODER = msgspec.json.Decoder(VideoMetadata)


class SegmentMetadata(_Metadata, frozen=True, kw_only=True):
    """The metadata of a segment until its video is joined. Nothing is rounded."""

    flow: dict[Direction, FlowStatistics]
    edges: EdgeDigests
    sizes: dict[str, list[_NumBytes]]
    source_etag: str | UnsetType | None = UNSET

    @classmethod
    def of(
        cls,
        metadata: VideoMetadata,
        statistics: Mapping[Direction, FlowStatistics],
        edges: EdgeDigests,
    ) -> SegmentMetadata:
        """Describes a segment. `metadata` describes it as if it were a video."""
        return cls(
            **metadata._shared(),
            flow=dict(statistics),
            edges=edges,
            sizes=metadata.sizes,
            source_etag=metadata.source_etag,
        )


def stored_config(config: ExtractConfig) -> dict[str, Any]:
    """Returns what `KEY.json` stores of a configuration: nothing that may differ in a data set."""
    values = config.to_dict()
    for name in INTERCHANGEABLE_FIELDS | INTERCHANGEABLE_VALUES.keys():
        section, _, item = name.partition(".")
        if name in INTERCHANGEABLE_FIELDS or values[section][item] in INTERCHANGEABLE_VALUES[name]:
            del values[section][item]
    return values


def read_stored_config(values: Mapping[str, Any], like: ExtractConfig) -> ExtractConfig:
    """Rebuilds a configuration from what `stored_config` kept; the rest is as in `like`.

    Raises ConfigError as `ExtractConfig.from_dict` does.
    """
    given, merged = like.to_dict(), {name: dict(section) for name, section in values.items()}
    for name in INTERCHANGEABLE_FIELDS | INTERCHANGEABLE_VALUES.keys():
        section, _, item = name.partition(".")
        choices = INTERCHANGEABLE_VALUES.get(name)
        value = given[section][item]
        if choices is not None and value not in choices:
            value = min(choices)
        merged[section].setdefault(item, value)
    return ExtractConfig.from_dict(merged)


def _stored_notes(
    notes: Mapping[NoteCode, str],
    num_damaged: int,
    homographies: Sequence[Homography | None] | UnsetType,
) -> dict[NoteCode, str]:
    """Returns a video's notes in the order in which they are stored."""
    found = dict(notes)
    if homographies is not UNSET and (num_plain := sum(one is None for one in homographies)):
        share = f"{num_plain:,} of {format_count(len(homographies), 'pair')}"
        found["camera-unknown"] = f"{share} without enough matches"
    if num_damaged:
        found.setdefault("concealed", f"{format_count(num_damaged, 'picture')} damaged")
    return dict(sorted(found.items()))


def _to_list(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise NotImplementedError(f"{type(value)} is no JSON value")


def read_histogram(kind: Any, value: Any) -> NDArray[np.int64]:
    """Rebuilds the histogram of FlowStatistics. It is the `dec_hook` for a SegmentMetadata."""
    histogram = np.array(value, np.int64)
    if histogram.shape != (HISTOGRAM_NUM_BINS + 1,):
        raise ValueError(f"a histogram has {HISTOGRAM_NUM_BINS + 1} bins, got {histogram.shape}")
    return histogram
