"""From a tree that another project wrote to a data set: the JPEGs as they are, every pair checked.

    import_tree -> find_videos -> plan -> _import_video for each, in processes -> publish_shard

Nothing is computed but what a data set says of its flow: range, histogram, shares, from the decoded
levels. Nobody can see in an image what computed it: `DatasetHeader.origin` lists what of the
configuration is not known, and the implementation `imported` keeps `flowprep extract` out.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from flowprep._version import __version__
from flowprep.config import (
    DecodeSpec,
    Direction,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Quantizer,
    Resize,
)
from flowprep.dataset.export import EXPORT_FILE, VIDEOS_FILE
from flowprep.dataset.frame_lists import ListLine, read_frame_list
from flowprep.dataset.index import rebuild_sidecar, record_from_metadata
from flowprep.dataset.jpeg_header import JPEG_BEGIN, JPEG_END, read_jpeg_header
from flowprep.dataset.layout import (
    DATASET_FILE,
    FLOW_STREAMS,
    LOCK_FILE,
    PARTS_FOLDER,
    RGB_STREAM,
    SHARDS_FOLDER,
    DatasetHeader,
    Failure,
    ManifestEntry,
    VideoRecord,
    part_name,
    read_failures,
    read_manifest,
    shard_name,
    sidecar_name,
    stream_names,
    write_failures,
    write_manifest,
)
from flowprep.dataset.lease import held_lease
from flowprep.dataset.rawframes import LAYOUTS, FileKind, ParsedName, Stream, TreeLayout
from flowprep.dataset.read import published_shards
from flowprep.dataset.storage import TEMPORARY_MARK, Storage, locked_file
from flowprep.dataset.verify import decode_strictly
from flowprep.dataset.video_list import size_problem
from flowprep.dataset.write import JpegStream, publish_shard, write_sample
from flowprep.errors import (
    ConfigError,
    DatasetError,
    ExecutorError,
    FailureReason,
    InputError,
    VideoError,
)
from flowprep.flow.quantize import HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS, dequantize
from flowprep.run.job import read_part_record, write_part_record
from flowprep.run.plan import assign_shards, extend_plan, refuse_foreign_files
from flowprep.run.progress import RunReport, format_bytes, format_count
from flowprep.video.entries import does_not_exist
from flowprep.video.keys import check_key, escape_key
from flowprep.video.types import Video

__all__ = [
    "IMPORTABLE_LAYOUTS",
    "IMPORTED",
    "ImportReport",
    "ImportSpec",
    "LevelStatistics",
    "import_tree",
]

IMPORTED = "imported"
"""The implementation that an imported data set names: no estimator is called so."""

IMPORTABLE_LAYOUTS = tuple(name for name, layout in LAYOUTS.items() if layout.has_flow)

# Read at a time; also what one call of the decoder takes.
_CHUNK_JPEGS = 32
# The largest JPEG of 16384 x 16384 gray px at quality 100 is smaller.
_MAX_JPEG_BYTES = 1 << 29


@dataclass(frozen=True)
class ImportSpec:
    """What a tree holds; what is None is taken from its `flowprep.json`, if it has one."""

    layout: str = "mmaction2"
    """Whose tree it is."""
    bound_px: float | None = None
    """What level 255 stands for, in px: 20 for TSN and mmaction2, denseflow's -b."""
    quantizer: Quantizer | None = None
    """How px became levels: `round` is denseflow's, dense_flow's and gpu_flow's."""
    step: int | None = None
    """Flow goes from frame t to t + step; 1 if not given."""
    directions: tuple[Direction, ...] | None = None
    """Directions to import; only denseflow's names tell backward flow. Forward if not given."""
    algorithm: str | None = None
    """What computed the flow, if it is known; recorded as the user's word."""
    keep_rgb: bool | None = None
    """Import the RGB frames too; where the first video has them if not given."""
    lists: tuple[str, ...] = ()
    """Frame lists with labels, `SPLIT=PATH` or `PATH`; class folders give labels without them."""
    videos_per_shard: int = 100
    """How many videos one tar file holds."""

    def __post_init__(self) -> None:
        if self.layout not in IMPORTABLE_LAYOUTS:
            raise ConfigError(
                f"layout must be one of {', '.join(IMPORTABLE_LAYOUTS)}, got {self.layout!r}"
            )
        layout = LAYOUTS[self.layout]
        if self.directions not in (None, ("forward",)) and not layout.names_direction_and_step:
            raise ConfigError(
                f"directions must be forward for layout {self.layout}, whose names tell no other, "
                f"got {', '.join(self.directions or ())}"
            )


