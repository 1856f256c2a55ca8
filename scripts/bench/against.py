"""Is this checkout as fast as an earlier commit? Both do the same work in turns, in one run.

  loader    scripts/bench/loader.py of each side: clips that a core loads per second
  pipeline  `flowprep extract --executor inline` with the code of each side: processor time

A ratio is the speed of this checkout divided by the speed of the commit, for two runs that follow
each other. The first number is the median. Above 1 this checkout is faster.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from processes import machine

from flowprep.synthetic import write_action_dataset

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FLOWPREP_TEST_DATA") or ROOT.parent / "shared" / "data")
ALGORITHMS = ("dis", "farneback", "tvl1")
_RATE = re.compile(r"^\| ([^|]+?) \| ([\d.,]+) \|", re.MULTILINE)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench_against",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("commit", help="the earlier commit, as git names it")
    parser.add_argument("parts", nargs="*", metavar="PART", help="of loader, pipeline; or both")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    options = parser.parse_args()
    parts = options.parts or ["loader", "pipeline"]
    if unknown := sorted({*parts} - {"loader", "pipeline"}):
        parser.error(f"PART must be loader or pipeline, got {', '.join(unknown)}")
    print(f"{machine()}, against {options.commit}")
    with tempfile.TemporaryDirectory(prefix="flowprep-against-") as name:
        work = Path(name)
        before = work / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(before), options.commit], check=True)
        try:
            sides = {"before": before, "now": ROOT}
            if "loader" in parts:
                _print("loader", "clips/s of a core", list(_load(sides, options.rounds)))
            if "pipeline" in parts:
                _print("pipeline", "runs/s of a core", list(_extract(sides, options.rounds, work)))
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)


Rates = dict[str, dict[str, float]]
"""Side -> name of the measurement -> rate per second."""


def _load(sides: dict[str, Path], rounds: int) -> Iterator[Rates]:
    for _ in range(rounds):
        found: Rates = {}
        for side, tree in sides.items():
            command = [sys.executable, "scripts/bench/loader.py", "stacks", "volumes", "samples"]
            done = subprocess.run(
                [*command, "--rounds", "3"],
                cwd=tree,
                env=os.environ | {"PYTHONPATH": str(tree), "FLOWPREP_TEST_DATA": str(DATA)},
                check=True,
                capture_output=True,
                text=True,
            )
            found[side] = _rates(done.stdout)
        yield found


def _rates(output: str) -> dict[str, float]:
    """Returns the rates in the rows of flowprep itself, by part and row."""
    rates = {}
    for part in re.split(r"\n(?=\w+\n\|)", output):
        title = part.strip().partition("\n")[0]
        for row, rate in _RATE.findall(part):
            if title == "samples" or "shards" in row:
                rates[f"{title}: {row}"] = float(rate.replace(",", ""))
    return rates


def _extract(sides: dict[str, Path], rounds: int, work: Path) -> Iterator[Rates]:
    write_action_dataset(
        work / "clips", num_videos_per_class=2, num_frames=40, width=340, height=256
    )
    for number in range(rounds + 1):
        found: Rates = {}
        for side, tree in sides.items():
            found[side] = {}
            for algorithm in ALGORITHMS:
                out = work / f"{side}-{algorithm}-{number}"
                command = ["-m", "flowprep", "extract", str(work / "clips/videos"), str(out)]
                options = ["--algorithm", algorithm, "--executor", "inline", "--no-progress"]
                child = subprocess.Popen(
                    [sys.executable, *command, *options],
                    cwd=work,
                    env=os.environ | {"PYTHONPATH": str(tree)},
                    stdout=subprocess.DEVNULL,
                )
                _, status, usage = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
                if child.returncode:
                    raise SystemExit(f"extract ended with exit code {child.returncode}")
                found[side][f"extract {algorithm}"] = 1 / (usage.ru_utime + usage.ru_stime)
        if number:  # The first turn only fills caches.
            yield found


def _print(title: str, unit: str, turns: list[Rates]) -> None:
    print(f"\n{title}\n| what | before, {unit} | now | now : before | lowest | highest |")
    print("|---|---|---|---|---|---|")
    names = [name for name in turns[0]["now"] if name in turns[0]["before"]]
    for name in names:
        before, now = ([turn[side][name] for turn in turns] for side in ("before", "now"))
        ratios = [b / a for a, b in zip(before, now, strict=True)]
        print(
            f"| {name} | {statistics.median(before):.3g} | {statistics.median(now):.3g} | "
            f"{statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |"
        )


if __name__ == "__main__":
    main()
