"""Compiles CUDA C++ on the user's machine and launches it next to PyTorch, without a CUDA toolkit.

The compiler is NVRTC, which comes with PyTorch's CUDA builds. Its output goes to NVIDIA's driver.
Both are called through ctypes. A binding package would be one more version to keep in step with
PyTorch's CUDA, and these are two dozen functions that have not changed since CUDA 11.

Machine code is made for the GPU of the machine. If NVRTC is older than the GPU, the result is code
of the same generation, or PTX, which the driver translates.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

__all__ = [
    "CudaError",
    "Driver",
    "Function",
    "compile_source",
    "find_nvrtc",
    "known_architectures",
    "load_driver",
]

_MAX_SHARED_BYTES_ATTRIBUTE, _CARVEOUT_ATTRIBUTE = 8, 9
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES and _PREFERRED_SHARED_MEMORY_CARVEOUT of cuda.h.
"""
_NUM_MULTIPROCESSORS_ATTRIBUTE, _COOPERATIVE_ATTRIBUTE, _SHARED_BYTES_ATTRIBUTE = 16, 95, 97
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COOPERATIVE_LAUNCH and
_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN of cuda.h."""
_OLD_DRIVER_ERRORS = 209, 218, 222, 300
"""What a driver says of code that it does not know: CUDA_ERROR_NO_BINARY_FOR_GPU, _INVALID_PTX,
_UNSUPPORTED_PTX_VERSION and _INVALID_SOURCE of cuda.h."""
_TEGRA = 53, 62, 72, 87, 101, 110
"""Architectures of NVIDIA's Tegra processors. Their machine code is for themselves alone."""


class CudaError(RuntimeError):
    """A function of NVRTC or of the driver failed."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        """The function's result, such as 2 for CUDA_ERROR_OUT_OF_MEMORY."""


class _Library:
    """A shared library whose functions return 0 on success."""

    def __init__(self, library: ctypes.CDLL, signatures: dict[str, tuple[type, ...]]) -> None:
        for name, types in signatures.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, c_int
        self._library = library

    def call(self, name: str, *arguments: object) -> None:
        if error := getattr(self._library, name)(*arguments):
            raise CudaError(f"CUDA: {name} failed: {self.describe(error)}", error)

    def describe(self, error: int) -> str:
        raise NotImplementedError


# ---- the compiler

_NVRTC_SIGNATURES: dict[str, tuple[type, ...]] = {
    "nvrtcGetNumSupportedArchs": (POINTER(c_int),),
    "nvrtcGetSupportedArchs": (POINTER(c_int),),
    "nvrtcCreateProgram": (
        POINTER(c_void_p),
        c_char_p,
        c_char_p,
        c_int,
        c_void_p,
        c_void_p,
    ),
    "nvrtcCompileProgram": (c_void_p, c_int, POINTER(c_char_p)),
    "nvrtcGetProgramLogSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetProgramLog": (c_void_p, c_char_p),
    "nvrtcGetCUBINSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetCUBIN": (c_void_p, c_char_p),
    "nvrtcGetPTXSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetPTX": (c_void_p, c_char_p),
    "nvrtcDestroyProgram": (POINTER(c_void_p),),
}


class _Nvrtc(_Library):
    def describe(self, error: int) -> str:
        text = self._library.nvrtcGetErrorString
        text.argtypes, text.restype = (c_int,), c_char_p
        return str(text(error).decode())


def find_nvrtc(cuda_major: int) -> ctypes.CDLL:
    """Loads NVRTC of a major CUDA version, from the wheels next to PyTorch or from the system.

    Raises OSError, with what to install, if there is no NVRTC.
    """
    # All of CUDA 11 except its beginning kept one name.
    name = f"libnvrtc.so.{'11.2' if cuda_major == 11 else cuda_major}"
    places = []
    # A separate wheel up to CUDA 12. Since 13, all of CUDA shares one folder.
    for folder in (f"nvidia/cu{cuda_major}/lib", "nvidia/cuda_nvrtc/lib"):
        places += [root / folder / name for root in _package_roots("nvidia")]
    places += [root / "torch/lib" / name for root in _package_roots("torch")]
    for place in places:
        if place.exists():
            _load_builtins(place.parent)
            return ctypes.CDLL(str(place))
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        package = "nvidia-cuda-nvrtc" + (f"-cu{cuda_major}" if cuda_major < 13 else "")
        raise OSError(
            f"{name}, NVIDIA's run-time compiler, is not found; run pip install "
            f"'{package}=={cuda_major}.*'"
        ) from error


