"""NVIDIA's compiler and driver: what they lack or refuse is met, or said in words that help.

The driver is the one of cuda_on_cpu.h, with the limits of one GPU or another.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowprep.flow import nvrtc
from flowprep.flow.base_torch import _is_out_of_memory
from flowprep.flow.devices import is_device_failure
from flowprep.flow.nvrtc import (
    CudaError,
    Driver,
    _choose_architecture,
    compile_source,
    find_nvrtc,
)
from flowprep.flow.tvl1_cuda import SOURCE, Kernels, link_kernels
from flowprep.run.run_job import _device_lost
from tests.flow.simulator import build, find_compiler, installed_nvrtc, simulated
from tests.flow.test_tvl1_cuda import FIXED, assert_same, random_warp, run

# ---- the compiler


def test_an_error_of_the_compiler_is_told_with_its_place() -> None:
    with pytest.raises(RuntimeError, match=r"wrong\.cu\(2\).*error.*undefined"):
        compile_source(installed_nvrtc(), "\nint a = b;", "wrong.cu", (9, 0))


def test_a_missing_compiler_names_its_package() -> None:
    with pytest.raises(OSError, match=r"pip install 'nvidia-cuda-nvrtc==99\.\*'"):
        find_nvrtc(99)


def test_a_compiler_finds_its_other_part_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NVRTC 13.0 does not: its wheel has no RPATH, and it opens its built-ins by name."""
    folder = tmp_path / "nvidia/cu99/lib"
    folder.mkdir(parents=True)
    compiler, name = find_compiler(), "libnvrtc-builtins.so.99.0"
    part, whole = tmp_path / "part.cpp", tmp_path / "whole.cpp"
    part.write_text('extern "C" int answer() { return 0; }')
    whole.write_text(
        "#include <dlfcn.h>\n"
        f'extern "C" int compiles() {{ return dlopen("{name}", RTLD_NOW) != nullptr; }}'
    )
    flags = [compiler, "-shared", "-fPIC", "-o"]
    subprocess.run([*flags, folder / name, part, f"-Wl,-soname,{name}"], check=True)
    subprocess.run([*flags, folder / "libnvrtc.so.99", whole, "-ldl"], check=True)
    # What is no library is for the compiler to complain about.
    (folder / "libnvrtc-builtins.so.98").write_text("not a library")
    monkeypatch.setattr(nvrtc, "_package_roots", lambda package: iter([tmp_path]))
    assert find_nvrtc(99).compiles() == 1


def test_code_is_made_for_the_gpu_or_what_comes_nearest() -> None:
    known = [70, 75, 80, 86, 90]
    assert _choose_architecture(known, (8, 6)) == ("sm_86", "CUBIN")
    assert _choose_architecture(known, (8, 9)) == ("sm_86", "CUBIN")
    assert _choose_architecture(known, (12, 0)) == ("compute_90", "PTX")
    with pytest.raises(RuntimeError, match=r"compute capability 6\.1"):
        _choose_architecture(known, (6, 1))


def test_code_for_tegra_is_made_for_tegra_alone() -> None:
    # NVRTC 12.8 on a B300, 11.7 on an RTX 40, and each on its own processor.
    assert _choose_architecture([90, 100, 101, 120], (10, 3)) == ("sm_100", "CUBIN")
    assert _choose_architecture([80, 86, 87], (8, 9)) == ("sm_86", "CUBIN")
    assert _choose_architecture([90, 100, 110], (12, 0)) == ("compute_100", "PTX")
    for number in (53, 62, 72, 87, 101, 110):
        assert _choose_architecture([50, number], divmod(number, 10))[0] == f"sm_{number}"


# ---- the driver


def limited(
    library: ctypes.CDLL,
    *,
    num_blocks: int = 8,
    most_blocks: int | None = None,
    is_cooperative: bool = True,
    shared_kib: int = 99,
    load_error: int = 0,
) -> Callable[[], Kernels]:
    """Returns what loads the kernels on a GPU with these limits."""

    def load() -> Kernels:
        library.simulate(0, num_blocks)
        library.simulate_limits(
            num_blocks if most_blocks is None else most_blocks,
            int(is_cooperative),
            shared_kib << 10,
            load_error,
        )
        return link_kernels(Driver(library, 0), b"")

    return load


@pytest.mark.parametrize("error", [209, 218, 222, 300])
def test_a_driver_too_old_for_the_code_is_told_so(library: ctypes.CDLL, error: int) -> None:
    with pytest.raises(
        CudaError, match=rf"\({error}\): .*; the driver supports CUDA up to 12\.4: update"
    ):
        limited(library, load_error=error)()


def test_memory_that_is_full_when_the_code_is_loaded_is_called_so(library: ctypes.CDLL) -> None:
    with pytest.raises(CudaError) as caught:
        limited(library, load_error=2)()
    assert "update it" not in str(caught.value)
    # What halves a batch, and what gives the video to another worker.
    assert _is_out_of_memory(caught.value)
    assert is_device_failure(caught.value)
    assert _device_lost(caught.value).reason == "out-of-memory"


def test_a_gpu_with_little_shared_memory_is_told_what_it_lacks(library: ctypes.CDLL) -> None:
    with pytest.raises(RuntimeError, match=r"needs 81 KiB of shared memory, .* has 64 KiB"):
        limited(library, shared_kib=64)()
    limited(library, shared_kib=96)()  # Volta


def test_a_gpu_without_cooperative_launch_is_told_so(library: ctypes.CDLL) -> None:
    with pytest.raises(RuntimeError, match="allows no cooperative launch"):
        limited(library, is_cooperative=False)()


def test_fewer_blocks_are_taken_where_the_driver_allows_no_more(library: ctypes.CDLL) -> None:
    """As under MPS, where the occupancy counts multiprocessors that the process may not use."""
    warp = random_warp(3, 87, 88)
    expected = run(simulated(library, 8), warp, FIXED)
    for most in (7, 3, 1):
        kernels = limited(library, num_blocks=8, most_blocks=most)()
        assert_same(run(kernels, warp, FIXED), expected)
        # It is found out once, not at each launch.
        assert kernels._most_blocks is not None
        assert kernels._most_blocks <= most
    with pytest.raises(CudaError, match=r"cuLaunchCooperativeKernel failed: .* \(720\)"):
        run(limited(library, most_blocks=0)(), warp, FIXED)


def test_a_barrier_that_never_ends_ends_the_launch(tmp_path: Path) -> None:
    text = SOURCE.read_text()
    for before, after in (
        ("MOST_LOOKS = 1u << 27", "MOST_LOOKS = 1u << 10"),
        ("(arrivals) < expected) {", "(arrivals) <= expected) {"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / "mutant.cu").write_text(text)
    with pytest.raises(CudaError, match="a trap") as caught:
        run(simulated(build(tmp_path / "mutant.cu", tmp_path), 8), random_warp(1, 87, 88), FIXED)
    # So the worker is replaced.
    assert caught.value.code == 719
    assert is_device_failure(caught.value)
    assert _device_lost(caught.value).reason == "crashed"
