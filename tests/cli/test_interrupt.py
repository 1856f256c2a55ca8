"""A run as a real process, with Ray and without: quiet, ended by Ctrl-C, and continued."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowprep.run.status import read_status
from tests.cli.conftest import NUM_FRAMES, Command
from tests.run.faults import wait_until

NUM_VIDEOS = 14


def slow_extract(clips: Path, root: Path, executor: str) -> list[str]:
    """A command that makes `root / "out"`, slow enough to be interrupted: by OpenCV's TV-L1."""
    (root / "videos").mkdir()
    for number in range(NUM_VIDEOS):
        shutil.copy(clips / "zoom_in/a.mp4", root / f"videos/{number:02d}.mp4")
    command = [sys.executable, "-m", "flowprep", "extract", str(root / "videos"), str(root / "out")]
    command += ["--algorithm", "tvl1-opencv", "--workers", "1", "--shard-size", "2"]
    return [*command, "--executor", executor]


@pytest.mark.parametrize(("executor", "number"), [("ray", "TERM"), ("auto", "INT")])
def test_a_batch_scripts_background_job_ends_in_order(
    executor: str, number: str, clips: Path, tmp_path: Path
) -> None:
    # Without job control bash lets what is in the background ignore SIGINT.
    line = shlex.join(slow_extract(clips, tmp_path, executor))
    line += (
        f" & until [ -e out/shards/000000.json ]; do sleep .05; done; kill -{number} $!; wait $!"
    )
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "\nInterrupted; the same command goes on where this one stopped.\n"
    assert read_status(tmp_path / "out").state == "interrupted"


@pytest.mark.parametrize("executor", ["auto", "ray"])
def test_ctrl_c_and_the_same_command_again(
    executor: str, flowprep: Command, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = slow_extract(clips, tmp_path, executor)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What was started in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            wait_until((out / "shards/000000.json").exists, process)
            # A terminal sends it to the whole group.
            os.killpg(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 1
    assert stdout == ""
    assert stderr == "\nInterrupted; the same command goes on where this one stopped.\n"
    assert len(list((out / "shards").glob("*.json"))) < NUM_VIDEOS // 2

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    # Neither a bar nor a word of Ray's, as stderr is no terminal.
    assert (again.returncode, again.stderr) == (0, "")
    lines = again.stdout.splitlines()
    assert lines[0] == f"complete: {NUM_VIDEOS} of {NUM_VIDEOS} videos in {out}"
    assert lines[1].startswith("  done before   ")
    assert lines[-1].startswith("  log           logs/run-")
    assert all(line.startswith("  ") for line in lines[1:])
    whole = flowprep("verify", "--deep", out)
    assert whole.code == 0
    num_flows = NUM_VIDEOS * (NUM_FRAMES - 1)
    assert whole.stdout.startswith(
        f"whole: {NUM_VIDEOS} of {NUM_VIDEOS} videos stored, 0 failed, {num_flows} flows"
    )
