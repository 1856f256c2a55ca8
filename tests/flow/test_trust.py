"""The trial of TV-L1's CUDA kernel: what decides, what is kept, and what computes instead.

The kernel of each trial runs in a real child process, on the CPU by cuda_on_cpu.h.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from flowprep.config import RunOptions
from flowprep.errors import ConfigError
from flowprep.flow import devices, estimators, trial, trust, tvl1_cuda
from flowprep.flow.devices import CudaState, Device, DriverState, Gpu
from flowprep.flow.nvrtc import CudaError
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.trust import Verdict, kept_verdict, trial_verdict
from flowprep.flow.tvl1_cuda import SOURCE, TVL1Cuda
from flowprep.flow.tvl1_torch import TVL1Torch
from flowprep.run.workers import Machine, plan_workers
from tests.flow.simulator import build, simulated
from tests.flow.test_tvl1_cuda import MUTANTS
from tests.torch_devices import one_thread  # noqa: F401

LONG_SECONDS = 300.0


def child(code: str, *arguments: str) -> list[str]:
    """Returns the command of a child that runs `code` with its arguments in `sys.argv`."""
    start = "import sys; number = int(sys.argv[1]); sys.path[:0] = sys.argv[2 + number:]; "
    return [sys.executable, "-c", start + code, str(len(arguments)), *arguments, *sys.path]


def trial_of(library: ctypes.CDLL) -> list[str]:
    """Returns the command that tries simulated kernels, as `flowprep.flow.trial.main` does."""
    code = "from tests.flow.simulator import run_trial; run_trial(sys.argv[2])"
    return child(code, library._name)


def says(text: str, how: str = "") -> list[str]:
    return child(f"import os, signal; print(sys.argv[2], flush=True); {how}", text)


def mutant(folder: Path, before: str, after: str) -> ctypes.CDLL:
    text = SOURCE.read_text()
    assert text.count(before) == 1
    (folder / "mutant.cu").write_text(text.replace(before, after))
    return build(folder / "mutant.cu", folder)


# ---- what a trial finds


def test_a_kernel_that_is_right_is_trusted_and_tried_once(
    library: ctypes.CDLL, tmp_path: Path
) -> None:
    file = tmp_path / "card.json"
    verdict = kept_verdict(file, trial_of(library), LONG_SECONDS)
    assert verdict.is_trusted
    assert verdict.file == file
    assert verdict.reason.startswith("it agrees with PyTorch to ")
    # What differs is a hundredth of what may.
    assert float(verdict.reason.split()[5]) < trust.LIMIT_PX / 100
    assert kept_verdict(file, ["/not/there"], LONG_SECONDS) == verdict
    # A file that says nothing is no verdict.
    file.write_text("{")
    assert "could not be started" in kept_verdict(file, ["/not/there"], 1).reason


def test_a_kernel_that_is_wrong_is_not_trusted(tmp_path: Path) -> None:
    library = mutant(tmp_path, *MUTANTS["a halo that is not renewed"])
    file = tmp_path / "card.json"
    verdict = kept_verdict(file, trial_of(library), LONG_SECONDS)
    assert not verdict.is_trusted
    assert verdict.is_final
    assert verdict.reason.startswith("it differs from PyTorch by ")
    # One tile has no halo, so only the larger frames tell.
    assert "90x67" in verdict.reason
    assert verdict.text.endswith(f"; remove {file} to try it again")
    assert kept_verdict(file, ["/not/there"], 1) == verdict


def test_a_kernel_that_hangs_is_ended_and_not_trusted(tmp_path: Path) -> None:
    # A loop that no simulated scheduler sees, as a GPU's driver would not either.
    library = mutant(tmp_path, "(arrivals) < expected) {", "(arrivals) < expected || true) {} {")
    file, written = tmp_path / "card.json", tmp_path / "pid"
    code = (
        "import os, pathlib; pathlib.Path(sys.argv[3]).write_text(str(os.getpid())); "
        "from tests.flow.simulator import run_trial; run_trial(sys.argv[2])"
    )
    verdict = kept_verdict(file, child(code, library._name, str(written)), 10)
    assert not verdict.is_trusted
    assert verdict.reason == "its trial gave no answer within 10 s"
    assert json.loads(file.read_text())["reason"] == verdict.reason
    with pytest.raises(ProcessLookupError):
        os.kill(int(written.read_text()), 0)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (says("", "os.abort()"), "its trial crashed (SIGABRT: "),
        (says('{"failed": "CudaError: (719)"}'), "its trial failed (CudaError: (719))"),
        (says('{"differences_px": {"all": NaN, "one": 0}}'), "it differs from PyTorch by nan px"),
        (says('{"differences_px": {"all": 0.021}}'), "it differs from PyTorch by 0.021 px"),
    ],
)
def test_what_the_kernel_is_to_blame_for_is_kept(
    command: list[str], reason: str, tmp_path: Path
) -> None:
    verdict = kept_verdict(tmp_path / "card.json", command, LONG_SECONDS)
    assert verdict.reason.startswith(reason)
    assert not verdict.is_trusted
    assert kept_verdict(tmp_path / "card.json", ["/not/there"], 1) == verdict


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (says('{"unusable": "CUDA out of memory"}'), "CUDA out of memory"),
        # Linux does this if memory runs out, and a person may.
        (says("", "os.kill(os.getpid(), signal.SIGKILL)"), "its trial could not be made ("),
        (says("no JSON"), "its trial could not be made (without a word)"),
        (says("", "raise ImportError('no torch')"), "its trial could not be made (ImportError: no"),
    ],
)
def test_what_says_nothing_of_the_kernel_is_not_kept(
    command: list[str], reason: str, tmp_path: Path
) -> None:
    verdict = kept_verdict(tmp_path / "card.json", command, LONG_SECONDS)
    assert verdict.reason.startswith(reason)
    assert not verdict.is_trusted
    assert verdict.file is None
    assert not (tmp_path / "card.json").exists()


def test_a_launch_that_fails_is_the_kernel_s_fault_but_full_memory_is_not(
    library: ctypes.CDLL,
) -> None:
    kernels = simulated(library)
    errors = {
        "failed": CudaError("CUDA: cuLaunchKernel failed: CUDA_ERROR_LAUNCH_FAILED (719)", 719),
        "unusable": CudaError("CUDA: cuLaunchKernel failed: (2): out of memory", 2),
    }
    for name, error in errors.items():
        kernels._linearize.launch = Mock(side_effect=error)  # type: ignore[method-assign]
        assert list(trial.try_kernel("cpu", kernels)) == [name]
    assert list(trial.try_kernel("no device")) == ["unusable"]


def test_processes_that_begin_at_once_wait_for_one_trial(tmp_path: Path) -> None:
    """As the workers that share a GPU."""
    count = tmp_path / "count"
    code = (
        "from flowprep.flow.trust import kept_verdict; from pathlib import Path; "
        "print(kept_verdict(Path(sys.argv[2]), sys.argv[3:7], 60).is_trusted)"
    )
    slow = "import sys, time; time.sleep(1); open(sys.argv[1], 'a').write('x'); "
    slow += 'print(\'{"differences_px": {"all": 0.001}}\')'
    command = child(
        code,
        *(str(tmp_path / "card.json"), sys.executable, "-c", slow, str(count)),
    )
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [one.communicate(timeout=60)[0].strip() for one in several] == ["True"] * 3
    assert count.read_text() == "x"


def test_a_trial_s_child_ends_by_itself_if_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import time; from flowprep.flow import trial; trial.LIMIT_SECONDS = 0.2; "
        "trial.try_kernel = lambda device: time.sleep(600); trial.main('cuda:0')"
    )
    began = time.monotonic()
    done = subprocess.run(child(script), capture_output=True, timeout=300)
    assert done.returncode == 1
    assert b"Timeout" in done.stderr
    assert time.monotonic() - began < 300


# ---- for which card, driver, PyTorch and source it holds

H100 = Gpu("NVIDIA H100 80GB HBM3", 80 << 30, (9, 0))
STATE = CudaState(DriverState(0, (12, 8), (H100,)), "2.9.0", "12.8", torch_sees=1, gpus=(H100,))


def test_a_verdict_is_of_one_model_driver_pytorch_and_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trust, "cuda_state", lambda: STATE)
    monkeypatch.setattr(trust, "driver_release", lambda: "570.86.15")
    name = trust._name(0)
    assert name.startswith("NVIDIA-H100-80GB-HBM3-")
    assert trust._name(0) == name
    l4 = Gpu("NVIDIA L4", 24 << 30, (8, 9))
    driver = DriverState(0, (12, 9), (H100,))
    names = {name}
    for values in ({"gpus": (l4,)}, {"driver": driver}, {"torch_version": "2.10.0"}):
        changed = CudaState(**{**vars(STATE), **values})  # type: ignore[arg-type]
        monkeypatch.setattr(trust, "cuda_state", lambda changed=changed: changed)
        names.add(trust._name(0))
    monkeypatch.setattr(trust, "cuda_state", lambda: STATE)
    monkeypatch.setattr(trust, "driver_release", lambda: "570.90")
    names.add(trust._name(0))
    for source in Path(trust.__file__).parent.glob("*.*"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(trust, "__file__", str(tmp_path / "trust.py"))
    assert trust._name(0) in names
    (tmp_path / "tvl1.cu").write_text("// another kernel")
    names.add(trust._name(0))
    assert len(names) == 6


def test_the_verdict_is_kept_in_the_user_s_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOWPREP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(trust, "cuda_state", lambda: STATE)
    monkeypatch.setattr(trust, "_CODE", 'print(\'{"differences_px": {"all": 0.001}}\')')
    verdict = trust.kernel_verdict.__wrapped__(0)
    assert verdict.is_trusted
    assert verdict.file is not None
    assert verdict.file.parent == tmp_path / "trials"
    # Where nothing can be kept, each process tries.
    monkeypatch.setattr(trust, "private_folder", lambda name: None)
    assert trust.kernel_verdict.__wrapped__(0) == Verdict(True, verdict.reason)


# ---- who computes


@pytest.fixture
def on_cpu(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated GPU as the first GPU of this machine."""
    monkeypatch.setattr(tvl1_cuda, "load_kernels", lambda index: simulated(library))
    monkeypatch.setattr(tvl1_cuda, "_device_index", lambda device: 0)
    monkeypatch.setattr(Device, "torch_name", "cpu")
    monkeypatch.setattr(estimators, "cuda_state", lambda: STATE)
    monkeypatch.setattr(estimators, "why_no_cuda", lambda state, index=None: None)
    monkeypatch.setattr(estimators, "device_name", lambda device: f"cuda:{H100.name}")


