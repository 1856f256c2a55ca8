"""Imports the public names of a package when they are first used (PEP 562).

    __getattr__, __dir__ = lazy_names(__name__, {"PRESETS": "flowprep.presets"})

So `import flowprep` loads no NumPy, and a command's help loads no decoder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["imported", "lazy_names"]


def imported(place: str) -> Any:
    """Imports the object at `package.module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` of a package whose names are defined in other modules.

    `homes` maps a name to its module, or to `module:name` if it has another name in the module. The
    modules of the package are also attributes, imported or not. `dir()` does not list them. It
    lists only the names in `__all__`.
    """

    def get(name: str) -> Any:
        if name in homes:
            module, _, attribute = homes[name].partition(":")
            value = imported(f"{module}:{attribute or name}")
            setattr(sys.modules[package], name, value)
            return value
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return get, names
