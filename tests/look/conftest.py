"""A data set with ten known faults, made once, the report on it, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowprep.look.report.report import Report, make_report
from tests.look.chromium import launched
from tests.look.faults import make_data_set


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `faults.SEEDED`; never to be changed."""
    return make_data_set(tmp_path_factory.mktemp("seeded"))


@pytest.fixture(scope="session")
def seeded_report(seeded: Path) -> Report:
    return make_report(seeded)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser
