"""Whether TV-L1's CUDA kernel may compute on a card: a trial at its first use there says so.

A child process computes a few small pairs by the kernel and by PyTorch on the card
(flowprep/flow/trial.py). If the kernel hangs or crashes, only the child ends. The verdict is kept
for this model of card, driver, PyTorch, compiler and source of flowprep.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowprep.flow.cache import digest_of_sources, private_folder
from flowprep.flow.devices import cuda_state, driver_release
from flowprep.local_files import partial_file
from flowprep.locks import open_lock_file

__all__ = ["LIMIT_PX", "Verdict", "kept_verdict", "kernel_verdict", "trial_verdict"]

LIMIT_PX = 0.02
"""Largest difference between the kernel and PyTorch in the trial, in which right computations
differ by a tenth of it or less."""
LIMIT_SECONDS = 180.0
"""Longest time of a trial. It takes some ten seconds, most of it the start of PyTorch."""
_END_SECONDS = 10.0
"""Longest time for a child to end that was killed. One that waits inside the driver may never."""

_CODE = (
    "import sys; device, *sys.path = sys.argv[1:]; "
    "from flowprep.flow.trial import main; main(device)"
)
_CRASHES = tuple(
    -number
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
)


@dataclass(frozen=True)
class Verdict:
    """What a trial found."""

    is_trusted: bool
    reason: str
    """What was measured, or what is wrong."""
    is_final: bool = True
    """Whether another trial would find the same. Otherwise the trial itself could not be made, for
    example because the card's memory was full."""
    file: Path | None = None
    """Where the verdict is kept."""

    @property
    def text(self) -> str:
        """The reason, and how to try again if the kernel is not trusted."""
        if self.is_trusted or self.file is None:
            return self.reason
        return f"{self.reason}; remove {self.file} to try it again"

    @property
    def use(self) -> str:
        """What computes, and why."""
        how = "used" if self.is_trusted else "not used, PyTorch computes there"
        return f"{how}: {self.text}"


@functools.cache
def kernel_verdict(device_index: int) -> Verdict:
    """Returns whether the kernel may compute on the card with this number, and tries it if needed.

    A first trial on a model of card takes some ten seconds, or `LIMIT_SECONDS` if the kernel hangs.
    Several processes that begin at once wait for one trial.
    """
    folder, name = private_folder("trials"), _name(device_index)
    command = [sys.executable, "-c", _CODE, f"cuda:{device_index}", *sys.path]
    if folder is None:
        return trial_verdict(command, LIMIT_SECONDS)
    return kept_verdict(folder / f"{name}.json", command, LIMIT_SECONDS)


def kept_verdict(file: Path, command: Sequence[str], limit_seconds: float) -> Verdict:
    """Returns the verdict in a file. Without one, runs `command`, and keeps a final verdict."""
    with _turn(file.with_suffix(".lock")):
        if (known := _read(file)) is not None:
            return known
        verdict = trial_verdict(command, limit_seconds)
        if not verdict.is_final:
            return verdict
        try:
            with partial_file(file) as partial:
                values = {"is_trusted": verdict.is_trusted, "reason": verdict.reason}
                partial.write_text(json.dumps(values) + "\n")
        except OSError:
            return verdict
    return Verdict(verdict.is_trusted, verdict.reason, file=file)


def trial_verdict(command: Sequence[str], limit_seconds: float) -> Verdict:
    """Runs a trial, which prints its result as the last line, and ends it after a time."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Verdict(False, f"its trial could not be started ({error})", is_final=False)
    try:
        said, complaint = child.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        return Verdict(False, f"its trial gave no answer within {limit_seconds:g} s")
    finally:
        _end(child)
    with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
        return _judge(json.loads(said.splitlines()[-1]))
    words = (complaint.strip().splitlines() or ["without a word"])[-1]
    if child.returncode in _CRASHES:
        how = signal.Signals(-child.returncode).name
        return Verdict(False, f"its trial crashed ({how}: {words})")
    return Verdict(False, f"its trial could not be made ({words})", is_final=False)


def _judge(result: dict[str, object]) -> Verdict:
    """Returns the verdict on what `flowprep.flow.trial` printed."""
    if "unusable" in result:
        return Verdict(False, str(result["unusable"]), is_final=False)
    if "failed" in result:
        return Verdict(False, f"its trial failed ({result['failed']})")
    differences = result["differences_px"]
    assert isinstance(differences, dict)
    case, most = max(differences.items(), key=lambda item: float(item[1]))
    # Written so that NaN is none.
    if not all(value <= LIMIT_PX for value in differences.values()):
        wrong = next(name for name, value in differences.items() if not value <= LIMIT_PX)
        return Verdict(
            False,
            f"it differs from PyTorch by {differences[wrong]:.3g} px in its trial ({wrong}), and "
            f"may by {LIMIT_PX:g}",
        )
    return Verdict(True, f"it agrees with PyTorch to {most:.2g} px in its trial ({case})")


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_SECONDS)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


@contextlib.contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """Waits for another process's trial. It goes on without a lock where there are none."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(open_lock_file(lock)), fcntl.LOCK_EX)
        yield


def _read(file: Path) -> Verdict | None:
    try:
        values = json.loads(file.read_text())
        return Verdict(bool(values["is_trusted"]), str(values["reason"]), file=file)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name(device_index: int) -> str:
    """Returns the file's name for a card, with all that could change the verdict."""
    state = cuda_state()
    gpu = state.gpus[device_index] if device_index < len(state.gpus) else None
    driver = None if state.driver is None else state.driver.cuda_version
    parts = (
        gpu and (gpu.name, gpu.compute_capability),
        (driver, driver_release()),
        (state.torch_version, state.torch_cuda),
        _compilers(),
        digest_of_sources(Path(__file__).parent, "*.py", "*.cu"),
    )
    model = "".join(c if c.isalnum() else "-" for c in gpu.name) if gpu else "unknown"
    return f"{model}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _compilers() -> list[str]:
    found = []
    for package in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc-cu11"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return found
