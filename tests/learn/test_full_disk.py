"""A disk that fills: a sentence, the checkpoint before stays whole, and the same command goes on.

The disks are small ones in a mount namespace of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.learn.test_preemption import ENVIRONMENT, train

# Writes with every amount of space left, in steps of 4 kB: each write of each file meets the end.
# Says what became of each, and of threads.
EVERY_SPACE = """
import os, shutil, sys, threading
from pathlib import Path
import torch
from flowprep.config import ExtractConfig
from flowprep.errors import StorageError
from flowprep.learn.checkpoint import Checkpoint, Task, load_checkpoint, save_checkpoint
from flowprep.learn.config import TrainConfig
from flowprep.learn.run_folder import MetricsRow, RunFolder

disk = Path(sys.argv[1])
config = TrainConfig()
tasks = (Task("data", ("a", "b"), ExtractConfig().to_dict(), "x"),)
weights = {"large": torch.zeros(200_000), "small": torch.zeros(10), "medium": torch.zeros(5_000)}
threading.excepthook = lambda args: print("thread", args.exc_value)

def leave(space):
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    save_checkpoint(disk / "last.pt", Checkpoint(config, tasks, 1, {"a": torch.ones(2)}))
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize - space))

def keep_folder():
    folder = RunFolder(disk / "run")
    with folder.locked():
        folder.begin(config, tasks, 0, tensorboard=True)
        for step in range(200):
            folder.add(MetricsRow(step, 1.0, "train", "data", 1.0, 0.5, 0.1, 3.0, 4.0))

def save():
    save_checkpoint(disk / "last.pt", Checkpoint(config, tasks, 2, weights))

for what, spaces in ((save, range(0, 900, 44)), (keep_folder, range(0, 48, 4))):
    for space in spaces:
        leave(space << 10)
        try:
            what()
            print(what.__name__, "done")
        except StorageError as error:
            assert error.reason == "full", error
            print(what.__name__, "full")
            assert what is keep_folder or load_checkpoint(disk / "last.pt").step == 1
"""


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")


def on_small_disk(disk: Path, size: str, script: str) -> subprocess.CompletedProcess[str]:
    disk.mkdir()
    line = f"mount -t tmpfs -o size={size} tmpfs {disk} && {script}"
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", line],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_file_of_a_training_says_that_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EVERY_SPACE, encoding="utf-8")
    script = f"{sys.executable} {tmp_path / 'script.py'} {tmp_path / 'disk'}"
    result = on_small_disk(tmp_path / "disk", "2m", script)
    assert (result.returncode, result.stderr) == (0, "")
    said = set(result.stdout.splitlines())
    assert said == {f"{what} {end}" for what in ("save", "keep_folder") for end in ("full", "done")}


def test_the_same_command_goes_on_when_there_is_space_again(motion: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    arguments = [*train(motion, disk / "run"), "--steps", "12", "--checkpoint-every", "0"]
    command = " ".join([sys.executable, "-m", "flowprep", *arguments, "--loaders", "0"])
    # Room for a checkpoint and its successor, until somebody fills the disk.
    script = (
        f"{command} & until [ -e {disk}/run/last.pt ]; do sleep .01; done; "
        f"cat /dev/zero > {disk}/filler 2> /dev/null; wait $!; echo code $? >&2; "
        f"rm {disk}/filler; {command}"
    )
    result = on_small_disk(disk, "64m", script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("trained: 12 steps")
    first, _, rest = result.stderr.partition("code 1\n")
    assert first.startswith("Error: cannot write ")
    assert first.endswith("the disk is full; free space and run the same command again\n")
    assert rest == ""
