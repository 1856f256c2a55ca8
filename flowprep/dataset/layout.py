"""The names and records of a data set on disk, format version 1.1.

    OUT/
      dataset.json        format version, the whole configuration, library versions, class names
      manifest.jsonl      one line per input video: key, source, labels, split, shard
      shards/000012.tar   KEY.json, KEY.flow_x.mjpg, KEY.flow_y.mjpg, KEY.back_x.mjpg, ... per video
      shards/000012.json  the sidecar, written after the tar: size, checksum, a record per video
      failures.jsonl      every video that gave nothing: key, source, reason, message, attempts
      labels/NAME.jsonl   other labels, splits and class names under a name (labels.py)
      logs/               a log per run
      .parts/000012/      finished videos, and segments of long ones, of shards that are not
                          published yet; gone at the end
      .lock, .lease.json  which run is writing, or was the last to (lease.py)

A tar depends only on the videos, the configuration, the library versions and the device that
computed each flow (the video's metadata names it). So on CPUs a resumed run ends with the same
bytes. Values that differ from run to run (seconds spent, attempts) are in the sidecar.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from flowprep.config import (
    INTERCHANGEABLE_FIELDS,
    INTERCHANGEABLE_VALUES,
    Direction,
    EncodeSpec,
    ExtractConfig,
)
from flowprep.differences import find_differences, flatten, mismatch
from flowprep.errors import (
    ConfigError,
    DatasetError,
    FailureFault,
    FailureReason,
    NoteCode,
)
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from flowprep.urls import redacted

__all__ = [
    "DATASET_FILE",
    "FAILURES_FILE",
    "FLOW_STREAMS",
    "FORMAT_MINOR",
    "FORMAT_VERSION",
    "LABELS_FOLDER",
    "LEASE_FILE",
    "LOCK_FILE",
    "LOGS_FOLDER",
    "MANIFEST_FILE",
    "PARTS_FOLDER",
    "RGB_STREAM",
    "SHARDS_FOLDER",
    "Count",
    "DatasetHeader",
    "Failure",
    "ManifestEntry",
    "Seconds",
    "Sidecar",
    "StoredStatus",
    "VideoRecord",
    "VideoStatus",
    "decode_sidecar",
    "header_problem",
    "read_failures",
    "read_manifest",
    "read_sidecar",
    "shard_name",
    "sidecar_name",
    "stream_names",
    "write_failures",
    "write_manifest",
]

FORMAT_VERSION: Literal[1] = 1
FORMAT_MINOR = 1
"""1.1 adds optional fields. A record without `format_minor` must follow the rules of version 1."""
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.jsonl"
FAILURES_FILE = "failures.jsonl"
SHARDS_FOLDER = "shards"
LABELS_FOLDER = "labels"
LOGS_FOLDER = "logs"
PARTS_FOLDER = ".parts"
LOCK_FILE = ".lock"
LEASE_FILE = ".lease.json"

FLOW_STREAMS: dict[Direction, tuple[str, str]] = {
    "forward": ("flow_x", "flow_y"),
    "backward": ("back_x", "back_y"),
}
"""Names of the x stream and the y stream of each direction."""
RGB_STREAM = "rgb"

StoredStatus = Literal["complete", "partial"]
VideoStatus = Literal[StoredStatus, "failed"]

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


def shard_name(shard: int) -> str:
    """Returns the name of a shard's tar."""
    return f"{SHARDS_FOLDER}/{shard:06d}.tar"


def sidecar_name(shard: int) -> str:
    """Returns the name of a shard's sidecar. If it exists, the shard is published."""
    return f"{SHARDS_FOLDER}/{shard:06d}.json"


def stream_names(encode: EncodeSpec) -> list[str]:
    """Returns the streams that every sample has, in their order in the tar."""
    names = [name for direction in encode.directions for name in FLOW_STREAMS[direction]]
    return [*names, RGB_STREAM] if encode.keep_rgb else names


