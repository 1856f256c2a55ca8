"""A command line that tests call in this process, and a few small clips."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowprep.cli import main
from flowprep.synthetic import action_scene, write_video

NUM_FRAMES = 6
FPS = 25.0


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """What stands on stderr after the usage lines, if there are any."""
        return self.stderr[self.stderr.index("Error: ") :]


Command = Callable[..., Result]


@pytest.fixture(scope="session")
def flowprep() -> Command:
    """Runs `flowprep ARGUMENTS...` in this process."""

    def run(*arguments: object) -> Result:
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            pytest.raises(SystemExit) as end,
        ):
            main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Result(end.value.code, stdout.getvalue(), stderr.getvalue())

    return run


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips in two class folders."""
    root = tmp_path_factory.mktemp("input") / "clips"
    for seed, action in enumerate(("move_left", "zoom_in")):
        (root / action).mkdir(parents=True)
        scene = action_scene(action, num_frames=NUM_FRAMES, width=64, height=48, seed=seed)
        frames = (scene.frame(t) for t in range(NUM_FRAMES))
        write_video(root / action / "a.mp4", frames, FPS)
    return root


@pytest.fixture
def extract(flowprep: Command, clips: Path, tmp_path: Path) -> Command:
    """Runs `flowprep extract CLIPS tmp_path/out OPTIONS...`, fast and in this process."""

    def run(*options: object) -> Result:
        quick = [] if "--algorithm" in options else ["--algorithm", "dis"]
        return flowprep(
            "extract", clips, tmp_path / "out", "--executor", "inline", *quick, *options
        )

    return run
