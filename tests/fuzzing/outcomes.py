"""What became of the cases: a count for each kind and outcome, and the cases that broke a rule."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Outcomes"]


@dataclass
class Outcomes:
    """The result of a fuzzing run."""

    command: str
    """`videos`, `shards`, `checkpoints` or `runs`."""
    seed: int
    keep: Path
    """Where the cases that broke a rule are kept."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Cases by kind of mutation and outcome."""
    broken: list[str] = field(default_factory=list)
    """A line for each broken rule."""
    facts: dict[str, str] = field(default_factory=dict)
    """What else was measured."""

    @property
    def num_cases(self) -> int:
        """How many cases were carried out."""
        return sum(self.counts.values())

    def add(self, kind: str, outcome: str) -> None:
        """Counts a case."""
        self.counts[kind, outcome] += 1

    def break_rule(self, case: str, rule: str, *files: Path) -> None:
        """Notes a broken rule, and keeps what is needed to repeat it."""
        line = f"{case}: {rule}"
        self.broken.append(line)
        folder = self.keep / f"{self.command}-{self.seed}-{case}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.is_dir():
                shutil.copytree(file, folder / file.name, dirs_exist_ok=True)
            elif file.exists():
                shutil.copy(file, folder)
        again = f"scripts/fuzz {self.command} --seed {self.seed} --only {case}"
        with (folder / "why.txt").open("a") as file:
            file.write(f"{line}\n{again}\n")

    def table(self) -> str:
        """Returns the counts as a Markdown table, a line for each kind of mutation."""
        kinds = sorted({kind for kind, _ in self.counts})
        totals: Counter[str] = Counter()
        for (_, outcome), count in self.counts.items():
            totals[outcome] += count
        outcomes = [outcome for outcome, _ in totals.most_common()]
        lines = [
            f"| mutation | cases | {' | '.join(outcomes)} |",
            f"|---|{'---:|' * (len(outcomes) + 1)}",
        ]
        for kind in kinds:
            row = [self.counts[kind, outcome] for outcome in outcomes]
            lines.append(f"| {kind} | {sum(row)} | {' | '.join(str(n or '') for n in row)} |")
        row = [totals[outcome] for outcome in outcomes]
        lines.append(f"| **all** | {sum(row)} | {' | '.join(map(str, row))} |")
        return "\n".join(lines)

    def report(self) -> str:
        """Returns table, facts and broken rules as text."""
        lines = [self.table(), "", *(f"- {name}: {value}" for name, value in self.facts.items())]
        if self.broken:
            lines += ["", f"{len(self.broken)} RULES BROKEN; kept in {self.keep}", *self.broken]
        return "\n".join(lines)
