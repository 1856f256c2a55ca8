"""A report whose every text is an attack on the page."""

from __future__ import annotations

import dataclasses
from collections import Counter

from flowprep.look.findings.kinds import Finding
from flowprep.look.report.report import Report

ATTACK = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>'\"&"


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
