"""The report: what it counts, which videos it looks at, and what it says of odd data sets."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.errors import ConfigError, DatasetError
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.look.findings.kinds import KINDS
from flowprep.look.report.page import report_page
from flowprep.look.report.report import Report, make_report
from flowprep.synthetic import write_video
from tests.look.faults import PER_CLASS, SEEDED


def test_counts(seeded_report: Report) -> None:
    report = seeded_report
    num_videos = 4 * PER_CLASS + len(SEEDED)
    assert report.description.num_videos == num_videos
    assert len(report.rows) == report.num_sampled == num_videos - 1
    assert [item.name for item in report.classes] == [
        "move_left",
        "move_down",
        "rotate_clockwise",
        "studio",
    ]
    assert sum(item.num_videos for item in report.classes) == report.total.num_videos
    assert report.total.histogram.sum() == sum(item.histogram.sum() for item in report.classes)
    left = report.classes[0].mean_flow
    assert left is not None
    assert left[..., 0].mean() < -0.2 < left[..., 1].mean()
    assert report.devices == {"cpu": num_videos - 1}
    assert set(report.bytes_by_stream) == {"json", "flow_x", "flow_y", "back_x", "back_y", "rgb"}
    severities = [KINDS[finding.kind].severity for finding in report.findings]
    assert severities == sorted(severities, key=["fault", "suspicion", "note"].index)


def test_the_sample_takes_odd_videos_first_and_is_always_the_same(seeded: Path) -> None:
    first, again = (make_report(seeded, num_sampled=16) for _ in range(2))
    assert first.findings == again.findings
    assert first.num_sampled == 16
    found = {finding.kind for finding in first.findings}
    assert {"zero-flow", "black", "cut", "failed"} <= found
    none = make_report(seeded, num_sampled=0)
    assert {finding.kind for finding in none.findings} == {"failed"}
    assert none.total.mean_flow is None
    assert "Nothing wrong" not in report_page(none)


def test_wrong_settings(seeded: Path) -> None:
    with pytest.raises(ConfigError, match="sample must be >= 0, got -1"):
        make_report(seeded, num_sampled=-1)
    with pytest.raises(ConfigError, match="clipped_share must be >= 0 and < 1, got 1"):
        make_report(seeded, clipped_share=1)
    with pytest.raises(DatasetError, match="not a flowprep data set"):
        make_report(seeded / "shards")


def small_data_set(folder: Path, out: str, config: ExtractConfig, name: str = "a") -> None:
    write_video(folder / "a.mp4", (np.full((32, 32, 3), 9 * t, np.uint8) for t in range(4)))
    video = Video("k/a", str(folder / "a.mp4"), (0,))
    flowprep.extract(Manifest((video,), (name,), 0, ()), out, config, executor="inline")


def test_forward_flow_without_frames(tmp_path: Path) -> None:
    config = ExtractConfig(
        DecodeSpec(resize=Resize("none", short_px=None)),
        FlowSpec("dis"),
        EncodeSpec(directions=("forward",), keep_rgb=False),
    )
    small_data_set(tmp_path, str(tmp_path / "out"), config)
    page = report_page(make_report(tmp_path / "out"))
    assert "holds no RGB frames" in page
    assert "It holds one direction" in page


def test_object_store(tmp_path: Path) -> None:
    config = ExtractConfig(DecodeSpec(resize=Resize("none", short_px=None)), FlowSpec("dis"))
    url = "memory://flowprep-report/out"
    try:
        small_data_set(tmp_path, url, config)
        assert make_report(url).location == url
    finally:
        fsspec.filesystem("memory").rm("/flowprep-report", recursive=True)


def test_damaged_video_is_a_finding(tmp_path: Path) -> None:
    config = ExtractConfig(DecodeSpec(resize=Resize("none", short_px=None)), FlowSpec("dis"))
    small_data_set(tmp_path, str(tmp_path / "out"), config)
    sidecar = json.loads((tmp_path / "out/shards/000000.json").read_text())
    tar = tmp_path / "out/shards/000000.tar"
    offset, size = sidecar["videos"][0]["members"]["flow_x"]
    data = bytearray(tar.read_bytes())
    data[offset : offset + size] = b"x" * size
    tar.write_bytes(data)
    report = make_report(tmp_path / "out")
    assert [(finding.kind, finding.key) for finding in report.findings] == [("unreadable", "k/a")]
    assert "Cannot be read" in report_page(report)


def test_data_set_without_a_video(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"no video")
    video = Video("b", str(tmp_path / "b.mp4"))
    config = ExtractConfig(DecodeSpec(), FlowSpec("dis"))
    flowprep.extract(Manifest((video,), (), 0, ()), tmp_path / "out", config, executor="inline")
    report = make_report(tmp_path / "out")
    assert [finding.kind for finding in report.findings] == ["failed"]
    assert "The data set holds no video, so there is no motion to show." in report_page(report)
