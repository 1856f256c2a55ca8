"""A data set to browse, a client of its server, and pages of it in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.look.browse.background import BackgroundSurvey
from tests.look.browse.browsing import Client, make_dataset, served
from tests.look.browse.opening import Opened


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `browsing.CLIPS`; never to be changed."""
    return make_dataset(tmp_path_factory.mktemp("browse"))


@pytest.fixture(scope="module")
def dataset(out: Path) -> Iterator[FlowDataset]:
    dataset = open_dataset(out)
    yield dataset
    dataset.close()


@pytest.fixture(scope="module")
def client(dataset: FlowDataset) -> Iterator[Client]:
    with served(dataset) as url:
        yield Client(url)


@pytest.fixture(scope="module")
def url(dataset: FlowDataset) -> Iterator[str]:
    survey = BackgroundSurvey(dataset)
    survey.start()
    survey.wait()
    with served(dataset, survey=survey) as url:
        yield url


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opened]:
    opened = Opened(chromium)
    yield opened
    opened.close()
    assert opened.said == []
