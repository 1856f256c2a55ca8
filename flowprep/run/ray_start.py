"""Starts Ray on this machine or connects to a cluster, and ends Ray again."""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from flowprep.errors import ExecutorError
from flowprep.flow.devices import Device
from flowprep.run.ray_folder import RayFolder

__all__ = ["cluster_address", "is_connected", "only_gpu", "start_ray", "stop_ray"]


ANSWER_SECONDS = 15.0
"""A cluster's head that has not answered after this time is taken for dead."""


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
            _init(
                ray,
                address=_reachable(ray, address),
                runtime_env=runtime_env,
                log_to_driver=False,
                logging_level="error",
            )
            return ray, True
        _init(
            ray,
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
        if address is not None and isinstance(error, ConnectionError):
            hint = "; start the cluster's head, or leave out --address and RAY_ADDRESS"
        elif address is not None and os.environ.get("RAY_AUTH_MODE") != "token":
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


def _init(ray: Any, **options: Any) -> None:
    """Calls `ray.init`, and restores the handler of SIGTERM that Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before in (signal.SIG_DFL, None):
        ray.init(**options)
        return
    try:
        ray.init(**options)
    except SystemExit as error:
        # Ray's own handler exits like this.
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _reachable(ray: Any, address: str) -> str:
    """Returns the address of a cluster's head that answers, as HOST:PORT for `auto`.

    Raises OSError, RuntimeError or one of Ray's errors if there is none. Ray itself would try for a
    quarter of an hour.
    """
    is_client = "://" in address
    if not is_client:
        # ray.init does the same: it looks for `auto` on this machine, and resolves localhost.
        address = ray._private.services.canonicalize_bootstrap_address_or_die(address)
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"no head answers at {address} ({error})") from error
    if not is_client:
        _ask(ray, address)
    return address


def _ask(ray: Any, address: str) -> None:
    """Asks a cluster's head for its ID, in a thread, because the call may hang."""
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def ask() -> None:
        try:
            ray._raylet.GcsClient(address=address)
        except Exception as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = outcome.get(timeout=ANSWER_SECONDS)
    except Empty:
        raise ConnectionError(
            f"the head at {address} has not answered for {ANSWER_SECONDS:.0f} s"
        ) from None
    if error is not None:
        raise error


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
    else:
        # The driver itself says that a head is gone, before Ray ends the process for it.
        settings["RAY_gcs_rpc_server_reconnect_timeout_s"] = "300"
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
