"""`flowprep evaluate`: from a checkpoint and a data set to measures and files."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from flowprep.dataset.read import open_dataset
from flowprep.learn.checkpoint import save_checkpoint
from flowprep.learn.scores import Scores
from tests.cli.conftest import Command
from tests.learn.conftest import motion
from tests.learn.small import RGB, extract_clips, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["motion", "one_thread"]

QUICK = ("--loaders", 0, "--views", "center")


@pytest.fixture
def run(motion: Path, tmp_path: Path) -> Path:
    """A folder like those that train writes, with an untrained network."""
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run/best.pt", make_checkpoint(open_dataset(motion)))
    return tmp_path / "run"


def test_run_is_measured_and_written(flowprep: Command, motion: Path, run: Path) -> None:
    result = flowprep("evaluate", motion, "--checkpoint", run, *QUICK)
    assert (result.code, result.stderr) == (0, "")
    scores = Scores.load(run / "test-center")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{run}/best.pt on {motion}, test: 1 clip x 1 crop per video"
    assert lines[1] == "  videos               8"
    assert lines[2] == f"  top-1                {100 * scores.metrics()['top1']:.1f} %"
    assert lines[-1] == f"  written to           {run}/test-center"
    assert "\n  worst classes\n" in result.stdout
    assert "\n  most frequent confusions\n" in result.stdout
    names = sorted(path.name for path in (run / "test-center").iterdir())
    assert names == ["confusion.csv", "confusion.png", "scores.csv", "scores.npz"]
    assert cv2.imread(str(run / "test-center/confusion.png")).shape[0] > 300
    assert scores.source["checkpoint"] == f"{run}/best.pt"


def test_the_last_checkpoint_is_taken_without_a_best_one(
    flowprep: Command, motion: Path, run: Path
) -> None:
    (run / "best.pt").rename(run / "last.pt")
    result = flowprep("evaluate", motion, "--checkpoint", run, *QUICK)
    assert result.code == 0
    assert (
        f"{run} has no best.pt, because its training has tested nothing, so last.pt is taken"
        in (result.stderr)
    )
    assert result.stdout.startswith(f"{run}/last.pt on {motion}, test: ")
    (run / "last.pt").unlink()
    result = flowprep("evaluate", motion, "--checkpoint", run, *QUICK)
    assert result.code == 1
    assert (
        f"{run} holds neither best.pt nor last.pt; give the folder of a training" in result.stderr
    )


def test_views_and_folder(flowprep: Command, motion: Path, run: Path, tmp_path: Path) -> None:
    options = ("--loaders", 0, "--clips", 2, "--crops", 3, "--split", "all")
    result = flowprep("evaluate", motion, "--checkpoint", run / "best.pt", *options)
    assert result.code == 0
    assert Scores.load(run / "all-2x3").source["views"] == {"num_clips": 2, "num_crops": 3}
    assert len(Scores.load(run / "all-2x3").keys) == 24
    result = flowprep("evaluate", motion, "--checkpoint", run, *options, "--to", tmp_path / "to")
    assert result.code == 0
    assert Scores.load(tmp_path / "to").keys == Scores.load(run / "all-2x3").keys


def test_250_views_are_the_default(flowprep: Command, motion: Path, run: Path) -> None:
    result = flowprep("evaluate", motion, "--checkpoint", run, "--loaders", 0)
    assert result.code == 0
    assert result.stdout.splitlines()[0].endswith("test: 25 clips x 10 crops per video")
    assert Scores.load(run / "test-250").source["views"] == {"num_clips": 25, "num_crops": 10}


def test_other_data(flowprep: Command, motion: Path, run: Path, tmp_path: Path) -> None:
    base = open_dataset(motion).config
    config = dataclasses.replace(base, flow=dataclasses.replace(base.flow, bound_px=9.0))
    extract_clips(motion.parent, tmp_path / "out", config)
    result = flowprep("evaluate", tmp_path / "out", "--checkpoint", run, *QUICK)
    assert (result.code, result.stdout) == (1, "")
    assert "  flow.bound_px: 20.0 in training, 9.0 here\n" in result.stderr
    assert "add --force" in result.stderr
    assert not (run / "test-center").exists()
    result = flowprep("evaluate", tmp_path / "out", "--checkpoint", run, *QUICK, "--force")
    assert result.code == 0
    frames = tmp_path / "rgb.pt"
    save_checkpoint(frames, make_checkpoint(open_dataset(motion), clip=RGB))
    result = flowprep("evaluate", tmp_path / "out", "--checkpoint", frames, *QUICK)
    assert result.code == 0
    assert Scores.load(tmp_path / "rgb-test-center").stream == "rgb"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--clips", 0), 2, "Error: --clips must be >= 1, got 0"),
        (("--crops", 4), 2, "'4' is not one of 1, 3, 5, 10"),
        (("--device", "gpu"), 2, "Error: --device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (("--task", "other"), 2, "Error: --task must be one of motion, got 'other'"),
        (("--split", "validation"), 1, "holds no video of split validation, it holds"),
        (("--views", "251"), 2, "'251' is not one of center, 30, 250; did you mean 250?"),
        (("--precision", "int8"), 2, "'int8' is not one of fp32, bf16, fp16"),
    ],
)
def test_wrong_options(
    flowprep: Command,
    motion: Path,
    run: Path,
    options: tuple[object, ...],
    code: int,
    message: str,
) -> None:
    result = flowprep("evaluate", motion, "--checkpoint", run, *QUICK, *options)
    assert (result.code, result.stdout) == (code, "")
    assert message in result.stderr


def test_files_that_are_not_there(flowprep: Command, motion: Path, tmp_path: Path) -> None:
    result = flowprep("evaluate", motion, *QUICK)
    assert result.code == 2
    assert result.error == (
        "Error: --checkpoint must be given, or a model with its weights, got neither; give "
        "--checkpoint RUN, or --model NAME --weights FILE\n"
    )
    result = flowprep("evaluate", motion, "--checkpoint", tmp_path / "no", *QUICK)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: cannot read {tmp_path}/no: ")
    result = flowprep("evaluate", tmp_path, "--checkpoint", tmp_path / "no", *QUICK)
    assert result.code == 1
    assert result.stderr.startswith(f"Error: {tmp_path} is not a flowprep data set")
    (tmp_path / "no").write_bytes(b"PK")
    result = flowprep("evaluate", motion, "--checkpoint", tmp_path / "no", *QUICK)
    assert result.code == 1
    assert "is not a checkpoint of flowprep" in result.stderr


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_torch_is_missing(command: str, tmp_path: Path) -> None:
    # In a process of its own, for modules that were imported without it would stay.
    code = "import sys; sys.modules['torch'] = None; from flowprep.cli import main; main()"
    arguments = [sys.executable, "-c", code, command, tmp_path, "--checkpoint", tmp_path]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: `flowprep {command}` needs torch, which cannot be imported; "
        "run `pip install 'flowprep[train]'`\n"
    )
