"""The data set of the tests of clips, and the rule that no loader process outlives its test."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowprep.dataset.read import FlowDataset, open_dataset


@pytest.fixture
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture(autouse=True)
def _no_loader_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before
