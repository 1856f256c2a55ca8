"""The release check: it names its parts, runs those chosen, and fails where one fails."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    """Returns scripts/checks/release.py, which is in no package."""
    path = ROOT / "scripts/checks/release.py"
    spec = importlib.util.spec_from_file_location("release_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


release = load()


def test_the_list_names_each_part_and_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(release.PARTS)
    assert any(
        "FLOWPREP_FAULT_RUNS=20 scripts/test tests/run/test_faults.py" in line for line in lines
    )


def test_every_command_is_there() -> None:
    for part in release.PARTS.values():
        for word in part.command:
            if "/" in word:
                assert (ROOT / word).exists(), part


def test_an_unknown_part_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        release.main(["soap"])
    assert caught.value.code == 2
    assert "got 'soap'; did you mean soak?" in capsys.readouterr().err


def test_bytes_without_a_commit_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "_git", lambda *arguments: "")
    with pytest.raises(SystemExit) as caught:
        release.main(["bytes"])
    assert caught.value.code == 2
    assert "--commit" in capsys.readouterr().err


def test_a_part_that_fails_stops_no_other_and_makes_the_exit_code_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python = sys.executable
    parts = {
        "bad": release.Part("fails", (python, "-c", "print('oh'); raise SystemExit(3)")),
        "good": release.Part(
            "passes", (python, "-c", "import os; print(os.environ['SAID'])"), {"SAID": "well"}
        ),
        "absent": release.Part("cannot run", ("false",), problem=lambda: "no such machine"),
        "against": release.Part(
            "a commit", (python, "-c", "import sys; print(sys.argv)", "COMMIT")
        ),
    }
    options = ["--logs", str(tmp_path / "logs"), "--commit", "abc123"]
    assert release.main(options, parts) == 1
    output = capfd.readouterr().out
    assert re.search(r"FAILED with exit code 3", output)
    assert len(re.findall(r"passed in", output)) == 2
    assert "not run: no such machine" in output
    assert re.search(r"^processor: .*, \d+ cores$", output, re.MULTILINE)
    assert re.search(r"^date: \d\d \w+ \d{4}$", output, re.MULTILINE)
    assert (tmp_path / "logs/good.log").read_text() == "well\n"
    assert "abc123" in (tmp_path / "logs/against.log").read_text()
    assert release.main([*options, "good", "absent"], parts) == 0
