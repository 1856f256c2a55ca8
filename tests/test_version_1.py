"""What format version 1 wrote stays readable: see tests/data/v1/README.md."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flowprep.config import EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.layout import read_failures, read_manifest
from flowprep.dataset.read import open_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import DatasetError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.inputs.manifest import collect_videos
from flowprep.run.driver import run_extract
from flowprep.run.status import read_status
from flowprep.storage import Storage
from tests.cli.conftest import Command
from tests.cli.conftest import flowprep as flowprep  # the fixture

KEYS = ["clap/v%2E%201", "clap/whole", "wave/cut", "wave/empty", "wave/long"]
TRAIN = (
    *("--model", "resnet18", "--width", ".02", "--crop", "16", "--frames", "3", "--steps", "6"),
    *("--batch-size", "4", "--loaders", "0", "--train-split", "all", "--test-split", "none"),
    *("--device", "cpu", "--checkpoint-every", "0", "--no-tensorboard", "--seed", "7"),
)


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return shutil.copytree(Path(__file__).parent / "data" / "v1", tmp_path / "v1")


def digests(out: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of the shards."""
    files = sorted((out / "shards").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_reads_and_verifies(v1: Path) -> None:
    before = digests(v1 / "flow")
    report = verify_dataset(v1 / "flow", deep=True)
    assert report.problems == []
    assert (report.num_videos, report.num_stored, report.num_partial, report.num_failed) == (
        *(5, 4, 1, 1),
    )
    dataset = open_dataset(v1 / "flow")
    assert [video.key for video in dataset.videos] == [KEYS[0], KEYS[1], KEYS[2], KEYS[4]]
    assert dataset.class_names == ("clap", "wave")
    assert [video.num_frames for video in dataset.videos] == [8, 6, 4, 24]
    for video in dataset.videos:
        for direction in ("forward", "backward"):
            flow = dataset.flow(video.key, 0, video.num_flows, direction)
            assert flow.shape == (video.num_flows, 32, 40, 2)
        assert dataset.frames(video.key, [0]).shape == (1, 32, 40, 3)
    # The drawn pattern moves left and up.
    flow = dataset.flow("clap/v%2E%201", 3, 1)[0, 8:24, 8:32]
    assert np.median(flow, axis=(0, 1)) == pytest.approx([-1, -0.5], abs=0.3)
    assert "5 videos" in read_status(v1 / "flow").summary()
    assert digests(v1 / "flow") == before


def test_rebuilds_a_lost_sidecar(v1: Path) -> None:
    sidecar = v1 / "flow/shards/000000.json"
    sidecar.unlink()
    report = verify_dataset(v1 / "flow", repair=True)
    assert (report.problems, report.repaired) == ([], ["shards/000000.json"])


def test_a_lost_header_is_named(v1: Path) -> None:
    # Its shards do not say how they were made.
    config = ExtractConfig.from_dict(open_dataset(v1 / "flow").config.to_dict())
    (v1 / "flow/dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"has lost dataset\.json, .*; restore the file"):
        run_extract(collect_videos(v1 / "videos"), str(v1 / "flow"), config)


def test_a_lost_manifest_comes_back(v1: Path) -> None:
    before = (v1 / "flow/manifest.jsonl").read_bytes()
    (v1 / "flow/manifest.jsonl").unlink()
    config = ExtractConfig.from_dict(open_dataset(v1 / "flow").config.to_dict())
    options = RunOptions(executor="inline")
    run_extract(collect_videos(v1 / "videos"), str(v1 / "flow"), config, options)
    keys = [json.loads(line)["key"] for line in before.splitlines()]
    entries = read_manifest(Storage(v1 / "flow"))
    assert [entry.video.key for entry in entries] == keys
    assert verify_dataset(v1 / "flow").problems == []


def test_keys_stay_as_they_were(v1: Path) -> None:
    manifest = collect_videos(v1 / "videos")
    assert [video.key for video in manifest.videos] == KEYS
    assert [entry.video.key for entry in read_manifest(Storage(v1 / "flow"))] == KEYS


def test_the_same_command_changes_no_shard(v1: Path, flowprep: Command) -> None:
    before = digests(v1 / "flow")
    result = flowprep(
        *("extract", v1 / "videos", v1 / "flow", "--executor", "inline", "--resize", "none"),
        *("--segment-frames", "10", "--shard-size", "3", "--jpeg-quality", "85"),
        *("--rgb-jpeg-quality", "60", "--algorithm", "farneback"),
    )
    assert (result.code, result.stderr) == (1, "")
    assert "INCOMPLETE: 4 of 5 videos" in result.stdout
    assert digests(v1 / "flow") == before
    assert list(read_failures(Storage(v1 / "flow"))) == ["wave/empty"]


def test_resumes_an_interrupted_run(v1: Path, flowprep: Command) -> None:
    out = v1 / "interrupted"
    (part,) = (out / ".parts").glob("*/*.tar")
    finished = part.read_bytes()
    result = flowprep(
        *("extract", v1 / "videos/clap/whole.mp4", v1 / "videos/wave/long.mp4", out),
        *("--root", v1 / "videos", "--executor", "inline", "--segment-frames", "10"),
        *("--resize", "none", "--algorithm", "farneback", "--quantizer", "floor"),
        *("--directions", "forward", "--no-rgb", "--bound", "8", "--shard-size", "2"),
    )
    assert (result.code, result.stderr) == (0, "")
    assert "done before   1 video" in result.stdout
    assert verify_dataset(out, deep=True).problems == []
    assert (out / "shards/000000.tar").read_bytes().startswith(finished)
    assert [video.num_frames for video in open_dataset(out).videos] == [6, 24]


def test_takes_new_videos(v1: Path) -> None:
    before = digests(v1 / "flow")
    shutil.copy(v1 / "videos/clap/whole.mp4", v1 / "videos/clap/new.mp4")
    config = ExtractConfig.from_dict(open_dataset(v1 / "flow").config.to_dict())
    options = RunOptions(executor="inline")
    run_extract(collect_videos(v1 / "videos"), str(v1 / "flow"), config, options)
    after = digests(v1 / "flow")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    assert verify_dataset(v1 / "flow", deep=True).problems == []


def test_exports(v1: Path) -> None:
    spec = ExportSpec(layout="denseflow")
    report = export_dataset(v1 / "flow", v1 / "exported", spec, num_workers=1)
    assert report.exit_code == 0
    num_pairs = sum(video.num_flows for video in open_dataset(v1 / "flow").videos)
    assert len(list((v1 / "exported").rglob("flow_x*.jpg"))) == num_pairs


def test_goes_on_with_a_training(v1: Path, flowprep: Command) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    result = flowprep("train", v1 / "flow", "--run", v1 / "training", *TRAIN)
    assert (result.code, result.stderr) == (0, "")
    assert "3 steps in" in result.stdout
    again = flowprep("train", v1 / "flow", "--run", v1 / "training-anew", *TRAIN)
    assert again.code == 0
    losses = [
        (v1 / run / "metrics.csv").read_text().splitlines()[-1].split(",")[4]
        for run in ("training", "training-anew")
    ]
    # The same steps on another processor differ in the last digits.
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-3)
    result = flowprep(
        *("evaluate", v1 / "flow", "--checkpoint", v1 / "training/last.pt", "--to", v1 / "scores"),
        *("--split", "all", "--clips", "2", "--crops", "1", "--device", "cpu", "--loaders", "0"),
    )
    assert result.code == 0, result.stderr


def test_another_configuration_is_refused(v1: Path, flowprep: Command) -> None:
    result = flowprep(
        *("extract", v1 / "videos", v1 / "flow", "--executor", "inline", "--resize", "none"),
        *("--jpeg-quality", "85", "--rgb-jpeg-quality", "60", "--algorithm", "farneback"),
        *("--bound", "10"),
    )
    assert result.code == 1
    assert "flow.bound_px: 20.0 in the data set, 10.0 in this run" in result.stderr
    config = open_dataset(v1 / "flow").config
    assert (config.flow.algorithm, config.encode) == (
        "farneback",
        EncodeSpec(jpeg_quality=85, rgb_jpeg_quality=60, videos_per_shard=3),
    )
    assert config.flow == FlowSpec("farneback")
