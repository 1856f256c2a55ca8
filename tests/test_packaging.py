"""What pip may install, and what the scripts do install, fit together."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Versions are dates, so that there is no next major one; and of packaging every version parses.
UNBOUNDED = {"fsspec", "gcsfs", "nvidia-cuda-nvrtc-cu12", "packaging", "s3fs"}


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    assert parser.read(ROOT / "setup.cfg")
    return parser


def requirements() -> list[Requirement]:
    parser = settings()
    groups = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return [Requirement(line) for group in groups for line in group.splitlines() if line]


def pins(python: str) -> dict[str, str]:
    lines = (ROOT / f"scripts/constraints-{python}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_what_can_break_has_an_upper_bound() -> None:
    for one in requirements():
        operators = {specifier.operator for specifier in one.specifier}
        assert ">=" in operators, one
        assert "<" in operators or one.name in UNBOUNDED, one


def test_pythons_are_named_once_and_the_same_everywhere() -> None:
    metadata, options = settings()["metadata"], settings()["options"]
    named = re.findall(r"Python :: (3\.\d+)", metadata["classifiers"])
    assert tuple(named) == PYTHONS
    assert options["python_requires"] == ">=3.10,<3.14"
    script = (ROOT / "scripts/pythons").read_text(encoding="utf-8")
    assert f"SUPPORTED_PYTHONS=({' '.join(PYTHONS)})" in script
    files = {path.name for path in (ROOT / "scripts").glob("constraints*.txt")}
    assert files == {f"constraints-{python}.txt" for python in PYTHONS}


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_all_that_is_required_within_its_bounds(python: str) -> None:
    found = pins(python)
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    for one in requirements():
        if one.marker is not None and not one.marker.evaluate(environment):
            continue
        assert one.specifier.contains(found[canonicalize_name(one.name)]), one
    # What only other packages need is there too.
    assert {"llvmlite", "protobuf", "botocore", "werkzeug", "pluggy"} <= found.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_name_versions_and_no_place(python: str) -> None:
    text = (ROOT / f"scripts/constraints-{python}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert list(pins(python)) == sorted(pins(python))
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in lines)
