"""Public names are imported when they are first used, and `dir()` shows them alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import flowprep
import flowprep.flow
import flowprep.learn
from flowprep.lazy import imported

PACKAGES = [flowprep, flowprep.flow, flowprep.learn]


def ran(code: str) -> str:
    """Returns what a new Python prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def announced(package: ModuleType) -> dict[str, str]:
    """Returns the names that type checkers see in a package, and where they come from."""
    found = {}
    for branch in ast.parse(inspect.getsource(package)).body:
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING":
            for statement in branch.body:
                assert isinstance(statement, ast.ImportFrom)
                assert statement.module is not None
                for item in statement.names:
                    found[item.asname or item.name] = f"{statement.module}:{item.name}"
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_shows_the_public_names_alone(package: ModuleType) -> None:
    # Many modules of both packages are imported by now.
    assert dir(package) == sorted(package.__all__)
    code = f"import {package.__name__} as package; print(*dir(package))"
    assert ran(code).split() == sorted(package.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_objects_that_are_there(package: ModuleType) -> None:
    places = announced(package)
    assert places
    for name in set(package.__all__) & set(places):
        assert getattr(package, name) is imported(places[name]), name
    own = {name for name in package.__all__ if name not in places}
    assert own == ({"__version__", "extract"} if package is flowprep else set())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'no'"):
        _ = package.no
    assert not hasattr(package, "_private")
    with pytest.raises(ImportError, match="cannot import name 'no'"):
        exec(f"from {package.__name__} import no", {})


def test_a_star_gives_every_public_name() -> None:
    names: dict[str, object] = {}
    exec("from flowprep import *", names)
    assert set(flowprep.__all__) <= set(names)


def test_modules_are_attributes_without_an_import_of_their_own() -> None:
    assert ran("import flowprep; print(flowprep.errors.VideoError.__name__)") == "VideoError\n"
    assert ran("import flowprep; print(flowprep.flow.tvl1.TVL1.__name__)") == "TVL1\n"


def test_a_name_is_looked_up_once() -> None:
    code = "import flowprep; flowprep.PRESETS; print('PRESETS' in vars(flowprep))"
    assert ran(code) == "True\n"


def test_an_error_inside_a_module_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"flowprep\.missing"):
        imported("flowprep.missing:name")
    with pytest.raises(AttributeError, match="no_name"):
        imported("flowprep.errors:no_name")
    assert (
        imported("flowprep.errors:VideoError")
        is importlib.import_module("flowprep.errors").VideoError
    )