@pytest.mark.usefixtures("on_cpu")
def test_pytorch_computes_where_the_kernel_is_not_trusted_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    verdicts = {True: Verdict(True, "it agrees"), False: Verdict(False, "it differs by 1 px")}
    monkeypatch.setattr(tvl1_cuda, "kernel_verdict", lambda index: verdicts[False])
    p = TVL1Parameters()
    with caplog.at_level(logging.WARNING, "flowprep.flow"):
        made = estimators.build_estimator("tvl1", p, "cuda")
    assert type(made) is TVL1Torch
    assert [one.getMessage() for one in caplog.records] == [
        "TV-L1's CUDA kernel is not used on cpu: it differs by 1 px. PyTorch computes there, slower"
    ]
    # Who insists gets it.
    for name in ("cuda!", "cuda:0!"):
        assert type(estimators.build_estimator("tvl1", p, name)) is TVL1Cuda
    monkeypatch.setattr(tvl1_cuda, "kernel_verdict", lambda index: verdicts[True])
    caplog.clear()
    assert type(estimators.build_estimator("tvl1", p, "cuda")) is TVL1Cuda
    assert not caplog.records


@pytest.mark.usefixtures("on_cpu")
def test_every_line_of_a_compiler_s_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(index: int) -> None:
        raise RuntimeError("CUDA: nvrtcCompileProgram failed\nno libnvrtc-builtins.so.13.0")

    monkeypatch.setattr(tvl1_cuda, "load_kernels", fail)
    monkeypatch.setattr(tvl1_cuda, "kernel_verdict", lambda index: Verdict(True, "it agrees"))
    with caplog.at_level(logging.WARNING, "flowprep.flow"):
        assert type(TVL1Cuda.create(TVL1Parameters(), "cpu")) is TVL1Torch
    assert "no libnvrtc-builtins.so.13.0" in caplog.text
    with pytest.raises(ConfigError, match=r"'cuda!' insists .*builtins.*; take --device cpu"):
        estimators.build_estimator("tvl1", TVL1Parameters(), "cuda!")