@dataclass
class ImportReport(RunReport):
    """What an import did, and what the data set holds after it."""

    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Returns the report as lines of text."""
        done = self.num_done_before + self.num_complete
        lines = [
            f"{'complete' if self.is_complete else 'INCOMPLETE'}: {done} of "
            f"{format_count(self.num_videos, 'video')} in {self.location}"
        ]
        if self.num_done_before:
            lines.append(f"  done before {format_count(self.num_done_before, 'video')}")
        lines.append(
            f"  imported    {format_count(self.num_complete, 'video')}, "
            f"{format_count(self.num_pairs, 'flow')}, {format_bytes(self.num_bytes)}"
        )
        if self.num_failed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.failures.items())
            lines.append(f"  failed      {reasons}; failures.jsonl says which and why")
        return "\n".join(lines)


def import_tree(
    tree: str | os.PathLike[str],
    out: str | os.PathLike[str],
    spec: ImportSpec,
    *,
    num_workers: int | None = None,
    progress: bool | None = False,
) -> ImportReport:
    """Makes the data set `out` of a tree of flow images; run again, it goes on.

    Returns the report. Videos whose images do not fit together are failures with a
    reason. Raises ConfigError where bound or anything else is neither given nor known, InputError
    where the tree or a list has no videos, DatasetError where `out` holds something else.
    """
    top = os.path.abspath(tree)
    if not os.path.isdir(top):
        raise does_not_exist("TREE", os.fspath(tree))
    if num_workers is not None and num_workers < 1:
        raise ConfigError(f"workers must be >= 1, got {num_workers}")
    storage = Storage(out)
    if storage.is_local and _is_inside(os.path.abspath(storage.local_root), top):
        raise InputError(f"OUT {storage.location} lies inside TREE {top}; choose a folder outside")
    layout = LAYOUTS[spec.layout]
    exported = _read_export(top)
    found = _find_videos(top, layout)
    plan = _Plan(top, layout, spec, exported, found)
    storage.make_folder()
    with ExitStack() as stack:
        if storage.is_local:
            taken = f"another run is writing to {storage.location}"
            stack.enter_context(
                locked_file(storage.path(LOCK_FILE), taken, "wait for it or end it")
            )
        stack.enter_context(held_lease(storage))
        entries = _write_plan(storage, plan)
        report = ImportReport(storage.location, len(entries), notes=plan.notes)
        _Importer(storage, plan, entries, report).go(num_workers, progress)
    return report


# ---- what is there


@dataclass(frozen=True)
class _Known:
    """What an export of flowprep's says of a video."""

    key: str
    labels: tuple[int, ...]
    split: str | None
    num_flows: int
    fps: float | None


@dataclass(frozen=True)
class _Export:
    """`flowprep.json` and `flowprep-videos.jsonl` of a tree that flowprep wrote."""

    config: ExtractConfig
    direction: Direction
    layout: str
    implementation: str
    class_names: tuple[str, ...]
    videos: Mapping[str, _Known]
    """By path."""


