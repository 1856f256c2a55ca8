"""A run's counters: as text for Prometheus, and for Ray's own exporter and dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flowprep.run.status import RunProgress

__all__ = ["RayCounters", "Sample", "counter_samples", "prometheus_text"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number for Prometheus."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Returns the sample in Prometheus' text format."""
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels.items())
        return f"{self.name}{{{labels}}} {self.value}" if labels else f"{self.name} {self.value}"


def counter_samples(progress: RunProgress) -> list[Sample]:
    """Returns a run's counters and gauges. Samples with the same name follow each other."""
    run = progress
    samples = [
        Sample("flowprep_videos", "gauge", "Videos of the manifest.", run.num_videos),
        Sample("flowprep_videos_remaining", "gauge", "Videos still to do.", run.num_remaining),
        Sample("flowprep_videos_failed", "gauge", "Videos that gave nothing.", run.num_failed),
        Sample(
            "flowprep_videos_failed_by_node",
            "gauge",
            "Videos that gave nothing by the fault of a node.",
            sum(run.node_failures.values()),
        ),
        Sample("flowprep_workers", "gauge", "Workers of the run.", run.num_workers),
        Sample("flowprep_pairs_per_second", "gauge", "Recent rate.", run.pairs_per_second),
        Sample(
            "flowprep_videos_extracted_total",
            "counter",
            "Videos that this run extracted.",
            run.num_complete + run.num_partial,
        ),
        Sample(
            "flowprep_stored_bytes_total", "counter", "Bytes that this run stored.", run.num_bytes
        ),
        Sample(
            "flowprep_lost_workers_total",
            "counter",
            "Workers that went away.",
            run.num_lost_workers,
        ),
    ]
    samples += [
        Sample(
            "flowprep_pairs_total",
            "counter",
            "Frame pairs that this run computed.",
            node.num_pairs,
            {"node": name},
        )
        for name, node in run.nodes.items()
    ]
    samples += [
        Sample(
            "flowprep_stage_seconds_total",
            "counter",
            "Seconds that workers spent.",
            seconds,
            {"stage": stage},
        )
        for stage, seconds in run.stage_seconds.items()
    ]
    return samples


def prometheus_text(samples: Sequence[Sample]) -> str:
    """Returns samples in Prometheus' text format, for a node exporter's textfile collector."""
    lines: list[str] = []
    described: set[str] = set()
    for sample in samples:
        if sample.name not in described:
            described.add(sample.name)
            lines.append(f"# HELP {sample.name} {sample.description}")
            lines.append(f"# TYPE {sample.name} {sample.kind}")
        lines.append(sample.line())
    return "\n".join(lines) + "\n"


class RayCounters:
    """Keeps a run's counters and gauges in Ray up to date, if this process is connected to Ray.

    Ray exports them together with its own counters in Prometheus' format. Ray's documentation
    describes the port and the service discovery file. The Grafana of Ray's dashboard shows them.
    """

    def __init__(self) -> None:
        self._counters: dict[str, Any] = {}
        self._counted: dict[tuple[str, tuple[str, ...]], float] = {}

    def show(self, samples: Sequence[Sample]) -> None:
        """Sets gauges to the values of `samples`, and moves counters up to them."""
        from ray.util.metrics import Counter, Gauge

        for sample in samples:
            counter: Any = self._counters.get(sample.name)
            if counter is None:
                kind: Any = Counter if sample.kind == "counter" else Gauge
                counter = self._counters[sample.name] = kind(
                    # Ray itself adds this suffix to the name of a counter.
                    sample.name.removesuffix("_total"),
                    description=sample.description,
                    tag_keys=tuple(sample.labels),
                )
            labels = dict(sample.labels)
            if sample.kind == "gauge":
                counter.set(sample.value, tags=labels)
                continue
            place = (sample.name, tuple(labels.values()))
            more = sample.value - self._counted.get(place, 0.0)
            if more > 0:
                counter.inc(more, tags=labels)
                self._counted[place] = sample.value


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
