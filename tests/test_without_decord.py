"""Everything but `--decoder decord` works where decord is not installed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowprep.synthetic import action_scene, write_video
from tests.source_code import sources

# Python imports this file in each process, also in the workers: decord is neither to be imported
# nor known to be installed.
HIDDEN = """
import importlib.metadata, sys

sys.modules["decord"] = None
_from_name = importlib.metadata.Distribution.from_name

def from_name(name):
    if name == "decord":
        raise importlib.metadata.PackageNotFoundError(name)
    return _from_name(name)

importlib.metadata.Distribution.from_name = staticmethod(from_name)
"""

COMMANDS = """
extract clips flow --algorithm farneback --resize none --executor process
verify flow --deep
status flow
info flow --videos
view flow --to flow.mp4
view clips/walk/a.mp4 --algorithm farneback --to sheet.png
report flow --to report.html --sample 2
compare flow flow
export flow frames --layout mmaction2
import frames imported --layout mmaction2
label flow --name mine --rename walk=move
"""

RUN = """
import contextlib, io, sys
from flowprep.cli import main

def run(line):
    try:
        main(line.split())
    except SystemExit as end:
        return end.code

for line in sys.argv[1].strip().splitlines():
    assert run(line) == 0, line

words = io.StringIO()
with contextlib.redirect_stderr(words):
    code = run("extract clips other --algorithm farneback --decoder decord")
assert code == 2, words.getvalue()
assert "the decoder decord is not installed: `pip install decord`" in words.getvalue()

from flowprep import doctor

versions = {one.name: one for one in doctor._versions()}
decoders = {one.name: one for one in doctor._decoders()}
assert versions["decord"] == doctor.Fact("decord", "not installed", "absent")
assert (decoders["pyav"].status, decoders["decord"].status) == ("ok", "absent")
assert [one.status for one in doctor._extraction()] == ["ok"]
"""


def test_all_but_its_own_option_works_without_decord(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for action in ("walk", "run"):
        (tmp_path / "clips" / action).mkdir(parents=True)
        scene = action_scene("move_left", num_frames=4, width=64, height=48, seed=0)
        write_video(tmp_path / "clips" / action / "a.mp4", map(scene.frame, range(4)))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDDEN)
    package = Path(__file__).parents[1]
    path = [str(hidden), str(package), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, COMMANDS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_decord_is_imported_where_a_video_is_opened_with_it_and_nowhere_else() -> None:
    found = {
        path
        for path, source in sources(".py").items()
        for node in ast.walk(ast.parse(source))
        if "decord" in _imported(node)
    }
    assert found == {"video/decord_reader.py"}
    top = ast.parse(sources(".py")["video/decord_reader.py"]).body
    assert not any("decord" in _imported(node) for node in top)


def _imported(node: ast.AST) -> set[str]:
    """Returns the packages that a statement imports."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    return {name.partition(".")[0] for name in names}
