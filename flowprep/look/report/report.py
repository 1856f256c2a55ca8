"""A report on a whole data set: its content, what is wrong with it, and where to look.

make_report(out)   the stored statistics of every video, and the pixels of a sample -> Report
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flowprep.dataset.describe import DatasetDescription, describe_dataset
from flowprep.dataset.layout import Failure, read_failures
from flowprep.dataset.read import open_dataset
from flowprep.errors import ConfigError
from flowprep.look.findings.checks import CLIPPED_SHARE
from flowprep.look.findings.kinds import KINDS, Finding
from flowprep.look.report.survey import (
    NUM_SAMPLED,
    ClassSummary,
    DatasetSurvey,
    ShownFinding,
    VideoRow,
    class_name,
)
from flowprep.storage import Storage

__all__ = ["Report", "make_report", "num_clipped"]


def num_clipped(findings: Sequence[Finding], rows: Sequence[VideoRow]) -> int:
    """Returns how many videos are found clipped by the current bound, and not by an earlier one."""
    keys = {finding.key for finding in findings if finding.kind == "clipped"}
    return sum(row.key in keys and row.clipped_share > 0 for row in rows)


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    location: str
    description: DatasetDescription
    rows: tuple[VideoRow, ...]
    findings: tuple[Finding, ...]
    """All findings, the gravest first."""
    shown: tuple[ShownFinding, ...]
    total: ClassSummary
    classes: tuple[ClassSummary, ...]
    failures: tuple[Failure, ...]
    bytes_by_stream: Mapping[str, int]
    devices: Counter[str]
    """Number of videos by the device that computed their flow. Empty for an imported data set."""
    num_sampled: int
    num_seconds: float
    """Time that it took to make this report."""
    color_max_px: float
    """Length of flow that has full saturation in all pictures."""
    notes: tuple[str, ...] = ()
    """Notes on the labels that the report uses."""


def make_report(
    out: str | os.PathLike[str],
    *,
    num_sampled: int = NUM_SAMPLED,
    clipped_share: float = CLIPPED_SHARE,
    labels: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Reads the statistics of every video of a data set, and the pixels of `num_sampled` of them.

    The choice of the sample depends on the data set alone: up to half are videos with unusual
    statistics, and the rest come from all classes in turn. `labels` is the name of labels to use
    instead of the data set's own. `on_progress` gets the number of steps done and in total. Raises
    ConfigError for a number out of range, DatasetError if `out` cannot be read.
    """
    if num_sampled < 0:
        raise ConfigError(f"sample must be >= 0, got {num_sampled}")
    if not 0 <= clipped_share < 1:
        raise ConfigError(f"clipped_share must be >= 0 and < 1, got {clipped_share:g}")
    began = time.perf_counter()
    description = describe_dataset(out, labels_name=labels)
    dataset = open_dataset(out, labels=labels)
    failures = read_failures(Storage(out))
    reader = DatasetSurvey(dataset, clipped_share)
    num_steps = len(dataset.videos) + min(num_sampled, len(dataset.videos))
    tick = on_progress or (lambda done, total: None)
    for number, video in enumerate(dataset.videos):
        reader.read_statistics(video)
        tick(number + 1, num_steps)
    chosen = reader.choose(num_sampled)
    for number, key in enumerate(chosen):
        reader.read_sample(key)
        tick(len(dataset.videos) + number + 1, num_steps)
    reader.compare_videos()
    for failure in failures.values():
        reader.findings.append(
            Finding("failed", failure.key, f"{failure.reason}: {failure.message}")
        )
    order = {name: number for number, name in enumerate(KINDS)}
    findings = sorted(reader.findings, key=lambda item: order[item.kind])
    total = reader.total.summary("all videos", dataset.config, clipped_share)
    if num_clipped(findings, reader.rows):
        # Nobody is told to take a larger bound for some videos and a smaller one for all.
        total = dataclasses.replace(total, bound=total.bound.not_smaller())
    # About half of the moving vectors are shorter than a third of this.
    color_max_px = max(1.0, min(total.p99_px, dataset.config.flow.bound_px))
    report = Report(
        location=dataset.location,
        description=description,
        rows=tuple(reader.rows),
        findings=tuple(findings),
        shown=tuple(reader.show(findings, color_max_px)),
        total=total,
        classes=tuple(
            reader.classes[label].summary(class_name(dataset, label), dataset.config, clipped_share)
            for label in sorted(reader.classes)
        ),
        failures=tuple(failures.values()),
        bytes_by_stream=dict(reader.bytes_by_stream),
        devices=reader.devices,
        num_sampled=len(chosen),
        num_seconds=time.perf_counter() - began,
        color_max_px=color_max_px,
        notes=tuple(dataset.notes),
    )
    dataset.close()
    return report
