"""`flowprep status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_status_of_a_finished_run(flowprep: Command, extract: Command, tmp_path: Path) -> None:
    assert extract().code == 0
    result = flowprep("status", tmp_path / "out")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"complete: 2 of 2 videos done (100.0 %) in {tmp_path}/out\n")
    values = json.loads(flowprep("status", tmp_path / "out", "--json").stdout)
    assert (values["state"], values["num_done"], values["progress"]["num_pairs"]) == (
        *("complete", 2),
        10,
    )
    text = flowprep("status", tmp_path / "out", "--prometheus").stdout
    assert "flowprep_videos_remaining 0\n" in text


def test_exit_code_tells_a_run_that_ended_early(
    flowprep: Command, extract: Command, clips: Path, tmp_path: Path
) -> None:
    assert extract().code == 0
    path = tmp_path / "out/logs/progress.json"
    old = {"state": "running", "updated": "2020-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(json.loads(path.read_text()) | old))
    result = flowprep("status", tmp_path / "out")
    assert result.code == 1
    assert result.stdout.startswith("silent: ")


def test_watch_ends_with_the_run(
    flowprep: Command, extract: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract().code == 0
    path = tmp_path / "out/logs/progress.json"
    done = path.read_text()
    new = {"state": "running", "updated": "2999-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(json.loads(done) | new))

    waits: list[float] = []

    def finish(seconds: float) -> None:
        waits.append(seconds)
        path.write_text(done)

    # The run ends between two looks.
    monkeypatch.setattr("flowprep.cli.dataset.time.sleep", finish)
    result = flowprep("status", tmp_path / "out", "--watch", 1)
    assert result.code == 0
    assert waits == [1]
    states = [line.split(":")[0] for line in result.stdout.splitlines() if "videos done" in line]
    assert states == ["running", "complete"]


def test_mistakes(flowprep: Command, tmp_path: Path) -> None:
    assert flowprep("status", tmp_path / "nothing").error.startswith("Error: OUT does not exist")
    result = flowprep("status", tmp_path, "--json", "--prometheus")
    assert (result.code, "cannot be given together" in result.error) == (2, True)
    assert "is not a flowprep data set" in flowprep("status", tmp_path).error
