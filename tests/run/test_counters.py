"""A run's numbers as Prometheus reads them."""

from __future__ import annotations

import re
from pathlib import Path

from flowprep.dataset.layout import VideoRecord
from flowprep.run.counters import Sample, counter_samples, prometheus_text
from flowprep.run.progress import RunReport
from flowprep.run.status import ProgressRecorder
from flowprep.storage import Storage

LINE = re.compile(r'([a-z_]+)(?:\{([a-z]+)="((?:[^"\\\n]|\\["\\n])*)"\})? (\S+)')


def test_text_format_holds_every_number_once_and_described(tmp_path: Path) -> None:
    report = RunReport(str(tmp_path), 7)
    recorder = ProgressRecorder(Storage(tmp_path), report, 7, epoch=1)
    for key, node, flows in (("a", "one", 12_345_678), ("b", "two", 5), ("c", "two", 6)):
        record = VideoRecord(key, "complete", num_flows=flows, seconds={"flow": 0.5})
        report.add(record)
        recorder.finished(record, node)
    progress = recorder.write("running")
    assert progress is not None
    text = prometheus_text(counter_samples(progress))
    assert text.endswith("\n")
    described: set[str] = set()
    values: dict[tuple[str, str | None], float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert kind == ("counter" if name.endswith("_total") else "gauge")
            assert name not in described
            described.add(name)
        elif not line.startswith("# HELP"):
            match = LINE.fullmatch(line)
            assert match, line
            assert match[1] in described
            assert (match[1], match[3]) not in values
            values[match[1], match[3]] = float(match[4])
    assert values["flowprep_videos", None] == 7
    assert values["flowprep_videos_remaining", None] == 4
    assert values["flowprep_videos_extracted_total", None] == 3
    assert values["flowprep_pairs_total", "one"] == 12_345_678
    assert values["flowprep_pairs_total", "two"] == 11
    assert values["flowprep_stage_seconds_total", "flow"] == 1.5


def test_odd_names_are_escaped() -> None:
    sample = Sample("flowprep_pairs_total", "counter", "", 1, {"node": 'a"b\\c\nd'})
    match = LINE.fullmatch(sample.line())
    assert match
    assert match[3] == r"a\"b\\c\nd"
