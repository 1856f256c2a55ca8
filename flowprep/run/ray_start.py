"""Starts Ray on this machine or connects to a cluster, and ends Ray again."""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flowprep.errors import ExecutorError
from flowprep.flow.devices import Device
from flowprep.run.ray_folder import RayFolder

__all__ = ["cluster_address", "is_connected", "only_gpu", "start_ray", "stop_ray"]


def cluster_address(address: str | None) -> str | None:
    """Returns the address of the cluster, or None if Ray is to start on this machine."""
    # `ray job submit` names the cluster in the environment.
    return address or os.environ.get("RAY_ADDRESS")


def start_ray(
    address: str | None,
    *,
    num_cpus: int,
    num_gpus: int = 0,
    runtime_env: Mapping[str, Any] | None = None,
) -> tuple[Any, bool]:
    """Returns the connected module `ray`, and whether the caller must end it with `stop_ray`.

    An existing connection of this process is used unchanged. Otherwise this process joins the
    cluster at `address`, or starts Ray on this machine with the given numbers of CPUs and GPUs.
    `runtime_env` is the environment that workers get in addition to what their nodes have. Raises
    ExecutorError if Ray is not installed, does not start or cannot be reached, or if TMPDIR is
    unusable.
    """
    ray = _import_ray(starts_here=address is None)
    if ray.is_initialized():
        return ray, False
    folder = RayFolder() if address is None else None
    try:
        if address is not None:
            _check_reachable(address)
            ray.init(
                address=address,
                runtime_env=runtime_env,
                log_to_driver=False,
                logging_level="error",
            )
            return ray, True
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            runtime_env=runtime_env,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            # Results have a few hundred bytes, because frames never pass through Ray.
            object_store_memory=100 << 20,
            _temp_dir=folder.path if folder is not None else None,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        if folder is not None:
            folder.remove()
        where = address or "this machine"
        hint = ""
        if address is not None and os.environ.get("RAY_AUTH_MODE") != "token":
            hint = (
                "; where the cluster asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
                "or RAY_AUTH_TOKEN_PATH"
            )
        raise ExecutorError(f"cannot reach or start Ray on {where}: {error}{hint}") from error
    if folder is not None and folder.path is not None:
        _folders.append(folder)
        # This ends Ray if nobody else does, for example in a notebook.
        atexit.register(stop_ray, ray)
    return ray, True


_folders: list[RayFolder] = []
"""The folder of the Ray that this process started, if its sockets needed one."""


def stop_ray(ray: Any) -> None:
    """Ends the Ray that `start_ray` started."""
    ray.shutdown()
    while _folders:
        _folders.pop().remove()


def is_connected() -> bool:
    """Whether this process is already connected to Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def only_gpu(device: Device | None) -> Iterator[None]:
    """Hides all GPUs but the requested one from a Ray that starts inside this `with` block."""
    if device is None or device.index is None:
        yield
        return
    variable = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(variable)
    visible = before.split(",") if before else [str(n) for n in range(device.index + 1)]
    os.environ[variable] = visible[device.index]
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _check_reachable(address: str) -> None:
    """Raises ConnectionError if nothing listens at HOST:PORT. Ray would try for a minute."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
            pass


def _import_ray(*, starts_here: bool) -> Any:
    # Ray reads these settings when it is imported or started. The user's own settings stay.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Without a limit, a task that runs out of memory is retried forever.
        "RAY_task_oom_retries": "0",
        # The driver itself says which video lost its worker. Ray's line would go to stdout.
        "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|workers? .*killed due to memory"
        "|Raylet is terminated|has been marked dead",
        # Ray announces that CPU tasks will see their machine's GPUs. Our tasks do not use them.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    if starts_here:
        # Ray would keep the outcome of the last 100,000 tasks, 4 kB each, for a dashboard that
        # does not run.
        settings["RAY_task_events_report_interval_ms"] = "0"
    if starts_here and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray's ports listen on all interfaces. A token made for this process keeps others out.
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ExecutorError(
            f"Ray cannot be imported ({error}); install it with `pip install ray`, "
            "or use --executor inline"
        ) from error
    return ray
