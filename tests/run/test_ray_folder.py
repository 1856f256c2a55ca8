"""Where Ray keeps its sockets: whatever TMPDIR is, a run works or says what is wrong with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ExecutorError
from flowprep.run import ray_folder
from flowprep.run.ray_folder import RayFolder
from flowprep.run.ray_start import start_ray
from flowprep.synthetic import action_scene, write_video


def long_folder(top: Path) -> Path:
    """Makes a folder whose path has some 150 characters."""
    folder = top / ("x" * max(20, 150 - len(str(top))))
    folder.mkdir()
    return folder


def leftovers() -> set[str]:
    return {str(path) for path in Path("/tmp").glob("flowprep-ray-*")}


def run(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    scene = action_scene("move_left", num_frames=4, width=64, height=48, seed=1)
    write_video(tmp_path / "a.mp4", map(scene.frame, range(4)))
    command = [sys.executable, "-m", "flowprep", "extract", tmp_path / "a.mp4", tmp_path / "out"]
    environment = {k: v for k, v in os.environ.items() if k not in ("TMPDIR", "RAY_TMPDIR")}
    return subprocess.run(
        [
            *(*command, "--algorithm", "farneback", "--resize", "none", "--workers", "1"),
            *("--executor", "ray"),
        ],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_run_under_a_long_tmpdir(tmp_path: Path) -> None:
    before = leftovers()
    result = run(tmp_path, TMPDIR=str(long_folder(tmp_path)))
    assert (result.returncode, result.stderr) == (0, "")
    assert "complete: 1 of 1 videos" in result.stdout
    assert verify_dataset(tmp_path / "out", deep=True).problems == []
    assert leftovers() <= before


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_not_there(tmp_path: Path, variable: str) -> None:
    result = run(tmp_path, **{variable: str(tmp_path / "gone")})
    assert result.returncode == 1
    assert result.stderr.strip() == (
        f"Error: {variable} names the folder '{tmp_path}/gone', which does not exist; set "
        f"{variable} to a folder that exists and can be written to, or unset it"
    )


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(ExecutorError, match="TMPDIR names the folder '/proc', which cannot be"):
        start_ray(None, num_cpus=1)


def test_only_a_long_path_needs_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(variable, raising=False)
    assert RayFolder().path is None
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert RayFolder().path is None
    monkeypatch.setenv("RAY_TMPDIR", str(long_folder(tmp_path)))
    folder = RayFolder()
    assert folder.path is not None
    assert folder.path.startswith("/tmp/flowprep-ray-")
    assert os.stat(folder.path).st_mode & 0o777 == 0o700
    other = RayFolder()
    assert os.path.isdir(folder.path)  # It is in use: no leftover.
    for each in (folder, other):
        path = each.path or ""
        each.remove()
        assert not os.path.exists(path)
    # Bytes count, not characters.
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("é" * 15)))
    (tmp_path / ("é" * 15)).mkdir()
    (folder := RayFolder()).remove()


def test_no_short_folder_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_folder, "_SHORT_FOLDERS", ("/proc", "/nowhere"))
    monkeypatch.setenv("RAY_TMPDIR", str(long_folder(tmp_path)))
    with pytest.raises(ExecutorError, match="/proc, /nowhere cannot be written to; set RAY_TMPDIR"):
        RayFolder()


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(long_folder(tmp_path)))
    program = (
        "import os, signal\nfrom flowprep.run.ray_folder import RayFolder\n"
        "print(RayFolder().path, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = killed.stdout.strip()
    assert os.path.isdir(left)
    RayFolder().remove()
    assert not os.path.exists(left)
