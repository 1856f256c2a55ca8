"""The estimator of each algorithm's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowprep.errors import ConfigError
from flowprep.flow.base import FlowEstimator
from flowprep.flow.devices import estimator_on, resolve_device
from flowprep.flow.farneback import Farneback
from flowprep.flow.opencv import OpenCVDIS, OpenCVFarneback, OpenCVTVL1
from flowprep.flow.parameters import PARAMETERS, FlowParameters
from flowprep.flow.tvl1 import TVL1

__all__ = [
    "ESTIMATORS",
    "build_estimator",
    "create_estimator",
    "parse_parameters",
]

ESTIMATORS: dict[str, type[FlowEstimator]] = {
    "tvl1": TVL1,
    "tvl1-opencv": OpenCVTVL1,
    "farneback": Farneback,
    "farneback-opencv": OpenCVFarneback,
    "dis": OpenCVDIS,
}
"""The estimator class of each algorithm's name, on the CPU; `flowprep.flow.devices` has others."""


def create_estimator(name: str, *, device: str = "cpu", **parameters: Any) -> FlowEstimator:
    """Creates the estimator called `name` with the given parameters, the others at their defaults.

    The parameters are the fields of `flowprep.flow.parameters.PARAMETERS[name]`; `device` is one of
    `flowprep.flow.devices`, such as `auto` or `cuda:1`. Raises ConfigError for an unknown name or
    parameter, for a value that breaks a parameter's rule, and for a device that is not there.
    """
    checked = parse_parameters(name, parameters)
    return build_estimator(name, checked, device)


def build_estimator(
    name: str, parameters: FlowParameters | None, device: str = "cpu"
) -> FlowEstimator:
    """Returns the estimator of algorithm `name` for parameters that are checked already."""
    where = resolve_device(device, name)
    if where.kind != "cpu":
        return estimator_on(where, name, parameters)
    return ESTIMATORS[name](parameters)  # type: ignore[call-arg]


def parse_parameters(name: str, parameters: Mapping[str, Any]) -> FlowParameters:
    """Returns the parameters of algorithm `name`; raises ConfigError for what it does not take."""
    if name not in PARAMETERS:
        raise ConfigError(f"algorithm must be one of {', '.join(ESTIMATORS)}, got {name!r}")
    kind = PARAMETERS[name]
    known = list(kind.__dataclass_fields__)
    if unknown := [key for key in parameters if key not in known]:
        raise ConfigError(
            f"algorithm {name} has no parameter {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    return kind(**parameters)
