"""Looks at a GPU in under eight minutes: is TV-L1's CUDA kernel right there, and how fast is it?

Each check is a process of its own with a time limit, so one that hangs does not stop the others.
The results are in one JSON file, written anew after each check. Checks that what is left of the
time does not allow are skipped, and say so. The exit code is 1 if a check failed, 2 without a GPU.

With --device torch-cpu the portable version computes on the CPU in the place of the GPU, to try
this script. Checks that need a card are skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import flowprep
from flowprep.config import FlowSpec
from flowprep.flow.devices import cuda_state, driver_release, why_no_cuda
from flowprep.flow.estimators import build_estimator
from flowprep.flow.parameters import TVL1Parameters
from flowprep.local_files import partial_file
from flowprep.machine import cpu_model, usable_cores

ROOT = Path(__file__).resolve().parents[2]
Numbers = dict[str, Any]

ATTRIBUTES = {
    "cooperative launch": 95,
    "shared bytes of a multiprocessor": 81,
    "shared bytes of a block": 97,
    "shared bytes reserved per block": 111,
}
"""Device attributes of cuda.h."""
NUM_PROCESSES = 8
NUM_REPEATS = 200
LIMIT_PX = 0.02
MIN_SECONDS = 5.0
"""No check begins with less time than this."""
DEVICE, OUT = "DEVICE", "OUT"
"""In a command, placeholders for the device and for a JSON file that the command writes."""


class CheckFailedError(Exception):
    """What the check looked for is not so."""


# ---- the checks that this script makes itself, each in a process of its own


def look_at_machine(device: str) -> Numbers:
    """Returns what computes here, and the architectures that PyTorch and NVRTC know."""
    import torch

    state = cuda_state()
    numbers: Numbers = {
        "gpus": [vars(gpu) for gpu in state.gpus],
        "driver": driver_release(),
        "driver_cuda": None if state.driver is None else state.driver.cuda_version,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "torch_architectures": state.torch_architectures,
        "processor": cpu_model(),
        "cores": usable_cores(),
    }
    if torch.version.cuda is not None:
        from flowprep.flow.nvrtc import find_nvrtc, known_architectures

        library = find_nvrtc(int(torch.version.cuda.split(".")[0]))
        numbers["nvrtc_architectures"] = known_architectures(library)
    return numbers


def try_kernel(device: str) -> Numbers:
    """Tries the kernel, or the portable version in its place, against PyTorch on the device."""
    from flowprep.flow import trial
    from flowprep.flow.tvl1_torch import TVL1Torch

    if _is_gpu(device):
        result = trial.try_kernel(_torch_name(device))
        if "differences_px" not in result:
            raise CheckFailedError(str(result))
    else:
        result = {"differences_px": {}}
        for (height, width), case in ((size, case) for size in trial.SIZES for case in trial.CASES):
            frames, p = trial.drawn_frames(height, width), trial.CASES[case]
            found = trial.fields(TVL1Torch(p, device="cpu"), frames)
            expected = trial.fields(build_estimator("tvl1", p), frames)
            result["differences_px"][f"{case}, {width}x{height}"] = _apart_px(found, expected)
    worst = max(result["differences_px"].values())
    if not worst <= LIMIT_PX:
        raise CheckFailedError(f"{worst:.3g} px apart: {result}")
    return result


def name_estimator(device: str) -> Numbers:
    """Returns the class that users get; on an NVIDIA GPU it must be the kernel's."""
    numbers: Numbers = {}
    if _is_gpu(device):
        from flowprep.flow.trust import kernel_verdict

        numbers["verdict"] = kernel_verdict(0).text
    name = type(flowprep.create_estimator("tvl1", device=device)).__name__
    numbers["class"] = name
    if name != ("TVL1Cuda" if _is_gpu(device) else "TVL1Torch"):
        raise CheckFailedError(str(numbers))
    return numbers


