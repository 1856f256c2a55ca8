"""Estimators that users bring: finds `package.module:Class`, checks it and identifies its version.

    load_own("my_flow:MyFlow") -> OwnEstimator -> .create(values, device) -> FlowEstimator

Nothing here runs when a data set is read: its header holds only the names and values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import os
import sys
import traceback
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import msgspec

from flowprep.errors import ConfigError
from flowprep.flow.base import FlowEstimator, FrameKind
from flowprep.flow.devices import DEVICE_KINDS, is_device_failure
from flowprep.flow.parameters import check_algorithm

__all__ = ["OwnEstimator", "load_own"]

_SHOWN_DIGITS = 12
"""Hexadecimal digits of the source's SHA-256 that are stored, enough to distinguish versions."""


@dataclass(frozen=True)
class OwnEstimator:
    """A class that a user brought, after all checks."""

    name: str
    """`package.module:Class`."""
    kind: type[FlowEstimator]
    version: str | None
    """The version that the class or its module states."""
    source_sha256: str
    """SHA-256 of the file that defines the class."""
    place: Path
    """File or folder of the top-level module: all that a worker needs to import the class."""

    def create(self, values: Mapping[str, Any], device: str) -> FlowEstimator:
        """Makes the estimator. Raises ConfigError for wrong parameters, and if creation fails.

        `device` is PyTorch's name of the device.
        """
        parameters = self.parameters(values)
        try:
            return self.kind.create(parameters, device)
        except (ConfigError, MemoryError):
            raise
        except Exception as error:
            if is_device_failure(error):
                raise
            raise ConfigError(
                f"estimator {self.name} cannot be made: {_said(error)}; correct the class, or give "
                "other options"
            ) from error

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Returns the class's dataclass of parameters; None for a class that takes none.

        A text, as on the command line, is converted to its field's type. Raises ConfigError.
        """
        kind = self.kind.parameters_class
        fields = [] if kind is None else [one.name for one in dataclasses.fields(kind)]
        for name in values:
            if name not in fields:
                close = get_close_matches(name, fields, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                takes = f"it takes {', '.join(fields)}" if fields else "it takes none"
                raise ConfigError(f"estimator {self.name} has no option {name}; {takes}{hint}")
        if kind is None:
            return None
        hints = typing.get_type_hints(kind)
        given = {name: self._converted(name, one, hints[name]) for name, one in values.items()}
        try:
            return kind(**given)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"estimator {self.name} refuses its options: {_said(error)}; give other options"
            ) from error

    def implementation_with(self, values: Mapping[str, Any]) -> str:
        """Returns the text stored with the data: name, version, source, and weights if any."""
        weights = self.kind.weights(self.parameters(values))
        parts = [
            self.name if self.version is None else f"{self.name} {self.version}",
            f"source {self.source_sha256[:_SHOWN_DIGITS]}",
            *(() if weights is None else (weights,)),
        ]
        return ", ".join(parts)

    def _converted(self, name: str, value: Any, hint: Any) -> Any:
        readings = [value]
        if isinstance(value, str):
            with contextlib.suppress(ValueError, RecursionError):
                readings.append(json.loads(value))
        for reading in readings:
            try:
                return msgspec.convert(reading, hint, strict=not isinstance(reading, str))
            except (msgspec.ValidationError, TypeError):
                continue
        wanted = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
        raise ConfigError(f"estimator option {name} of {self.name} must be {wanted}, got {value!r}")


@functools.cache
def load_own(name: str) -> OwnEstimator:
    """Imports the class `package.module:Class` and checks it.

    The module is in the current folder, or Python finds it. Raises ConfigError, with the problem
    and the remedy, if there is no such module or class, if its import fails, or if the class is not
    an estimator.
    """
    check_algorithm(name)
    module_name, _, class_name = name.partition(":")
    module = _import(module_name, name)
    kind = getattr(module, class_name, None)
    if kind is None:
        _refuse_class(module, class_name, name)
    if not (isinstance(kind, type) and issubclass(kind, FlowEstimator)):
        raise ConfigError(
            f"estimator {name} must be a subclass of flowprep.FlowEstimator, and it is "
            f"{'another class' if isinstance(kind, type) else f'a {type(kind).__name__}'}"
        )
    if missing := sorted(kind.__abstractmethods__):
        raise ConfigError(f"estimator {name} must define {', '.join(missing)}, and does not")
    _check_class(kind, name)
    source = _source_of(kind, name)
    top = sys.modules[module_name.partition(".")[0]]
    place = Path(top.__file__) if top.__file__ else Path(next(iter(top.__path__)))
    return OwnEstimator(
        name=name,
        kind=kind,
        version=_version_of(kind, module),
        source_sha256=hashlib.sha256(source).hexdigest(),
        place=(place.parent if place.name.startswith("__init__.") else place).resolve(),
    )


def _import(module_name: str, name: str) -> ModuleType:
    top = module_name.partition(".")[0]
    folder = os.getcwd()
    # A program's own folder comes first on Python's path. For `flowprep`, it is not the user's.
    is_here = os.path.exists(os.path.join(folder, f"{top}.py")) or os.path.isdir(
        os.path.join(folder, top)
    )
    if is_here and top not in sys.modules and folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"estimator {name} cannot be imported: {_said(error)}; install what it needs"
            ) from error
        raise ConfigError(
            f"estimator {name}: Python finds no module {error.name}, neither in {folder} nor among "
            "the installed packages; correct the name, run in the folder of the module, or set "
            "PYTHONPATH"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"estimator {name} cannot be imported: {_said(error)}; correct the module"
        ) from error


def _refuse_class(module: ModuleType, class_name: str, name: str) -> typing.NoReturn:
    there = [
        one
        for one, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, FlowEstimator) and not _is_ours(value)
    ]
    close = get_close_matches(class_name, there, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    has = f"its estimators are {', '.join(there)}" if there else "it has no estimator"
    raise ConfigError(
        f"estimator {name}: the module {module.__name__} has no class {class_name}; {has}{hint}"
    )


def _check_class(kind: type[FlowEstimator], name: str) -> None:
    if kind.frames not in get_args(FrameKind):
        choices = " or ".join(map(repr, get_args(FrameKind)))
        raise ConfigError(f"frames of estimator {name} must be {choices}, got {kind.frames!r}")
    kinds = kind.device_kinds
    if not isinstance(kinds, tuple) or not kinds or not set(kinds) <= set(DEVICE_KINDS):
        raise ConfigError(
            f"device_kinds of estimator {name} must be a tuple of {', '.join(DEVICE_KINDS)}, got "
            f"{kinds!r}"
        )
    if "cpu" not in kinds:
        raise ConfigError(f"device_kinds of estimator {name} must have 'cpu', got {kinds!r}")
    parameters: Any = kind.parameters_class
    if parameters is not None and not (
        isinstance(parameters, type)
        and dataclasses.is_dataclass(parameters)
        and parameters.__dataclass_params__.frozen  # type: ignore[attr-defined]
    ):
        raise ConfigError(
            f"parameters_class of estimator {name} must be a frozen dataclass, got {parameters!r}"
        )


def _source_of(kind: type[FlowEstimator], name: str) -> bytes:
    try:
        return Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError) as error:
        raise ConfigError(
            f"estimator {name} must be in a file, so that workers can import it and data can name "
            "its version; put the class into a module of its own"
        ) from error


def _version_of(kind: type[FlowEstimator], module: ModuleType) -> str | None:
    top = sys.modules.get(module.__name__.partition(".")[0])
    for owner, attribute in (
        (kind, "version"),
        (kind, "implementation"),
        (module, "__version__"),
        (top, "__version__"),
    ):
        value = getattr(owner, attribute, None)
        if value is not None:
            return str(value)
    return None


def _is_ours(kind: type[FlowEstimator]) -> bool:
    return kind.__module__.startswith("flowprep.flow.")


def _said(error: Exception) -> str:
    """Returns the error in one line, with its place in the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{place}: {text}" if text else f"{type(error).__name__}{place}"