@dataclass(frozen=True)
class DatasetHeader:
    """The content of `dataset.json`."""

    config: ExtractConfig
    implementation: str
    """The estimator's implementation (`opencv-5`). A data set never mixes two of them."""
    class_names: tuple[str, ...] = ()
    """The name of each class number. Empty if the classes have no names."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library versions of the run that started the data set."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """For an imported data set: the origin of its flow, and the unknown fields of `config`."""

    def to_json(self) -> bytes:
        """Returns the file's content."""
        values = {
            "format": "flowprep",
            "format_version": FORMAT_VERSION,
            "format_minor": FORMAT_MINOR,
            "config": self.config.to_dict(),
            "implementation": self.implementation,
            "class_names": list(self.class_names),
            "versions": dict(self.versions),
        }
        if self.origin:
            values["origin"] = dict(self.origin)
        values["sha256"] = _header_digest(values)
        return (json.dumps(values, indent=2) + "\n").encode()

    @classmethod
    def read(cls, storage: Storage) -> DatasetHeader:
        """Reads `dataset.json`. Raises DatasetError if it is missing, foreign or too new."""
        if not storage.exists(DATASET_FILE):
            if storage.exists(MANIFEST_FILE) or storage.list_names(SHARDS_FOLDER):
                raise DatasetError(
                    f"{storage.location} has no {DATASET_FILE}; run the same command that made the "
                    "data set again, which makes it anew"
                )
            raise DatasetError(
                f"{storage.location} is not a flowprep data set: no {DATASET_FILE}; name the "
                f"folder that extract wrote"
            )
        try:
            values = json.loads(storage.read_bytes(DATASET_FILE))
            if values["format"] != "flowprep":
                raise DatasetError(
                    f"{storage.location}: {DATASET_FILE} is not flowprep's; name a folder that "
                    f"extract wrote"
                )
            minor = values.get("format_minor", 0)
            if values["format_version"] != FORMAT_VERSION or minor not in range(FORMAT_MINOR + 1):
                raise DatasetError(
                    f"{storage.location} has format version {values['format_version']}.{minor}, "
                    f"this flowprep reads versions up to {FORMAT_VERSION}.{FORMAT_MINOR}; install "
                    "a newer flowprep"
                )
            origin = values.get("origin", {})
            for name, value, kind in (
                ("implementation", values["implementation"], str),
                ("class_names", values["class_names"], list),
                ("versions", values["versions"], dict),
                ("origin", origin, dict),
                ("origin.unknown", origin.get("unknown", []), list),
            ):
                if type(value) is not kind:
                    raise TypeError(f"{name} is of the wrong type")
            return cls(
                ExtractConfig.from_dict(values["config"]),
                values["implementation"],
                tuple(values["class_names"]),
                values["versions"],
                origin,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, ConfigError):
                detail = str(error)
            else:
                detail = f"{type(error).__name__}: {error}"
            raise DatasetError(
                f"{storage.location}: {DATASET_FILE} is damaged: {detail}; restore it from "
                "a copy, or remove it and run the same command that made the data set again"
            ) from error

    def check_same(self, config: ExtractConfig, implementation: str, location: str) -> None:
        """Raises ConfigMismatchError with both values of each field that changes the numbers."""
        stored = flatten(self.config.to_dict()) | {"implementation": self.implementation}
        wanted = flatten(config.to_dict()) | {"implementation": implementation}
        differences = {
            name: (old, new)
            for name, (old, new) in find_differences(stored, wanted).items()
            if not _may_differ(name, old, new)
        }
        if differences:
            raise mismatch(
                f"{location} was made with another configuration",
                differences,
                ("in the data set", "in this run"),
                "Run with the data set's values, or choose another output folder.",
            )


def _may_differ(name: str, stored: object, wanted: object) -> bool:
    """Whether one data set may hold both of these values of a field."""
    if name in INTERCHANGEABLE_FIELDS:
        return True
    values = INTERCHANGEABLE_VALUES.get(name)
    return values is not None and {stored, wanted} <= values


Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""A number in a file. Sums of such numbers fit into 64 bits."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One line of `manifest.jsonl`: a video and the shard that it belongs to."""

    video: Video
    shard: int


class VideoRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result for one video, as recorded in the sidecar."""

    key: str
    status: VideoStatus
    labels: tuple[Count, ...] = ()
    split: str | None = None
    num_frames: Count = 0
    num_flows: Count = 0
    """Number of flow fields per direction: num_frames - step."""
    width: Count = 0
    height: Count = 0
    fps: Annotated[float, msgspec.Meta(gt=0)] | None = None
    num_values: Count = 0
    """Number of flow components, over all directions."""
    num_clipped: Count = 0
    """Number of flow components beyond the bound."""
    members: dict[str, tuple[Count, Count]] = {}
    """Byte offset and size of each member's data in the tar; keys `json`, `flow_x`, ..., `rgb`."""
    seconds: dict[str, Seconds] = {}
    """Seconds spent in decode, flow, encode and write. Empty in a rebuilt sidecar."""
    reason: FailureReason | None = None
    message: str | None = None
    attempts: Count = 1
    format_minor: Count = 0
    """0 for a record of version 1, 1 for a record of version 1.1."""
    num_damaged: Count = 0
    """Pictures that the decoder flagged as damaged and concealed, and that are kept."""
    num_irregular_stamps: Count = 0
    """Number of source frames whose time stamp goes back, repeats, jumps or is missing."""
    notes: dict[NoteCode, str] = {}
    """Notes that somebody should look at, by code: sentences with the video's own values."""
    source_bytes: Count | None = None
    """Size of the source file. None if it is not known. Listings are compared with it."""
    fault: FailureFault | None = None
    """Whose fault a failure is. None for a video that gave flow, and in older records."""

    @property
    def is_partial(self) -> bool:
        """Whether the source was damaged, and only the part before the damage is stored."""
        return self.status == "partial"

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON values, without empty fields."""
        values = {
            name: value
            for name, value in msgspec.structs.asdict(self).items()
            if name in ("key", "status") or value not in (None, (), {}, 0)
        }
        if self.message is not None:
            # The message may contain a file name that is not UTF-8. Some JSON readers refuse that.
            values["message"] = self.message.encode("utf-8", "backslashreplace").decode()
        return values

    @classmethod
    def from_json(cls, content: bytes) -> VideoRecord:
        """Reads a record. Raises ValueError if a field is invalid."""
        return _decode(content, cls)


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `failures.jsonl`."""

    key: str
    source: str
    reason: FailureReason
    message: str
    attempts: Count = 1
    fault: FailureFault = "video"
    """Whose fault it is. The next run tries the failures of a node again."""


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `shards/NNNNNN.json`."""

    shard: Count
    size: Count
    """Size of the tar in bytes."""
    sha256: str
    """Checksum of the tar."""
    videos: tuple[VideoRecord, ...]
    """One record for each video of the plan, including failed ones, in the manifest's order."""
    format_version: Literal[1] = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Returns the file's content, with one video per line, so that people can read it."""
        head = {
            "format_version": self.format_version,
            "shard": self.shard,
            "size": self.size,
            "sha256": self.sha256,
        }
        lines = ",\n".join(_compact(video.to_dict()) for video in self.videos)
        return (json.dumps(head)[:-1] + ', "videos": [\n' + lines + "\n]}\n").encode()


def read_sidecar(storage: Storage, shard: int) -> Sidecar:
    """Reads a shard's sidecar. Raises DatasetError if the sidecar is damaged."""
    return decode_sidecar(storage, shard, storage.read_bytes(sidecar_name(shard)))


def decode_sidecar(storage: Storage, shard: int, content: bytes) -> Sidecar:
    """Returns the sidecar of a file of `storage`. Raises DatasetError if it is damaged."""
    try:
        sidecar = _decode(content, Sidecar)
        if sidecar.shard != shard:
            raise ValueError(f"it is of shard {sidecar.shard}")
    except ValueError as error:
        raise DatasetError(
            f"{storage.location}: {sidecar_name(shard)} is damaged ({error}); "
            "remove it and run `flowprep verify --repair` to rebuild it from the tar"
        ) from error
    return sidecar


