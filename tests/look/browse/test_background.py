"""The search for findings in the background finds what the report does."""

from __future__ import annotations

from pathlib import Path

from flowprep.dataset.read import open_dataset
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.findings.kinds import KINDS
from flowprep.look.report.report import Report
from tests.look.browse.browsing import Client, served


def test_findings_are_those_of_the_report(seeded: Path, seeded_report: Report) -> None:
    dataset = open_dataset(seeded)
    survey = BackgroundSurvey(dataset)
    with served(dataset, survey=survey) as url:
        client = Client(url)
        before = client.get("/api/survey").json()
        assert before["stage"] == "off"
        survey.start()
        survey.wait()
        progress = client.get("/api/survey").json()
        assert progress["stage"] == "done"
        assert progress["version"] > before["version"]
        columns = client.get("/api/statistics").json()
        found = {
            video.key: client.get("/api/findings", key=video.key).json() for video in dataset.videos
        }
    wanted: dict[str, list[str]] = {}
    for finding in seeded_report.findings:
        if finding.kind != "failed":
            wanted.setdefault(finding.key, []).append(finding.kind)
    assert len(wanted) > 5
    for position, video in enumerate(dataset.videos):
        assert [item["kind"] for item in found[video.key]] == wanted.get(video.key, [])
        bits = {bit for bit in range(len(KINDS)) if columns["findings"][position] >> bit & 1}
        assert bits == {list(KINDS).index(kind) for kind in wanted.get(video.key, [])}
    row = seeded_report.rows[3]
    position = dataset.videos.position(row.key)
    assert columns["mean_px"][position] == round(row.mean_px, 2)
    assert columns["clipped"][position] == round(100 * row.clipped_share, 3)
    dataset.close()


def test_the_survey_can_be_stopped(out: Path) -> None:
    dataset = open_dataset(out)
    survey = BackgroundSurvey(dataset)
    survey.start()
    survey.stop()
    assert survey.progress()["stage"] in ("statistics", "pixels", "done")
