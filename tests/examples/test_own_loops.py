"""The examples of training loops of one's own run, each with the library that it is for."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

LIBRARIES = {
    "own_loop": "torch",
    "own_loop_lightning": "lightning",
    "own_loop_huggingface": "transformers",
}


def test_every_example_is_short() -> None:
    assert {path.stem for path in EXAMPLES.glob("own_loop*.py")} == set(LIBRARIES)
    for name in LIBRARIES:
        lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
        code = [line for line in lines if line.strip() and not line.startswith('"""')]
        assert 20 <= len(code) <= 40, name


@pytest.mark.parametrize("name", LIBRARIES)
def test_an_example_trains(name: str, motion: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    run = [str(tmp_path / "run")] if name == "own_loop_huggingface" else []
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(motion), *run, "2", "32"]
    # Each of them starts loader processes, as a user's script does.
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    if name == "own_loop":
        assert "epoch 1: " in ended.stdout
    if run:
        assert any(Path(run[0]).rglob("model.safetensors"))


GUARDLESS = """
import sys
import flowprep

if sys.argv[2] == "loader":
    from flowprep.learn.clips.streaming import StreamedClips, streaming_loader
    from flowprep.learn.config import ClipSpec, TrainConfig

    clips = StreamedClips(sys.argv[1], TrainConfig(clip=ClipSpec("flow", 4, crop_px=32)))
    print(len(list(streaming_loader(clips, batch_size=4, num_loaders=1))))
else:
    from flowprep.processes import in_processes

    print(len(list(in_processes(pow, 2, [3, 4, 5], 2))))
"""


@pytest.mark.parametrize("kind", ["loader", "processes"])
def test_a_script_without_the_guard_is_told_in_a_sentence(
    kind: str, motion: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(GUARDLESS)
    command = [sys.executable, str(script), str(motion), kind]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    said = ended.stderr.strip().splitlines()[-1]
    assert 'put what the script does under `if __name__ == "__main__":`' in said
    assert "memory" not in said
    assert "bootstrapping phase" not in ended.stderr
    # The same with the guard.
    head, guard, rest = GUARDLESS.partition('if sys.argv[2] == "loader"')
    lines = "".join(f"    {line}\n" for line in (guard + rest).splitlines())
    script.write_text(f'{head}if __name__ == "__main__":\n{lines}')
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_script_without_the_guard_extracts(tmp_path: Path) -> None:
    """Workers never import the script, neither the process of this machine nor Ray's."""
    script = tmp_path / "script.py"
    script.write_text(
        "import flowprep\n"
        "from flowprep.config import FlowSpec\n"
        "from flowprep.synthetic import action_scene, write_video\n"
        "scene = action_scene('move_left', num_frames=6, width=64, height=48, seed=0)\n"
        "write_video('a.mp4', map(scene.frame, range(6)))\n"
        "config = flowprep.ExtractConfig(flow=FlowSpec('dis'))\n"
        "print(len(flowprep.open_dataset(flowprep.extract('a.mp4', 'flow', config) and 'flow')))\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "1"
