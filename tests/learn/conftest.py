"""Small data sets of clips that only motion tells apart; never to be changed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.inputs.manifest import collect_videos
from flowprep.run.driver import run_extract
from flowprep.synthetic import write_action_dataset


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 64x48 px, 2 training videos and a test video of 14 frames for each class."""
    return made_once(tmp_path_factory, "motion", "motion", seed=0)


@pytest.fixture(scope="session")
def other_motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The like of `motion`, of other videos."""
    return made_once(tmp_path_factory, "other", "other-motion", seed=7)


@pytest.fixture(scope="session")
def little_motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The like of `motion`, with a training video and a test video for each class."""
    return made_once(tmp_path_factory, "little", "motion", seed=2, num_videos_per_class=2)


def made_once(
    factory: pytest.TempPathFactory,
    folder: str,
    name: str,
    *,
    seed: int,
    num_videos_per_class: int = 3,
) -> Path:
    """Makes a data set for all processes and folders of a test run; whoever comes later waits."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    root = base / f"made-{folder}"
    with (base / f"made-{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            begun = factory.mktemp(folder)
            extract_actions(begun, name, seed=seed, num_videos_per_class=num_videos_per_class)
            # A process that is killed in between leaves nothing behind under this name.
            begun.rename(root)
    return root / name


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
