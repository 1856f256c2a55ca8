"""All code of the README and of the documentation runs, page by page, as it stands there.

That of docs/extending.md changes the package first, for which it has a test of its own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests import object_store
from tests.docs.pages import ROOT, RUN_PAGES, Block, flowprep_arguments, read_page
from tests.docs.prepare import NAMES, prepare, run_flowprep

REQUIRE_TORCH = os.environ.get("FLOWPREP_REQUIRE_TORCH") == "1"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which each page takes what it begins with."""
    folder = tmp_path_factory.mktemp("docs")
    prepare(folder)
    return folder


class PageRun:
    """Runs the blocks of a page, in order, in one folder and one Python namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.output = ""
        """What the last `flowprep extract` printed."""

    def shell(self, block: Block) -> None:
        """Runs each line; flowprep's in this process, which saves its start."""
        for number, line in block.commands():
            where = f"{self.name}, line {number}: {line.strip()}"
            arguments = flowprep_arguments(line)
            if arguments is None:
                subprocess.run(["bash", "-euc", line], check=True)
                continue
            assert line.split()[0] == "flowprep", f"{where} is more than one command"
            code, output = run_flowprep([*arguments, *block.small.get(arguments[0], ())])
            assert code == 0, f"{where} ended with {code}:\n{output}"
            if arguments[0] == "extract" and "--dry-run" not in arguments:
                self.output = output

    def python(self, block: Block) -> None:
        """Runs a block after those before it; a failure names the page and the line."""
        code = "\n" * (block.line - 1) + block.text
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(code, str(ROOT / self.name), "exec"), self.names)

    def text(self, block: Block) -> None:
        """Holds a summary to what the last extraction printed, and a tree to the data set."""
        lines = block.text.splitlines()
        if lines[0].startswith("complete:"):
            for line in lines:
                head = re.split(r"\d", line)[0]
                assert any(said.startswith(head) for said in self.output.splitlines()), line
        if lines[0] == "OUT/":
            for line in lines[1:]:
                name = line.split()[0].replace("000012", "*")
                # Only `flowprep label` makes this one.
                assert list(Path("flow").glob(name)) or name == "labels/NAME.jsonl", line


@pytest.mark.parametrize("name", RUN_PAGES)
def test_the_code_of_a_page_runs(
    name: str,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    page = read_page(name)
    blocks = [block for block in page.blocks if block.not_run is None]
    if not any(block.language in ("sh", "python") for block in blocks):
        return
    monkeypatch.chdir(tmp_path)
    for thing in page.begins_with:
        for item in NAMES[thing]:
            source = prepared / item
            (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / item)
    if "bucket" in page.begins_with:
        endpoint = request.getfixturevalue("s3_endpoint")
        object_store.use_endpoint(monkeypatch, endpoint)
        client = object_store.client(endpoint)
        client.create_bucket(Bucket="bucket")
        for path in sorted((prepared / "clips").rglob("*.mp4")):
            key = path.relative_to(prepared / "clips").as_posix()
            client.upload_file(str(path), "bucket", f"videos/{key}")
    run = PageRun(name)
    kinds = {"sh": run.shell, "python": run.python, "text": run.text}
    for block in blocks:
        if block.needs is not None and importlib.util.find_spec(block.needs) is None:
            assert not REQUIRE_TORCH, f"{block.needs} is not installed"
            continue
        if block.language in kinds:
            kinds[block.language](block)


def test_a_block_that_fails_is_named_with_its_page_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = PageRun("docs/some.md")
    with pytest.raises(AssertionError, match=r"docs/some\.md, line 8: flowprep info nowhere"):
        run.shell(Block("sh", "\nflowprep info nowhere", 7, {}, None, None))
    with pytest.raises(AssertionError, match="more than one command"):
        run.shell(Block("sh", "true && flowprep --version", 7, {}, None, None))
    with pytest.raises(NameError) as caught:
        run.python(Block("python", "\nnothing", 7, {}, None, None))
    assert caught.traceback[-1].lineno == 7
