"""The CUDA kernels on a CPU: `cuda_on_cpu.h` compiled with them, in the place of a GPU's driver.

That needs a C++ compiler. Without one the tests that ask for it skip, or fail if
FLOWPREP_REQUIRE_COMPILER=1.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from ctypes import c_int, c_uint
from pathlib import Path

import pytest
import torch

from flowprep.flow.nvrtc import Driver, find_nvrtc
from flowprep.flow.trial import try_kernel
from flowprep.flow.tvl1_cuda import Kernels, link_kernels

REQUIRE_COMPILER = os.environ.get("FLOWPREP_REQUIRE_COMPILER") == "1"
HEADER = Path(__file__).with_name("cuda_on_cpu.h")


def find_compiler() -> str:
    """Returns the C++ compiler; skips the test without one."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if compiler is None:
        message = "no C++ compiler; install g++, or set CXX"
        if REQUIRE_COMPILER:
            pytest.fail(message)
        pytest.skip(message)
    return compiler


def build(source: Path, folder: Path) -> ctypes.CDLL:
    """Compiles kernels for the CPU."""
    compiler = find_compiler()
    library = folder / f"{source.stem}.so"
    launchers = folder / "launchers.cpp"
    launchers.write_text(
        f'#include "{HEADER}"\n#include "{source}"\n'
        "CUDA_ON_CPU_KERNEL(solve, SolveArguments)\n"
        "CUDA_ON_CPU_KERNEL(linearize, LinearizeArguments)\n"
        "CUDA_ON_CPU_KERNEL(enlarge, EnlargeArguments)\n"
    )
    command = [compiler, "-x", "c++", "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
    if subprocess.run([compiler, "-dumpmachine"], capture_output=True).stdout[:6] == b"x86_64":
        command += ["-mfma"]
    flags = ["-Wall", "-Wno-unknown-pragmas", "-Werror", str(launchers), "-o", str(library)]
    subprocess.run([*command, *flags], check=True)
    return ctypes.CDLL(str(library))


def simulated(library: ctypes.CDLL, num_blocks: int = 12, seed: int = 0) -> Kernels:
    """Returns the kernels on a GPU that runs so many blocks at a time.

    `seed` is the order of the threads: 0 is that of their numbers. Both hold for all that is on
    this library until the next call.
    """
    library.simulate(c_uint(seed), c_int(num_blocks))
    return link_kernels(Driver(library, 0), b"")


def installed_nvrtc() -> ctypes.CDLL:
    """Returns NVIDIA's compiler, which needs no GPU; skips the test without one."""
    for major in (13, 12):
        try:
            return find_nvrtc(major)
        except OSError:
            pass
    pytest.skip("no NVRTC; pip install nvidia-cuda-nvrtc-cu12")


def run_trial(library_path: str) -> None:
    """Tries kernels as `flowprep.flow.trial.main` does, in a process that is started for it."""
    torch.set_num_threads(1)
    kernels = simulated(ctypes.CDLL(library_path))
    print(json.dumps(try_kernel("cpu", kernels)), flush=True)
