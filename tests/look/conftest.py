"""Data sets made once, among them one with ten known faults; the report on it; a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowprep
from flowprep.config import EncodeSpec, ExtractConfig, FlowSpec
from flowprep.dataset.read import FlowDataset
from flowprep.look.report.report import Report, make_report
from flowprep.synthetic import write_video
from tests.look.chromium import launched
from tests.look.faults import make_data_set
from tests.look.viewing import NUM_FRAMES, QUICK, scene


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


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "videos"
    folder.mkdir()
    for name, velocity_px in {"right": (3, 0), "down": (0, 2)}.items():
        frames = (scene(velocity_px).frame(t) for t in range(NUM_FRAMES))
        write_video(folder / f"{name}.mp4", frames, 10)
    tall = scene((1, 0), 40, 70)
    write_video(folder / "tall.mp4", (tall.frame(t) for t in range(NUM_FRAMES)), 10)
    return folder


@pytest.fixture(scope="session")
def dataset(videos: Path) -> FlowDataset:
    out = videos.parent / "out"
    assert flowprep.extract(videos, out, QUICK, executor="inline").is_complete
    return flowprep.open_dataset(out)


@pytest.fixture(scope="session")
def bare(videos: Path) -> FlowDataset:
    """Forward flow of step 2, and nothing else."""
    encode = EncodeSpec(directions=("forward",), keep_rgb=False)
    config = ExtractConfig(QUICK.decode, FlowSpec("dis", step=2), encode)
    flowprep.extract(videos, videos.parent / "bare", config, executor="inline")
    return flowprep.open_dataset(videos.parent / "bare")
