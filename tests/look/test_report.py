"""The report: what it counts, which bound it recommends, and a page that is safe to open."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.quantize import FieldQuantizer
from flowprep.errors import ConfigError, DatasetError, StorageError
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.look.findings.kinds import KINDS, Finding
from flowprep.look.report.bound import NICE_BOUNDS_PX, most_beyond, recommend_bound
from flowprep.look.report.page import report_page, write_report
from flowprep.look.report.report import Report, make_report
from flowprep.synthetic import Layer, Motion, Scene, Shape, write_video
from tests.look.faults import PER_CLASS, SEEDED

ATTACK = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>'\"&"


@pytest.mark.parametrize("bound_px", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1])
@pytest.mark.parametrize("seed", range(8))
def test_recommended_bound_keeps_its_promise_on_known_motion(
    seed: int, share: float, bound_px: float
) -> None:
    rng = np.random.default_rng(seed)
    figure = Motion(
        offset_px=(32, 24), velocity_px=tuple(rng.normal(0, 12, 2)), turn_rate=rng.normal(0, 0.4)
    )
    camera = Motion((32, 24), velocity_px=tuple(rng.normal(0, 3, 2)), zoom_rate=rng.normal(0, 0.05))
    scene = Scene(64, 48, (Layer(1, (camera,)), Layer(2, (figure,), Shape(4, 4, 4))))
    fields = np.stack([scene.flow(t) for t in range(3)])
    quantizer = FieldQuantizer(FlowSpec(bound_px=bound_px))
    for field in fields:
        quantizer.quantize(field)
    statistics = quantizer.to_dict()
    bounds = np.array(NICE_BOUNDS_PX)
    true = np.array([(np.abs(fields) > np.float32(bound)).mean() for bound in bounds])
    most = most_beyond(statistics, bound_px, bounds)
    assert (most / fields.size >= true - 1e-12).all()
    assert (np.diff(most) <= 0).all()
    advice = recommend_bound(
        most,
        fields.size,
        quantizer.statistics.num_clipped,
        bound_px=bound_px,
        requested_share=share,
    )
    place = bounds.tolist().index(advice.recommended_px)
    assert true[place] <= share
    assert advice.recommended_share <= share
    # Not wasteful either: by the square root of two, a bin and a round number at most.
    least = bounds[np.flatnonzero(true <= share)[0]]
    assert advice.recommended_px <= 1.2 * (np.sqrt(2) * least + 0.25)


def test_recommended_bound_of_one_straight_motion_is_exact() -> None:
    field = np.zeros((10, 10, 2), np.float32)
    field[:, :5] = (7.3, 0)
    quantizer = FieldQuantizer(FlowSpec(bound_px=20))
    quantizer.quantize(field)
    most = most_beyond(quantizer.to_dict(), 20, np.array(NICE_BOUNDS_PX))
    settings = {"bound_px": 20.0, "requested_share": 0.01}
    advice = recommend_bound(most, field.size, 0, **settings)  # type: ignore[arg-type]
    assert (advice.recommended_px, advice.recommended_share) == (8, 0)


def test_motion_beyond_the_last_bin_is_not_forgotten() -> None:
    field = np.full((4, 4, 2), 300, np.float32)
    quantizer = FieldQuantizer(FlowSpec(bound_px=20))
    quantizer.quantize(field)
    most = most_beyond(quantizer.to_dict(), 20, np.array(NICE_BOUNDS_PX))
    advice = recommend_bound(most, 32, 32, bound_px=20, requested_share=0.01)
    assert advice.recommended_px == 320


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
    assert "No video, no motion." in report_page(report)


def attacked(report: Report) -> Report:
    """A report whose every text is an attack."""
    rows = tuple(
        dataclasses.replace(row, key=ATTACK, label=ATTACK, split=ATTACK) for row in report.rows
    )
    findings = tuple(Finding(f.kind, ATTACK, ATTACK, f.pair) for f in report.findings)
    shown = tuple(
        dataclasses.replace(item, finding=Finding(item.finding.kind, ATTACK, ATTACK, 0))
        for item in report.shown
    )
    classes = tuple(dataclasses.replace(item, name=ATTACK) for item in report.classes)
    header = dataclasses.replace(
        report.description.header, implementation=ATTACK, versions={ATTACK: ATTACK}
    )
    description = dataclasses.replace(report.description, header=header)
    return dataclasses.replace(
        report,
        location=f"/data/{ATTACK}",
        rows=rows,
        findings=findings,
        shown=shown,
        classes=classes,
        description=description,
        devices=Counter({ATTACK: 1}),
    )


def test_texts_are_escaped_everywhere(seeded_report: Report) -> None:
    page = report_page(attacked(seeded_report))
    assert len(re.findall("<script", page)) == 2
    assert "<img src=x" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    table = json.loads(data[1])
    assert table["columns"][0]["values"][0] == ATTACK
    assert table["count"] == len(seeded_report.rows)


def test_devices_are_listed_where_they_are_known(seeded_report: Report) -> None:
    devices = Counter({"cpu": 3, "cuda:NVIDIA H100": 1200})
    page = report_page(dataclasses.replace(seeded_report, devices=devices))
    assert "<code>cuda:NVIDIA H100 1,200, cpu 3</code>" in page
    page = report_page(dataclasses.replace(seeded_report, devices=Counter()))
    assert "computed on" not in page


def test_the_page_loads_nothing(seeded_report: Report) -> None:
    page = report_page(seeded_report)
    assert re.findall(r'(?:src|href)="(?!data:image/|#)[^"]*', page) == []
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_page_is_written_whole_or_not_at_all(seeded_report: Report, tmp_path: Path) -> None:
    write_report(seeded_report, tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(StorageError, match="cannot write"):
        write_report(seeded_report, tmp_path / "no/r.html")
