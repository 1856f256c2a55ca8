"""Chaos: extractions that lose workers, drivers, nodes, memory, disk and files by chance.

Each run starts `flowprep extract` on Ray on this machine, lets one to three events happen to it (a
seed fixes which and when), and then runs the same command until it says that the data set is
complete. The result must have the bytes of an undisturbed run, and no sound video may ever have
been recorded as failed by its own fault.

The videos are UCF101's (in FLOWPREP_TEST_DATA; synthetic ones without it), by Farneback at a short
side of 128. Results are appended to a file, so that several calls add up; a seed that has a result
of this commit already is passed over. The exit code is 1 when a run ended in anything else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from flowprep.machine import cpu_model, usable_cores
from flowprep.synthetic import write_action_dataset
from tests.chaos import results
from tests.chaos.events import EVENTS
from tests.chaos.runs import make_undisturbed, run_once
from tests.conftest import DATA


def main() -> int:
    """Carries out the runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=40, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first (default: 0)")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("runs", "chaos.jsonl"),
        help="file of the results (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="repeat seeds that have a result")
    parser.add_argument("--table", action="store_true", help="print the table of the results alone")
    options = parser.parse_args()
    if options.table:
        print(results.table(results.read(options.results)))
        return 0
    commit = _commit()
    seeds = list(range(options.seed, options.seed + options.runs))
    if not options.again:
        done = results.done_seeds(options.results, commit)
        seeds = [seed for seed in seeds if seed not in done]
    if os.geteuid() != 0:
        left_out = [name for name, event in EVENTS.items() if event.needs_root]
        print(f"not possible without root, and left out: {', '.join(left_out)}")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    print(f"{cpu_model()}, {usable_cores()} cores; {date.today()}; {commit}", flush=True)
    is_well = True
    with tempfile.TemporaryDirectory(prefix="flowprep-chaos-") as folder:
        videos = _videos(Path(folder))
        undisturbed = make_undisturbed(videos, Path(folder, "undisturbed"))
        print(f"undisturbed: {undisturbed.seconds:.0f} s", flush=True)
        for seed in seeds:
            outcome = run_once(seed, videos, undisturbed, Path(folder, str(seed)))
            results.append(options.results, outcome.to_dict() | {"commit": commit})
            is_well &= outcome.is_well
            end = "equal" if outcome.is_well else outcome.problem or "blamed sound videos"
            print(f"{seed}: {outcome.place}: {end} ({outcome.seconds:.0f} s)", flush=True)
            for line in [*outcome.story, *outcome.blamed]:
                print(f"    {line}", flush=True)
    print("\n" + results.table(results.read(options.results)))
    return 0 if is_well else 1


def _videos(folder: Path) -> Path:
    """Returns the folder of the videos: UCF101's, or synthetic ones."""
    found = DATA / "ucf101" / "videos"
    if found.is_dir():
        return found.resolve()
    print(f"no clips in {found}; FLOWPREP_TEST_DATA says where UCF101 is", file=sys.stderr)
    write_action_dataset(folder / "made", num_videos_per_class=3, num_frames=150)
    return folder / "made" / "videos"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "no commit"


if __name__ == "__main__":
    sys.exit(main())
