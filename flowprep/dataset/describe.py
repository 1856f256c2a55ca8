"""Describes the content of a data set in numbers, from manifest, sidecars and failures alone."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowprep.dataset.foreign import foreign_notes, list_shards
from flowprep.dataset.labels import LabelSet, list_labels, summarize_labels
from flowprep.dataset.layout import DatasetHeader, read_failures, read_manifest, read_sidecar
from flowprep.dataset.read import open_dataset
from flowprep.errors import DatasetError
from flowprep.printable import join_lines
from flowprep.storage import Storage
from flowprep.words import format_bytes, format_count, format_duration

__all__ = ["DatasetDescription", "describe_dataset"]

_MAX_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class DatasetDescription:
    """The numbers of one data set."""

    location: str
    header: DatasetHeader
    num_videos: int
    """Number of videos in the manifest."""
    num_stored: int
    num_partial: int
    num_concealed: int
    """Number of videos with damaged pictures that the decoder concealed."""
    num_failed: int
    num_shards: int
    """Number of published shards."""
    num_bytes: int
    """Bytes of the published tars."""
    num_flows: int
    """Number of flow fields in one direction."""
    frames: tuple[int, float, int] | None
    """Smallest, median and largest number of frames of a video."""
    sizes: Counter[str]
    """Videos of each stored size."""
    labels: Counter[int]
    """Videos of each label."""
    splits: Counter[str]
    clipped_share: float
    failures: Counter[str]
    seconds: Counter[str]
    """Seconds spent by stage, over all workers."""
    class_names: tuple[str, ...] = ()
    """The class names of the labels `labels_name`, or the data set's own."""
    labels_name: str | None = None
    """The name of the labels that were read. None means the data set's own labels and splits."""
    num_unlabelled: int = 0
    """Number of stored videos that the labels `labels_name` do not contain."""
    label_sets: tuple[LabelSet, ...] = ()
    """All named labels of the data set."""
    damaged_labels: tuple[str, ...] = ()
    """One sentence for each set of named labels that cannot be read."""
    notes: tuple[str, ...] = ()
    """One sentence for what else lies among the shards."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the description as JSON values."""
        values = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if item.name not in ("header", "seconds")
        }
        values["seconds"] = {name: round(value, 3) for name, value in self.seconds.items()}
        values["class_names"] = list(self.class_names)
        values["label_sets"] = [one.to_dict() for one in self.label_sets]
        values["config"] = self.header.config.to_dict()
        values["implementation"] = self.header.implementation
        values["versions"] = dict(self.header.versions)
        return values

    def summary(self) -> str:
        """Returns the description as lines of text."""
        config = self.header.config
        flow, decode, encode = config.flow, config.decode, config.encode
        waiting = self.num_videos - self.num_stored - self.num_failed
        lines = [
            f"{self.location}",
            f"  videos      {self.num_stored} of {self.num_videos} stored, {self.num_failed} failed"
            + (f", {waiting} not published yet" if waiting else "")
            + (f", {self.num_partial} partial" if self.num_partial else "")
            + (f", {self.num_concealed} with concealed damage" if self.num_concealed else ""),
            f"  flow        {self.num_flows} fields per direction, "
            f"{' and '.join(encode.directions)}"
            f"{', with RGB frames' if encode.keep_rgb else ''}",
            f"  shards      {self.num_shards}, {format_bytes(self.num_bytes)}",
            self._algorithm_line(),
            *([] if flow.camera_motion == "none" else ["  camera      its motion is taken out"]),
            f"  quantized   {flow.quantizer}, bound {flow.bound_px:g} px, "
            f"{flow.px_per_level:.4f} px per level, {100 * self.clipped_share:.3f} % clipped",
            f"  frames      {decode.describe_size()}, {decode.interpolation}, "
            f"{'source frame rate' if decode.fps is None else f'{decode.fps:g} fps'}",
        ]
        if self.frames is not None:
            least, median, most = self.frames
            lines.append(f"  lengths     {least} to {most} frames, median {median:g}")
        if self.sizes:
            common = ", ".join(f"{size} ({n})" for size, n in self.sizes.most_common(4))
            more = len(self.sizes) - 4
            lines.append(f"  sizes       {common}{f' and {more} more' if more > 0 else ''}")
        if self.labels_name is not None:
            line = f"  labels      {self.labels_name}"
            if self.num_unlabelled:
                line += f", {format_count(self.num_unlabelled, 'video')} not named"
            lines.append(line)
        if self.splits:
            lines.append(
                "  splits      "
                + ", ".join(f"{name} {n}" for name, n in sorted(self.splits.items()))
            )
        if self.labels:
            shown = [self._class_line(label, n) for label, n in sorted(self.labels.items())]
            more = len(shown) - _MAX_SHOWN_CLASSES
            tail = f" and {more} more" if more > 0 else ""
            lines.append(f"  classes     {', '.join(shown[:_MAX_SHOWN_CLASSES])}{tail}")
        lines += [f"  named       {one.summary()}" for one in self.label_sets]
        lines += [f"  named       {problem}" for problem in self.damaged_labels]
        if self.seconds:
            spent = ", ".join(f"{n} {format_duration(s)}" for n, s in self.seconds.items())
            lines.append(f"  time spent  {spent}")
        for reason, count in self.failures.most_common():
            lines.append(f"  failed      {count} {reason}")
        return join_lines(lines)

    def _algorithm_line(self) -> str:
        flow, origin = self.header.config.flow, self.header.origin
        if not origin:
            return (
                f"  algorithm   {flow.algorithm} ({self.header.implementation}), step {flow.step}"
            )
        known = "flow.algorithm" not in origin.get("unknown", ())
        return (
            f"  algorithm   {flow.algorithm if known else 'not known'}, step {flow.step}; imported "
            f"from {origin.get('tree')} ({origin.get('layout')})"
        )

    def _class_line(self, label: int, count: int) -> str:
        names = self.class_names
        return f"{names[label] if label < len(names) else label} ({count})"


