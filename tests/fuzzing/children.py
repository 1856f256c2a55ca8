"""Cases in children of this process, with bounds on time and memory; one that dies is a case too.

run_cases -> python -m MODULE FOLDER SEED INDEX... -> child -> carry_out -> an answer a case
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fuzzing.outcomes import Outcomes

__all__ = ["CASE_SECONDS", "MEMORY_BYTES", "child", "run_cases"]

ROOT = Path(__file__).resolve().parents[2]
CASE_SECONDS = 60
"""A case takes less than a second where nothing else runs."""
MEMORY_BYTES = 1 << 30
"""Beyond what the process has before its first case."""
CASES_PER_CHILD = 200

CarryOut = Callable[[Path, int, int], tuple[str, str, list[str]]]
"""(a folder for the case, seed, index) -> kind, outcome, broken rules."""


def child(folder: Path, seed: int, indices: list[int], carry_out: CarryOut) -> None:
    """Carries cases out, and writes a line before and after each."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, resource.RLIM_INFINITY))
    # Not a handler: native code that hangs would never come to call one.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with (folder / "answers.jsonl").open("a") as answers:
        for index in indices:
            print(json.dumps({"begin": index}), file=answers, flush=True)
            place = folder / f"case-{index}"
            place.mkdir()
            signal.alarm(CASE_SECONDS)
            kind, outcome, broken = carry_out(place, seed, index)
            signal.alarm(0)
            shutil.rmtree(place)
            answer = {"end": index, "kind": kind, "outcome": outcome, "broken": broken}
            print(json.dumps(answer), file=answers, flush=True)


def run_cases(
    module: str,
    template: Path,
    outcomes: Outcomes,
    waiting: list[int],
    keep: Callable[[int, str], str],
) -> None:
    """Carries out the cases `waiting` in children, and adds what became of them to `outcomes`.

    A child is `python -m MODULE TEMPLATE FOLDER SEED INDEX...`. `keep` gets a case that broke a
    rule and the rule, and returns the case's kind.
    """
    peak_mb = 0.0
    while waiting:
        some = waiting[:CASES_PER_CHILD]
        place = template.parent / f"child-{some[0]}"
        place.mkdir()
        arguments = [str(template), str(place), str(outcomes.seed), *map(str, some)]
        with (place / "output.txt").open("w") as output:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                check=False,
            )
        lines = (place / "answers.jsonl").read_text().splitlines()
        ended = [answer for answer in map(json.loads, lines) if "end" in answer]
        for answer in ended:
            outcomes.add(answer["kind"], answer["outcome"])
            for rule in answer["broken"]:
                keep(answer["end"], rule)
        waiting = waiting[len(ended) :]
        if done.returncode:
            # The case that had begun brought the child down.
            rule = f"took more than {CASE_SECONDS} s" if done.returncode == -signal.SIGALRM else ""
            last = (place / "output.txt").read_text(errors="replace").strip()[-300:]
            rule = rule or f"the process ended with {done.returncode}: {last!r}"
            outcomes.add(keep(waiting.pop(0), rule), "RULE BROKEN")
        shutil.rmtree(place)
        peak_mb = max(peak_mb, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
        print(f"{outcomes.num_cases} cases, {len(outcomes.broken)} rules broken", flush=True)
    outcomes.facts = {"most memory of a process": f"{peak_mb:.0f} MB"}
