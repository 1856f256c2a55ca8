"""The estimator of each algorithm on each kind of device, and estimators that users bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowprep.errors import ConfigError
from flowprep.extras import extra_needed
from flowprep.flow.devices import (
    Device,
    DeviceKind,
    cuda_state,
    device_name,
    parse_device,
    why_no_cuda,
    why_no_torch,
)
from flowprep.flow.parameters import (
    PARAMETERS,
    FlowParameters,
    OwnParameters,
    check_algorithm,
    is_own,
)

if TYPE_CHECKING:
    from flowprep.flow.base import FlowEstimator
    from flowprep.flow.own import OwnEstimator

__all__ = [
    "ESTIMATORS",
    "build_estimator",
    "check_device",
    "create_estimator",
    "device_kinds",
    "has_gpu_version",
    "implementation_of",
    "libraries_of",
    "parse_parameters",
    "resolve_device",
]


# Each class is imported only when it computes: OpenCV is slow to import, and PyTorch takes seconds.


def _tvl1() -> type[FlowEstimator]:
    from flowprep.flow.tvl1 import TVL1

    return TVL1


def _tvl1_torch() -> type[FlowEstimator]:
    from flowprep.flow.tvl1_torch import TVL1Torch

    return TVL1Torch


def _tvl1_cuda() -> type[FlowEstimator]:
    # Written for NVIDIA's compiler, which AMD's GPUs lack.
    if cuda_state().torch_hip is not None:
        return _tvl1_torch()
    from flowprep.flow.tvl1_cuda import TVL1Cuda

    return TVL1Cuda


def _tvl1_opencv() -> type[FlowEstimator]:
    from flowprep.flow.opencv import OpenCVTVL1

    return OpenCVTVL1


def _farneback() -> type[FlowEstimator]:
    from flowprep.flow.farneback import Farneback

    return Farneback


def _farneback_torch() -> type[FlowEstimator]:
    from flowprep.flow.farneback_torch import FarnebackTorch

    return FarnebackTorch


def _farneback_opencv() -> type[FlowEstimator]:
    from flowprep.flow.opencv import OpenCVFarneback

    return OpenCVFarneback


def _brox() -> type[FlowEstimator]:
    from flowprep.flow.brox import Brox

    return Brox


def _brox_torch() -> type[FlowEstimator]:
    from flowprep.flow.brox_torch import BroxTorch

    return BroxTorch


def _dis() -> type[FlowEstimator]:
    from flowprep.flow.opencv import OpenCVDIS

    return OpenCVDIS


def _raft() -> type[FlowEstimator]:
    with extra_needed("algorithm raft", "raft"):
        from flowprep.flow.raft import RAFT

    return RAFT


ESTIMATORS: dict[tuple[str, DeviceKind], Callable[[], type[FlowEstimator]]] = {
    ("tvl1", "cpu"): _tvl1,
    ("tvl1", "cuda"): _tvl1_cuda,
    ("tvl1", "mps"): _tvl1_torch,
    ("tvl1", "torch-cpu"): _tvl1_torch,
    ("tvl1-opencv", "cpu"): _tvl1_opencv,
    ("farneback", "cpu"): _farneback,
    ("farneback", "cuda"): _farneback_torch,
    ("farneback", "mps"): _farneback_torch,
    ("farneback", "torch-cpu"): _farneback_torch,
    ("farneback-opencv", "cpu"): _farneback_opencv,
    ("brox", "cpu"): _brox,
    ("brox", "cuda"): _brox_torch,
    ("brox", "mps"): _brox_torch,
    ("brox", "torch-cpu"): _brox_torch,
    ("dis", "cpu"): _dis,
    ("raft", "cpu"): _raft,
    ("raft", "cuda"): _raft,
    ("raft", "mps"): _raft,
    ("raft", "torch-cpu"): _raft,
}
"""Functions that import the class of each algorithm for each kind of device. Every algorithm has a
class for the CPU. All classes of an algorithm share one `implementation` and the same frames."""


def create_estimator(name: str, *, device: str = "cpu", **parameters: Any) -> FlowEstimator:
    """Creates the estimator called `name`. Parameters that are not given have their defaults.

    `name` is an algorithm, or `package.module:Class` for an estimator of your own. The parameters
    are the fields of `flowprep.flow.parameters.PARAMETERS[name]`, or of your class's own dataclass.
    `device` is a name from `flowprep.flow.devices`, such as `auto` or `cuda:1`. Raises ConfigError
    for an unknown name or parameter, for a value that breaks a parameter's rule, and for a device
    that does not exist.
    """
    return build_estimator(name, parse_parameters(name, parameters), device)


def build_estimator(
    name: str, parameters: FlowParameters | Mapping[str, Any] | None, device: str = "cpu"
) -> FlowEstimator:
    """Returns the estimator of algorithm `name` for parameters that are already checked."""
    where = resolve_device(device, name)
    if is_own(name):
        estimator = _own(name).create(_own_values(parameters), where.torch_name)
    elif where.insists:
        estimator = _insisted(parameters, where)
    else:
        estimator = _class_of(name, where.kind).create(parameters, where.torch_name)
    if where.kind != "cpu":
        estimator.device_name = device_name(where)
    return estimator


def parse_parameters(name: str, parameters: Mapping[str, Any]) -> FlowParameters:
    """Returns all parameters of algorithm `name`. Those that are not given have their defaults.

    Raises ConfigError for a parameter that the algorithm does not take.
    """
    check_algorithm(name)
    if is_own(name):
        checked = _own(name).parameters(parameters)
        return OwnParameters.of({} if checked is None else asdict(checked))
    kind = PARAMETERS[name]
    known = list(kind.__dataclass_fields__)
    if unknown := [key for key in parameters if key not in known]:
        raise ConfigError(
            f"algorithm {name} has no parameter {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    made: FlowParameters = kind(**parameters)
    return made


def implementation_of(name: str, parameters: FlowParameters | Mapping[str, Any] | None) -> str:
    """Returns the implementation of an algorithm, as it is stored with the data.

    It is the implementation of the class, with the weights that the parameters select. For a user's
    own estimator it also holds the name, version and source.
    """
    if is_own(name):
        return _own(name).implementation_with(_own_values(parameters))
    return _class_of(name, "cpu").implementation_with(parameters)


def libraries_of(algorithm: str) -> tuple[str, ...]:
    """Returns the packages of an algorithm whose versions are stored with the data."""
    return (_own(algorithm).kind if is_own(algorithm) else _class_of(algorithm, "cpu")).libraries


def device_kinds(algorithm: str) -> tuple[DeviceKind, ...]:
    """Returns the kinds of device on which an algorithm can be computed."""
    if is_own(algorithm):
        return _own(algorithm).kind.device_kinds
    return tuple(kind for name, kind in ESTIMATORS if name == algorithm)


def has_gpu_version(algorithm: str) -> bool:
    """Whether an algorithm has a GPU version."""
    return any(kind != "cpu" for kind in device_kinds(algorithm))


def check_device(name: str, algorithm: str) -> Device | None:
    """Reads a device's name for an algorithm; None is `auto`. Does not look at the machine.

    Raises ConfigError for an invalid name, and if the algorithm has no version for the device.
    """
    device = parse_device(name)
    kinds = device_kinds(algorithm)
    if device is not None and device.insists and algorithm != "tvl1":
        raise ConfigError(
            f"device {name!r} insists on a CUDA kernel, and only tvl1 has one, not {algorithm}; "
            f"take {name.removesuffix('!')}"
        )
    if device is None or device.kind in kinds:
        return device
    others = [one for one in PARAMETERS if has_gpu_version(one)]
    remedy = f"{_listed(others)} have a version for GPUs"
    if is_own(algorithm):
        remedy = "the class's device_kinds say so"
    raise ConfigError(f"device of {algorithm} must be {' or '.join(kinds)}, got {name!r}; {remedy}")


def resolve_device(name: str, algorithm: str) -> Device:
    """Returns the device that `name` means on this machine for an algorithm.

    Raises ConfigError, with the rule, the value and the remedy, for an invalid device name, for an
    algorithm without a version for the device, and for a GPU that is missing or does not work.
    """
    device = check_device(name, algorithm)
    if device is None:
        usable = "cuda" in device_kinds(algorithm) and why_no_cuda(cuda_state()) is None
        return Device("cuda" if usable else "cpu")
    if device.kind == "cpu":
        return device
    if device.kind == "cuda":
        reason = why_no_cuda(cuda_state(), device.index)
    else:
        reason = why_no_torch(device.kind)
    if reason is not None:
        raise ConfigError(f"device {name!r} cannot be used: {reason}; or take --device cpu")
    return device


def _insisted(parameters: object, where: Device) -> FlowEstimator:
    """Makes TV-L1's CUDA kernel without a trial."""
    kind: Any = _tvl1_cuda()
    if kind is _tvl1_torch():
        raise ConfigError(
            f"device '{where}' insists on a kernel for NVIDIA's GPUs, and this PyTorch is built "
            f"for AMD's; take --device {where.torch_name}"
        )
    try:
        estimator: FlowEstimator = kind(parameters, device=where.torch_name)
    except (ImportError, OSError, RuntimeError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise ConfigError(
            f"device '{where}' insists on TV-L1's CUDA kernel, which cannot be used here "
            f"({type(error).__name__}: {' '.join(str(error).split())}); "
            f"take --device {where.torch_name}"
        ) from error
    return estimator


def _class_of(algorithm: str, kind: DeviceKind) -> type[FlowEstimator]:
    return ESTIMATORS[algorithm, kind]()


def _own(name: str) -> OwnEstimator:
    from flowprep.flow.own import load_own

    return load_own(name)


def _own_values(parameters: object) -> dict[str, Any]:
    return parameters.values if isinstance(parameters, OwnParameters) else {}


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