def count_blocks(device: str) -> Numbers:
    """Returns the GPU's limits, and how many blocks run at the same time (an H100: 264)."""
    from flowprep.flow.nvrtc import load_driver
    from flowprep.flow.tvl1_cuda import MAX_SLOTS, MAX_THREADS, load_kernels, shared_bytes

    driver, kernels = load_driver(0), load_kernels(0)
    numbers: Numbers = {name: driver.attribute(number) for name, number in ATTRIBUTES.items()}
    numbers["multiprocessors"] = driver.num_multiprocessors
    resident = kernels._solve.num_resident_blocks(MAX_THREADS, shared_bytes(MAX_SLOTS))
    numbers["resident blocks"] = resident
    if not resident:
        raise CheckFailedError(str(numbers))
    return numbers


def compute_pair(device: str) -> Numbers:
    """Computes one pair of 64x64 px, and compares it with the CPU's own kernel."""
    p = TVL1Parameters(nscales=2, warps=2, stop="exact")
    frames = _frames(64, 64)[:2]
    found = _insisted(p, device)(*frames)
    apart_px = _apart_px(found[None], build_estimator("tvl1", p)(*frames)[None])
    if not apart_px <= LIMIT_PX:
        raise CheckFailedError(f"{apart_px:.3g} px from the CPU's")
    return {"apart_px": apart_px, "sha256": hashlib.sha256(found.tobytes()).hexdigest()}


def repeat_pair(device: str) -> Numbers:
    """Computes one pair many times; every time the same bits must come out."""
    count = NUM_REPEATS if _is_gpu(device) else 3
    estimator, frames = _insisted(_parameters(device), device), _frames(*_size(device))[:2]
    found = {hashlib.sha256(estimator(*frames).tobytes()).hexdigest() for _ in range(count)}
    if len(found) != 1:
        raise CheckFailedError(f"{len(found)} results in {count} runs")
    return {"runs": count, "sha256": found.pop()}