def test_only_tvl1_has_a_kernel_to_insist_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"only tvl1 has one, not farneback; take cuda:1$"):
        estimators.check_device("cuda:1!", "farneback")
    rocm = CudaState(None, "2.9.0", None, "7.0", torch_sees=1, gpus=(H100,))
    monkeypatch.setattr(estimators, "cuda_state", lambda: rocm)
    with pytest.raises(ConfigError, match=r"built for AMD's; take --device cuda$"):
        estimators.build_estimator("tvl1", TVL1Parameters(), "cuda!")


def test_workers_insist_as_their_run_does() -> None:
    options = RunOptions(device="cuda:1!")
    plan = plan_workers(options, [Machine(8, 1)], devices.parse_device(options.device))
    assert plan.device == "cuda!"
    mixed = RunOptions(device="cuda!+cpu")
    plan = plan_workers(mixed, [Machine(8, 1)], devices.parse_device("cuda!"))
    assert plan.device == "cuda!"
    assert plan.num_cpu_workers > 0


needs_gpu = pytest.mark.skipif(
    (not torch.cuda.is_available() or torch.version.cuda is None)
    and os.environ.get("FLOWPREP_REQUIRE_GPU") != "1",
    reason="no NVIDIA GPU",
)


@needs_gpu
def test_the_kernel_is_trusted_on_this_gpu() -> None:
    command = [sys.executable, "-c", trust._CODE, "cuda:0", *sys.path]
    verdict = trial_verdict(command, trust.LIMIT_SECONDS)
    assert verdict.is_trusted, verdict.reason


def test_the_crashes_that_count_are_not_those_that_others_cause() -> None:
    assert -signal.SIGSEGV in trust._CRASHES
    assert not {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 1} & set(trust._CRASHES)
