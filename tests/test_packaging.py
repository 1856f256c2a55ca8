"""What pip may install, and what the scripts do install, fit together."""

from __future__ import annotations

import configparser
import email
import email.message
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flowprep

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Versions are dates, so that there is no next major one; and of packaging every version parses.
BUILT_FROM = ("setup.cfg", "pyproject.toml", "LICENSE", "NOTICE", "docs/about.md")
"""What a wheel is built from, beside the package."""
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built with the setuptools that is installed."""
    pytest.importorskip("setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "flowprep", source / "flowprep", ignore=ignored)
    for name in BUILT_FROM:
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    code = "import sys, setuptools.build_meta; setuptools.build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-W", "ignore", "-c", code, str(out)]
    ran = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return next(out.glob("flowprep-*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    """What an index page shows of the wheel."""
    with zipfile.ZipFile(wheel) as file:
        name = next(one for one in file.namelist() if one.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(file.read(name))


def test_a_wheel_says_whose_it_is_and_under_which_license(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "flowprep"
    assert metadata["Version"] == flowprep.__version__
    assert metadata["Author"] == "The flowprep authors"
    assert metadata["License"] == "Apache-2.0"
    assert "License :: OSI Approved :: Apache Software License" in metadata.get_all("Classifier")
    assert {"optical flow", "action recognition"} <= set(metadata["Keywords"].split(","))
    assert metadata["Requires-Python"] == "<3.14,>=3.10"
    assert "docs" in metadata.get_all("Provides-Extra")


def test_a_wheel_holds_the_license_and_the_notice(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        for name in ("LICENSE", "NOTICE"):
            held = [one for one in file.namelist() if one.endswith(f"/{name}")]
            assert len(held) == 1, name
            assert ".dist-info/" in held[0]
            assert file.read(held[0]) == (ROOT / name).read_bytes()


def test_a_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "flowprep"
    found = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path.rpartition(".")[2] for path in found} >= {"css", "cu", "html", "js", "py", "typed"}
    with zipfile.ZipFile(wheel) as file:
        assert found == {one for one in file.namelist() if one.startswith("flowprep/")}


def test_the_license_is_apaches_own_text() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    # Of https://www.apache.org/licenses/LICENSE-2.0.txt.
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_the_long_description_needs_no_file_beside_it(metadata: email.message.Message) -> None:
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    text = metadata.get_payload(decode=True).decode()
    assert text.strip() == (ROOT / "docs/about.md").read_text(encoding="utf-8").strip()
    assert len(text.splitlines()) > 20
    assert not re.search(r"!\[|<img", text)
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", text))


def test_the_notice_names_every_required_package() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8").lower()
    required = settings()["options"]["install_requires"].splitlines()
    names = {Requirement(line).name for line in required if line and not line.startswith("#")}
    for name in names:
        assert re.search(rf"\b{name}\b", notice), name


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == flowprep.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["type"] == "software"


def test_the_image_has_all_that_is_required_but_decord() -> None:
    text = (ROOT / "examples/Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines()]
    (python,) = (
        re.fullmatch(r"python:(3\.\d+)-slim", line[1]) for line in lines if line[0] == "FROM"
    )
    assert python is not None
    installs = [line[1:] for line in lines if line[:3] == ["RUN", "pip", "install"]]
    constraints = f"scripts/constraints-{python[1]}.txt"
    options = ["pip", "install", "--no-cache-dir"]
    assert installs[0][:5] == [*options, "--constraint", constraints]
    assert installs[1:] == [[*options, "--no-deps", "."]]
    needed = {
        one.name
        for one in map(Requirement, settings()["options"]["install_requires"].strip().splitlines())
        if one.marker is None or one.marker.evaluate({"python_version": python[1]})
    }
    assert set(installs[0][5:]) == needed - {"decord"} == needed - {"tomli", "decord"}
    copied = [name for line in lines if line[0] == "COPY" for name in line[1:-1]]
    assert sorted(copied) == sorted([*BUILT_FROM, constraints, "flowprep"])
