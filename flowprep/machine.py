"""This machine: its processor, and the cores and the memory that this process may use."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "cpu_model",
    "cpu_vectors",
    "memory_in_use",
    "one_torch_thread",
    "resident_bytes",
    "usable_cores",
    "usable_memory_bytes",
]

_CGROUP_ROOT = Path("/sys/fs/cgroup")

# The kernels' vectors of 16 floats use the first of these that the processor has.
_VECTORS = {
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "sse4_2": "SSE4.2",
    "sse2": "SSE2",
    "sve": "SVE",
    "asimd": "NEON",
    "neon": "NEON",
}


def usable_cores() -> int:
    """Returns the number of cores that this process may use, by its affinity and its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [math.ceil(quota) for quota in _cpu_quotas()]
    return max(1, min([cores or 1, *quotas]))


def usable_memory_bytes() -> int | None:
    """Returns the memory that this process may use: the machine's or its container's, if less.

    Returns None if neither is known.
    """
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                found.append(1024 * int(line.split()[1]))
    except (OSError, ValueError):
        pass
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            found += [int(value) for value in _words(folder / name) if value.isdigit()]
    return min(found, default=None)


def memory_in_use() -> float:
    """Returns the share of usable memory in use, without memory that the system can free itself."""
    shares = [0.0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        values = {name: int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines)}
        shares.append(1 - values["MemAvailable"] / values["MemTotal"])
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError):
        pass
    for folder in _cgroup_folders("memory"):
        # The names in cgroup version 2, then 1: memory in use, its limit, and cached files that can
        # be read again.
        for held_name, limit_name, files_name in (
            ("memory.current", "memory.max", "inactive_file"),
            ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
        ):
            numbers = _words(folder / held_name) + _words(folder / limit_name)
            if len(numbers) == 2 and all(number.isdigit() for number in numbers):
                words = _words(folder / "memory.stat")
                files = dict(zip(words[::2], words[1::2], strict=False)).get(files_name, "0")
                shares.append((int(numbers[0]) - int(files)) / max(1, int(numbers[1])))
    return max(shares)


def resident_bytes(pid: int | Literal["self"] = "self") -> int:
    """Returns what a process holds in memory that no file backs, 0 where this is not known."""
    held = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                held += 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return 0
    return held


def cpu_model() -> str:
    """Returns the name of the processor."""
    return _cpuinfo("model name") or _cpuinfo("Model") or platform.machine() or "unknown"


def cpu_vectors() -> str:
    """Returns the widest vector instructions that the native kernels use on this processor."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return next((name for flag, name in _VECTORS.items() if flag in flags), "unknown")


def _cpuinfo(field: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass
    return ""


def _cpu_quotas() -> Iterator[float]:
    """Yields the number of cores that each control group of this process allows."""
    for folder in _cgroup_folders("cpu"):
        limit = _words(folder / "cpu.max")  # version 2: quota or max, period
        if not limit:  # version 1: -1 means no quota
            limit = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(limit) == 2 and all(word.isdigit() for word in limit) and int(limit[1]) > 0:
            yield int(limit[0]) / int(limit[1])


def _cgroup_folders(controller: str) -> list[Path]:
    """Returns the control groups of this process, from its own to the outermost one."""
    folders = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        # Version 2: `0::/path`; version 1: `4:cpu,cpuacct:/path`.
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root = _CGROUP_ROOT
        elif controller in controllers.split(","):
            root = _CGROUP_ROOT / controller
        else:
            continue
        own = Path(path.lstrip("/"))
        folders += [root / own, *(root / parent for parent in own.parents)]
    return folders


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Lets PyTorch, if it is loaded, use one core, as each worker does.

    Then no number depends on the workers, and workers do not wait for each other's threads.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
