"""A Ray cluster that others started: its nodes, and how flowprep's code gets to them.

Nodes come and go. An autoscaler adds them and a spot market takes them away.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowprep.config import RunOptions
from flowprep.errors import ConfigError
from flowprep.flow.parameters import is_own
from flowprep.run.workers import Machine

__all__ = [
    "job_runtime_env",
    "machines_of",
    "parse_runtime_env",
]

_JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where `ray job submit` leaves the job's own runtime environment for its driver."""


def machines_of(nodes: Iterable[Mapping[str, float]]) -> list[Machine]:
    """Returns the CPUs and GPUs of each node, from the resources that Ray reports for it."""
    return [Machine(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in nodes]


def job_runtime_env(
    options: RunOptions, address: str | None, algorithm: str = ""
) -> dict[str, Any] | None:
    """Returns Ray's runtime environment for a run on the cluster at `address`.

    The environment holds the user's own settings and this process's copy of flowprep. So a node
    works even if it has no flowprep or another version, or joins later. The module of a user's own
    estimator is sent in the same way. On this machine (no address), workers find that module where
    this process found it. A submitted job that brings its own Python modules gets none from us.
    Raises ConfigError for a runtime environment that cannot be read.
    """
    env = parse_runtime_env(options.runtime_env) if options.runtime_env else {}
    own: Path | None = None
    if is_own(algorithm):
        from flowprep.flow.own import load_own

        own = load_own(algorithm).place
    # Installed packages are found anyway. On PYTHONPATH they would hide Python's own modules.
    if address is None and own is not None and str(own.parent) not in _installed_places():
        variables = env.setdefault("env_vars", {})
        path = variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [path, str(own.parent)]))
    if address is not None and options.ship_code and "py_modules" not in _submitted_runtime_env():
        package = Path(__file__).resolve().parents[1]
        modules = dict.fromkeys([package] if own is None else [package, own])
        env["py_modules"] = [*map(str, modules), *env.get("py_modules", [])]
    return env or None


def _installed_places() -> set[str]:
    return {str(Path(place).resolve()) for place in sysconfig.get_paths().values()}


def parse_runtime_env(text: str) -> dict[str, Any]:
    """Reads a runtime environment: JSON, or the name of a JSON or YAML file."""
    # Ray itself needs PyYAML for its own configuration files.
    import yaml

    is_name = not text.lstrip().startswith("{")
    try:
        # Any JSON is also YAML.
        values = yaml.safe_load(Path(text).read_text(encoding="utf-8") if is_name else text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            f"runtime_env cannot be read: {' '.join(str(error).split())}; give JSON, or a JSON or "
            f"YAML file"
        ) from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(
            "runtime_env must be an object such as "
            f'{{"env_vars": {{"NAME": "value"}}}}, got {json.dumps(values, default=str)}'
        )
    return values


def _submitted_runtime_env() -> Mapping[str, Any]:
    """Returns the runtime environment of the submitted job whose driver is this process."""
    try:
        config = json.loads(os.environ.get(_JOB_CONFIG_VARIABLE, "{}"))
        env = config.get("runtime_env") or {}
    except (ValueError, AttributeError):
        return {}
    return env if isinstance(env, dict) else {}
