"""Runs over raw videos: on Ray, killed and run again, and in flat memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.layout import read_failures
from flowprep.dataset.read import open_dataset
from flowprep.learn.checkpoint import save_checkpoint
from flowprep.learn.clips.sliding import LatestJpegs
from flowprep.learn.config import ClipSpec
from flowprep.learn.create import create_model
from flowprep.learn.features import FeatureSpec, extract_features, open_features
from flowprep.learn.weights.files import save_weights
from flowprep.storage import Storage
from flowprep.synthetic import write_video
from tests.learn.small import FLOW, RGB, make_checkpoint
from tests.learn.test_features import tree, write_clip
from tests.torch_devices import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def networks(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Checkpoints of flow and RGB, and of windows of eight frames."""
    root = tmp_path_factory.mktemp("networks")
    data = open_dataset(motion)
    save_checkpoint(root / "flow.pt", make_checkpoint(data, clip=FLOW))
    save_checkpoint(root / "rgb.pt", make_checkpoint(data, clip=RGB))
    volume = ClipSpec("flow", 8, crop_px=32)
    save_checkpoint(root / "i3d.pt", make_checkpoint(data, clip=volume, model="i3d"))
    return [str(root / name) for name in ("flow.pt", "rgb.pt", "i3d.pt")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos, some of which are longer."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        write_clip(root / f"n{number}.mp4", 10 + 10 * number)
    return root


@pytest.fixture(scope="module")
def inline(networks: list[str], videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the videos, made without interruption."""
    to = tmp_path_factory.mktemp("inline") / "f"
    options = RunOptions(executor="inline", progress=False)
    extract_features(
        videos,
        to,
        FeatureSpec(stride=1),
        checkpoint=networks[:2],
        executor="inline",
        options=options,
    )
    return to


def test_workers_give_the_same_bytes(
    networks: list[str], videos: Path, inline: Path, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    for path in videos.iterdir():
        (tmp_path / "more" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "more/text.mp4").write_text("no video")
    report = extract_features(
        tmp_path / "more",
        tmp_path / "ray",
        FeatureSpec(stride=1),
        checkpoint=networks[:2],
        executor="ray",
        options=RunOptions(num_workers=2, progress=False),
    )
    assert (report.num_done, report.num_failed) == (8, 1)
    assert set(report.seconds) == {"decode", "flow", "encode", "network"}
    arrays = {name: data for name, data in tree(tmp_path / "ray").items() if ".npy" in name}
    assert arrays == {name: data for name, data in tree(inline).items() if ".npy" in name}


@pytest.mark.parametrize("format", ["npy", "webdataset"])
def test_killed_and_run_again_gives_the_same_bytes(
    networks: list[str], videos: Path, tmp_path: Path, format: str
) -> None:
    command = [sys.executable, "-m", "flowprep", "features", str(videos)]
    command += ["--checkpoint", networks[0], "--checkpoint", networks[1], "--stride", "1"]
    command += ["--executor", "inline", "--format", format, "--no-progress"]
    to = tmp_path / "killed"
    parts = to if format == "npy" else to / ".parts"
    process = subprocess.Popen(
        [*command, "--to", str(to)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and len(list(parts.glob("*_windows.json"))) < 3:
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    num_done = len(list(parts.glob("*_windows.json")))
    assert 3 <= num_done < 8
    spec = FeatureSpec(stride=1, format=format)  # type: ignore[arg-type]
    options: dict[str, Any] = {
        "checkpoint": networks[:2],
        "executor": "inline",
        "options": RunOptions(executor="inline", progress=False),
    }
    again = extract_features(videos, to, spec, **options)
    assert (again.num_done_before, again.num_done) == (num_done, 8 - num_done)
    extract_features(videos, tmp_path / "whole", spec, **options)
    whole = tree(tmp_path / "whole")
    assert len(whole) > 1
    assert tree(to) == whole


CRASHING = '''\
"""Ends its process at pictures of 80 px."""

import os

import numpy as np

from flowprep import FlowEstimator


class CrashingFlow(FlowEstimator):
    version = "1"

    def __call__(self, prev, next):
        if len(prev) == 80:
            os._exit(3)
        return np.zeros((*prev.shape, 2), np.float32)
'''


def test_a_video_that_crashes_its_worker_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_flow.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    write_clip(tmp_path / "v/bad.mp4", 5, width=96, height=80)
    write_clip(tmp_path / "v/good.mp4", 5)
    weights = tmp_path / "flow.safetensors"
    save_weights(create_model("resnet18", stream="flow", num_classes=2), weights)
    report = extract_features(
        tmp_path / "v",
        tmp_path / "f",
        model="resnet18",
        weights=weights,
        stream="flow",
        clip={"crop_px": 32},
        config=ExtractConfig(
            DecodeSpec(resize=Resize.parse("none")), FlowSpec("crashing_flow:CrashingFlow")
        ),
        executor="process",
        options=RunOptions(max_attempts=2, progress=False),
    )
    assert (report.num_done, report.num_failed, report.num_lost_workers) == (1, 1, 2)
    (failure,) = read_failures(Storage(tmp_path / "f")).values()
    assert (failure.key, failure.reason, failure.attempts) == ("bad", "crashed", 2)
    assert [video.key for video in open_features(tmp_path / "f")] == ["good"]
    assert not (tmp_path / "f/.parts").exists()


def test_a_long_video_is_never_held(
    networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 frames pass through, and no more JPEGs are in memory than a window needs."""
    frames = np.random.default_rng(0).integers(0, 255, (7, 48, 64, 3)).astype(np.uint8)
    write_video(tmp_path / "long.mp4", (frames[t % 7] for t in range(2000)), 25)
    most = 0
    append = LatestJpegs.append_jpeg

    def counted(stream: LatestJpegs, jpeg: bytes) -> None:
        nonlocal most
        append(stream, jpeg)
        most = max(most, len(stream._jpegs))

    monkeypatch.setattr(LatestJpegs, "append_jpeg", counted)
    report = extract_features(
        tmp_path / "long.mp4",
        tmp_path / "f",
        FeatureSpec(stride=40, tail="last"),
        model=None,
        checkpoint=networks[2],
        executor="inline",
        options=RunOptions(executor="inline", progress=False),
    )
    (video,) = open_features(tmp_path / "f")
    assert (report.num_windows, video.num_windows, video.num_frames) == (51, 51, 2000)
    assert 8 <= most <= 12


def test_without_flow_nothing_is_estimated(
    networks: list[str], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.run.run_job.build_estimator", None)
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    assert config.flow.step == 1
    report = extract_features(
        videos,
        tmp_path / "f",
        checkpoint=networks[1],
        executor="inline",
        options=RunOptions(executor="inline", progress=False),
    )
    assert report.is_complete
    assert report.seconds["flow"] == 0
    (first, *_) = open_features(tmp_path / "f")
    assert first.num_windows == first.num_frames == 10
