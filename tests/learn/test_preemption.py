"""Signals of batch systems, clusters and terminals: a checkpoint is written, wherever they come."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowprep.learn.checkpoint import load_checkpoint
from tests.run.faults import descendants, wait_until

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
NUM_STEPS = 20_000
FINISHING = "\nFinishing this step; press Ctrl-C again to stop at once.\n"
INTERRUPTED = "\nInterrupted; the same command goes on where this one stopped.\n"


def training(data: Path, run: Path, *options: object) -> list[str]:
    """A training with far more steps than a test waits for, and no checkpoint between them."""
    command = [sys.executable, "-m", "flowprep", *train(data, run)]
    return [*command, *map(str, options)]


def train(data: Path, run: Path) -> list[str]:
    options = "--model cnn-m-2048 --width 0.05 --crop 42 --frames 3 --batch-size 8 --log-every 1"
    options += f" --steps {NUM_STEPS} --test-split none --device cpu --no-tensorboard"
    return ["train", str(data), "--run", str(run), *options.split()]


def in_background(command: list[str]) -> subprocess.Popen[str]:
    """Starts a command as a batch script does: bash without job control, which ignores SIGINT."""
    line = f"{shlex.join(command)} & wait $!; exit $?"
    return subprocess.Popen(
        ["bash", "-c", line],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def job_of(script: subprocess.Popen[str]) -> int:
    return descendants(script.pid)[0]


def last_step(run: Path) -> int:
    path = run / "metrics.csv"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    first = text.rpartition("\n")[0].rpartition("\n")[2].partition(",")[0]
    return int(first) if first.isdigit() else 0


def end(script: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return script.communicate(timeout=120)
    finally:
        if script.poll() is None:
            os.killpg(script.pid, signal.SIGKILL)


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_batch_scripts_background_job_writes_a_checkpoint(
    motion: Path, tmp_path: Path, number: signal.Signals, to_all: bool
) -> None:
    # Slurm signals every process of a step, those that load clips too.
    script = in_background(training(motion, tmp_path, "--loaders", 1))
    wait_until(lambda: last_step(tmp_path) >= 3, script)
    job = job_of(script)
    for pid in [job, *(descendants(job) if to_all else [])]:
        os.kill(pid, number)
    stdout, stderr = end(script)
    assert (script.returncode, stdout, stderr) == (1, "", FINISHING + INTERRUPTED)
    assert load_checkpoint(tmp_path / "last.pt").step == last_step(tmp_path) >= 3


def test_torchrun_hands_sigterm_on_and_takes_its_processes_along(
    motion: Path, tmp_path: Path
) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    start += ["-m", "--", "flowprep", *train(motion, tmp_path), "--loaders", "1"]
    script = in_background(start)
    wait_until(lambda: last_step(tmp_path) >= 3, script)
    os.kill(job_of(script), signal.SIGTERM)
    stdout, stderr = end(script)
    assert (script.returncode, stdout) == (1, "")
    assert stderr.count(INTERRUPTED) == 1
    assert "flowprep/learn" not in stderr  # no traceback of ours
    done = load_checkpoint(tmp_path / "last.pt").step
    assert done == last_step(tmp_path) >= 3
    # Killed, it cannot hand anything on.
    script = in_background(start)
    wait_until(lambda: last_step(tmp_path) >= done + 3, script)
    torchrun = job_of(script)
    processes = descendants(torchrun)
    os.kill(torchrun, signal.SIGKILL)
    end(script)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    assert load_checkpoint(tmp_path / "last.pt").step == last_step(tmp_path) >= done + 3


def test_the_driver_on_ray_waits_for_the_checkpoint(motion: Path, tmp_path: Path) -> None:
    # What a killed driver was asked is no wish of this one.
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/stop").touch()
    options = ["--workers", 2, "--loaders", 0, "--batch-size", 32]
    script = in_background(training(motion, tmp_path, *options))
    wait_until(lambda: last_step(tmp_path) >= 3, script)
    second = subprocess.run(
        training(motion, tmp_path, *options),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("Error: another training is writing to ")
    before = last_step(tmp_path)
    wait_until(lambda: last_step(tmp_path) > before, script)
    os.kill(job_of(script), signal.SIGTERM)
    stdout, stderr = end(script)
    note = (
        "note: a batch of 32 is larger than the training set of 16 videos: one step shows each "
        "video 2.0 times; make --batch-size smaller for more steps\n"
    )
    assert (script.returncode, stdout, stderr) == (1, "", note + FINISHING + INTERRUPTED)
    assert load_checkpoint(tmp_path / "last.pt").step == last_step(tmp_path) > before
    assert not (tmp_path / ".ray").exists()


@pytest.mark.parametrize(
    "work", ["while True: pass", "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"]
)
def test_a_second_ctrl_c_stops_at_once_whatever_is_computed(work: str) -> None:
    # The second is one long computation, in which Python looks at no signal.
    code = (
        "import hashlib, sys\n"
        "from flowprep.cli.train import _on_interrupt\n"
        "from flowprep.learn.signals import watched_signals\n"
        "with watched_signals(_on_interrupt) as signals, signals.kept():\n"
        "    print('begun', flush=True)\n"
        f"    {work}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What was started in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            # It is answered while the computation goes on.
            said = process.stderr.readline() + process.stderr.readline()
            assert said == FINISHING
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        finally:
            process.kill()
        rest = process.stderr.read()
    assert process.returncode != 0
    assert INTERRUPTED in rest or "KeyboardInterrupt" in rest
