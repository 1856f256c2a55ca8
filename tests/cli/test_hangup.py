"""A terminal is closed: after some seconds no process of the command is left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowprep.synthetic import action_scene, write_video
from tests.cli.conftest import Command
from tests.run.faults import wait_until

MARK = "FLOWPREP_TEST_TERMINAL"
NUM_VIDEOS = 6


def processes_of(mark: str) -> list[int]:
    """Returns the processes that have inherited a variable, wherever they have gone since."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (
                folder / "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _take_terminal() -> None:
    """Makes a new session's terminal of stdin, as a terminal's window does."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def in_terminal(
    *arguments: object,
) -> Iterator[tuple[subprocess.Popen[bytes], int, Callable[[], None]]]:
    """Starts a command in a terminal; yields it, where to read, and what closes the terminal."""
    window, terminal = pty.openpty()
    mark = str(window) + str(time.time_ns())
    process = subprocess.Popen(
        [sys.executable, "-m", "flowprep", *map(str, arguments)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {MARK: mark},
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(terminal)
    is_open = True

    def close() -> None:
        nonlocal is_open
        is_open = False
        os.close(window)
        process.wait(60)
        deadline = time.monotonic() + 60
        while left := processes_of(mark):
            assert time.monotonic() < deadline, left
            time.sleep(0.2)

    try:
        yield process, window, close
    finally:
        if is_open:
            os.close(window)
        for pid in processes_of(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for number in range(NUM_VIDEOS):
        label = folder / "ab"[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        scene = action_scene("zoom_in", num_frames=20, width=64, height=48, seed=number)
        write_video(label / f"{number:02d}.mp4", map(scene.frame, range(20)), 25.0)
    return folder


@pytest.mark.parametrize("executor", ["process", "ray"])
def test_extraction(executor: str, flowprep: Command, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["extract", videos, out, "--executor", executor, "--workers", 1]
    arguments += ["--shard-size", 2, "--algorithm", "tvl1-opencv"]
    with in_terminal(*arguments) as (process, _, close):
        wait_until(lambda: any(out.glob(".parts/*/*.json")), process)  # type: ignore[arg-type]
        close()
    assert process.returncode == 1
    assert '"state": "interrupted"' in (out / "logs/progress.json").read_text()
    assert json.loads((out / ".lease.json").read_text())["released"]
    assert flowprep("extract", videos, out, "--executor", "inline", *arguments[7:]).code == 0
    assert flowprep("verify", out).code == 0


def test_training(flowprep: Command, videos: Path, tmp_path: Path) -> None:
    """The step at hand is finished, and a checkpoint is written."""
    out, run = tmp_path / "out", tmp_path / "run"
    extracted = flowprep("extract", videos, out, "--executor", "inline", "--algorithm", "farneback")
    assert extracted.code == 0
    arguments = ["train", out, "--run", run, "--model", "resnet18", "--width", 0.0625]
    arguments += ["--frames", 2, "--resize-short", 32, "--crop", 24, "--batch-size", 4]
    arguments += ["--steps", 100_000, "--log-every", 1, "--loaders", 1, "--no-tensorboard"]
    arguments += ["--train-split", "all", "--test-split", "none"]
    with in_terminal(*arguments) as (process, _, close):
        metrics = run / "metrics.csv"
        wait_until(
            lambda: metrics.exists() and metrics.read_text().count("\n") > 2,
            process,  # type: ignore[arg-type]
        )
        assert not (run / "last.pt").exists()
        close()
    assert process.returncode == 1
    assert (run / "last.pt").exists()


def test_browsing(flowprep: Command, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extracted = flowprep("extract", videos, out, "--executor", "inline", "--algorithm", "farneback")
    assert extracted.code == 0
    with in_terminal("browse", out, "--port", 0) as (process, window, close):
        said = b""
        while b"http://" not in said:
            said += os.read(window, 1024)
        assert process.poll() is None
        close()
