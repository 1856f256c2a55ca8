"""Runs the checks that take too long for CI, part by part, and prints a table of the results.

Without PART it runs all parts, which takes some hours. A part that fails does not stop the others.
The output of each part is shown, and kept in a file. The exit code is 1 when a part failed.
docs/measured.md has the numbers of the last release.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import Path

import flowprep
from flowprep.machine import cpu_model, cpu_vectors, usable_cores

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "COMMIT"
"""In a command, a placeholder for the commit whose bytes and speed are compared with this one."""


@dataclass(frozen=True)
class Part:
    """One command of the release check."""

    what: str
    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the command needs."""
    problem: Callable[[], str | None] = lambda: None
    """Says why this machine cannot run the part, or None."""

    def typed(self) -> str:
        """Returns the command as a user would type it in the checkout."""
        return " ".join(
            [*(f"{k}={v}" for k, v in self.variables.items()), shlex.join(self.command)]
        )


def _no_gpu() -> str | None:
    try:
        flowprep.create_estimator("tvl1", device="cuda")
    except flowprep.FlowprepError as error:
        return str(error).partition("\n")[0]
    return None


PARTS: dict[str, Part] = {
    "fuzz-videos": Part("2,000 damaged videos", ("scripts/fuzz", "videos")),
    "fuzz-shards": Part("2,000 damaged data sets", ("scripts/fuzz", "shards")),
    "fuzz-checkpoints": Part("2,000 damaged checkpoints", ("scripts/fuzz", "checkpoints")),
    "fuzz-runs": Part("2,000 damaged run folders", ("scripts/fuzz", "runs")),
    "faults": Part(
        "runs that are killed and run again",
        ("scripts/test", "tests/run/test_faults.py"),
        {"FLOWPREP_FAULT_RUNS": "20"},
    ),
    "cluster": Part(
        "a cluster that loses its nodes",
        ("scripts/test", "tests/run/test_cluster.py", "-k", "random_losses"),
        {"FLOWPREP_FAULT_RUNS": "10"},
    ),
    "chaos": Part(
        "runs that lose processes, nodes, memory, disk and files", ("scripts/chaos", "--runs", "40")
    ),
    "chaos-training": Part(
        "trainings that are killed, stopped and out of disk",
        ("scripts/chaos_training", "--runs", "15"),
    ),
    "weights": Part(
        "real weights that packages carry",
        ("scripts/test", "tests/learn/weights"),
        {"FLOWPREP_REQUIRE_WEIGHTS": "1"},
    ),
    "bytes": Part("the bytes of an earlier commit", ("scripts/check_bytes", COMMIT)),
    "against": Part("the speed of an earlier commit", ("scripts/bench_against", COMMIT)),
    "flow": Part("estimators against OpenCV's", ("scripts/bench_flow",)),
    "pipeline": Part("from videos to shards", ("scripts/bench_pipeline", "--end-to-end")),
    "loader": Part("reading for training", ("scripts/bench_loader",)),
    "memory": Part("memory of a worker", ("scripts/bench_memory", "--resize", "short:128")),
    "features": Part("memory of features", ("scripts/bench_memory", "--features")),
    "scale": Part("650,000 videos", ("scripts/bench_scale",)),
    "gpu": Part("estimators on a GPU", ("scripts/bench_gpu",), problem=_no_gpu),
    "gpu-check": Part("a first look at a GPU", ("scripts/gpu_check",), problem=_no_gpu),
    "start": Part("start of commands", ("scripts/bench_start",)),
    "papers": Part("the papers' tables, small", ("scripts/papers",)),
    "learn": Part("what each network can learn", ("scripts/bench_learn",)),
    "soak": Part("half an hour of many videos", ("scripts/bench_soak",)),
}


def main(arguments: Sequence[str] | None = None, parts: Mapping[str, Part] = PARTS) -> int:
    """Runs the parts. Returns 1 if a part failed."""
    options = _read_options(arguments, parts)
    chosen = {name: parts[name] for name in parts if not options.parts or name in options.parts}
    if options.list:
        for name, part in chosen.items():
            print(f"{name:16} {part.what:56} {part.typed()}")
        return 0
    options.logs.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, part in chosen.items():
        command = tuple(options.commit if word == COMMIT else word for word in part.command)
        part = Part(part.what, command, part.variables, part.problem)
        results[part.typed()] = _run(name, part, options.logs / f"{name}.log")
    print(f"\nprocessor: {cpu_model()}, {cpu_vectors()}, {usable_cores()} cores")
    print(f"date: {date.today():%d %B %Y}")
    print(f"flowprep: {flowprep.__version__}, commit {_git('rev-parse', '--short', 'HEAD')}\n")
    print("| command | result |\n|---|---|")
    for typed, result in results.items():
        print(f"| `{typed}` | {result} |")
    print(f"\nThe output of each part is in {options.logs}.")
    return 1 if any(result.startswith("FAILED") for result in results.values()) else 0


def _read_options(arguments: Sequence[str] | None, parts: Mapping[str, Part]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/release_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="such as soak; --list has them")
    parser.add_argument("--list", action="store_true", help="list the parts and run nothing")
    parser.add_argument(
        "--commit", metavar="NAME", help="what `bytes` compares with (default: the last tag)"
    )
    parser.add_argument(
        "--logs",
        type=Path,
        default=ROOT / "build" / "release-check",
        metavar="FOLDER",
        help="where the output of each part goes (default: build/release-check)",
    )
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in parts:
            close = get_close_matches(name, parts, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            parser.error(f"PART must be one of {', '.join(parts)}, got {name!r}{hint}")
    needs_commit = any(COMMIT in parts[name].command for name in options.parts or parts)
    options.commit = options.commit or _git("describe", "--tags", "--abbrev=0")
    if needs_commit and not options.commit and not options.list:
        parser.error("there is no tag to compare the bytes with; name a commit with --commit")
    return options


def _git(*arguments: str) -> str:
    """Returns the output of a git command, or an empty string if it fails."""
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip()


def _run(name: str, part: Part, log: Path) -> str:
    """Runs a part, shows its output and keeps it. Returns its entry in the table."""
    if (problem := part.problem()) is not None:
        return f"not run: {problem}"
    print(f"\n== {name}: {part.typed()}", flush=True)
    began = time.monotonic()
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            part.command,
            cwd=ROOT,
            env={**os.environ, **part.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
    minutes = (time.monotonic() - began) / 60
    if process.returncode == 0:
        return f"passed in {minutes:.1f} min"
    return f"FAILED with exit code {process.returncode} after {minutes:.1f} min"


if __name__ == "__main__":
    sys.exit(main())
