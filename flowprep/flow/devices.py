"""Where flow is computed: the meaning of a device's name, and what this machine has.

    auto        a GPU if this machine has a working one and the algorithm has a GPU version;
                otherwise the CPU
    cpu         the native or OpenCV's estimator, on one core
    cuda        the first GPU (NVIDIA's, or AMD's under PyTorch for ROCm)
    cuda:N      GPU number N, counted from 0 among the GPUs that the process may see
    cuda!       the first GPU, with TV-L1's CUDA kernel whatever its trial said; also cuda:N!
    mps         the GPU of an Apple processor
    torch-cpu   the GPU version, computed on the CPU: slow, for comparisons and tests

PyTorch takes seconds to import, so it is asked only if there is a driver that it could use.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from flowprep.errors import ConfigError
from flowprep.extras import install_command

__all__ = [
    "DEVICE_KINDS",
    "DEVICE_NAMES",
    "CudaState",
    "Device",
    "DeviceKind",
    "DriverState",
    "Gpu",
    "ask_driver",
    "cuda_state",
    "device_name",
    "driver_release",
    "is_device_failure",
    "parse_device",
    "why_no_cuda",
    "why_no_torch",
]

DeviceKind = Literal["cpu", "cuda", "mps", "torch-cpu"]

DEVICE_KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)

DEVICE_NAMES = "auto, cpu, cuda, cuda:N, cuda!, cuda:N!, mps or torch-cpu"


@dataclass(frozen=True)
class Device:
    """One place where flow can be computed."""

    kind: DeviceKind
    index: int | None = None
    """Number of a GPU among those of its kind; None is the first."""
    insists: bool = False
    """Whether TV-L1's CUDA kernel is used whatever its trial said (flowprep/flow/trust.py)."""

    def __str__(self) -> str:
        name = self.kind if self.index is None else f"{self.kind}:{self.index}"
        return f"{name}!" if self.insists else name

    @property
    def torch_name(self) -> str:
        """PyTorch's name of the device."""
        return "cpu" if self.kind == "torch-cpu" else str(self).removesuffix("!")


def parse_device(name: str) -> Device | None:
    """Reads a device's name; None is `auto`. Raises ConfigError for an invalid name."""
    if name == "auto":
        return None
    if name in DEVICE_KINDS:
        return Device(name)
    if match := re.fullmatch(r"cuda(?::(\d+))?(!?)", name):
        return Device("cuda", None if match[1] is None else int(match[1]), match[2] == "!")
    raise ConfigError(f"device must be {DEVICE_NAMES}, got {name!r}")


def is_device_failure(error: BaseException) -> bool:
    """Whether an error may come from the GPU or its memory, and not from the computation.

    After most CUDA errors, a process cannot compute anything on the GPU any more.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"AcceleratorError", "OutOfMemoryError"}:
        return True
    return isinstance(error, RuntimeError) and bool(re.search(r"CUDA|cuda|HIP|MPS", str(error)))


def device_name(device: Device) -> str:
    """Returns the name that is stored with a video: `cpu`, `cuda:NVIDIA H100 80GB HBM3`, ..."""
    if device.kind != "cuda":
        return device.torch_name
    torch: Any = importlib.import_module("torch")
    return f"cuda:{torch.cuda.get_device_name(device.torch_name)}"


# ---- what the machine has


@dataclass(frozen=True)
class Gpu:
    """One GPU, as its driver describes it."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int] | None
    """NVIDIA's generation number, such as (9, 0); None for other GPUs."""


@dataclass(frozen=True)
class DriverState:
    """The answer of NVIDIA's driver."""

    error: int
    """CUresult of cuInit; 0 means success, 100 means no device."""
    cuda_version: tuple[int, int]
    """The newest CUDA version that the driver supports."""
    gpus: tuple[Gpu, ...]
    """The GPUs that this process may see."""


@dataclass(frozen=True)
class CudaState:
    """What this machine has for PyTorch's device `cuda`. None means missing or not asked."""

    driver: DriverState | None
    torch_version: str | None = None
    torch_cuda: str | None = None
    """The CUDA version that PyTorch is built for, such as `12.8`."""
    torch_hip: str | None = None
    """The ROCm version that PyTorch is built for."""
    torch_architectures: tuple[str, ...] = ()
    """Targets of its kernels: `sm_90`, or `compute_90` for that generation and all newer ones."""
    torch_sees: int = 0
    """Number of GPUs that PyTorch counts."""
    gpus: tuple[Gpu, ...] = ()
    message: str | None = None
    """PyTorch's explanation if it sees none."""


