"""Names of files and classes that would steer a terminal: every command shows them escaped."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from flowprep.synthetic import action_scene, write_video
from tests.cli.conftest import Command, Result
from tests.source_code import sources

TITLE = "\x1b]0;owned\x07"
NAMES = (
    f"walk\u202e{TITLE}/clip\r\nwhole: 9 of 9 videos stored\x9b2J.mp4",
    "run\nproblem: FORGED/caf\udce9.mp4",
    f"run\nproblem: FORGED/bad{TITLE}\n.mp4",
)
OPTIONS = ("--algorithm", "farneback", "--resize", "none", "--executor", "inline")
ALLOWED = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*")
FORGED = ("whole: 9 of 9", "problem: FORGED")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, flowprep: Command) -> Path:
    """A folder with hostile videos, and what each command makes of it."""
    root = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(NAMES):
        path = root / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "bad" in name:
            path.write_bytes(b"no video")
            continue
        scene = action_scene("move_left", num_frames=4, width=64, height=48, seed=number)
        plain = root / "plain.mp4"
        write_video(plain, map(scene.frame, range(4)))
        os.rename(plain, path)
    checked(flowprep("extract", root / "videos", root / "out", *OPTIONS), 1)
    return root


def checked(result: Result, code: int = 0) -> Result:
    """Returns the result of a command that printed no control character and no forged line."""
    assert result.code == code, result.stderr
    for text in (result.stdout, result.stderr):
        assert ALLOWED.fullmatch(text), ascii(text)
        assert not [line for line in text.splitlines() if line.startswith(FORGED)], text
        text.encode()
    return result


def test_listing_and_planning(hostile: Path, flowprep: Command, tmp_path: Path) -> None:
    videos = hostile / "videos"
    for arguments in (
        ("extract", videos, tmp_path / "other", *OPTIONS, "--dry-run"),
        ("plan", videos, *OPTIONS[:4]),
    ):
        checked(flowprep(*arguments))
    name = next(videos.iterdir()) / f"missing\n{TITLE}.mp4"
    result = checked(flowprep("extract", name, tmp_path / "other"), 2)
    assert r"missing\n\x1b]0;owned\x07.mp4" in result.stderr
    assert result.stderr.count("\n") == 1


def test_lists_and_their_lines(hostile: Path, flowprep: Command, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"gone{TITLE}.mp4 1\n#{TITLE} 2\n{hostile}/plain\u202e.mp4 2\n")
    checked(flowprep("extract", listed, tmp_path / "out", *OPTIONS), 1)
    table = tmp_path / "list.csv"
    table.write_text(f"path,label,sp{TITLE}lit\na{TITLE}.mp4,x{TITLE},y\n")
    checked(flowprep("extract", table, tmp_path / "other", *OPTIONS), 2)


def test_commands_on_a_data_set(hostile: Path, flowprep: Command, tmp_path: Path) -> None:
    out = hostile / "out"
    text = "".join(path.read_text() for path in out.glob("logs/*.log"))
    assert ALLOWED.fullmatch(text), ascii(text)
    for arguments in (
        ("verify", out, "--deep"),
        ("info", out),
        ("info", out, "--videos"),
        ("info", out, "--json"),
        ("status", out),
        ("status", out, "--json"),
        ("compare", out, out),
        ("view", out, "--to", tmp_path / "sheet.png"),
        ("label", out, "--name", "mine", "--rename", "run\nproblem: FORGED=run\x1b"),
        ("info", out, "--labels", "mine"),
        ("export", out, tmp_path / "frames", "--layout", "mmaction2"),
        ("import", tmp_path / "frames", tmp_path / "imported", "--layout", "mmaction2"),
    ):
        code = 1 if arguments[0] == "status" else 0
        checked(flowprep(*arguments), code)


def test_pages_show_names_escaped(hostile: Path, flowprep: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    checked(flowprep("report", hostile / "out", "--to", page))
    text = page.read_text()
    assert ALLOWED.fullmatch(text), ascii(text)
    assert r"run\nproblem: FORGED" in text


def test_tracebacks_are_escaped_too(
    hostile: Path, flowprep: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"name {TITLE}")

    monkeypatch.setattr("flowprep.dataset.describe.describe_dataset", broken)
    result = checked(flowprep("info", hostile / "out"), 1)
    assert r"RuntimeError: name \x1b]0;owned\x07" in result.stderr


def test_commands_print_through_one_module() -> None:
    # Reports escape each of their lines; JSON and Prometheus' format escape by themselves.
    allowed = re.compile(
        r"(\w+\.)*summary\(\)( \+ '\\n')?|estimate_run\(.*\)\.summary\(\)|_table\(rows\)"
        r"|describe_loading\(.*\)\.summary\(every=every\)"
        r"|json\.dumps\(.*|prometheus_text\(.*|'\\nInterrupted.*|"
        r"'key\\tlabels.*|f.\{video\.key\}\\t\{numbers\}\\t\{one_line\(video\.split.*|"
    )
    for path, source in sources(".py").items():
        if path == "cli/output.py":
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("click.echo", "click.secho", "print", "click.echo_via_pager"):
                shown = ast.unparse(node.args[0]) if node.args else ""
                assert path.startswith("cli/"), f"{path}:{node.lineno} prints"
                assert allowed.fullmatch(shown), f"{path}:{node.lineno} prints {shown}"
            if name == "tqdm":
                files = [ast.unparse(one.value) for one in node.keywords if one.arg == "file"]
                assert files == ["bar_stream()"], f"{path}:{node.lineno}: a bar needs bar_stream()"
