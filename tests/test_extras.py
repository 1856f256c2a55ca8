"""The extras: their names are those of setup.cfg, and one wording says that one is missing."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import get_args

import pytest

import flowprep
from flowprep.errors import MissingExtraError
from flowprep.extras import (
    EXTRA_MODULES,
    ExtraName,
    extra_needed,
    install_command,
    missing_extra,
)

ROOT = Path(__file__).parent.parent
FOR_DEVELOPERS = {"test", "lint", "docs"}
MODULE_OF = {"scikit-learn": "sklearn", "google-crc32c": "google_crc32c"}
"""Modules that are not called as their package is."""
BROUGHT_ALONG = {"train": {"scipy"}, "browse": {"anyio", "h11"}}
"""What the packages of an extra bring and flowprep, or they themselves, import by name."""


def extras_of_setup() -> dict[str, set[str]]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    found = {}
    for extra, lines in parser["options.extras_require"].items():
        names = [re.match(r"[\w.-]+", line) for line in lines.strip().splitlines()]
        found[extra] = {name[0] for name in names if name}
    return found


def test_extras_are_those_of_setup_cfg() -> None:
    found = {
        extra: {MODULE_OF.get(name, name) for name in names} - {"ray"}
        for extra, names in extras_of_setup().items()
        if extra not in FOR_DEVELOPERS
    }
    modules = {
        extra: set(names) - BROUGHT_ALONG.get(extra, set())
        for extra, names in EXTRA_MODULES.items()
    }
    assert modules == found
    assert set(get_args(ExtraName)) == set(modules)


def test_every_extra_that_is_named_to_a_user_exists() -> None:
    known = set(extras_of_setup())
    place_of_extra = {"extra_needed": 1, "missing_extra": 2, "install_command": 0}
    named = set()
    for path in Path(flowprep.__file__).parent.rglob("*.py"):
        source = path.read_text()
        assert "pip install -e" not in source, path
        for node in ast.walk(ast.parse(source)):
            place = place_of_extra.get(getattr(getattr(node, "func", None), "id", ""))
            if isinstance(node, ast.Call) and place is not None:
                extra = node.args[place]
                if isinstance(extra, ast.Constant):
                    assert extra.value in known, f"{path}:{node.lineno}"
                    named.add(extra.value)
    assert named >= {"browse", "export", "gpu", "report", "train"}


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))], ids=lambda path: path.stem
)
def test_every_extra_in_the_docs_exists(path: Path) -> None:
    for extras in re.findall(r"(?:flowprep|\.)\[([\w,]+)\]['\"`]", path.read_text()):
        assert set(extras.split(",")) <= set(extras_of_setup())


def test_a_missing_module_of_the_extra_is_one_error() -> None:
    with (
        pytest.raises(MissingExtraError) as caught,
        extra_needed("`flowprep report`", "report", otherwise="go on without it"),
    ):
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib.axes")
    assert str(caught.value) == (
        "`flowprep report` needs matplotlib, which cannot be imported; "
        "run `pip install 'flowprep[report]'`, or go on without it"
    )
    assert caught.value.exit_code == 1


def test_another_import_that_fails_is_raised_as_it_is() -> None:
    with pytest.raises(ImportError, match="nothing") as caught, extra_needed("x", "train"):
        raise ImportError("nothing", name="flowprep.nothing")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize("extra", get_args(ExtraName))
def test_the_command_names_the_extra(extra: str) -> None:
    command = f"`pip install 'flowprep[{extra}]'`"
    assert install_command(extra) == command
    assert missing_extra("it", "something", extra).endswith(f"; run {command}")
