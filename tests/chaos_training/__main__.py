"""Trainings that are killed, told to end, stopped, and out of disk by chance.

Each run trains a small network on synthetic clips, alone, by torchrun or on Ray (by turns), in a
folder on a small disk. One to three events happen to it: kill -9, SIGTERM, SIGSTOP and SIGCONT of
one of its processes, or a full disk that is freed later; a seed fixes which and when. Then the same
command is run until it says that the network is trained. Weights, optimizer and metrics must be,
bit for bit, those of an undisturbed run of the same kind, and SIGTERM to the command must lose no
step.

Results are appended to a file, so that several calls add up. The exit code is 1 where a run ended
in anything else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from flowprep.machine import cpu_model, usable_cores
from tests.chaos_training.runs import MODES, Undisturbed, run_once
from tests.learn.conftest import extract_actions


def main() -> int:
    """Carries out the runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/chaos_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=15, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first (default: 0)")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("runs", "chaos_training.jsonl"),
        help="file of the results (default: %(default)s)",
    )
    parser.add_argument("--table", action="store_true", help="print the table of the results alone")
    options = parser.parse_args()
    if options.table:
        print(table(options.results))
        return 0
    options.results.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"{cpu_model()}, {usable_cores()} cores; {commit}", flush=True)
    is_well = True
    with tempfile.TemporaryDirectory(prefix="flowprep-chaos-") as folder:
        data = extract_actions(Path(folder), "data", seed=0)
        undisturbed = Undisturbed(data, Path(folder, "undisturbed"))
        for seed in range(options.seed, options.seed + options.runs):
            outcome = run_once(seed, undisturbed, Path(folder, str(seed)))
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome | {"commit": commit}) + "\n")
            is_well &= not outcome["problem"]
            end = outcome["problem"] or "equal"
            print(f"{seed}: {outcome['mode']}: {end} ({outcome['seconds']:.0f} s)", flush=True)
            for line in outcome["story"]:
                print(f"    {line}", flush=True)
    print("\n" + table(options.results))
    return 0 if is_well else 1


def table(results: Path) -> str:
    """Returns a table of the results, the newest of each seed."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    outcomes: dict[int, dict[str, Any]] = {one["seed"]: one for one in map(json.loads, lines)}
    rows = ["| training | runs | bit for bit | commands | what happened |", "|---|---|---|---|---|"]
    for mode in MODES:
        chosen = [one for one in outcomes.values() if one["mode"] == mode]
        if not chosen:
            continue
        equal = sum(not one["problem"] for one in chosen)
        commands = sum(one["num_commands"] for one in chosen)
        events = Counter(event for one in chosen for event in one["events"])
        what = ", ".join(f"{count} {event}" for event, count in sorted(events.items()))
        rows.append(f"| {mode} | {len(chosen)} | {equal} | {commands} | {what} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
