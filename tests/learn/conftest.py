"""A small data set of clips that only motion tells apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.inputs.manifest import collect_videos
from flowprep.run.driver import run_extract
from flowprep.synthetic import write_action_dataset


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 64x48 px, 2 training videos and a test video of 14 frames for each class."""
    return extract_actions(tmp_path_factory.mktemp("motion"), "motion", seed=0)


@pytest.fixture(scope="session")
def other_motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The like of `motion`, of other videos."""
    return extract_actions(tmp_path_factory.mktemp("other"), "other-motion", seed=7)


def extract_actions(root: Path, name: str, *, seed: int, num_videos_per_class: int = 3) -> Path:
    """Writes clips of every action and extracts their flow, both directions, and RGB frames."""
    write_action_dataset(
        root,
        num_videos_per_class=num_videos_per_class,
        num_frames=14,
        width=64,
        height=48,
        seed=seed,
    )
    manifest = collect_videos(root / "videos", annotations=root / "annotations")
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    report = run_extract(manifest, str(root / name), config, RunOptions(executor="inline"))
    assert report.is_complete
    return root / name