def describe_dataset(
    out: str | os.PathLike[str], *, labels_name: str | None = None
) -> DatasetDescription:
    """Counts the content of the data set `out`, with the labels and splits of `labels_name`.

    Without `labels_name`, the data set's own labels and splits count. Raises DatasetError if the
    data set or those labels cannot be read.
    """
    storage = Storage(out)
    header = DatasetHeader.read(storage)
    named = None if labels_name is None else open_dataset(out, labels=labels_name)
    failures = read_failures(storage)
    sizes: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    splits: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    lengths: list[int] = []
    num_bytes = num_flows = num_partial = num_concealed = num_values = num_clipped = 0
    files = list_shards(storage)
    shards = files.published
    for shard in shards:
        sidecar = read_sidecar(storage, shard)
        num_bytes += sidecar.size
        for video in sidecar.videos:
            if video.status == "failed":
                continue
            num_partial += video.status == "partial"
            num_concealed += video.num_damaged > 0
            num_flows += video.num_flows
            num_values += video.num_values
            num_clipped += video.num_clipped
            lengths.append(video.num_frames)
            sizes[f"{video.width}x{video.height}"] += 1
            if named is None:
                labels.update(video.labels)
                splits.update([video.split] if video.split else [])
            seconds.update(video.seconds)
    for stored in named.videos if named is not None else ():
        labels.update(stored.labels)
        splits.update([stored.split] if stored.split else [])
    label_sets, damaged = _label_sets(storage)
    return DatasetDescription(
        location=storage.location,
        header=header,
        num_videos=len(read_manifest(storage)),
        num_stored=len(lengths),
        num_partial=num_partial,
        num_concealed=num_concealed,
        num_failed=len(failures),
        num_shards=len(shards),
        num_bytes=num_bytes,
        num_flows=num_flows,
        frames=(min(lengths), float(np.median(lengths)), max(lengths)) if lengths else None,
        sizes=sizes,
        labels=labels,
        splits=splits,
        clipped_share=num_clipped / max(1, num_values),
        failures=Counter(failure.reason for failure in failures.values()),
        seconds=seconds,
        class_names=header.class_names if named is None else named.class_names,
        labels_name=labels_name,
        num_unlabelled=0 if named is None else named.num_unlabelled,
        label_sets=label_sets,
        damaged_labels=damaged,
        notes=tuple(foreign_notes(storage, files.foreign)),
    )


def _label_sets(storage: Storage) -> tuple[tuple[LabelSet, ...], tuple[str, ...]]:
    """Returns the readable named labels, and one sentence for each that cannot be read."""
    found, damaged = [], []
    for name in list_labels(storage):
        try:
            found.append(summarize_labels(storage, name))
        except DatasetError as error:
            damaged.append(str(error))
    return tuple(found), tuple(damaged)
