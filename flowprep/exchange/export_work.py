"""Divides the work of an export among processes: one video, or the videos of one tar, at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import StoredVideo
from flowprep.errors import DatasetError
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.export_state import ExportState, write_atomic
from flowprep.exchange.formats import FORMATS, VideoExport, atomic_path, write_webdataset
from flowprep.exchange.frame_lists import split_name
from flowprep.exchange.layouts import TreeLayout

__all__ = ["ExportOutcome", "ExportUnit", "Exporter", "export_units"]


@dataclass(frozen=True)
class ExportUnit:
    """The unit of work of a worker: one video, or the videos of one tar."""

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    place: str
    """The path of the tar below DEST. Empty if each video has its own path."""


@dataclass
class ExportOutcome:
    """The result of a unit."""

    num_bytes: int = 0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class Exporter:
    """Everything that a worker needs. Each process gets it once."""

    dataset: FlowDataset
    spec: ExportSpec
    layout: TreeLayout
    has_rgb: bool
    dest: Path
    state: ExportState
    version: int
    """The format version of the export, which says how files are named."""
    has_cls: bool = True
    """Whether the samples of clips have a class. All of them have it, or none."""

    def carry_out(self, unit: ExportUnit) -> ExportOutcome:
        """Writes a unit. The outcome names each damaged video of the data set."""
        return self._shard(unit) if unit.place else self._video(unit.keys[0], unit.paths[0])

    def _video(self, key: str, path: str) -> ExportOutcome:
        writer = FORMATS[self.spec.format]
        assert writer is not None
        export = self._export(key, path)
        try:
            num_bytes = writer.write(export)
            extras = self.layout.extra_files(path, export.video, self.dataset.config.flow)
            for name, data in extras.items():
                target = self.dest / name
                if not target.is_file() or target.read_bytes() != data:
                    with atomic_path(self.dest, target) as temporary:
                        temporary.write_bytes(data)
            if (done := self.layout.done_file(path)) is not None:
                mark = self.state.folder / done
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
        except DatasetError as error:
            return ExportOutcome(failures={key: str(error)})
        return ExportOutcome(num_bytes)

    def _shard(self, unit: ExportUnit) -> ExportOutcome:
        index = self.state.file(f"{unit.place.removesuffix('.tar')}.json")
        failures: dict[str, str] = {}
        good = []
        for key, path in zip(unit.keys, unit.paths, strict=True):
            export = self._export(key, path)
            try:
                # Read every JPEG first, so that one damaged video does not fail the whole shard.
                for stream in export.streams():
                    for _ in export.jpegs(stream):
                        pass
                good.append(export)
            except DatasetError as error:
                failures[key] = str(error)
        listed = json.dumps({"keys": [export.video.key for export in good]}, indent=1) + "\n"
        target = self.dest / unit.place
        if target.is_file() and index.is_file() and index.read_text() == listed:
            return ExportOutcome(failures=failures)
        num_bytes = 0
        if good:
            index.unlink(missing_ok=True)
            num_bytes = write_webdataset(
                good,
                target,
                self.dest,
                clip_length=self.spec.clip_length,
                has_cls=self.has_cls,
            )
            write_atomic(index, listed.encode())
        return ExportOutcome(num_bytes, failures)

    def _export(self, key: str, path: str) -> VideoExport:
        return VideoExport(
            self.dataset,
            self.dataset.videos[key],
            path,
            self.layout,
            self.spec.direction,
            self.has_rgb,
            self.spec.values,
            self.dest,
        )


def export_units(
    videos: Sequence[StoredVideo], paths: Mapping[str, str], spec: ExportSpec
) -> Iterator[ExportUnit]:
    """Yields the units of an export: each video, or as many videos of a split as a tar holds."""
    if spec.format != "webdataset":
        for key, path in paths.items():
            yield ExportUnit((key,), (path,), "")
        return
    by_split: dict[str | None, list[str]] = {}
    for video in videos:
        by_split.setdefault(video.split, []).append(video.key)
    names: Counter[str] = Counter()
    for split, keys in by_split.items():
        name = split_name(split or "all")
        for start in range(0, len(keys), spec.videos_per_shard):
            # After the escape, two splits may have the same name. Their shards share one count.
            place = f"{name}-{names[name]:06d}.tar"
            names[name] += 1
            some = keys[start : start + spec.videos_per_shard]
            yield ExportUnit(tuple(some), tuple(paths[key] for key in some), place)
