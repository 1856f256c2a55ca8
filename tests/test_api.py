"""The public names are there, sorted, and documented."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil

import pytest

import flowprep


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each by name."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_public_names_are_sorted_and_importable() -> None:
    assert list(flowprep.__all__) == sorted(flowprep.__all__, key=order)
    assert len(set(flowprep.__all__)) == len(flowprep.__all__)
    for name in flowprep.__all__:
        assert getattr(flowprep, name) is not None


def test_public_names_are_documented() -> None:
    for name in flowprep.__all__:
        item = getattr(flowprep, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert item.__doc__, name
            assert not item.__doc__.startswith(f"{name}("), f"{name} has a generated docstring"


def test_the_version_is_that_of_the_installed_package() -> None:
    assert flowprep.__version__ == importlib.metadata.version("flowprep")


def test_the_contract_names_are_public() -> None:
    wanted = {"extract", "open_dataset", "create_estimator", "quantize", "dequantize", "PRESETS"}
    assert wanted <= set(flowprep.__all__)


@pytest.mark.parametrize(
    "name",
    sorted(
        module.name
        for module in pkgutil.walk_packages(flowprep.__path__, "flowprep.")
        if not module.name.endswith("__main__")
    ),
)
def test_every_name_that_a_module_exports_is_there(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        # Only the extras' libraries may be missing.
        if error.name is None or error.name.partition(".")[0] == "flowprep":
            raise
        pytest.skip(f"{error.name} is not installed")
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    for item in exported:
        assert hasattr(module, item), f"{name} has no {item}"
