"""The page of a report: safe to open, and written whole."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from flowprep.errors import StorageError
from flowprep.look.report.page import report_page, write_report
from flowprep.look.report.report import Report
from tests.look.report.attack import ATTACK, attacked


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
