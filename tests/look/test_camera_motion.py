"""What view, report and browse show of flow that is freed of the camera's motion."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

import flowprep
from flowprep import ExtractConfig, FlowSpec, RunOptions, open_dataset
from flowprep.config import DecodeSpec, Resize
from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError
from flowprep.look.findings.statistics import CameraSummary
from flowprep.look.panels import moments, paint
from flowprep.look.report.page import report_page
from flowprep.look.report.report import make_report
from flowprep.look.sources import StoredFlow
from flowprep.look.view import DrawingSpec, draw_pages, view
from flowprep.synthetic import camera_scene, write_video
from tests.look.viewing import QUICK

WARPED = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis", camera_motion="homography")
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    scenes = camera_scene("pan", seed=2), camera_scene("zoom", seed=3)
    write_video(folder / "cut.mp4", (scenes[t > 3].frame(t) for t in range(8)))
    return folder


@pytest.fixture(scope="module")
def warped(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> FlowDataset:
    out = tmp_path_factory.mktemp("warped") / "out"
    options = RunOptions(progress=False)
    assert flowprep.extract(videos, out, WARPED, executor="inline", options=options).is_complete
    return open_dataset(out)


def test_a_summary_says_how_much_and_where_not() -> None:
    shift = (1.0, 0.0, 3.0, 0.0, 1.0, 4.0, 0.0, 0.0, 1.0)
    summary = CameraSummary.of([shift, None, shift], 64, 48)
    assert summary is not None
    assert summary.corner_px == (pytest.approx(5), None, pytest.approx(5))
    assert summary.words() == (
        "camera motion of 5.0 px was taken out (median; at most 5.0 px); it was not found in 1 of "
        "3 pairs, whose flow has it"
    )
    assert CameraSummary.of(None, 64, 48) is None
    lost = CameraSummary.of([None], 64, 48)
    assert lost is not None
    assert (lost.median_px, lost.num_plain) == (None, 1)
    assert lost.words() == "it was not found in 1 of 1 pair, whose flow has it"


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_frames_and_the_other_direction_fit_with_the_cameras_motion(
    warped: FlowDataset, direction: flowprep.config.Direction
) -> None:
    source = StoredFlow(warped, "cut")
    panels = ("consistency", "warp")
    (moment,) = moments(source, [1], panels, direction)
    without = dataclasses.replace(moment, camera=None)
    pictures = {
        (panel, one is moment): paint(panel, one, source.spec, (320, 240), 5.0, 1.0)[20:-20, 20:-20]
        for panel in panels
        for one in (moment, without)
    }
    # White is no error.
    for panel in panels:
        assert np.median(pictures[panel, True]) > 235
    assert pictures["warp", True].mean() > pictures["warp", False].mean() + 5


def test_a_pair_that_is_plain_looks_like_it(warped: FlowDataset) -> None:
    source = StoredFlow(warped, "cut")
    spec = DrawingSpec(("camera",), start=2, length=2, width=320)
    found, plain = draw_pages([source], spec).pages
    inside = (slice(60, 200), slice(20, 300))
    assert np.ptp(found[inside].astype(int), axis=-1).max() > 50
    assert np.ptp(plain[inside].astype(int), axis=-1).max() == 0


def test_the_view_says_how_much_was_taken_out(
    warped: FlowDataset, videos: Path, tmp_path: Path
) -> None:
    report = view(warped.location, tmp_path / "a.png", ["cut"], DrawingSpec(("flow", "camera")))
    assert "it was not found in 1 of 7 pairs" in report.notes[-1]
    computed = view(videos / "cut.mp4", tmp_path / "b.png", config=WARPED)
    assert "it was not found in 1 of 7 pairs" in computed.notes[-1]
    with pytest.raises(ConfigError, match="extract with --camera-motion homography"):
        view(videos / "cut.mp4", tmp_path / "c.png", spec=DrawingSpec(("camera",)), config=QUICK)


def test_the_report_shows_it_and_finds_no_fault(warped: FlowDataset) -> None:
    report = make_report(warped.location)
    assert {finding.kind for finding in report.findings} <= {"noted", "cut", "camera"}
    page = report_page(report)
    assert re.search(r"Camera motion of [2-4]\.\d\d px was taken out of the flow; 1 pair was", page)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    columns = {one["title"]: one.get("values") for one in json.loads(data[1])["columns"]}
    summary = CameraSummary.of(warped.metadata("cut").homographies or None, 320, 240)
    assert summary is not None
    assert columns["Camera px"] == [pytest.approx(summary.median_px, abs=0.01)]
    assert columns["Plain"] == [1]
