"""Checks of a run's options before the run begins, and the executor that they mean."""

from __future__ import annotations

from flowprep.config import ExecutorName, RunOptions
from flowprep.errors import ConfigError
from flowprep.flow.estimators import check_device, resolve_device
from flowprep.machine import usable_cores
from flowprep.run.cluster import parse_runtime_env
from flowprep.run.ray_start import cluster_address, is_connected

__all__ = ["check_options", "chosen_executor"]


def check_options(options: RunOptions, algorithm: str) -> None:
    """Raises ConfigError for a device or runtime environment that is known to be unusable."""
    name = options.device.removesuffix("+cpu")
    device = check_device(name, algorithm)
    if options.runtime_env is not None:
        if is_connected():
            raise ConfigError(
                "runtime_env must be given to ray.init, because this process is connected to Ray "
                "already"
            )
        parse_runtime_env(options.runtime_env)
    is_own = options.executor in ("process", "inline") or not _has_cluster(options)
    if is_own:
        resolve_device(name, algorithm)
    elif device is not None and device.index is not None:
        raise ConfigError(
            f"device {name!r} is a GPU of one machine, but a Ray cluster assigns its GPUs itself; "
            "take --device cuda"
        )


def chosen_executor(options: RunOptions, algorithm: str, num_jobs: int) -> ExecutorName:
    """Returns the executor that `auto` means for a run that begins with `num_jobs` jobs.

    A run with one job at a time uses one process, because Ray takes seconds to start. A cluster, a
    GPU or a runtime environment needs Ray.
    """
    if options.executor != "auto":
        return options.executor
    if _has_cluster(options) or options.runtime_env is not None:
        return "ray"
    if min(num_jobs, options.num_workers or usable_cores()) > 1:
        return "ray"
    device = resolve_device(options.device.removesuffix("+cpu"), algorithm)
    return "process" if device.kind == "cpu" else "ray"


def _has_cluster(options: RunOptions) -> bool:
    return cluster_address(options.address) is not None or is_connected()