def _load_builtins(folder: Path) -> None:
    """Loads the part of NVRTC that it opens by its name alone when it compiles.

    The wheels of CUDA 13.0 do not tell the system where that part is. What is loaded is found.
    """
    for place in folder.glob("libnvrtc-builtins.so.*"):
        # A compiler that needs it in vain says so itself.
        with suppress(OSError):
            ctypes.CDLL(str(place))


def _package_roots(package: str) -> Iterator[Path]:
    """Yields the folders that hold a package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is not None:
        yield from (Path(place).parent for place in spec.submodule_search_locations or ())


def known_architectures(library: ctypes.CDLL) -> list[int]:
    """Returns the architectures that NVRTC compiles for, such as 90 for capability 9.0."""
    nvrtc, count = _Nvrtc(library, _NVRTC_SIGNATURES), c_int()
    nvrtc.call("nvrtcGetNumSupportedArchs", byref(count))
    known = (c_int * count.value)()
    nvrtc.call("nvrtcGetSupportedArchs", known)
    return list(known)


def compile_source(
    library: ctypes.CDLL, source: str, name: str, capability: tuple[int, int]
) -> bytes:
    """Compiles CUDA C++ for a GPU, and returns a module that the driver can load.

    `library` is NVRTC, `name` appears in its messages, and `capability` is the GPU's. Raises
    RuntimeError with the compiler's messages.
    """
    nvrtc = _Nvrtc(library, _NVRTC_SIGNATURES)
    architecture, kind = _choose_architecture(known_architectures(library), capability)
    # Subnormal numbers count as 0: no value here comes near them.
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ftz=true"]
    program = c_void_p()
    nvrtc.call("nvrtcCreateProgram", byref(program), source.encode(), name.encode(), 0, None, None)
    try:
        encoded = (c_char_p * len(options))(*(option.encode() for option in options))
        try:
            nvrtc.call("nvrtcCompileProgram", program, len(options), encoded)
        except RuntimeError as error:
            log = _read(nvrtc, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise RuntimeError(f"{error} ({name} for {architecture})\n{log}") from None
        return _read(nvrtc, program, kind)
    finally:
        nvrtc.call("nvrtcDestroyProgram", byref(program))


def _choose_architecture(known: Iterable[int], capability: tuple[int, int]) -> tuple[str, str]:
    """Returns the architecture to compile for, and which result to read: CUBIN or PTX."""
    wanted = 10 * capability[0] + capability[1]
    older = sorted(n for n in known if n == wanted or (n < wanted and n not in _TEGRA))
    if not older:
        raise RuntimeError(
            f"CUDA: NVRTC knows no GPU as old as this one, of compute capability "
            f"{capability[0]}.{capability[1]}"
        )
    # Machine code runs only on newer GPUs of its major version.
    if older[-1] // 10 == capability[0]:
        return f"sm_{older[-1]}", "CUBIN"
    return f"compute_{older[-1]}", "PTX"


def _read(nvrtc: _Nvrtc, program: c_void_p, kind: str) -> bytes:
    size = c_size_t()
    nvrtc.call(f"nvrtcGet{kind}Size", program, byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.call(f"nvrtcGet{kind}", program, text)
    return text.raw


# ---- the driver

_LAUNCH = (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p))

_DRIVER_SIGNATURES: dict[str, tuple[type, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": (POINTER(c_int), c_void_p, c_int, c_size_t),
    "cuLaunchKernel": (*_LAUNCH, POINTER(c_void_p)),
    "cuLaunchCooperativeKernel": _LAUNCH,
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}


class Driver(_Library):
    """NVIDIA's driver on one GPU, in the same context as PyTorch."""

    def __init__(self, library: ctypes.CDLL, device_index: int) -> None:
        super().__init__(library, _DRIVER_SIGNATURES)
        self.call("cuInit", 0)
        device = c_int()
        self.call("cuDeviceGet", byref(device), device_index)
        # Kept until the process ends: PyTorch does not release it either.
        self._context = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self._device = device
        self.num_multiprocessors = self.attribute(_NUM_MULTIPROCESSORS_ATTRIBUTE)
        self.shared_bytes_per_block = self.attribute(_SHARED_BYTES_ATTRIBUTE)
        """Most shared memory that a block may have."""
        self.has_cooperative_launch = self.attribute(_COOPERATIVE_ATTRIBUTE) == 1
        """Whether blocks may wait for each other. Not all of NVIDIA's virtual GPUs allow it."""

    def attribute(self, number: int) -> int:
        """Returns an attribute of the GPU, a CUdevice_attribute of cuda.h."""
        value = c_int()
        self.call("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    def describe(self, error: int) -> str:
        name, words = c_char_p(), c_char_p()
        self._library.cuGetErrorName(error, byref(name))
        self._library.cuGetErrorString(error, byref(words))
        said = f": {words.value.decode()}" if words.value else ""
        return f"{name.value.decode() if name.value else 'unknown error'} ({error}){said}"

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the GPU's context the current context of the calling thread."""
        self.call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def load(self, module: bytes, names: Iterable[str]) -> list[Function]:
        """Loads a compiled module permanently, and returns its functions with the given names.

        Raises CudaError, for example if the driver is too old for the compiler's output.
        """
        functions = []
        with self.current():
            handle = c_void_p()
            try:
                self.call("cuModuleLoadData", byref(handle), module)
            except CudaError as error:
                if error.code not in _OLD_DRIVER_ERRORS:
                    raise
                version = c_int()
                self.call("cuDriverGetVersion", byref(version))
                supported = f"{version.value // 1000}.{version.value % 1000 // 10}"
                raise CudaError(
                    f"{error}; the driver supports CUDA up to {supported}: update it, or install a "
                    f"PyTorch that is built for CUDA {supported} or older",
                    error.code,
                ) from None
            for name in names:
                function = c_void_p()
                self.call("cuModuleGetFunction", byref(function), handle, name.encode())
                functions.append(Function(self, function))
        return functions


class Function:
    """A kernel that takes one structure."""

    def __init__(self, driver: Driver, handle: c_void_p) -> None:
        self._driver = driver
        self._handle = handle

    def allow_shared_bytes(self, num_bytes: int) -> None:
        """Lets a block use this much shared memory; by default the driver allows 48 KiB.

        Raises RuntimeError if the GPU has less.
        """
        with self._driver.current():
            for attribute, value in (
                (_MAX_SHARED_BYTES_ATTRIBUTE, num_bytes),
                (_CARVEOUT_ATTRIBUTE, 100),  # percent: as little as possible for the L1 cache
            ):
                self._driver.call("cuFuncSetAttribute", self._handle, attribute, value)

    def num_resident_blocks(self, num_threads: int, shared_bytes: int) -> int:
        """Returns how many blocks the GPU can run at the same time."""
        count = c_int()
        with self._driver.current():
            self._driver.call(
                "cuOccupancyMaxActiveBlocksPerMultiprocessor",
                byref(count),
                self._handle,
                num_threads,
                shared_bytes,
            )
        return count.value * self._driver.num_multiprocessors

    def launch(
        self,
        argument: ctypes.Structure,
        stream: int,
        *,
        num_blocks: int,
        num_threads: int,
        shared_bytes: int = 0,
        is_cooperative: bool = False,
    ) -> None:
        """Launches the kernel on the stream with this number, and does not wait for it.

        The structure is copied at once. The memory that it points to must stay alive until the
        kernel has ended, or belong to PyTorch and to that stream. Blocks of a cooperative launch
        may wait for each other: the launch fails unless all blocks can run at the same time.
        """
        arguments = (c_void_p * 1)(ctypes.addressof(argument))
        shape = (num_blocks, 1, 1, num_threads, 1, 1, shared_bytes)
        with self._driver.current():
            if is_cooperative:
                self._driver.call(
                    "cuLaunchCooperativeKernel", self._handle, *shape, stream, arguments
                )
            else:
                self._driver.call("cuLaunchKernel", self._handle, *shape, stream, arguments, None)


@functools.cache
def load_driver(device_index: int) -> Driver:
    """Returns the driver on the GPU with this number; raises OSError if there is no driver."""
    return Driver(ctypes.CDLL("libcuda.so.1"), device_index)
