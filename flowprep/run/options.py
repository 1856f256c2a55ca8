"""A run's options before the run begins: their checks, all parameters, and the executor meant."""

from __future__ import annotations

import dataclasses

from flowprep.config import ExecutorName, ExtractConfig, FlowSpec, RunOptions
from flowprep.errors import ConfigError
from flowprep.flow.estimators import check_device, parse_parameters, resolve_device
from flowprep.flow.parameters import FlowParameters, OwnParameters
from flowprep.machine import usable_cores
from flowprep.run.cluster import parse_runtime_env
from flowprep.run.ray_start import cluster_address, is_connected

__all__ = ["check_options", "chosen_executor", "weights_of", "with_all_parameters"]


def with_all_parameters(config: ExtractConfig) -> ExtractConfig:
    """Returns the configuration as it is stored, which means the same on every machine.

    It has the defaults of a user's own estimator, and weights by their SHA-256. Raises ConfigError
    for an estimator that cannot be loaded, and for parameters that it refuses; ConfigError or
    WeightsError for weights that cannot be had.
    """
    flow = config.flow
    parameters = flow.parameters
    if isinstance(parameters, OwnParameters):
        parameters = parse_parameters(flow.algorithm, parameters.values)
    elif isinstance(parameters, FlowParameters):
        parameters = parameters.resolved()
    if parameters == flow.parameters:
        return config
    return dataclasses.replace(config, flow=dataclasses.replace(flow, parameters=parameters))


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


def weights_of(flow: FlowSpec) -> str | None:
    """Returns the ID of the weights that workers need (`flowprep.flow.weight_files`), if any."""
    return flow.parameters.weights_id if isinstance(flow.parameters, FlowParameters) else None


def _has_cluster(options: RunOptions) -> bool:
    return cluster_address(options.address) is not None or is_connected()