def _read_export(top: str) -> _Export | None:
    path = os.path.join(top, EXPORT_FILE)
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        config = ExtractConfig.from_dict({n: values[n] for n in ("decode", "flow", "encode")})
        videos = {}
        listed = os.path.join(top, VIDEOS_FILE)
        if not os.path.isfile(listed):
            raise ValueError(f"{VIDEOS_FILE} is missing; run the same export again to its end")
        with open(listed, encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                check_key(one["key"])
                labels = tuple(int(label) for label in one["labels"])
                videos[str(one["path"])] = _Known(
                    one["key"], labels, one["split"], one["num_flows"], one["fps"]
                )
        if values["file_format"] != "jpg":
            raise ValueError(f"format {values['file_format']} cannot be imported, only jpg")
        return _Export(
            config,
            values["direction"],
            values["layout"],
            values["implementation"],
            tuple(str(name) for name in values["class_names"]),
            videos,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be taken: {type(error).__name__}: {error}") from error


def _find_videos(top: str, layout: TreeLayout) -> list[str]:
    """Returns the paths of all folders that hold images of a video, in order."""
    videos: set[str] = set()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        relative, parents = pending.pop()
        folder = os.path.join(top, relative) if relative else top
        try:
            status = os.stat(folder)
            this = status.st_dev, status.st_ino
            if this in parents:  # a link back into a folder around it
                continue
            seen = False
            with os.scandir(folder) as scan:
                for entry in scan:
                    if entry.name.startswith("."):
                        continue
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if entry.is_dir():
                        pending.append((path, (*parents, this)))
                    elif not seen and (parsed := layout.parse(path)) is not None:
                        videos.add(parsed[0])
                        seen = True
        except OSError as error:
            raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not videos:
        example = layout.flow_file("VIDEO", "x", 0, FileKind("x"))
        raise InputError(f"{top} holds no flow images such as {example}; is it another layout's?")
    return sorted(videos)


@dataclass(frozen=True)
class _Item:
    """A video to import."""

    video: Video
    path: str
    """Below the tree."""
    counts: tuple[int, str] | None = None
    """Images that a list says there are, and which list."""
    fps: float | None = None


class _Plan:
    """What will be imported: configuration, videos, classes."""

    def __init__(
        self,
        top: str,
        layout: TreeLayout,
        spec: ImportSpec,
        exported: _Export | None,
        found: Sequence[str],
    ) -> None:
        self.top = top
        self.layout = layout
        self.notes: list[str] = []
        if exported is not None and exported.layout != spec.layout:
            raise ConfigError(
                f"layout must be {exported.layout}, as {top}/{EXPORT_FILE} says, got {spec.layout}"
            )
        self.config = self._config(spec, exported, found)
        self.origin = self._origin(spec, exported)
        self.items, self.class_names = self._videos(spec, exported, found)

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the videos shard by shard.
        return self.__dict__ | {"items": []}

    def _config(
        self, spec: ImportSpec, exported: _Export | None, found: Sequence[str]
    ) -> ExtractConfig:
        if exported is not None:
            flow, decode, encode = (
                exported.config.flow,
                exported.config.decode,
                exported.config.encode,
            )
            given = {
                "bound_px": spec.bound_px,
                "quantizer": spec.quantizer,
                "step": spec.step,
                "algorithm": spec.algorithm,
            }
            for name, value in given.items():
                if value not in (None, getattr(flow, name)):
                    raise ConfigError(
                        f"{name} must be {getattr(flow, name)}, as {self.top}/{EXPORT_FILE} says, "
                        f"got {value}"
                    )
            # Other layouts put backward flow where forward flow is looked for.
            directions: tuple[Direction, ...] = (exported.direction,)
            if spec.directions not in (None, directions):
                raise ConfigError(f"directions must be {directions[0]}, as {EXPORT_FILE} says")
        else:
            if spec.bound_px is None:
                raise ConfigError(
                    "bound_px must be given: what level 255 stands for, which no image says (20 "
                    "for TSN and mmaction2; denseflow's -b, 32 if that was left out)"
                )
            flow = FlowSpec(
                algorithm=spec.algorithm or FlowSpec().algorithm,
                step=1 if spec.step is None else spec.step,
                bound_px=spec.bound_px,
                quantizer=spec.quantizer or "round",
            )
            decode = DecodeSpec(resize=Resize("none", short_px=None))
            encode = EncodeSpec()
            directions = spec.directions or ("forward",)
        self.flow_spec, self.directions = flow, directions
        keep_rgb = spec.keep_rgb
        if keep_rgb is None:
            files = (parsed for _, parsed in self._files(found[0]))
            keep_rgb = any(parsed.kind.stream == "rgb" for parsed in files)
        return ExtractConfig(
            decode,
            flow,
            dataclasses.replace(
                encode,
                directions=directions,
                keep_rgb=keep_rgb,
                videos_per_shard=spec.videos_per_shard,
            ),
        )

    def _origin(self, spec: ImportSpec, exported: _Export | None) -> dict[str, Any]:
        origin: dict[str, Any] = {"tree": self.top, "layout": spec.layout}
        if exported is not None:
            return origin | {"implementation": exported.implementation, "unknown": []}
        unknown = ["flow.parameters", "decode", "encode.jpeg_quality", "encode.rgb_jpeg_quality"]
        if spec.algorithm is None:
            unknown.insert(0, "flow.algorithm")
        return origin | {"implementation": None, "unknown": unknown}

    def _videos(
        self, spec: ImportSpec, exported: _Export | None, found: Sequence[str]
    ) -> tuple[list[_Item], tuple[str, ...]]:
        listed = _read_lists(spec.lists, found)
        known = {} if exported is None else exported.videos
        paths = list(dict.fromkeys([*found, *known, *listed]))
        class_names = () if exported is None else exported.class_names
        folders: dict[str, int] = {}
        if exported is None and not listed and all("/" in path for path in found):
            names = sorted({path.partition("/")[0] for path in found})
            folders = {name: number for number, name in enumerate(names)}
            class_names = tuple(names)
        items = []
        for path in paths:
            labels: tuple[int, ...] = ()
            split = counts = fps = None
            key = ""
            if (one := known.get(path)) is not None:
                key, labels, split, fps = one.key, one.labels, one.split, one.fps
                counts = one.num_flows, VIDEOS_FILE
            if (line := listed.get(path)) is not None:
                labels, counts = line[1].labels, (line[1].count, line[1].origin)
                split = line[0] or split
            elif folders and "/" in path:
                labels = (folders[path.partition("/")[0]],)
            key = key or escape_key(path or os.path.basename(self.top))
            source = os.path.join(self.top, self.layout.folders(path)[0] if path else "")
            for folder in self.layout.folders(path):
                if os.path.isdir(os.path.join(self.top, folder)):
                    source = os.path.join(self.top, folder)
                    break
            items.append(_Item(Video(key, source, labels, split), path, counts, fps))
        times = Counter(item.video.key for item in items)
        if repeated := [key for key, count in times.items() if count > 1]:
            raise DatasetError(f"{self.top} gives two videos the key {repeated[0]}")
        if listed and (missing := sum(path not in listed for path in found)):
            self.notes.append(f"{missing} videos are in no list; they get no label")
        if listed and exported is None:
            class_names = _class_names_of_folders(items, listed)
        return items, class_names

    def list_files(self, path: str) -> dict[FileKind, dict[int, str]]:
        """Returns the files of a video: kind -> number -> path; raises VideoError for a number
        that two files have, and for what is no file.
        """
        kinds: dict[FileKind, dict[int, str]] = {}
        for entry, parsed in self._files(path):
            numbers = kinds.setdefault(parsed.kind, {})
            if parsed.number in numbers:
                other = os.path.basename(numbers[parsed.number])
                raise VideoError("incomplete", f"{other} and {entry.name} have one number")
            if not entry.is_file():
                raise VideoError("unreadable", f"{entry.name} is no file")
            numbers[parsed.number] = entry.path
        return kinds

    def _files(self, path: str) -> Iterator[tuple[os.DirEntry[str], ParsedName]]:
        for folder in self.layout.folders(path):
            place = os.path.join(self.top, folder) if folder else self.top
            if not os.path.isdir(place):
                continue
            with os.scandir(place) as scan:
                entries = list(scan)
            for entry in entries:
                parsed = self.layout.parse(f"{folder}/{entry.name}" if folder else entry.name)
                if parsed is not None and parsed[0] == path:
                    yield entry, parsed[1]


def _read_lists(
    lists: Sequence[str], found: Sequence[str]
) -> dict[str, tuple[str | None, ListLine]]:
    """Returns path -> (split, line); a path in a list may begin in another place."""
    there = set(found)
    by_path: dict[str, tuple[str | None, ListLine]] = {}
    for given in lists:
        split, equals, path = given.partition("=")
        if not equals or "/" in split:
            split, path = "", given
        for line in read_frame_list(path):
            parts = [part for part in line.path.split("/") if part not in ("", ".")]
            endings = ["/".join(parts[start:]) for start in range(len(parts))]
            name = next((ending for ending in endings if ending in there), None)
            if name is None:
                name = parts[-1] if line.path.startswith("/") else "/".join(parts)
            known = by_path.setdefault(name, (split or None, line))
            same = (known[0], known[1].count, known[1].labels) == (
                split or None,
                line.count,
                line.labels,
            )
            if not same:
                raise InputError(
                    f"{known[1].origin} and {line.origin} name {name} with other counts, labels "
                    "or splits; name it once"
                )
    return by_path


def _class_names_of_folders(
    items: Sequence[_Item], listed: Mapping[str, tuple[str | None, ListLine]]
) -> tuple[str, ...]:
    """Returns the class folders in the order of the listed labels, where both say the same."""
    names: dict[int, str] = {}
    for item in items:
        if item.path not in listed:
            continue
        if len(item.video.labels) != 1 or "/" not in item.path:
            return ()
        folder = item.path.partition("/")[0]
        if names.setdefault(item.video.labels[0], folder) != folder:
            return ()
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        return ()
    return tuple(names[label] for label in range(len(names)))


def _is_inside(path: str, top: str) -> bool:
    real, real_top = os.path.realpath(path), os.path.realpath(top)
    return real == real_top or real.startswith(real_top.rstrip("/") + "/")


def _write_plan(storage: Storage, plan: _Plan) -> list[ManifestEntry]:
    videos = [item.video for item in plan.items]
    header = DatasetHeader(
        plan.config,
        IMPORTED,
        plan.class_names,
        {"flowprep": __version__, "numpy": np.__version__, "opencv": cv2.__version__},
        plan.origin,
    )
    per_shard = plan.config.encode.videos_per_shard
    if storage.exists(DATASET_FILE):
        stored = DatasetHeader.read(storage)
        stored.check_same(plan.config, IMPORTED, storage.location)
        for name in ("tree", "layout"):
            if stored.origin.get(name) != plan.origin[name]:
                raise DatasetError(
                    f"{storage.location} was imported from {name} {stored.origin.get(name)}, this "
                    f"run has {plan.origin[name]}; choose another output folder"
                )
        if stored.class_names != plan.class_names:
            raise InputError(
                f"{storage.location} has the classes {', '.join(stored.class_names)}, this run "
                f"{', '.join(plan.class_names)}; choose another output folder"
            )
        known = read_manifest(storage) if storage.exists("manifest.jsonl") else []
        entries = extend_plan(known, videos, per_shard)
        if entries != known:
            write_manifest(storage, entries)
        return entries
    refuse_foreign_files(storage)
    entries = assign_shards(videos, 0, per_shard)
    storage.write_bytes(DATASET_FILE, header.to_json())
    write_manifest(storage, entries)
    return entries


# ---- the work


@dataclass(frozen=True)
class _Job:
    """The videos of one shard that have no part yet."""

    storage: Storage
    shard: int
    items: tuple[tuple[int, _Item], ...]
    """Manifest line and video."""


class _Importer:
    """Makes the parts in processes, and publishes shard after shard."""

    def __init__(
        self, storage: Storage, plan: _Plan, entries: list[ManifestEntry], report: RunReport
    ) -> None:
        self.storage = storage
        self.plan = plan
        self.entries = entries
        self.report = report
        self.items = {item.video.key: item for item in plan.items}
        stored = read_failures(storage)
        self.published = set(published_shards(storage))
        self.failures = {
            entry.video.key: stored[entry.video.key]
            for entry in entries
            if entry.shard in self.published and entry.video.key in stored
        }
        for failure in self.failures.values():
            report.num_failed += 1
            report.failures[failure.reason] += 1

    def go(self, num_workers: int | None, progress: bool | None) -> None:
        """Works until every shard is published."""
        self._clean()
        lines: dict[int, list[int]] = {}
        for index, entry in enumerate(self.entries):
            lines.setdefault(entry.shard, []).append(index)
        jobs = []
        for shard, indices in lines.items():
            if shard in self.published:
                self.report.num_done_before += sum(
                    self.entries[index].video.key not in self.failures for index in indices
                )
                continue
            todo = [i for i in indices if not self.storage.exists(part_name(shard, i, "json"))]
            items = tuple((index, self._item(index)) for index in todo)
            jobs.append(_Job(self.storage, shard, items))
        bar = tqdm(
            total=sum(len(lines[job.shard]) for job in jobs),
            unit="video",
            disable=None if progress is None else not progress,
        )
        with bar:
            for job in _carry_out(self.plan, jobs, num_workers):
                self._publish(job.shard, lines[job.shard])
                bar.update(len(lines[job.shard]))
        if not self.storage.exists("failures.jsonl"):
            write_failures(self.storage, self.failures.values())
        self.storage.remove(PARTS_FOLDER)

    def _clean(self) -> None:
        for folder in ("", SHARDS_FOLDER):
            for name in self.storage.list_names(folder):
                if TEMPORARY_MARK in name:
                    self.storage.remove(f"{folder}/{name}" if folder else name)
        for shard in {entry.shard for entry in self.entries} - self.published:
            lost = self.storage.exists(shard_name(shard))
            if lost and not self.storage.list_names(f"{PARTS_FOLDER}/{shard:06d}"):
                # Published once, and it describes itself.
                entries = [entry for entry in self.entries if entry.shard == shard]
                stored = read_failures(self.storage)
                sidecar = rebuild_sidecar(self.storage, shard, self.plan.config, entries, stored)
                self.storage.write_bytes(sidecar_name(shard), sidecar.to_json())
                self.published.add(shard)

    def _item(self, index: int) -> _Item:
        video = self.entries[index].video
        known = self.items.get(video.key)
        # In the manifest of an earlier run, and not in the tree any more.
        return known or _Item(video, os.path.relpath(video.source, self.plan.top))

    def _publish(self, shard: int, indices: list[int]) -> None:
        records = [read_part_record(self.storage, shard, index) for index in indices]
        for index, record in zip(indices, records, strict=True):
            self.report.add(record)
            if record.status == "failed":
                assert record.reason is not None
                self.failures[record.key] = Failure(
                    record.key,
                    self.entries[index].video.source,
                    record.reason,
                    record.message or "",
                )
        # Before the sidecar says that the shard is public, so that no failed video is in neither.
        write_failures(self.storage, self.failures.values())
        publish_shard(self.storage, shard, indices, records)
        self.storage.remove(f"{PARTS_FOLDER}/{shard:06d}")


_plan: _Plan | None = None


def _begin_worker(plan: _Plan) -> None:
    global _plan
    _plan = plan
    cv2.setNumThreads(1)


def _carry_out_here(job: _Job) -> None:
    assert _plan is not None
    _make_parts(_plan, job)


def _carry_out(plan: _Plan, jobs: Sequence[_Job], num_workers: int | None) -> Iterator[_Job]:
    count = min(num_workers or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        for job in jobs:
            _make_parts(plan, job)
            yield job
        return
    with ProcessPoolExecutor(
        count, get_context("spawn"), initializer=_begin_worker, initargs=(plan,)
    ) as pool:
        try:
            pending: deque[tuple[_Job, Future[None]]] = deque()
            for job in jobs:
                pending.append((job, pool.submit(_carry_out_here, job)))
                if len(pending) == 2 * count:
                    first, done = pending.popleft()
                    done.result()
                    yield first
            for first, done in pending:
                done.result()
                yield first
        except BrokenProcessPool as error:
            raise ExecutorError(
                "a worker process was ended from outside, maybe for want of memory; run the same "
                "command again with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make_parts(plan: _Plan, job: _Job) -> None:
    for index, item in job.items:
        try:
            metadata, streams = _import_video(plan, item)
        except VideoError as error:
            record = _failed(item.video, error.reason, error.message)
        except OSError as error:
            record = _failed(item.video, "unreadable", f"{error.filename}: {error.strerror}")
        else:
            try:
                with job.storage.atomic_file(part_name(job.shard, index, "tar")) as file:
                    members = write_sample(file, item.video.key, metadata, streams)
            finally:
                for stream in streams.values():
                    stream.close()
            record = record_from_metadata(metadata, members)
        write_part_record(job.storage, job.shard, index, record)


def _failed(video: Video, reason: FailureReason, message: str) -> VideoRecord:
    return VideoRecord(
        video.key,
        "failed",
        labels=video.labels,
        split=video.split,
        reason=reason,
        message=message,
    )


def _import_video(plan: _Plan, item: _Item) -> tuple[dict[str, Any], dict[str, JpegStream]]:
    """Returns metadata and streams of one video; raises VideoError where its images do not fit."""
    spec, encode = plan.flow_spec, plan.config.encode
    kinds = plan.list_files(item.path)
    files: dict[str, list[str]] = {}
    for direction in encode.directions:
        x, y = FLOW_STREAMS[direction]
        files[x] = _series(plan, kinds, _kind(plan, "x", direction), x)
        files[y] = _series(plan, kinds, _kind(plan, "y", direction), y)
    lengths = {name: len(paths) for name, paths in files.items()}
    num_flows = lengths[FLOW_STREAMS[encode.directions[0]][0]]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise VideoError("incomplete", f"x and y must pair up, there are {counts}")
    if num_flows == 0:
        raise VideoError("missing", f"{item.video.source} holds no flow images")
    num_frames = num_flows + spec.step
    if encode.keep_rgb:
        files[RGB_STREAM] = _series(plan, kinds, FileKind("rgb"), RGB_STREAM)
        _check_frames(len(files[RGB_STREAM]), num_flows, spec.step)
    if item.counts is not None and item.counts[0] not in (num_flows, num_frames):
        raise VideoError(
            "incomplete",
            f"there are {num_flows} flows, {item.counts[1]} says {item.counts[0]}",
        )
    streams = {name: JpegStream(encode.jpeg_quality) for name in stream_names(encode)}
    try:
        statistics, size = _read_flow(plan, files, streams)
        if encode.keep_rgb:
            _read_frames(files[RGB_STREAM], streams[RGB_STREAM], size)
    except BaseException:
        for stream in streams.values():
            stream.close()
        raise
    width, height = size
    metadata = {
        "key": item.video.key,
        "source": item.video.source,
        "source_bytes": None,
        "source_mtime_ns": os.stat(item.video.source).st_mtime_ns,
        "start_seconds": None,
        "end_seconds": None,
        "labels": list(item.video.labels),
        "split": item.video.split,
        "codec": "images",
        "duration_seconds": None,
        "source_fps": item.fps,
        "fps": item.fps,
        "source_width": width,
        "source_height": height,
        "rotation": 0,
        "width": width,
        "height": height,
        "num_frames_decoded": num_frames,
        "num_frames": num_frames,
        "num_flows": num_flows,
        "step": spec.step,
        "versions": {"flowprep": __version__},
        "status": "complete",
        "flow": {name: item.to_dict(spec) for name, item in statistics.items()},
        "sizes": {name: stream.sizes for name, stream in streams.items()},
    }
    return metadata, streams


def _kind(plan: _Plan, stream: Stream, direction: Direction) -> FileKind:
    if plan.layout.names_direction_and_step:
        return FileKind(stream, direction, plan.flow_spec.step)
    return FileKind(stream)


def _series(
    plan: _Plan, kinds: Mapping[FileKind, Mapping[int, str]], kind: FileKind, name: str
) -> list[str]:
    """Returns the files of a stream in order; raises VideoError where a number is missing."""
    numbers = kinds.get(kind, {})
    if not numbers:
        return []
    ordered = sorted(numbers)
    accepted = plan.layout.accepted_first_numbers
    # x, y and frames of one video begin alike.
    firsts = {min(other) for other in kinds.values()}
    first = min(accepted) if min(firsts) < max(accepted) else max(accepted)
    if ordered[0] != first:
        raise VideoError(
            "incomplete",
            f"{name} begins at {os.path.basename(numbers[ordered[0]])}, not at {first}",
        )
    for wanted, number in enumerate(ordered, start=first):
        if number != wanted:
            before = os.path.basename(numbers[wanted - 1])
            raise VideoError(
                "incomplete",
                f"{name} lacks number {wanted}: {os.path.basename(numbers[number])} follows "
                f"{before}",
            )
    return [numbers[number] for number in ordered]


def _check_frames(num_frames: int, num_flows: int, step: int) -> None:
    if num_frames == num_flows + step:
        return
    why = ""
    if num_frames == num_flows:
        why = " (dense_flow leaves out the image of the first frame)"
    raise VideoError(
        "incomplete",
        f"{num_flows} flows at step {step} have {num_flows + step} frames, there are "
        f"{num_frames}{why}; import with --no-rgb",
    )


def _read_flow(
    plan: _Plan, files: Mapping[str, Sequence[str]], streams: Mapping[str, JpegStream]
) -> tuple[dict[str, LevelStatistics], tuple[int, int]]:
    statistics: dict[str, LevelStatistics] = {}
    size: tuple[int, int] | None = None
    for direction in plan.config.encode.directions:
        x_name, y_name = FLOW_STREAMS[direction]
        levels = statistics[direction] = LevelStatistics()
        for start in range(0, len(files[x_name]), _CHUNK_JPEGS):
            planes = []
            for name in (x_name, y_name):
                jpegs = []
                for path in files[name][start : start + _CHUNK_JPEGS]:
                    jpeg, size = _read_jpeg(path, size, num_components=1)
                    streams[name].append_jpeg(jpeg)
                    jpegs.append(jpeg)
                assert size is not None
                planes.append(_decode(jpegs, size, files[name][start : start + _CHUNK_JPEGS]))
            for x, y in zip(*planes, strict=True):
                levels.add(x, y, plan.flow_spec.zero_level)
    assert size is not None
    return statistics, size


def _read_frames(paths: Sequence[str], stream: JpegStream, size: tuple[int, int]) -> None:
    for path in paths:
        jpeg, _ = _read_jpeg(path, size, num_components=3)
        image, complaint = decode_strictly(jpeg)
        if image is None or complaint:
            name = os.path.basename(path)
            raise VideoError("damaged", f"{name} does not decode{complaint and f': {complaint}'}")
        stream.append_jpeg(jpeg)


def _read_jpeg(
    path: str, size: tuple[int, int] | None, *, num_components: int
) -> tuple[bytes, tuple[int, int]]:
    """Returns a JPEG file and its (width, height), which must be `size` if that is known."""
    name = os.path.basename(path)
    num_bytes = os.stat(path).st_size
    if num_bytes == 0:
        raise VideoError("damaged", f"{name} is empty")
    if num_bytes > _MAX_JPEG_BYTES:
        raise VideoError("unreadable", f"{name} has {num_bytes} bytes; that is no image of flow")
    with open(path, "rb") as file:
        jpeg = file.read()
    header = read_jpeg_header(jpeg)
    if header is None:
        raise VideoError("unreadable", f"{name} is no JPEG")
    if not (jpeg.startswith(JPEG_BEGIN) and jpeg.endswith(JPEG_END)):
        raise VideoError("damaged", f"{name} is cut, or has other data behind its end")
    if header.num_components != num_components:
        kinds = {1: "gray", 3: "colour"}
        raise VideoError(
            "unreadable",
            f"{name} must be {kinds[num_components]} (components: {num_components}), it has "
            f"{header.num_components}",
        )
    found = (header.width, header.height)
    if size is not None and found != size:
        raise VideoError(
            "size-change", f"{name} is {found[0]}x{found[1]}, others are {size[0]}x{size[1]}"
        )
    if size_problem(*found) is not None:
        raise VideoError("unreadable", f"{name} says that it is {found[0]}x{found[1]}")
    return jpeg, found


def _decode(
    jpegs: Sequence[bytes], size: tuple[int, int], paths: Sequence[str]
) -> NDArray[np.uint8]:
    """Returns the levels of gray JPEGs, (n, H, W) uint8; raises VideoError for a damaged one."""
    # Imported here, because numba takes half a second.
    from flowprep.dataset.jpeg import decode_planes

    width, height = size
    planes = np.empty((len(jpegs), height, width), np.uint8)
    ends = np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
    starts = np.concatenate(([0], ends[:-1]))
    targets = np.arange(len(jpegs), dtype=np.int64) * (height * width)
    data = b"".join(jpegs)
    done = 0
    while done < len(jpegs):
        done += decode_planes(
            data, starts[done:], ends[done:], planes, targets[done:], size, (0, 0, width, height)
        )
        if done < len(jpegs):
            # Damaged, or of another kind (progressive): libjpeg knows.
            image, complaint = decode_strictly(jpegs[done])
            if image is None or complaint or image.shape != (height, width):
                name = os.path.basename(paths[done])
                raise VideoError(
                    "damaged", f"{name} does not decode{complaint and f': {complaint}'}"
                )
            planes[done] = image
            done += 1
    return planes


@dataclass
class LevelStatistics:
    """What `FieldQuantizer` says of flow, as far as the stored levels tell it.

    Levels 0 and 255 count as clipped: among them is all that was beyond the bound, and what lay
    within half a level of it. No value is known to have been invalid.
    """

    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))
    """How often each pair of levels is there: element 256 x + y."""
    num_fields: int = 0
    num_zero_fields: int = 0

    def add(self, x: NDArray[np.uint8], y: NDArray[np.uint8], zero_level: int) -> None:
        """Counts one field: (H, W) uint8 levels of x and of y."""
        pairs = (x.astype(np.uint16) << 8) | y
        self.pairs += np.bincount(pairs.reshape(-1), minlength=1 << 16)
        self.num_fields += 1
        zero = zero_level << 8 | zero_level
        self.num_zero_fields += bool((pairs == zero).all())

    def to_dict(self, spec: FlowSpec) -> dict[str, Any]:
        """Returns the statistics as JSON values, with the names that `FieldQuantizer` gives."""
        levels = dequantize(np.arange(256, dtype=np.uint8), spec)
        table = self.pairs.reshape(256, 256)
        counts = table.sum(axis=1) + table.sum(axis=0)
        present = levels[counts > 0]
        magnitude = np.hypot(levels[:, None], levels[None, :])
        bins = np.minimum(magnitude / HISTOGRAM_BIN_PX, HISTOGRAM_NUM_BINS).astype(np.int64)
        histogram = np.zeros(HISTOGRAM_NUM_BINS + 1, np.int64)
        np.add.at(histogram, bins, table)
        last = int(np.flatnonzero(histogram)[-1]) + 1 if self.num_fields else 0
        return {
            "min_px": round(float(present.min()), 4) if self.num_fields else None,
            "max_px": round(float(present.max()), 4) if self.num_fields else None,
            "magnitude_histogram": histogram[:last].tolist(),
            "histogram_bin_px": HISTOGRAM_BIN_PX,
            "num_values": int(counts.sum()),
            "num_clipped": int(counts[0] + counts[255]),
            "num_invalid": 0,
            "num_fields": self.num_fields,
            "num_zero_fields": self.num_zero_fields,
        }
