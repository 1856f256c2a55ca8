"""Devices: names, what is missing for a GPU and what helps, and the classes that compute there."""

from __future__ import annotations

import ctypes
import dataclasses

import pytest

from flowprep.errors import ConfigError
from flowprep.flow.devices import (
    CudaState,
    Device,
    DriverState,
    Gpu,
    ask_driver,
    is_device_failure,
    parse_device,
    why_no_cuda,
)

H100 = Gpu("NVIDIA H100 80GB HBM3", 80 << 30, (9, 0))
DRIVER = DriverState(0, (12, 8), (H100, H100))
WORKING = CudaState(
    DRIVER,
    "2.13.0",
    "12.8",
    torch_architectures=("sm_75", "sm_80", "sm_90", "compute_90"),
    torch_sees=2,
    gpus=DRIVER.gpus,
)


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("auto", None),
        ("cpu", Device("cpu")),
        ("cuda", Device("cuda")),
        ("cuda:0", Device("cuda", 0)),
        ("cuda:12", Device("cuda", 12)),
        ("cuda!", Device("cuda", insists=True)),
        ("cuda:3!", Device("cuda", 3, insists=True)),
        ("mps", Device("mps")),
        ("torch-cpu", Device("torch-cpu")),
    ],
)
def test_names(name: str, device: Device | None) -> None:
    assert parse_device(name) == device
    if device is not None:
        assert str(device) == name


def test_torch_names() -> None:
    names = ("cpu", "torch-cpu", "cuda", "cuda:1", "cuda!", "cuda:1!", "mps")
    parsed = [parse_device(name) for name in names]
    found = [device.torch_name for device in parsed if device is not None]
    assert found == ["cpu", "cpu", "cuda", "cuda:1", "cuda", "cuda:1", "mps"]


@pytest.mark.parametrize(
    "name",
    ["", "gpu", "cuda:", "cuda:-1", "cuda:a", "CPU", "cpu:0", "cuda+cpu", "mps!", "!"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_device(name)
    assert str(caught.value) == (
        f"device must be auto, cpu, cuda, cuda:N, cuda!, cuda:N!, mps or torch-cpu, got {name!r}"
    )


# ---- why a GPU cannot be used


def changed(**values: object) -> CudaState:
    return dataclasses.replace(WORKING, **values)  # type: ignore[arg-type]


def with_driver(**values: object) -> CudaState:
    driver = dataclasses.replace(DRIVER, **values)  # type: ignore[arg-type]
    return changed(driver=driver, gpus=driver.gpus)


def test_a_working_gpu_has_no_reason_against_it() -> None:
    assert why_no_cuda(WORKING) is None
    assert why_no_cuda(WORKING, 1) is None


@pytest.mark.parametrize(
    ("state", "index", "words"),
    [
        (CudaState(None), None, "NVIDIA's driver is not found (libcuda.so.1); install it, or"),
        (CudaState(DRIVER), None, "PyTorch is not installed; run `pip install 'flowprep[gpu]'`"),
        (
            CudaState(DRIVER, "2.13.0+cpu"),
            None,
            "PyTorch 2.13.0+cpu is built without CUDA; install the build for this driver, up to "
            "CUDA 12.8, as PyTorch's installation page says",
        ),
        (
            with_driver(cuda_version=(11, 4)),
            None,
            "NVIDIA's driver is too old: it supports CUDA up to 11.4, and PyTorch 2.13.0 is built "
            "for CUDA 12.8; update the driver, or install a PyTorch built for CUDA 11",
        ),
        (
            with_driver(error=803, gpus=()),
            None,
            "NVIDIA's driver does not start (cuInit gave error 803)",
        ),
        (with_driver(error=100, gpus=()), None, "NVIDIA's driver shows this process no GPU"),
        (
            changed(torch_sees=0, message="CUDA initialization: out of luck"),
            None,
            "PyTorch 2.13.0 sees no GPU: CUDA initialization: out of luck",
        ),
        (
            WORKING,
            2,
            "this machine has cuda:0 NVIDIA H100 80GB HBM3, cuda:1 NVIDIA H100 80GB HBM3",
        ),
        (
            changed(gpus=(Gpu("Tesla P100", 16 << 30, (6, 0)),)),
            None,
            "PyTorch 2.13.0 has no code for Tesla P100 (compute capability 6.0; it has sm_75, "
            "sm_80, sm_90, compute_90)",
        ),
    ],
)
def test_reasons(state: CudaState, index: int | None, words: str) -> None:
    reason = why_no_cuda(state, index)
    assert reason is not None
    assert reason.startswith(words)


@pytest.mark.parametrize("version", [(12, 0), (12, 9), (13, 1)])
def test_a_driver_of_the_same_major_version_or_a_newer_one_is_new_enough(
    version: tuple[int, int],
) -> None:
    assert why_no_cuda(with_driver(cuda_version=version)) is None


def test_hidden_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    reason = why_no_cuda(with_driver(error=100, gpus=()))
    assert reason is not None
    assert "(CUDA_VISIBLE_DEVICES is '7')" in reason


def test_amd_needs_neither_nvidia_s_driver_nor_its_numbers() -> None:
    mi300 = Gpu("AMD Instinct MI300X", 192 << 30, None)
    state = CudaState(None, "2.13.0+rocm7", None, "7.0", torch_sees=1, gpus=(mi300,))
    assert why_no_cuda(state) is None


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (("sm_80",), (8, 0), True),
        (("sm_80",), (8, 9), True),  # a newer minor version runs it
        (("sm_86",), (8, 0), False),  # an older one does not
        (("sm_80",), (9, 0), False),  # nor another major version
        (("compute_80",), (9, 0), True),  # which PTX is for
        (("compute_90",), (8, 9), False),
        (("sm_90a",), (9, 0), True),
        (("sm_100", "sm_120"), (12, 0), True),
        (("sm_100", "sm_120"), (11, 0), False),
        ((), (8, 0), True),  # unknown
        (("sm_80",), None, True),
    ],
)
def test_which_code_runs_where(
    architectures: tuple[str, ...], capability: tuple[int, int] | None, runs: bool
) -> None:
    gpu = Gpu("GPU", 8 << 30, capability)
    state = changed(gpus=(gpu,), torch_architectures=architectures)
    assert (why_no_cuda(state) is None) == runs


