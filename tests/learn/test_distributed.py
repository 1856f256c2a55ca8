"""Several processes train as one does, whoever starts them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from flowprep import label, open_dataset
from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.distributed import Process, join_processes
from flowprep.learn.placement import choose_device
from flowprep.learn.train_setup import digest_videos

# Without batch norm, which sees a process's own samples only, and without dropout.
OPTIONS = ["--model", "cnn-m-2048", "--width", "0.05", "--dropout", "0", "--crop", "42"]
OPTIONS += ["--frames", "3", "--batch-size", "8", "--learning-rate", "0.001", "--device", "cpu"]
OPTIONS += ["--loaders", "0", "--log-every", "1", "--test-every", "50", "--no-tensorboard"]
NUM_STEPS = 300
# Two processes have one half of each batch each, and add their gradients; so does one process that
# takes its batches in two parts. Floating-point addition has one result for two summands, whichever
# comes first, and doubling and halving the loss are exact: so these trainings are the same to the
# last bit, on any machine, where each runs the same kernels on the same halves with one thread.
# (A batch in one piece has other sums, and how far those part grows with every step.)
IN_HALVES = ["--accumulate", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def train(*arguments: object) -> list[str]:
    return ["flowprep", "train", *map(str, arguments), *OPTIONS]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, *command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    # `--` keeps torchrun from taking --run for one of its own options.
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--"]
    return run([*start, *train(*arguments)])


@pytest.fixture(scope="module")
def alone(motion: Path, other_motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of two data sets, halves of batches at a time."""
    folder = tmp_path_factory.mktemp("alone")
    run(["-m", *train(motion, other_motion, "--run", folder, "--steps", NUM_STEPS, *IN_HALVES)])
    losses = [row[4] for row in _rows(folder)]
    assert float(losses[-1]) < float(losses[0]) - 0.4  # the weights have gone somewhere
    return folder


def test_torchrun_trains_as_one_process(
    motion: Path, other_motion: Path, alone: Path, tmp_path: Path
) -> None:
    result = torchrun(motion, other_motion, "--run", tmp_path, "--steps", NUM_STEPS)
    # One of them speaks.
    assert result.stdout.count(f"trained: {NUM_STEPS} steps") == 1
    assert _steps(tmp_path) == list(range(1, NUM_STEPS + 1))
    one, two = load_checkpoint(alone / "last.pt"), load_checkpoint(tmp_path / "last.pt")
    halves = dataclasses.replace(two.config.optimization, accumulate=2)
    assert (two.step, dataclasses.replace(two.config, optimization=halves)) == (
        one.step,
        one.config,
    )
    assert one.model.keys() == two.model.keys()
    for name, tensor in one.model.items():
        assert torch.equal(tensor, two.model[name]), name
    assert one.training is not None
    assert two.training is not None
    for item in ("best", "loss", "top1"):
        assert getattr(one.training, item) == getattr(two.training, item)


