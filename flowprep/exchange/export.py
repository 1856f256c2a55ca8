"""Exports a data set to the tree that another project reads, with frame lists and exact counts.

    export_dataset -> video_paths -> FORMATS[name].write for each video, in processes -> frame lists

DEST gets the videos alone. The folder beside it (`export_state.py`) gets `flowprep.json` first (the
exported data set, and how its levels become px). At the end it gets `flowprep-videos.jsonl` (key,
path, counts of each video) and the lists. The same command continues an interrupted export, and
whole files stay.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowprep.dataset.layout import DatasetHeader
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import ConfigError, DatasetError, InputError, StorageError
from flowprep.exchange.export_identity import check_folder, export_identity, stored_identity
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.export_state import (
    EXPORT_VERSION,
    ExportState,
    holds_earlier_export,
    move_earlier_export,
    state_of,
    write_atomic,
)
from flowprep.exchange.export_work import Exporter, export_units
from flowprep.exchange.formats import FORMATS, TEMPORARY_FOLDER
from flowprep.exchange.frame_lists import DEFAULT_LIST_NAMES, frame_lists
from flowprep.exchange.layouts import EXPORT_FILE, LAYOUTS, VIDEOS_FILE, layout_of
from flowprep.exchange.tree_paths import video_paths
from flowprep.locks import locked_file
from flowprep.printable import bar_stream, join_lines
from flowprep.processes import in_processes
from flowprep.storage_errors import translated_errors
from flowprep.urls import as_path, is_url, redacted
from flowprep.words import format_bytes, format_count

__all__ = ["ExportReport", "export_dataset", "level_notes"]

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
    """The paths of the frame lists."""
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
            names = ", ".join(os.path.basename(path) for path in self.lists)
            lines.append(f"  lists       {names} in {os.path.dirname(self.lists[0])}")
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
    state = state_of(folder, spec.lists)
    chosen = FORMATS[spec.format]
    if chosen is not None:
        chosen.check_installed()
    has_rgb = _has_rgb(dataset, spec)
    if LAYOUTS[spec.layout].has_flow and spec.direction not in dataset.config.encode.directions:
        raise ConfigError(
            f"direction must be one that {dataset.location} holds "
            f"({', '.join(dataset.config.encode.directions)}), got {spec.direction}"
        )
    stored = stored_identity(folder, state)
    identity = export_identity(dataset, spec, has_rgb)
    version = EXPORT_VERSION if stored is None else stored["format_version"]
    exporter = Exporter(
        dataset, spec, layout_of(spec.layout, version), has_rgb, folder, state, version
    )
    videos, paths = _selected(exporter)
    report = ExportReport(str(folder), len(videos))
    report.notes = [*dataset.notes, *level_notes(dataset.header, spec)]
    report.notes += _name_notes(exporter, videos, paths)
    videos = _long_enough(exporter, videos, report)
    exporter.has_cls = all(video.label is not None for video in videos)
    check_folder(folder, state, stored, identity)
    if stored is None:
        _check_lists(exporter, _lists(exporter, videos, paths)[0])
    with _cannot_lie_beside(state, spec), translated_errors("write", str(state.folder)):
        state.folder.mkdir(parents=True, exist_ok=True)
    taken = f"another export is writing to {folder}"
    with (
        locked_file(state.lock, taken, "wait for it or end it"),
        translated_errors("write", str(folder)),
    ):
        temporary = folder / TEMPORARY_FOLDER
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            _check_paths(paths, folder)
            text = json.dumps(identity | {"format_version": version}, indent=2) + "\n"
            write_atomic(state.file(EXPORT_FILE), text.encode())
            if holds_earlier_export(folder):
                move_earlier_export(folder, state)
                report.notes.append(
                    f"flowprep 0.1.0 began this export, so it keeps its file names; read its lists "
                    f"and {EXPORT_FILE} in {state.folder} from now on"
                )
            _write_videos(exporter, videos, paths, num_workers, progress, report)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return report


def _write_videos(
    exporter: Exporter,
    videos: Sequence[StoredVideo],
    paths: Mapping[str, str],
    num_workers: int | None,
    progress: bool | None,
    report: ExportReport,
) -> None:
    """Writes the videos in processes, and then the lists of those that are there."""
    spec, state = exporter.spec, exporter.state
    bar = tqdm(
        total=len(videos),
        unit="video",
        file=bar_stream(),
        disable=None if progress is None else not progress,
    )
    places: dict[str, str] = {}
    units = list(export_units(videos, paths, spec))
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
    report.num_flows = sum(video.num_flows for video in there) if exporter.layout.has_flow else 0
    report.num_frames = sum(video.num_frames for video in there) if exporter.has_rgb else 0
    lines = (
        _described(exporter, video, places[video.key] or f"{paths[video.key]}{_suffix(spec)}")
        for video in there
    )
    write_atomic(state.file(VIDEOS_FILE), "".join(lines).encode())
    lists, notes = _lists(exporter, there, paths)
    report.notes += notes
    for name, data in lists.items():
        write_atomic(state.folder / name, data)
        report.lists.append(str(state.folder / name))


@contextmanager
def _cannot_lie_beside(state: ExportState, spec: ExportSpec) -> Iterator[None]:
    """Names the option where the folder beside DEST cannot be made."""
    try:
        yield
    except StorageError as error:
        if spec.lists is not None:
            raise
        raise StorageError(
            f"the folder for the lists cannot be made: {error}; give another one with --lists"
        ) from error


def _long_enough(
    exporter: Exporter, videos: Sequence[StoredVideo], report: ExportReport
) -> list[StoredVideo]:
    """Returns the videos that have a clip, if clips are exported. The others are noted."""
    length = exporter.spec.clip_length
    if length is None:
        return list(videos)
    long = [video for video in videos if video.num_flows >= length]
    if not long:
        raise InputError(
            f"no video of {exporter.dataset.location} has {length} flows; give a smaller "
            "--clip-length"
        )
    if short := len(videos) - len(long):
        report.num_videos -= short
        report.notes.append(
            f"{short} videos have fewer than {format_count(length, 'flow')} and are left out; give "
            "a smaller --clip-length to keep them"
        )
    several = sum(video.label is None for video in long)
    if several and any(video.labels for video in long):
        report.notes.append(
            f"{format_count(several, 'video')} without exactly one label: samples have no .cls; "
            "use the labels in their .json"
        )
    return long


def _name_notes(
    exporter: Exporter, videos: Sequence[StoredVideo], paths: Mapping[str, str]
) -> list[str]:
    """Returns a sentence on names that could not be kept."""
    if exporter.spec.format == "webdataset" or exporter.version == 1:
        return []
    changed = [video.key for video in videos if "%20" in paths[video.key]]
    if not changed:
        return []
    return [
        f"{format_count(len(changed), 'name')} with blanks got %20 in their place, because "
        f"{exporter.spec.layout} splits its lists at blanks"
    ]


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


def _selected(exporter: Exporter) -> tuple[list[StoredVideo], dict[str, str]]:
    """Returns the videos that pass the filters, and their paths by key."""
    dataset, spec = exporter.dataset, exporter.spec
    paths = video_paths(
        dataset.videos,
        dataset.class_names,
        exporter.layout,
        flat=spec.flat,
        version=exporter.version,
    )
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
    return (folder / TEMPORARY_FOLDER.upper()).exists()


def _lists(
    exporter: Exporter, videos: Sequence[StoredVideo], paths: Mapping[str, str]
) -> tuple[dict[str, bytes], list[str]]:
    """Returns the name and content of each list, and notes on them."""
    spec = exporter.spec
    if spec.format == "webdataset":
        # The samples contain the labels, and the export has no folders to list.
        return {}, []
    prefix = spec.list_root
    if prefix is None:
        prefix = str(exporter.dest) if exporter.layout.path_prefix_is_absolute else ""
    notes = []
    if re.search(r"\s", prefix):
        notes.append(
            f"the path {prefix!r} has blanks, at which {spec.layout} splits its lists; give "
            "--list-root, or move DEST"
        )
    lists, others = frame_lists(
        spec.layout,
        exporter.layout,
        [(video, f"{paths[video.key]}{_suffix(spec)}") for video in videos],
        exporter.dataset.class_names,
        has_rgb=exporter.has_rgb,
        prefix=f"{prefix.rstrip('/')}/" if prefix else "",
        list_names=spec.list_names or DEFAULT_LIST_NAMES,
        flat=spec.flat,
    )
    return lists, notes + others


def _suffix(spec: ExportSpec) -> str:
    chosen = FORMATS[spec.format]
    return "" if chosen is None else chosen.suffix


def _check_lists(exporter: Exporter, lists: Mapping[str, bytes]) -> None:
    """Raises DatasetError if a list of a new export would replace a file that is not its own."""
    for name, data in lists.items():
        path = exporter.state.folder / name
        if path.exists() and not (path.is_file() and path.read_bytes() == data):
            raise DatasetError(
                f"{path} exists and belongs to something else; choose another folder with --lists, "
                "or other names with --list-names"
            )


def _described(exporter: Exporter, video: StoredVideo, path: str) -> str:
    values: dict[str, Any] = {
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
    if exporter.dataset.config.flow.camera_motion != "none":
        values["homographies"] = exporter.dataset.metadata(video).homographies or None
    return json.dumps(values, separators=(",", ":")) + "\n"
