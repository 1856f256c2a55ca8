"""What a run's report says."""

from __future__ import annotations

import msgspec
import pytest

from flowprep.dataset.layout import VideoRecord
from flowprep.errors import FAILURE_REASONS
from flowprep.run.progress import Progress, RunReport


def record(status: str, **values: object) -> VideoRecord:
    return msgspec.convert({"key": "a", "status": status, **values}, VideoRecord)


def test_report_adds_records_up() -> None:
    report = RunReport("out", num_videos=4, num_done_before=1, wall_seconds=2.0)
    members = {"json": (512, 100), "flow_x": (1024, 900)}
    seconds = {"decode": 0.5, "flow": 2.0, "encode": 0.25, "write": 0.25}
    values = {"num_values": 1000, "num_clipped": 1, "members": members, "seconds": seconds}
    report.add(record("complete", num_flows=6, **values))
    report.add(record("partial", num_flows=4, **values))
    assert not report.is_complete
    assert report.exit_code == 1
    report.add(record("failed", reason="damaged"))
    report.log_name = "logs/run.log"
    report.num_lost_workers = 2
    assert report.summary().splitlines() == [
        "INCOMPLETE: 3 of 4 videos in out",
        "  done before   1 video",
        "  this run      2 videos, 10 frame pairs in 2.0 s (5.0 pairs/s)",
        "  partial       1 damaged video, kept up to the damage",
        "  workers spent decode 1.0 s, flow 4.0 s, encode 0.5 s, write 0.5 s",
        "  stored        2.0 kB",
        "  clipped       0.100 % of the flow components",
        "  lost workers  2, replaced",
        "  failed        1 video, listed in failures.jsonl; --retry-failed tries it again:",
        f"         1  damaged: {FAILURE_REASONS['damaged']}",
        "  log           logs/run.log",
    ]
    assert (report.is_complete, report.exit_code) == (False, 1)


def test_complete_report() -> None:
    report = RunReport("out", num_videos=1)
    report.add(record("complete", num_flows=1))
    assert (report.is_complete, report.exit_code) == (True, 0)
    # No time has been taken yet, and no rate follows from it.
    assert report.summary().splitlines()[:2] == [
        "complete: 1 of 1 videos in out",
        "  this run      1 video, 1 frame pair in 0.0 s",
    ]


@pytest.mark.parametrize(("enabled", "is_shown"), [(None, False), (False, False), (True, True)])
def test_bar(capsys: pytest.CaptureFixture[str], enabled: bool | None, is_shown: bool) -> None:
    report = RunReport("out", num_videos=2, num_done_before=1)
    bar = Progress(report, enabled=enabled)
    report.add(record("complete", num_flows=3))
    bar.advance()
    bar.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("2/2" in printed.err and "pairs/s=" in printed.err) == is_shown
    assert bool(printed.err) == is_shown