def test_ray_train_trains_as_one_process_whatever_happens(
    motion: Path, other_motion: Path, alone: Path, tmp_path: Path
) -> None:
    arguments = train(motion, other_motion, "--run", tmp_path, "--steps", NUM_STEPS)
    with subprocess.Popen(
        [sys.executable, "-m", *arguments, "--workers", "2", "--checkpoint-every", "0"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What was started in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            before = _wait_for_step(process, tmp_path, 3)
            os.kill(_workers_of(process.pid)[0], signal.SIGKILL)
            # Another takes the place of the dead one.
            _wait_for_step(process, tmp_path, before + 60)
            # A terminal sends it to the whole group.
            os.killpg(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate()
        finally:
            process.kill()
    assert (process.returncode, stdout) == (1, "")
    # Neither a bar nor a word of Ray's, as stderr is no terminal.
    assert stderr == (
        "\nFinishing this step; press Ctrl-C again to stop at once.\n"
        "\nInterrupted; the same command goes on where this one stopped.\n"
    )
    assert not (tmp_path / ".ray").exists()
    num_done = load_checkpoint(tmp_path / "last.pt").step
    assert num_done == _steps(tmp_path)[-1] < NUM_STEPS
    # Every loss follows from all the steps before it.
    losses = [row[4] for row in _rows(alone)]
    assert [row[4] for row in _rows(tmp_path)] == losses[:num_done]
    # One process takes over what two began. No step is lost, and none is there twice.
    run(["-m", *arguments])
    assert _steps(tmp_path) == list(range(1, NUM_STEPS + 1))
    # Its first loss comes from the same weights and samples, but a kernel may add in another order
    # for a whole batch. A sum of n float32 products is off by n * 2^-24 of their sizes at most
    # (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), layer upon layer.
    last = load_checkpoint(tmp_path / "last.pt")
    assert last.step == NUM_STEPS
    num_summands = sum(weight[0].numel() for weight in last.model.values() if weight.dim() > 1)
    first = float(_rows(tmp_path)[num_done][4])
    assert first == pytest.approx(float(losses[num_done]), rel=num_summands * 2.0**-24)


def test_a_process_says_that_another_ended() -> None:
    script = """
import os, signal, sys, torch
from flowprep.errors import TrainingError
from flowprep.learn.distributed import join_processes
try:
    with join_processes("cpu") as process:
        process.sum(torch.ones(1))
        if process.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        process.sum(torch.ones(1))
except TrainingError as error:
    print(error)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=ENVIRONMENT | place | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], (first, second)
    assert first[0].startswith("another process of this training ended, and without it this one")
    assert "run the same command again" in first[0]


def test_ray_train_reads_named_labels(motion: Path, tmp_path: Path) -> None:
    out = shutil.copytree(motion, tmp_path / "motion")
    names = open_dataset(out).class_names
    # All but two of the classes become one, and the splits change places.
    splits = {"train": "test", "test": "train"}
    rows = [f"{v.key},{v.labels[0]},{splits[v.split or '']}\n" for v in open_dataset(out).videos]
    (tmp_path / "splits.csv").write_text("key,label,split\n" + "".join(rows))
    label(
        *(out, "mine"),
        annotations=tmp_path / "splits.csv",
        class_names=names,
        rename=dict.fromkeys(names[2:], "other"),
    )
    arguments = train(out, "--labels", "mine", "--run", tmp_path / "run", "--steps", 1)
    run(["-m", *arguments, "--workers", "2"])
    checkpoint = load_checkpoint(tmp_path / "run/last.pt")
    (task,) = checkpoint.tasks
    assert (task.labels, task.class_names) == ("mine", (*names[:2], "other"))
    # One process goes on with the same labels, and with no others.
    run(["-m", *arguments])
    checkpoint = load_checkpoint(tmp_path / "run/last.pt")
    dataset = open_dataset(out, labels="mine")
    assert checkpoint.training is not None
    assert checkpoint.training.videos == digest_videos([dataset], checkpoint.config)


def _wait_for_step(process: subprocess.Popen[str], folder: Path, least: int) -> int:
    while True:
        assert process.poll() is None, process.communicate()
        path = folder / "metrics.csv"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and lines[-1].partition(",")[0].isdigit():
            step = int(lines[-1].partition(",")[0])
            if step >= least:
                return step
        time.sleep(0.05)


def _workers_of(session: int) -> list[int]:
    """Returns the processes of Ray Train's workers, which stay in the session of their driver."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
            if b"RayTrainWorker" in name and os.getsid(int(folder.name)) == session:
                pids.append(int(folder.name))
        except OSError:
            continue
    assert pids
    return pids


def _rows(folder: Path) -> list[list[str]]:
    """Returns metrics.csv's lines of training."""
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    return [line.split(",") for line in lines if ",train," in line]


def _steps(folder: Path) -> list[int]:
    return [int(row[0]) for row in _rows(folder)]


def test_one_process_needs_no_group() -> None:
    with join_processes("cpu") as process:
        assert process == Process(torch.device("cpu"))
        assert process.is_main
        assert process.share("value") == "value"
        assert process.gather(3) == [3]
        values = torch.arange(3)
        assert torch.equal(process.sum(values), values)
        assert process.sum(values) is not values


def test_devices_are_checked() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "toaster"):
        with pytest.raises(ConfigError, match="device"):
            choose_device(name)
