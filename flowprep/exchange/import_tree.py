"""Imports a tree that another project wrote: JPEGs stay unchanged, and every pair is checked.

    import_tree -> ImportPlan -> import_video for each, in processes -> publish_shard

The implementation `imported` keeps `flowprep extract` out of the data set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import cv2
import numpy as np
from tqdm import tqdm

from flowprep._version import __version__
from flowprep.dataset.failures import (
    failure_of,
    lost_records,
    published_failures,
    stored_failures,
)
from flowprep.dataset.foreign import foreign_notes
from flowprep.dataset.layout import (
    DATASET_FILE,
    MANIFEST_FILE,
    DatasetHeader,
    Failure,
    ManifestEntry,
    VideoRecord,
    write_failures,
    write_manifest,
)
from flowprep.dataset.lease import locked_dataset
from flowprep.dataset.lost_plan import lost_header, read_or_recover_manifest
from flowprep.dataset.parts import (
    part_name,
    read_part_record,
    remove_all_parts,
    remove_parts,
    write_part_record,
)
from flowprep.dataset.plan import extend_plan, refuse_foreign_files
from flowprep.dataset.read import published_shards
from flowprep.dataset.rebuild import rebuild_lost_sidecars, record_from_metadata
from flowprep.dataset.unfilled import clear_unfilled, is_unfilled, unfilled_note
from flowprep.dataset.write import publish_shard, reopen_shards, write_sample
from flowprep.differences import Differences, describe_differences, find_differences, mismatch
from flowprep.errors import (
    ConfigError,
    ConfigMismatchError,
    DatasetError,
    FailureReason,
    InputError,
    StorageError,
    VideoError,
)
from flowprep.exchange.import_plan import ImportItem, ImportPlan
from flowprep.exchange.import_spec import IMPORTED, ImportSpec
from flowprep.exchange.import_video import import_video
from flowprep.inputs.entries import does_not_exist
from flowprep.inputs.video import Video
from flowprep.printable import bar_stream, join_lines
from flowprep.processes import in_processes
from flowprep.run.progress import RunReport
from flowprep.storage import Storage
from flowprep.urls import as_path, is_url, redacted
from flowprep.words import format_bytes, format_count

__all__ = ["ImportReport", "ImportSpec", "import_tree"]


@dataclass
class ImportReport(RunReport):
    """What an import did, and what the data set holds after the import."""

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
        lines += self.note_lines(12)
        return join_lines(lines)


def import_tree(
    tree: str | os.PathLike[str],
    out: str | os.PathLike[str],
    spec: ImportSpec,
    *,
    num_workers: int | None = None,
    progress: bool | None = False,
) -> ImportReport:
    """Makes the data set `out` from a tree of flow images. A second call continues the first.

    A video whose images do not fit together is a failure with a reason in the report. Raises
    ConfigError if the bound or another option is neither given nor known, InputError if the tree or
    a list has no videos, and DatasetError if `out` holds something else.
    """
    place = as_path(os.fspath(tree))
    if is_url(place):
        raise ConfigError(
            f"TREE must be a folder on this machine, got {redacted(place)}; copy it to one first"
        )
    top = os.path.abspath(place)
    if not os.path.isdir(top):
        raise does_not_exist("TREE", os.fspath(tree))
    if num_workers is not None and num_workers < 1:
        raise ConfigError(f"workers must be >= 1, got {num_workers}")
    storage = Storage(out)
    if storage.is_local and _is_inside(os.path.abspath(storage.local_root), top):
        raise InputError(f"OUT {storage.location} lies inside TREE {top}; choose a folder outside")
    plan = ImportPlan(top, spec)
    storage.make_folder()
    with locked_dataset(storage) as lease:
        storage = lease.storage
        entries = _write_plan(storage, plan)
        report = ImportReport(storage.location, len(entries), notes=plan.notes)
        report.notes += foreign_notes(storage)
        _Importer(storage, plan, entries, report).go(num_workers, progress)
    return report


def _is_inside(path: str, top: str) -> bool:
    real, real_top = os.path.realpath(path), os.path.realpath(top)
    return real == real_top or real.startswith(real_top.rstrip("/") + "/")


# The names of the two places whose values differ.
_PLACES = ("in the data set", "in this run")
# The options of the command by the fields of the configuration.
_OPTIONS = {
    "flow.algorithm": "--algorithm",
    "flow.bound_px": "--bound",
    "flow.quantizer": "--quantizer",
    "flow.step": "--step",
    "encode.directions": "--directions",
    "encode.keep_rgb": "RGB frames",
    "layout": "--layout",
    "tree": "TREE",
}


def _write_plan(storage: Storage, plan: ImportPlan) -> list[ManifestEntry]:
    videos = [item.video for item in plan.items]
    header = DatasetHeader(
        plan.config,
        IMPORTED,
        plan.class_names,
        {"flowprep": __version__, "numpy": np.__version__, "opencv": cv2.__version__},
        plan.origin,
    )
    try:
        return _continued_plan(storage, plan, videos, header)
    except (ConfigMismatchError, InputError) as error:
        differences = error.differences if isinstance(error, ConfigMismatchError) else {}
        differences = _by_option(differences)
        if not is_unfilled(storage):
            if isinstance(error, ConfigMismatchError):
                raise mismatch(
                    f"{storage.location} was made with other options, or from another tree",
                    differences,
                    _PLACES,
                    "Give the options of the data set, or choose another output folder.",
                ) from error
            raise
        plan.notes.append(unfilled_note(storage, list(differences)))
    clear_unfilled(storage)
    storage.write_bytes(DATASET_FILE, header.to_json())
    entries = extend_plan([], videos, plan.config.encode.videos_per_shard)
    write_manifest(storage, entries)
    return entries


def _by_option(differences: Differences) -> Differences:
    """Returns the differences by the options that make them."""
    named: Differences = {}
    for name, (before, now) in differences.items():
        if name == "encode.keep_rgb":
            before, now = ("--rgb" if keeps else "--no-rgb" for keeps in (before, now))
        named[_OPTIONS.get(name, name)] = before, now
    return named


def _continued_plan(
    storage: Storage, plan: ImportPlan, videos: list[Video], header: DatasetHeader
) -> list[ManifestEntry]:
    per_shard = plan.config.encode.videos_per_shard
    if not storage.exists(DATASET_FILE):
        if lost_header(storage, plan.config, IMPORTED) is None:
            refuse_foreign_files(storage)
        else:
            plan.notes.append(f"{DATASET_FILE} was lost; made anew from this command")
        storage.write_bytes(DATASET_FILE, header.to_json())
    stored = DatasetHeader.read(storage)
    stored.check_same(plan.config, IMPORTED, storage.location)
    if differing := find_differences(stored.origin, plan.origin, ("tree", "layout")):
        raise mismatch(
            f"{storage.location} was imported from elsewhere",
            differing,
            _PLACES,
            "Choose another output folder.",
        )
    if stored.class_names != plan.class_names:
        classes = {"class names": (stored.class_names, plan.class_names)}
        lines = describe_differences(classes, _PLACES)
        raise InputError(
            [
                f"{storage.location} has other classes than this run:",
                *lines,
                "Choose another output folder.",
            ]
        )
    known = read_or_recover_manifest(storage, videos, per_shard, plan.notes)
    entries = extend_plan(known, videos, per_shard)
    if entries != known or not storage.exists(MANIFEST_FILE):
        write_manifest(storage, entries)
    return entries


# ---- the work


@dataclass(frozen=True)
class _Job:
    """The videos of one shard that have no stored part yet."""

    storage: Storage
    shard: int
    items: tuple[tuple[int, ImportItem], ...]
    """Manifest line and video."""


class _Importer:
    """Makes the parts in several processes, and publishes shard after shard."""

    def __init__(
        self, storage: Storage, plan: ImportPlan, entries: list[ManifestEntry], report: RunReport
    ) -> None:
        self.storage = storage
        self.plan = plan
        self.entries = entries
        self.report = report
        self.items = {item.video.key: item for item in plan.items}
        self.published = set(published_shards(storage))
        self.failures: dict[str, Failure] = {}

    def go(self, num_workers: int | None, progress: bool | None) -> None:
        """Works until every shard is published."""
        self._recover()
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
            todo = [index for index in indices if not self._has_part(shard, index)]
            items = tuple((index, self._item(index)) for index in todo)
            jobs.append(_Job(self.storage, shard, items))
        bar = tqdm(
            total=sum(len(lines[job.shard]) for job in jobs),
            unit="video",
            file=bar_stream(),
            disable=None if progress is None else not progress,
        )
        with bar:
            for job, _ in in_processes(_make_parts, self.plan, jobs, num_workers):
                self._publish(job.shard, lines[job.shard])
                bar.update(len(lines[job.shard]))
        remove_all_parts(self.storage, lines)

    def _recover(self) -> None:
        stored = stored_failures(self.storage)
        self.published |= rebuild_lost_sidecars(
            self.storage, self.entries, self.plan.config, self.published, stored
        )
        self.failures = published_failures(self.storage, self.entries, self.published, stored or {})
        lost = lost_records(self.failures, self.entries)
        self.published -= reopen_shards(self.storage, self.entries, lost)
        for key in set().union(*lost.values()):
            del self.failures[key]
        if self.failures != stored:
            write_failures(self.storage, self.failures.values())
        for failure in self.failures.values():
            self.report.num_failed += 1
            self.report.failures[failure.reason] += 1

    def _item(self, index: int) -> ImportItem:
        video = self.entries[index].video
        known = self.items.get(video.key)
        # The video is in the manifest of an earlier run, but not in the tree any more.
        return known or ImportItem(video, os.path.relpath(video.source, self.plan.top))

    def _has_part(self, shard: int, index: int) -> bool:
        """Whether a video is finished, as far as names say."""
        try:
            record = read_part_record(self.storage, shard, index)
        except (DatasetError, StorageError):
            return False
        if record.key != self.entries[index].video.key:
            return False
        is_stored = record.status != "failed"
        return not is_stored or self.storage.exists(part_name(shard, index, "tar"))

    def _publish(self, shard: int, indices: list[int]) -> None:
        records = [read_part_record(self.storage, shard, index) for index in indices]
        for index, record in zip(indices, records, strict=True):
            self.report.add(record)
            if record.status == "failed":
                self.failures[record.key] = failure_of(record, self.entries[index].video.source)
        # Failures are written before the sidecar marks the shard as public. So a failed video is
        # never absent from both.
        write_failures(self.storage, self.failures.values())
        publish_shard(self.storage, shard, indices, records)
        remove_parts(self.storage, shard)


def _make_parts(plan: ImportPlan, job: _Job) -> None:
    for index, item in job.items:
        try:
            metadata, streams = import_video(plan, item)
        except VideoError as error:
            record = _failed(item.video, error.reason, error.message)
        except OSError as error:
            record = _failed(item.video, "unreadable", f"{error.filename}: {error.strerror}")
        else:
            try:
                with job.storage.atomic_file(
                    part_name(job.shard, index, "tar"), lasting=False
                ) as file:
                    members = write_sample(file, metadata, streams)
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
        fault="video",
    )
