"""Compiles the project's kernels to machine code, and keeps that code on disk.

numba's own cache is next to the source. It identifies a function only by its own file, and numbers
the code of different processors in one index, which two machines that write at once can corrupt.
Here, each processor type, numba version and state of the kernels' sources has its own folder.
Everything in a folder is valid for every reader of the folder, also on shared file systems.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core import caching
from numba.core.runtime.nrt import rtsys

from flowprep.flow.cache import digest_of_sources, private_folder

__all__ = ["cache_folder", "compiles_for", "inline", "kernel"]


def kernel(function: Callable[..., Any]) -> Any:
    """Returns `function`, compiled at its first call or loaded from the disk cache.

    The result runs without the GIL. A kernel must be called with the same argument types each time.
    """
    dispatcher = numba.njit(function, nogil=True, error_model="numpy")
    if cache_folder() is not None:
        dispatcher._cache = _KernelCache(function)
    return dispatcher


def inline(function: Callable[..., Any]) -> Any:
    """Returns `function` as a building block that is compiled into each kernel that calls it."""
    return numba.njit(
        function,
        error_model="numpy",
        forceinline=True,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )


@functools.cache
def cache_folder() -> Path | None:
    """Returns the folder of this processor's compiled kernels, or None if nothing can be stored.

    Compiled code is executed as it is read. So a folder into which someone else could have put code
    is not used, unless `FLOWPREP_CACHE_DIR` names it.
    """
    return private_folder(_fingerprint())


def _fingerprint() -> str:
    processor = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    digest = hashlib.sha256()
    # A kernel contains the blocks that it calls. Any change in this folder renews all kernels,
    # including those in other folders.
    sources = digest_of_sources(Path(__file__).parent)
    for part in (numba.__version__, llvmlite.__version__, _features(), sources):
        digest.update(f"{part}\n".encode())
    return f"kernels-{processor}-{digest.hexdigest()[:16]}"


def compiles_for(feature: str) -> bool:
    """Returns whether kernels may use a feature of processors, by LLVM's name, such as `avx512f`.

    What depends on it must be the same to the bit.
    """
    return f"+{feature}" in _features().split(",")


def _features() -> str:
    features = numba.config.CPU_FEATURES
    if features is None:
        features = llvmlite.binding.get_host_cpu_features().flatten()
    return str(features)


class _KernelLocator:
    """Tells numba's cache where to store a function; see `numba.core.caching`."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder
        # The folder's name covers the sources next to this file. A kernel may be elsewhere, and
        # contains the blocks next to it.
        self._stamp = digest_of_sources(Path(source).parent)
        # numba names this file in its warning about a function that cannot be stored.
        self._py_file = source

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _KernelLocator | None:
        folder = cache_folder()
        return cls(folder, source) if folder is not None else None

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return "kernel"


class _KernelCacheImplementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_KernelLocator,)


class _KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """A cache that never causes a failure: what it cannot read or write is compiled again."""

    _impl_class = _KernelCacheImplementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            # numba's own method refreshes the context first. That takes ten times as long as the
            # read, and only a compilation needs it. A compilation refreshes the context by itself.
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
            return None
        # A truncated or corrupted file can raise any exception in the unpickler and in LLVM.
        except Exception:
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # a full or vanished disk
            self.disable()