# ---- the driver itself, in the place of libcuda.so.1


class Library:
    """Answers as NVIDIA's driver does, into the memory that it is given."""

    def __init__(self, error: int, version: int, gpus: list[Gpu]) -> None:
        self.error, self.version, self.gpus = error, version, gpus

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.error

    def cuDriverGetVersion(self, version) -> int:  # type: ignore[no-untyped-def]  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count) -> int:  # type: ignore[no-untyped-def]  # noqa: N802
        assert self.error == 0
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, number: int) -> int:  # type: ignore[no-untyped-def]  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceGetName(  # type: ignore[no-untyped-def]  # noqa: N802
        self, name: ctypes.Array[ctypes.c_char], length: int, device
    ) -> int:
        name.value = self.gpus[device.value].name.encode()[: length - 1]
        return 0

    def cuDeviceTotalMem_v2(self, memory, device) -> int:  # type: ignore[no-untyped-def]  # noqa: N802
        memory._obj.value = self.gpus[device.value].memory_bytes
        return 0

    def cuDeviceGetAttribute(self, value, attribute: int, device) -> int:  # type: ignore[no-untyped-def]  # noqa: N802
        capability = self.gpus[device.value].compute_capability
        assert capability is not None
        value._obj.value = capability[{75: 0, 76: 1}[attribute]]
        return 0


def test_driver_is_asked_for_version_and_gpus() -> None:
    gpus = [H100, Gpu("NVIDIA L4", 24 << 30, (8, 9))]
    assert ask_driver(Library(0, 12080, gpus)) == DriverState(0, (12, 8), tuple(gpus))
    assert ask_driver(Library(0, 13010, [])) == DriverState(0, (13, 1), ())


def test_driver_without_a_gpu_still_says_its_version() -> None:
    assert ask_driver(Library(100, 11040, [H100])) == DriverState(100, (11, 4), ())


class AcceleratorError(RuntimeError):
    """As torch names what CUDA reports."""


@pytest.mark.parametrize(
    ("error", "is_device"),
    [
        (AcceleratorError("an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("the frame is too small"), False),
        (ValueError("cuda"), False),
        (MemoryError(), False),
    ],
)
def test_failures_of_the_device_are_told_from_others(error: Exception, is_device: bool) -> None:
    assert is_device_failure(error) == is_device
