"""How long commands take to start, and how long a run of one short video takes, by executor.

Each command runs several times, in turn with the others. So other work on the machine affects all
commands alike. Prints the median and the smallest seconds, and the ratio of each row to the first
row. Before the measurement, the kernels are compiled and all files are read once.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from processes import machine

import flowprep
from flowprep.synthetic import action_scene, write_video

FPS = 25
PYTHON = sys.executable


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7, help="of each command")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of the clip")
    parser.add_argument("--size", default="128x96", help="of the clip")
    parser.add_argument("--algorithm", default="tvl1")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    num_frames = round(FPS * options.seconds)
    print(f"flowprep {flowprep.__version__} on {machine()}")
    print(f"a clip of {num_frames} frames, {options.size}, {options.algorithm}\n")
    with tempfile.TemporaryDirectory() as folder:
        clip, data = Path(folder, "clip.mp4"), Path(folder, "data")
        scene = action_scene("zoom_in", num_frames=num_frames, width=width, height=height, seed=0)
        write_video(clip, map(scene.frame, range(num_frames)), fps=FPS)
        extracting = ("extract", str(clip), "OUT", "--algorithm", options.algorithm)
        subprocess.run(
            _flowprep(*extracting, "--executor", "inline", out=data),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        commands = {
            "python": [PYTHON, "-c", "pass"],
            "import flowprep": [PYTHON, "-c", "import flowprep"],
            "import flowprep.cli": [PYTHON, "-c", "import flowprep.cli"],
            "flowprep --help": _flowprep("--help"),
            "flowprep extract --help": _flowprep("extract", "--help"),
            "flowprep status": _flowprep("status", "OUT", out=data),
            "flowprep info": _flowprep("info", "OUT", out=data),
        }
        show(measure(commands, options.runs))
        print()
        out = Path(folder, "out")
        runs = {
            f"extract, {executor}": _flowprep(*extracting, "--executor", executor, out=out)
            for executor in ("auto", "inline", "ray")
        }
        show(measure(runs, options.runs, lambda: shutil.rmtree(out, ignore_errors=True)))


def measure(
    commands: dict[str, list[str]], num_runs: int, prepare: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Returns the seconds of each run of each command, without the first round."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(num_runs + 1):
        for name, command in commands.items():
            prepare()
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    return {name: values[1:] for name, values in seconds.items()}


def show(seconds: dict[str, list[float]]) -> None:
    """Prints a row for each command."""
    print(f"{'':24} {'median':>8} {'least':>8} {'ratio':>7}")
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:24} {median:6.3f} s {min(values):6.3f} s {median / first:6.2f}x", flush=True)


def _flowprep(*arguments: str, out: Path | None = None) -> list[str]:
    words = [str(out) if word == "OUT" else word for word in arguments]
    return [PYTHON, "-m", "flowprep", *words]


if __name__ == "__main__":
    main()
