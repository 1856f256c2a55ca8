"""Exports a data set to the tree that another project reads, with frame lists and exact counts.

    export_dataset -> video_paths -> FORMATS[name].write for each video, in processes -> frame lists

DEST gets `flowprep.json` first (the exported data set, and how its levels become px). At the end it
gets `flowprep-videos.jsonl` (key, path, counts of each video) and the lists. The same command
continues an interrupted export, and whole files stay.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowprep.dataset.layout import LOCK_FILE, DatasetHeader
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.differences import find_differences, flatten, mismatch
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.export_work import Exporter, export_units
from flowprep.exchange.formats import FORMATS, TEMPORARY_FOLDER, write_text
from flowprep.exchange.frame_lists import frame_lists
from flowprep.exchange.layouts import (
    EXPORT_FILE,
    LAYOUTS,
    LISTS_FOLDER,
    VIDEOS_FILE,
    video_paths,
)
from flowprep.locks import locked_file
from flowprep.printable import bar_stream, join_lines
from flowprep.processes import in_processes
from flowprep.storage_errors import translated_errors
from flowprep.urls import absolute, as_path, is_url, redacted
from flowprep.words import format_bytes, format_count

__all__ = ["ExportReport", "export_dataset", "level_notes"]

EXPORT_VERSION = 1

_MAX_SHOWN_FAILURES = 20


@dataclass
class ExportReport:
    """What an export did."""

    location: str
    num_videos: int = 0
    """The videos to export."""
    num_done_before: int = 0
    """The videos that were already complete."""
    num_exported: int = 0
    num_flows: int = 0
    """The flows of all videos in DEST after this run."""
    num_frames: int = 0
    num_bytes: int = 0
    """The bytes that this run wrote, without the lists."""
    lists: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Key -> the damage of the video in the data set."""
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if every video was exported, else 1."""
        return 1 if self.failures else 0

    def summary(self) -> str:
        """Returns the report as lines of text."""
        done = self.num_done_before + self.num_exported
        lines = [
            f"{'INCOMPLETE' if self.failures else 'complete'}: {done} of "
            f"{format_count(self.num_videos, 'video')} in {self.location}"
        ]
        if self.num_done_before:
            lines.append(f"  done before {format_count(self.num_done_before, 'video')}")
        frames = f", {format_count(self.num_frames, 'frame')}" if self.num_frames else ""
        flows = format_count(self.num_flows, "flow")
        lines.append(f"  holds       {flows}{frames}; {format_bytes(self.num_bytes)} written")
        if self.lists:
            lines.append(f"  lists       {', '.join(self.lists)}")
        for key, message in list(self.failures.items())[:_MAX_SHOWN_FAILURES]:
            lines.append(f"  failed      {key}: {message}")
        if (hidden := len(self.failures) - _MAX_SHOWN_FAILURES) > 0:
            lines.append(f"  failed      ... and {hidden} more")
        return join_lines(lines)


def export_dataset(
    dataset: FlowDataset | str | os.PathLike[str],
    dest: str | os.PathLike[str],
    spec: ExportSpec,
    *,
    num_workers: int | None = None,
    progress: bool | None = False,
) -> ExportReport:
    """Writes the videos of a data set in another project's form into the local folder `dest`.

    JPEGs are copied as stored. `num_workers` is the number of processes (None: one per core). A
    video that is damaged in the data set is listed in the report, and the export continues.

    Raises ConfigError if the data set lacks the requested flow or frames or if `dest` is a URL,
    InputError if no video is left after the filters, DatasetError if `dest` holds something else or
    if two videos would share a path, and StorageError if `dest` cannot be written.
    """
    if not isinstance(dataset, FlowDataset):
        dataset = open_dataset(dataset)
    if num_workers is not None and num_workers < 1:
        raise ConfigError(f"workers must be >= 1, got {num_workers}")
    place = as_path(os.fspath(dest))
    if is_url(place):
        raise ConfigError(
            f"DEST must be a folder on this machine, got {redacted(place)}; export to a folder, "
            "and copy that"
        )
    folder = Path(os.path.abspath(place))
    layout = LAYOUTS[spec.layout]
    chosen = FORMATS[spec.format]
    if chosen is not None:
        chosen.check_installed()
    has_rgb = _has_rgb(dataset, spec)
    if layout.has_flow and spec.direction not in dataset.config.encode.directions:
        raise ConfigError(
            f"direction must be one that {dataset.location} holds "
            f"({', '.join(dataset.config.encode.directions)}), got {spec.direction}"
        )
    all_paths = video_paths(dataset.videos, dataset.class_names, layout)
    videos, paths = _selected(dataset, all_paths, spec)
    with translated_errors("write", str(folder)):
        _take_folder(folder, _identity(dataset, spec, has_rgb))
    _check_paths(paths, folder)
    notes = [*dataset.notes, *level_notes(dataset.header, spec)]
    report = ExportReport(str(folder), len(videos), notes=notes)
    taken = f"another export is writing to {folder}"
    with (
        locked_file(folder / LOCK_FILE, taken, "wait for it or end it"),
        translated_errors("write", str(folder)),
    ):
        shutil.rmtree(folder / TEMPORARY_FOLDER, ignore_errors=True)
        exporter = Exporter(dataset, spec, has_rgb, folder)
        units = list(export_units(videos, paths, spec))
        bar = tqdm(
            total=len(videos),
            unit="video",
            file=bar_stream(),
            disable=None if progress is None else not progress,
        )
        places: dict[str, str] = {}
        with bar:
            for unit, outcome in in_processes(Exporter.carry_out, exporter, units, num_workers):
                bar.update(len(unit.keys))
                report.failures.update(outcome.failures)
                good = [key for key in unit.keys if key not in outcome.failures]
                places.update(dict.fromkeys(good, unit.place))
                report.num_bytes += outcome.num_bytes
                if outcome.num_bytes:
                    report.num_exported += len(good)
                else:
                    report.num_done_before += len(good)
        there = [video for video in videos if video.key in places]
        report.num_flows = sum(video.num_flows for video in there) if layout.has_flow else 0
        report.num_frames = sum(video.num_frames for video in there) if has_rgb else 0
        _write_lists(exporter, there, paths, places, report)
        shutil.rmtree(folder / TEMPORARY_FOLDER, ignore_errors=True)
    return report


def level_notes(header: DatasetHeader, spec: ExportSpec) -> list[str]:
    """Returns sentences on what the reader of an export must know about its levels."""
    layout, flow = LAYOUTS[spec.layout], header.config.flow
    if not layout.has_flow:
        return []
    notes = []
    assumed = layout.assumed_bound_px
    has_levels = spec.format in ("jpg", "zip", "webdataset") or spec.values == "levels"
    stored_zero = {"round": "127.5 or 128", "floor": "127", "centered": "128"}[flow.quantizer]
    if has_levels and assumed is not None and flow.bound_px != assumed:
        notes.append(
            f"levels stand for -{flow.bound_px:g} to {flow.bound_px:g} px, but {spec.layout} "
            f"expects {assumed:g} px, so its networks see flow that is "
            f"{assumed / flow.bound_px:g} times as fast; extract with --bound {assumed:g} to use "
            f"networks trained on {assumed:g} px"
        )
    if has_levels and assumed is None:
        notes.append(
            f"levels stand for -{flow.bound_px:g} to {flow.bound_px:g} px; give "
            f"`-b={flow.bound_px:g}` to {spec.layout}"
        )
    if has_levels and layout.assumed_zero not in stored_zero:
        notes.append(
            f"the quantizer {flow.quantizer} stores 0 px as level {stored_zero}, but {spec.layout} "
            f"reads level {layout.assumed_zero} as 0 px; extract with another --quantizer if half "
            "a level matters"
        )
    if flow.step > 1 and not layout.names_direction_and_step:
        notes.append(
            f"flow goes from frame t to t + {flow.step}, but the file names of {spec.layout} do "
            "not say so; keep flowprep.json with the export, because it says so"
        )
    if spec.direction == "backward" and not layout.names_direction_and_step:
        notes.append(
            f"flow goes backward, but {spec.layout} reads it as forward flow; export with "
            "--direction forward if that is wrong"
        )
    return notes


def _has_rgb(dataset: FlowDataset, spec: ExportSpec) -> bool:
    stored = dataset.config.encode.keep_rgb
    wanted = spec.keep_rgb or not LAYOUTS[spec.layout].has_flow
    if wanted and not stored:
        raise ConfigError(
            f"{dataset.location} holds no RGB frames; "
            + ("leave out --rgb" if spec.keep_rgb else f"layout {spec.layout} needs them")
        )
    return spec.holds_rgb and stored and (wanted or spec.keep_rgb is None)


def _selected(
    dataset: FlowDataset, paths: Sequence[str], spec: ExportSpec
) -> tuple[list[StoredVideo], dict[str, str]]:
    """Returns the videos that pass the filters, and their paths by key."""
    names = [str(name) for name in dataset.class_names]
    labels: set[int] = set()
    for name in spec.classes:
        if name in names:
            labels.add(names.index(name))
        elif re.fullmatch("[0-9]{1,9}", name):
            labels.add(int(name))
        else:
            raise ConfigError(f"classes must be of {dataset.location}, got {name!r}")
    found = {
        video.key: path
        for video, path in zip(dataset.videos, paths, strict=True)
        if (not spec.keys or any(fnmatchcase(video.key, pattern) for pattern in spec.keys))
        and (not spec.splits or video.split in spec.splits)
        and (not spec.classes or labels & set(video.labels))
    }
    if not found:
        raise InputError(
            f"no video of {dataset.location} is left after the filters; run `flowprep info "
            "--videos` to see keys, splits and labels"
            if spec.keys or spec.splits or spec.classes
            else f"{dataset.location} holds no video yet; run extract until a shard is published"
        )
    return [dataset.videos[key] for key in found], found


def _identity(dataset: FlowDataset, spec: ExportSpec, has_rgb: bool) -> dict[str, Any]:
    """Returns the content of `flowprep.json`, which must be equal in later runs into the folder."""
    header = dataset.header
    config = header.config.to_dict()
    location = dataset.location
    return {
        "format": "flowprep-export",
        "format_version": EXPORT_VERSION,
        "layout": spec.layout,
        "file_format": spec.format,
        "values": spec.values,
        "direction": spec.direction,
        "has_rgb": has_rgb,
        "keys": list(spec.keys),
        "splits": list(spec.splits),
        "classes": list(spec.classes),
        "videos_per_shard": spec.videos_per_shard if spec.format == "webdataset" else None,
        "source": absolute(as_path(location)),
        "implementation": header.implementation,
        "origin": dict(header.origin),
        "flow": config["flow"],
        "decode": config["decode"],
        "encode": config["encode"],
        "class_names": list(dataset.class_names),
        "labels": dataset.labels_name,
        "labels_sha256": dataset.labels_sha256,
    }


def _take_folder(folder: Path, identity: dict[str, Any]) -> None:
    """Marks DEST as this export, or checks that it is. Raises DatasetError for any other folder."""
    path = folder / EXPORT_FILE
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"DEST {folder} is a file; choose a new or empty folder")
    ours = {TEMPORARY_FOLDER, LOCK_FILE}
    if path.is_file():
        try:
            stored = json.loads(path.read_bytes())
            differing = find_differences(flatten(stored), flatten(identity))
        except (ValueError, AttributeError, RecursionError) as error:
            raise DatasetError(f"{path} is damaged: {error}; choose another folder") from error
        # Classes and shards may have been added since the earlier run.
        known = stored.get("class_names")
        if "class_names" in differing and known == identity["class_names"][: len(known or [])]:
            del differing["class_names"]
        if differing:
            raise mismatch(
                f"{folder} holds another export",
                differing,
                ("there", "in this run"),
                "Choose another folder for DEST.",
            )
    elif folder.is_dir() and (foreign := sorted(set(os.listdir(folder)) - ours)):
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise DatasetError(
            f"DEST {folder} is not empty and not an export of flowprep (it holds {shown}); choose "
            "a new or empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder, path, json.dumps(identity, indent=2) + "\n")


def _check_paths(paths: Mapping[str, str], folder: Path) -> None:
    """Raises DatasetError if two videos would share a path, or if one would be inside another."""
    ignores_case = _ignores_case(folder)
    keys: dict[str, str] = {}
    for key, path in paths.items():
        name = path.casefold() if ignores_case else path
        if name in keys:
            raise DatasetError(
                f"{keys[name]} and {key} would share the path {path}"
                + (f" ({folder} does not tell upper from lower case)" if ignores_case else "")
                + "; export them apart, with --keys"
            )
        keys[name] = key
    for name, key in keys.items():
        parent = name
        while parent := parent.rpartition("/")[0]:
            if parent in keys:
                raise DatasetError(
                    f"{key} would lie inside the folder of {keys[parent]}; export them apart, with "
                    "--keys"
                )


def _ignores_case(folder: Path) -> bool:
    return (folder / EXPORT_FILE.upper()).exists()


def _write_lists(
    exporter: Exporter,
    videos: Sequence[StoredVideo],
    paths: Mapping[str, str],
    places: Mapping[str, str],
    report: ExportReport,
) -> None:
    spec, folder = exporter.spec, exporter.dest
    chosen = FORMATS[spec.format]
    suffix = "" if chosen is None else chosen.suffix
    named = [(video, f"{paths[video.key]}{suffix}") for video in videos]
    lines = (_described(video, places[video.key] or path) for video, path in named)
    write_text(folder, folder / VIDEOS_FILE, "".join(lines))
    if spec.format == "webdataset":
        # The samples contain the labels, and the export has no folders to list.
        return
    prefix = spec.list_root
    if prefix is None:
        prefix = str(folder) if LAYOUTS[spec.layout].path_prefix_is_absolute else ""
    if re.search(r"\s", prefix):
        report.notes.append(
            f"the path {prefix!r} has blanks, at which {spec.layout} splits its lists; give "
            "--list-root, or move DEST"
        )
    lists, notes = frame_lists(
        spec.layout,
        named,
        exporter.dataset.class_names,
        has_rgb=exporter.has_rgb,
        prefix=f"{prefix.rstrip('/')}/" if prefix else "",
    )
    report.notes += notes
    for name, text in lists.items():
        write_text(folder, folder / LISTS_FOLDER / name, text)
        report.lists.append(f"{LISTS_FOLDER}/{name}")


def _described(video: StoredVideo, path: str) -> str:
    values = {
        "key": video.key,
        "path": path,
        "labels": list(video.labels),
        "split": video.split,
        "num_frames": video.num_frames,
        "num_flows": video.num_flows,
        "width": video.width,
        "height": video.height,
        "fps": video.fps,
        "is_partial": video.is_partial,
    }
    return json.dumps(values, separators=(",", ":")) + "\n"