def why_no_cuda(state: CudaState, index: int | None = None) -> str | None:
    """Returns why a GPU cannot be used and what helps; None if it can be used.

    `index` is the number of the GPU, counted from 0.
    """
    driver = state.driver
    if driver is None and state.torch_hip is None:
        return (
            "NVIDIA's driver is not found (libcuda.so.1); install it, or start the container with "
            "its GPUs (docker run --gpus all)"
        )
    if state.torch_version is None:
        return f"PyTorch is not installed; run {install_command('gpu')}"
    if state.torch_cuda is None and state.torch_hip is None:
        newest = "" if driver is None else f", up to CUDA {_version(driver.cuda_version)}"
        return (
            f"PyTorch {state.torch_version} is built without CUDA; install the build for this "
            f"driver{newest}, as PyTorch's installation page says"
        )
    if driver is not None and state.torch_hip is None:
        reason = _why_not_driver(driver, state)
        if reason is not None:
            return reason
    if not state.torch_sees:
        words = f": {state.message}" if state.message else ""
        return f"PyTorch {state.torch_version} sees no GPU{words}"
    if (index or 0) >= len(state.gpus):
        there = ", ".join(f"cuda:{number} {gpu.name}" for number, gpu in enumerate(state.gpus))
        return f"this machine has {there}"
    gpu = state.gpus[index or 0]
    if not _has_code(state.torch_architectures, gpu.compute_capability):
        return (
            f"PyTorch {state.torch_version} has no code for {gpu.name} (compute capability "
            f"{_version(gpu.compute_capability)}; it has {', '.join(state.torch_architectures)}); "
            "install a build that has"
        )
    return None


def _why_not_driver(driver: DriverState, state: CudaState) -> str | None:
    assert state.torch_cuda is not None
    needed = tuple(map(int, state.torch_cuda.split(".")[:2]))
    # A driver runs every CUDA version with its own major number, and all older ones (CUDA's "minor
    # version compatibility").
    if driver.cuda_version[0] < needed[0]:
        return (
            f"NVIDIA's driver is too old: it supports CUDA up to {_version(driver.cuda_version)}, "
            f"and PyTorch {state.torch_version} is built for CUDA {state.torch_cuda}; update the "
            f"driver, or install a PyTorch built for CUDA {driver.cuda_version[0]}"
        )
    if driver.error not in (0, _NO_DEVICE):
        return (
            f"NVIDIA's driver does not start (cuInit gave error {driver.error}); look whether "
            "nvidia-smi works, and reboot after an update of the driver"
        )
    if not driver.gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return f"NVIDIA's driver shows this process no GPU{hint}; look at nvidia-smi"
    return None


def _has_code(architectures: tuple[str, ...], capability: tuple[int, int] | None) -> bool:
    """Whether one of PyTorch's architectures runs on a GPU.

    Machine code runs on GPUs of its own major version, from its minor version on. Portable PTX runs
    on all newer GPUs (CUDA C++ Programming Guide, binary and PTX compatibility).
    """
    if capability is None or not architectures:
        return True
    for name in architectures:
        if match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name):
            built = int(match[2]), int(match[3])
            if built <= capability and (match[1] == "compute" or built[0] == capability[0]):
                return True
    return False


_NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE of cuda.h."""
_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


@functools.cache
def cuda_state() -> CudaState:
    """Asks the driver and PyTorch once. This takes no GPU memory."""
    driver = ask_driver()
    if driver is None and not os.path.exists("/dev/kfd"):
        return CudaState(None)
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return CudaState(driver)
    versions = torch.__version__, torch.version.cuda, getattr(torch.version, "hip", None)
    if versions[1] is None and versions[2] is None:
        return CudaState(driver, *versions)
    # If the driver is too old, PyTorch says so in a warning.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sees = torch.cuda.device_count() if torch.cuda.is_available() else 0
    architectures = tuple(torch.cuda.get_arch_list()) if sees else ()
    if versions[2] is None:
        gpus = () if driver is None else driver.gpus
    else:
        kinds = [torch.cuda.get_device_properties(number) for number in range(sees)]
        gpus = tuple(Gpu(kind.name, kind.total_memory, None) for kind in kinds)
        architectures = ()
    message = " ".join(str(one.message).partition("\n")[0] for one in said) or None
    return CudaState(driver, *versions, architectures, sees, gpus, message)


def ask_driver(library: Any = None) -> DriverState | None:
    """Returns the answer of NVIDIA's driver, or None if there is no driver.

    `library` is the loaded driver library; None searches for it. The functions are declared in
    cuda.h. None of them makes a context, which would take GPU memory.
    """
    if library is None:
        try:
            library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return None
    error = int(library.cuInit(0))
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    if error == 0:
        library.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for number in range(count.value):
        device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
        major, minor = ctypes.c_int(0), ctypes.c_int(0)
        name = ctypes.create_string_buffer(256)
        library.cuDeviceGet(ctypes.byref(device), number)
        library.cuDeviceGetName(name, len(name), device)
        library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR_ATTRIBUTE, device)
        library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR_ATTRIBUTE, device)
        capability = major.value, minor.value
        gpus.append(Gpu(name.value.decode(errors="replace"), memory.value, capability))
    # 1000 major + 10 minor.
    return DriverState(error, (version.value // 1000, version.value % 1000 // 10), tuple(gpus))


def driver_release() -> str | None:
    """Returns the release of NVIDIA's driver, such as `570.86.15`; None if it is unknown."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    match = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return match[1] if match else None


def why_no_torch(kind: DeviceKind) -> str | None:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return f"PyTorch is not installed; run {install_command('gpu')}"
    if kind == "mps" and not torch.backends.mps.is_available():
        return "this machine has no GPU of Apple's, or PyTorch is built without Metal"
    return None


def _version(numbers: tuple[int, int] | None) -> str:
    return "unknown" if numbers is None else f"{numbers[0]}.{numbers[1]}"