def read_manifest(storage: Storage) -> list[ManifestEntry]:
    """Reads the plan. Raises DatasetError if the plan is missing or damaged."""

    def entry(line: dict[str, Any]) -> ManifestEntry:
        shard = line.pop("shard")
        line["labels"] = tuple(line.get("labels", ()))
        for name in ("listed_bytes", "named_labels"):
            if name in line:
                raise ValueError(f"{name} is no field of the manifest")
        entry = ManifestEntry(Video(**line), shard)
        _check_entry(entry)
        return entry

    if not storage.exists(MANIFEST_FILE):
        raise DatasetError(
            f"{storage.location} has no {MANIFEST_FILE}; run the same command that made the data "
            "set again, which makes it anew"
        )
    remedy = "remove it and run the same command that made the data set again, which makes it anew"
    return _read_lines(storage, MANIFEST_FILE, entry, remedy)


def write_manifest(storage: Storage, entries: Iterable[ManifestEntry]) -> None:
    """Publishes the plan."""
    lines = []
    for entry in entries:
        video = entry.video
        values: dict[str, Any] = {"key": video.key, "source": redacted(video.source)}
        values["labels"] = list(video.labels)
        values["split"] = video.split
        if video.start_seconds is not None:
            values["start_seconds"] = video.start_seconds
        if video.end_seconds is not None:
            values["end_seconds"] = video.end_seconds
        values["shard"] = entry.shard
        lines.append(_compact(values) + "\n")
    storage.write_bytes(MANIFEST_FILE, "".join(lines).encode())


def read_failures(storage: Storage) -> dict[str, Failure]:
    """Reads `failures.jsonl` as key -> failure. The result is empty if there is no such file.

    Raises DatasetError if the file is damaged.
    """
    if not storage.exists(FAILURES_FILE):
        return {}
    remedy = "run `flowprep verify --repair`, which makes it anew"
    failures = _read_lines(
        storage, FAILURES_FILE, lambda line: msgspec.convert(line, Failure), remedy
    )
    return {failure.key: failure for failure in failures}


def write_failures(storage: Storage, failures: Iterable[Failure]) -> None:
    """Publishes `failures.jsonl`, sorted by key."""
    ordered = sorted(failures, key=lambda failure: failure.key)
    lines = [_compact(msgspec.structs.asdict(failure)) + "\n" for failure in ordered]
    storage.write_bytes(FAILURES_FILE, "".join(lines).encode())


def header_problem(storage: Storage) -> str | None:
    """Says that the readable `dataset.json` has been changed, or returns None if it has not."""
    values = json.loads(storage.read_bytes(DATASET_FILE))
    # Older data sets have no checksum here.
    digest = values.pop("sha256", None)
    known = {"format", "format_version", "config", "implementation", "class_names", "versions"}
    if unknown := sorted(values.keys() - known - {"format_minor", "origin"}):
        return f"{DATASET_FILE} has fields that are not known: {', '.join(unknown)}"
    if digest is not None and digest != _header_digest(values):
        return (
            f"{DATASET_FILE} is not what was written: its fields have another SHA-256 than it "
            "says; it is damaged or was edited"
        )
    return None


def _header_digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_entry(entry: ManifestEntry) -> None:
    """Raises ValueError for a line of the manifest that no run would write."""
    video = entry.video
    numbers = (entry.shard, *video.labels)
    if set(map(type, numbers)) != {int} or not 0 <= min(numbers) <= max(numbers) < 1 << 62:
        raise ValueError(f"shard and labels must be integers >= 0, got {numbers}")
    split = "" if video.split is None else video.split
    if not type(video.key) is type(video.source) is type(split) is str:
        raise ValueError("key, source and split must be texts")
    for seconds in (video.start_seconds, video.end_seconds):
        if seconds is not None and not (
            type(seconds) in (int, float) and 0 <= seconds <= sys.float_info.max
        ):
            raise ValueError(f"start_seconds and end_seconds must be >= 0, got {seconds}")


def _read_lines(
    storage: Storage, name: str, build: Callable[[dict[str, Any]], T], remedy: str
) -> list[T]:
    records = []
    for number, line in enumerate(storage.read_bytes(name).splitlines(), start=1):
        try:
            # `_decode` cannot be used here, because the name of a source need not be UTF-8.
            records.append(build(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"{storage.location}: {name} line {number} is damaged: "
                f"{type(error).__name__}: {error}; {remedy}"
            ) from error
    return records


def _decode(content: bytes, kind: type[S]) -> S:
    """Reads JSON and checks each field by its type. Raises ValueError if a field is invalid."""
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _compact(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"))
