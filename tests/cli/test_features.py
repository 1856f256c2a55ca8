"""`flowprep features`: data sets and raw videos in, the numbers of a network out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowprep.dataset.read import open_dataset
from flowprep.learn.checkpoint import save_checkpoint
from flowprep.learn.config import ClipSpec
from flowprep.learn.features import open_features
from tests.cli.conftest import Command
from tests.learn.conftest import little_motion
from tests.learn.small import RGB, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["little_motion", "one_thread"]


@pytest.fixture(scope="module")
def root(little_motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `videos/` and their data set, and two networks: `flow/best.pt`, `rgb.pt`."""
    root = tmp_path_factory.mktemp("root")
    for path in little_motion.parent.iterdir():
        (root / path.name).symlink_to(path)
    dataset = open_dataset(root / "motion")
    (root / "flow").mkdir()
    save_checkpoint(root / "flow/best.pt", make_checkpoint(dataset))
    save_checkpoint(root / "rgb.pt", make_checkpoint(dataset, clip=RGB))
    return root


def test_a_data_set_and_its_videos_have_the_same_features(
    flowprep: Command, root: Path, tmp_path: Path
) -> None:
    networks = ("--checkpoint", root / "flow", "--checkpoint", root / "rgb.pt", "--stride", 2)
    stored = flowprep(
        "features", root / "motion", *networks, "--loaders", 0, "--to", tmp_path / "stored"
    )
    assert (stored.code, stored.stderr) == (0, "")
    assert stored.stdout.startswith(f"complete: features of 16 of 16 videos in {tmp_path}/stored\n")
    options = ("--executor", "inline", "--annotations", root / "annotations", "--split", 1)
    raw = flowprep(
        "features", root / "videos", *networks, *options, "--to", tmp_path / "raw", "--maps"
    )
    assert raw.code == 0
    pairs = list(
        zip(open_features(tmp_path / "stored"), open_features(tmp_path / "raw"), strict=True)
    )
    assert len(pairs) == 16
    for one, other in pairs:
        assert (one.key, one.labels, one.split) == (other.key, other.labels, other.split)
        for stream in ("flow", "rgb"):
            np.testing.assert_allclose(
                one.features[stream], other.features[stream], rtol=0, atol=1e-5
            )


def test_failed_videos_give_exit_code_1(flowprep: Command, root: Path, tmp_path: Path) -> None:
    good = sorted(root.glob("videos/*/*.mp4"))[0]
    (tmp_path / "text.mp4").write_text("no video")
    command = (
        *("features", good, tmp_path / "text.mp4", "--checkpoint", root / "flow"),
        *("--executor", "inline", "--to", tmp_path / "f", "--on-damage", "cut"),
    )
    result = flowprep(*command)
    assert result.code == 1
    assert result.stdout.startswith("INCOMPLETE: features of 1 of 2 videos in ")
    assert "       1  unreadable: the file is empty or not a video" in result.stdout
    assert [video.key for video in open_features(tmp_path / "f")] == [good.stem]
    again = flowprep(*command)
    assert again.code == 1
    assert "not tried     1 video that failed in an earlier run" in again.stdout


def test_messages_name_options(flowprep: Command, root: Path, tmp_path: Path) -> None:
    to = ("--to", tmp_path / "f")
    videos = root / "videos"
    for code, message, arguments in (
        (2, "Error: --checkpoint must be given, or a model", (videos,)),
        (
            2,
            "Error: --stream must be that of",
            (videos, "--checkpoint", root / "flow", "--stream", "rgb"),
        ),
        (
            2,
            "Error: --window must be the length",
            (videos, "--checkpoint", root / "flow", "--window", 9),
        ),
        (
            2,
            "Error: --algorithm is for foreign",
            (videos, "--checkpoint", root / "flow", "--algorithm", "dis"),
        ),
        (
            2,
            "Error: --layer must be pool or one",
            (videos, "--checkpoint", root / "flow", "--layer", "x"),
        ),
        (
            2,
            "Error: --keep-dataset is for raw",
            (root / "motion", "--checkpoint", root / "flow", "--keep-dataset", tmp_path),
        ),
        (1, "Error: cannot read", (videos, "--checkpoint", root / "none.pt")),
    ):
        result = flowprep("features", *arguments, *to)
        assert result.code == code
        assert result.error.startswith(message), result.stderr
    assert flowprep("features", videos, "--checkpoint", root / "flow").code == 2


def test_a_mismatch_shows_both_values(flowprep: Command, root: Path, tmp_path: Path) -> None:
    video = sorted(root.glob("videos/*/*.mp4"))[0]
    command = (
        *("features", video, "--checkpoint", root / "flow", "--executor", "inline"),
        *("--to", tmp_path / "f"),
    )
    assert flowprep(*command, "--tail", "last").code == 0
    config = json.loads((tmp_path / "f/features.json").read_text())["config"]
    assert config["tail"] == "last"
    refused = flowprep(*command, "--crops", "whole")
    assert refused.code == 1
    assert "  crops: center in features.json, whole in this run\n" in refused.stderr
    assert "  tail: last in features.json, drop in this run\n" in refused.stderr


def test_differences_of_frames_have_features_and_a_timeline(
    flowprep: Command, root: Path, tmp_path: Path
) -> None:
    clip = ClipSpec("rgb-difference", 2, crop_px=32)
    network = tmp_path / "difference.pt"
    save_checkpoint(network, make_checkpoint(open_dataset(root / "motion"), clip=clip))
    arrays = []
    for number, source in enumerate((root / "motion", root / "videos")):
        to = tmp_path / str(number)
        options = ("--loaders", 0, "--executor", "inline", "--tail", "last", "--to", to)
        result = flowprep("features", source, "--checkpoint", network, *options)
        assert result.code == 0, result.stderr
        files = sorted(to.rglob("*_rgb-difference.npy"))
        arrays.append({path.name: np.load(path) for path in files})
    stored, raw = arrays
    assert len(stored) == 16
    assert stored.keys() == raw.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(array, raw[name])
    video = next((root / "videos").rglob("*.mp4"))
    options = ("--timeline", tmp_path / "a.csv", "--window", 3, "--stride", 2)
    result = flowprep("predict", video, "--checkpoint", network, *options)
    assert result.code == 0, result.stderr
    assert (tmp_path / "a.csv").exists()
