"""A training to which things happen, and whether it ends as the undisturbed one does."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from flowprep.learn.checkpoint import load_checkpoint
from tests.run.faults import descendants, kill

__all__ = ["MODES", "Undisturbed", "run_once"]

MODES = ("alone", "torchrun", "ray")
_NUM_STEPS = 80
_DISK_BYTES = 8 << 20
_MAX_COMMANDS = 12
# Under the load of other programs all is slower; what takes longer than this hangs.
_COMMAND_SECONDS = 600.0

_OPTIONS = (
    "--model resnet18 --width 0.0625 --dropout 0.5 --frames 3 --crop 32 --batch-size 8 "
    f"--steps {_NUM_STEPS} --learning-rate 0.05 --log-every 1 --test-every 5 --checkpoint-every 2 "
    "--device cpu"
)
_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
_IS_TIMED = ("clips_per_second", "seconds")


def command(mode: str, data: Path, run: Path, num_loaders: int) -> list[str]:
    """Returns the command that trains in a mode; loaders make no difference to what comes out."""
    train = ["flowprep", "train", str(data), "--run", str(run), *_OPTIONS.split()]
    train += ["--loaders", str(num_loaders)]
    if mode == "torchrun":
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
        return [sys.executable, "-m", *start, *train]
    return [sys.executable, "-m", *train, *(["--workers", "2"] if mode == "ray" else [])]


class Undisturbed:
    """The trainings to which nothing happens, each made when it is first asked for."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self._folder = folder
        self._seconds: dict[str, float] = {}

    def run(self, mode: str) -> tuple[Path, float]:
        """Returns the folder of a mode's training, and how many seconds it took."""
        run = self._folder / mode
        if mode not in self._seconds:
            began = time.monotonic()
            subprocess.run(
                command(mode, self.data, run, 0),
                env=_ENVIRONMENT,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            self._seconds[mode] = time.monotonic() - began
        return run, self._seconds[mode]


@dataclass
class _Disturbed:
    """A training, its disk, and what has happened to it."""

    mode: str
    run: Path
    rng: random.Random
    events: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    @property
    def filler(self) -> Path:
        """The file that takes all that is left of the disk."""
        return self.run.parent / "filler"

    def happen(self, event: str, pid: int) -> None:
        """Lets an event happen to the training whose command is process `pid`."""
        step = _last_step(self.run)
        if event == "full disk":
            with contextlib.suppress(OSError), self.filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            what = "the disk is full"
        else:
            target, name = self._target(event, pid)
            with contextlib.suppress(ProcessLookupError):
                if event == "kill -9":
                    os.kill(target, signal.SIGKILL)
                elif event == "SIGTERM":
                    os.kill(target, signal.SIGTERM)
                else:
                    os.kill(target, signal.SIGSTOP)
                    time.sleep(self.rng.uniform(0.5, 5.0))
                    os.kill(target, signal.SIGCONT)
            what = f"{event} of {name}"
        self.events.append(event)
        self.story.append(f"step {step}: {what}")

    def _target(self, event: str, pid: int) -> tuple[int, str]:
        """Chooses a process: SIGTERM is for the command, all else for any of its processes."""
        pids = [pid, *descendants(pid)]
        if event == "SIGTERM" or self.rng.random() < 1 / 3:
            pids = [pid]
        chosen = self.rng.choice(pids)
        try:
            words = Path(f"/proc/{chosen}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return chosen, "a process that has ended"
        if chosen == pid:
            return chosen, "the command"
        known = ("raylet", "gcs_server", "RayTrainWorker", "TrainController", "forkserver")
        text = b" ".join(words).decode(errors="replace")
        return chosen, next((name for name in known if name in text), Path(text.split()[0]).name)

    def free_disk(self) -> None:
        if self.filler.exists():
            self.filler.unlink()
            self.story.append("the disk is freed")


def run_once(seed: int, undisturbed: Undisturbed, folder: Path) -> dict[str, Any]:
    """Trains with the events of a seed; returns what is written down of it."""
    rng = random.Random(seed)
    mode = MODES[seed % len(MODES)]
    expected, seconds = undisturbed.run(mode)
    folder.mkdir()
    size = f"size={_DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    began = time.monotonic()
    training = _Disturbed(mode, folder / "run", rng)
    kinds = ("kill -9", "SIGTERM", "SIGSTOP", "full disk")
    events = [rng.choice(kinds) for _ in range(rng.randint(1, 3))]
    num_commands = 0
    try:
        problem: str | None = None
        while problem is None and num_commands < _MAX_COMMANDS:
            problem = _run_command(training, undisturbed.data, events, seconds)
            num_commands += 1
        if problem is None:
            problem = f"not complete after {_MAX_COMMANDS} commands"
        problem = problem or _difference(expected, training.run)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    return {
        "seed": seed,
        "mode": mode,
        "events": training.events,
        "story": training.story,
        "num_commands": num_commands,
        "seconds": round(time.monotonic() - began, 1),
        "problem": problem,
    }


def _run_command(training: _Disturbed, data: Path, events: list[str], seconds: float) -> str | None:
    """Runs the command, with events while it works; returns None where it is to be run again.

    Else what is wrong, or an empty text where the network is trained.
    """
    rng, run = training.rng, training.run
    log = run.parent.with_name(f"{run.parent.name}.log")
    work = command(training.mode, data, run, rng.choice([0, 1]))
    began = time.time()
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            work, env=_ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        happened: list[str] = []
        # Mostly while it takes steps, at times while it starts.
        step = rng.uniform(_last_step(run), _NUM_STEPS - 1)
        at = time.monotonic() + (rng.uniform(0.0, 0.3) * seconds if rng.random() < 0.2 else 1e9)
        try:
            while process.poll() is None:
                if time.time() - began > _COMMAND_SECONDS:
                    return f"hangs: {training.story}"
                if events and (time.monotonic() >= at or _last_step(run) > step):
                    happened.append(events.pop(0))
                    training.happen(happened[-1], process.pid)
                    step += rng.uniform(1, _NUM_STEPS / 4)
                    at = 1e9 + time.monotonic()
                time.sleep(0.02)
        finally:
            if process.poll() is None:
                kill([process.pid, *descendants(process.pid)])
    text = log.read_text(encoding="utf-8", errors="replace")
    training.free_disk()
    if process.returncode == 0:
        return "" if f"trained: {_NUM_STEPS} steps" in text else f"says: {text[-300:]}"
    if "another training is writing" in text:
        # Processes whose head was killed are still ending.
        time.sleep(1)
    training.story.append(f"exit code {process.returncode}: {_last_line(text)}")
    if happened == ["SIGTERM"]:
        return _lost_steps(run, began)
    if happened == ["full disk"] and training.mode == "alone" and "Traceback" in text:
        return f"a traceback: {text[-300:]}"
    return None


def _lost_steps(run: Path, began: float) -> str | None:
    """Says which steps SIGTERM lost: a step that was logged since `began` is in the checkpoint."""
    metrics = run / "metrics.csv"
    if not metrics.exists() or metrics.stat().st_mtime < began or not _last_step(run):
        return None
    saved = load_checkpoint(run / "last.pt").step if (run / "last.pt").exists() else 0
    done = _last_step(run)
    return f"SIGTERM lost the steps from {saved} to {done}" if saved < done else None


def _last_step(run: Path) -> int:
    try:
        line = (run / "metrics.csv").read_text(encoding="utf-8").rpartition("\n")[0]
    except OSError:
        return 0
    first = line.rpartition("\n")[2].partition(",")[0]
    return int(first) if first.isdigit() else 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:120] if lines else "nothing said"


def _difference(expected: Path, run: Path) -> str:
    """Says in which way a training differs from another; empty where they are equal."""
    for name in ("last.pt", "best.pt"):
        one, other = (load_checkpoint(folder / name) for folder in (expected, run))
        if one.step != other.step:
            return f"{name} is of step {other.step}, not {one.step}"
        if one.model.keys() != other.model.keys():
            return f"{name} has other weights"
        for key, tensor in one.model.items():
            if not torch.equal(tensor, other.model[key]):
                return f"{name} differs in {key}"
        if one.training is not None and other.training is not None:
            states = [_tensors(of.optimizer) for of in (one.training, other.training)]
            if not all(torch.equal(*pair) for pair in zip(*states, strict=True)):
                return f"{name} differs in its optimizer"
    rows = [_untimed((folder / "metrics.csv").read_text()) for folder in (expected, run)]
    return "" if rows[0] == rows[1] else "metrics.csv differs"


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for part in parts for t in _tensors(part)] if isinstance(value, (dict, list)) else []


def _untimed(text: str) -> list[list[str]]:
    lines = [line.split(",") for line in text.splitlines()]
    kept = [place for place, name in enumerate(lines[0]) if name not in _IS_TIMED]
    return [[line[place] for place in kept] for line in lines]