def share_device(device: str) -> Numbers:
    """Computes the same in several processes that share the device."""
    count = NUM_PROCESSES if _is_gpu(device) else 2
    children = [
        subprocess.Popen(_own("repeat", device), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(count)
    ]
    try:
        said = [child.communicate()[0] for child in children]
    finally:
        for child in children:
            child.kill()
    found = {json.loads(one.splitlines()[-1]).get("sha256") for one in said}
    if len(found) != 1 or None in found:
        raise CheckFailedError(f"{len(found)} results in {count} processes: {said}")
    return {"processes": count}


def measure_speed(device: str) -> Numbers:
    """Measures pairs/s in both directions, the kernel in turn with PyTorch on the same device.

    Fields are copied whole, and once more as levels, quantized on the device, as `extract` has it.
    """
    from flowprep.dataset.quantize_torch import DeviceQuantizer
    from flowprep.flow.tvl1_torch import TVL1Torch

    p, numbers = _parameters(device), {}
    quantizer = DeviceQuantizer(FlowSpec("tvl1", p))
    sizes = {"340x256": (49, 4.0), "1920x1080": (7, 6.0)} if _is_gpu(device) else {"48x48": (3, 0)}
    for size, (num_frames, seconds) in sizes.items():
        width, height = map(int, size.split("x"))
        frames = (_frames(height, width) * num_frames)[:num_frames]
        portable = TVL1Torch(p, device=_torch_name(device))
        on_device = _insisted(p, device) if _is_gpu(device) else portable
        ways: Mapping[str, Callable[[], Iterable[object]]] = {
            "kernel" if _is_gpu(device) else "native": partial(
                (on_device if _is_gpu(device) else build_estimator("tvl1", p)).pairs, frames
            ),
            "pytorch": partial(portable.pairs, frames),
            "levels": partial(on_device.reduced_pairs, frames, quantizer),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for pairs in ways.values():  # allocates memory and loads code
            list(pairs())
        began = time.monotonic()
        while not min(map(len, times.values())) or time.monotonic() - began < seconds:
            for name, pairs in ways.items():
                started = time.perf_counter()
                list(pairs())
                times[name].append(time.perf_counter() - started)
        rates = {name: (num_frames - 1) / statistics.median(took) for name, took in times.items()}
        numbers[size] = {f"{name}_pairs_per_second": rate for name, rate in rates.items()}
    return numbers


def _is_gpu(device: str) -> bool:
    return device != "torch-cpu"


def _torch_name(device: str) -> str:
    return device if _is_gpu(device) else "cpu"


def _insisted(p: TVL1Parameters, device: str) -> Any:
    """Returns the kernel's estimator, whatever its trial said."""
    return build_estimator("tvl1", p, f"{device}!" if _is_gpu(device) else device)


def _parameters(device: str) -> TVL1Parameters:
    """Returns OpenCV's defaults, or what the portable version computes fast."""
    return TVL1Parameters() if _is_gpu(device) else TVL1Parameters(nscales=2, warps=2)


def _size(device: str) -> tuple[int, int]:
    return (256, 340) if _is_gpu(device) else (48, 60)


def _frames(height: int, width: int) -> list[Any]:
    from flowprep.flow.trial import drawn_frames

    return drawn_frames(height, width)


def _apart_px(found: Any, expected: Any) -> float:
    """Returns the mean difference of the worst field."""
    return float(np.linalg.norm(found - expected, axis=-1).mean(axis=(1, 2)).max())


OWN: dict[str, Callable[[str], Numbers]] = {
    "machine": look_at_machine,
    "trial": try_kernel,
    "estimator": name_estimator,
    "blocks": count_blocks,
    "pair": compute_pair,
    "repeat": repeat_pair,
    "share": share_device,
    "speed": measure_speed,
}


def _own(name: str, device: str) -> list[str]:
    return [sys.executable, __file__, "--run", name, "--device", device]


# ---- all checks, in the order of what one wants to know first


@dataclass(frozen=True)
class Check:
    """One command. It fails if its exit code is not 0 or if it takes too long."""

    what: str
    command: tuple[str, ...]
    limit_seconds: float
    needs_gpu: bool = False
    program: str | None = None
    """A program that must be installed."""


def _made_here(name: str, what: str, limit_seconds: float, **values: Any) -> Check:
    return Check(what, tuple(_own(name, DEVICE)), limit_seconds, **values)


def _sanitizer(tool: str) -> Check:
    program = "compute-sanitizer"
    command = (program, "--tool", tool, "--error-exitcode", "9", *_own("pair", DEVICE))
    return Check(f"{tool} finds nothing in one pair", command, 60, True, program)


CHECKS: dict[str, Check] = {
    "machine": _made_here("machine", "what is here", 60),
    "pair": _made_here("pair", "one pair of 64x64 px, as on the CPU", 90),
    "trial": _made_here("trial", "the trial: the kernel as PyTorch", 90),
    "estimator": _made_here("estimator", "the class that --device cuda gives", 200),
    "blocks": _made_here("blocks", "limits, blocks at the same time", 60, needs_gpu=True),
    "repeat": _made_here("repeat", "one pair many times, one result", 60),
    "share": _made_here("share", "several processes on one card", 90),
    "speed": _made_here("speed", "pairs/s, the kernel and PyTorch", 90),
    "videos": Check(
        "pairs/s with one video at a time, and with several",
        (sys.executable, "scripts/checks/gpu_videos.py", "--device", DEVICE),
        90,
    ),
    "tests": Check(
        "the tests that need a GPU",
        (
            *(sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--timeout", "100"),
            *("tests/flow", "tests/dataset/test_quantize_torch.py"),
        ),
        120,
        needs_gpu=True,
    ),
    "bench": Check(
        "bench_gpu: speed and agreement",
        (
            *(sys.executable, "scripts/bench/gpu.py", "--quick", "--json", OUT),
            *("ceilings", "agreement", "speed"),
        ),
        120,
        needs_gpu=True,
    ),
    "memcheck": _sanitizer("memcheck"),
    "synccheck": _sanitizer("synccheck"),
    "racecheck": _sanitizer("racecheck"),
}


def main(arguments: Sequence[str] | None = None, checks: Mapping[str, Check] = CHECKS) -> int:
    """Runs the checks, and returns the exit code."""
    options = _read_options(arguments, checks)
    if options.run:
        return _run_own(options.run, options.device)
    reason = why_no_cuda(cuda_state()) if _is_gpu(options.device) else None
    if reason is not None:
        print(f"no GPU can be used: {reason}", file=sys.stderr)
        return 2
    began = time.monotonic()
    report: Numbers = {
        "flowprep": flowprep.__version__,
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": options.device,
        "checks": {},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name, check in checks.items():
        if options.checks and name not in options.checks:
            continue
        left = 60 * options.minutes - (time.monotonic() - began)
        result = _carry_out(check, options.device, left)
        report["checks"][name] = {"what": check.what, **result}
        report["seconds"] = round(time.monotonic() - began, 1)
        report["failed"] = [k for k, v in report["checks"].items() if v["result"] == "FAILED"]
        with partial_file(options.json) as partial:
            partial.write_text(json.dumps(report, indent=2, default=str) + "\n")
        said = str(result.get("reason", "")).strip().splitlines() or [""]
        print(f"{name:10} {result['result']:8} {result['seconds']:6.1f} s  {said[-1]}", flush=True)
    print(f"\n{report['seconds']:.0f} s; the numbers are in {options.json}")
    return 1 if report["failed"] else 0


def _read_options(
    arguments: Sequence[str] | None, checks: Mapping[str, Check]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(checks)}")
    parser.add_argument("--device", choices=("cuda", "torch-cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=7.5, help="most time (default: 7.5)")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "gpu-check.json")
    # One of this script's own checks, in the process that it started for it.
    parser.add_argument("--run", choices=tuple(OWN), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.checks if name not in checks]:
        parser.error(f"no check is called {', '.join(unknown)}; there are {', '.join(checks)}")
    return options


def _run_own(name: str, device: str) -> int:
    try:
        print(json.dumps(OWN[name](device), default=str), flush=True)
    except CheckFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _carry_out(check: Check, device: str, left_seconds: float) -> Numbers:
    """Runs a check within its limit and what is left of the time, and returns its result."""
    reason = None
    if check.needs_gpu and not _is_gpu(device):
        reason = "it needs a GPU"
    elif check.program is not None and shutil.which(check.program) is None:
        reason = f"{check.program} is not installed"
    elif left_seconds < MIN_SECONDS:
        reason = "no time is left"
    if reason is not None:
        return {"result": "skipped", "reason": reason, "seconds": 0.0}
    limit = min(check.limit_seconds, left_seconds)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "numbers.json")
        words = {DEVICE: device, OUT: str(out)}
        command = [words.get(word, word) for word in check.command]
        code, said, complaint = _run(command, limit)
        result: Numbers = {"seconds": round(time.monotonic() - began, 1)}
        with contextlib.suppress(OSError, ValueError, IndexError):
            result["numbers"] = json.loads(
                out.read_text() if OUT in check.command else said.splitlines()[-1]
            )
    result["result"] = "passed" if code == 0 else "FAILED"
    if "numbers" not in result or code:
        result["output"] = said[-4000:]
    if code is None:
        result["reason"] = f"no end within {limit:.0f} s"
    elif code:
        result["reason"] = complaint[-2000:].strip() or f"exit code {code}"
    elif tests := re.search(r"\d+ passed.*", said):
        result["reason"] = tests[0]
    return result


def _run(command: Sequence[str], limit_seconds: float) -> tuple[int | None, str, str]:
    """Runs a command with all that it starts; the exit code is None if it took too long."""
    environment = {**os.environ, "FLOWPREP_REQUIRE_GPU": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # Files, because a pipe stays open as long as a grandchild lives.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=err, start_new_session=True
        )
        code: int | None = None
        try:
            code = child.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            # One that waits inside the driver may never end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
        for file in (out, err):
            file.seek(0)
        return code, out.read(), err.read()


def _commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() or None
    return None


if __name__ == "__main__":
    sys.exit(main())
