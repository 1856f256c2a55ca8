"""A data set with ten known faults, made once, and the report on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.look.report import Report, make_report
from tests.look.faults import make_data_set


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `faults.SEEDED`; never to be changed."""
    return make_data_set(tmp_path_factory.mktemp("seeded"))


@pytest.fixture(scope="session")
def seeded_report(seeded: Path) -> Report:
    return make_report(seeded)
