"""One run of the chaos: commands that events befall, until the data set is complete."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flowprep.dataset.verify import verify_dataset
from tests.chaos.events import EVENTS, Scene
from tests.chaos.places import Command, Place, PlaceName

__all__ = ["Outcome", "Undisturbed", "difference", "make_undisturbed", "run_once"]

MAX_LAST_COMMANDS = 4
"""So often the same command may be needed after the last event."""


@dataclass(frozen=True)
class Undisturbed:
    """The data set that nothing happened to."""

    out: Path
    seconds: float

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file())


@dataclass
class Outcome:
    """What became of a run."""

    seed: int
    place: PlaceName
    events: list[str] = field(default_factory=list)
    """The kinds, in order."""
    story: list[str] = field(default_factory=list)
    """What happened, for people."""
    num_commands: int = 0
    seconds: float = 0.0
    blamed: list[str] = field(default_factory=list)
    """Sound videos that were recorded as failed by their own fault, at any time."""
    problem: str = ""
    """Why the end is not that of an undisturbed run; empty is well."""

    @property
    def is_well(self) -> bool:
        """Whether it ended in the bytes of an undisturbed run, and nobody was blamed."""
        return not self.problem and not self.blamed

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self)


def make_undisturbed(videos: Path, folder: Path) -> Undisturbed:
    """Extracts the data set that all others are held against."""
    place = Place("own", folder, videos)
    folder.mkdir(parents=True)
    place.out = str(folder / "out")
    began = time.monotonic()
    code = place.start().wait()
    if code != 0:
        raise SystemExit(f"the undisturbed run ended with {code}:\n{place.log.read_text()}")
    return Undisturbed(Path(place.out), time.monotonic() - began)


def run_once(
    seed: int, videos: Path, undisturbed: Undisturbed, folder: Path, *, say: Any = print
) -> Outcome:
    """Carries out the run of a seed, in a folder that is removed after it."""
    kinds = _draw(seed)
    rng = random.Random(seed)
    place_name = rng.choice(EVENTS[kinds[0]].places)
    kinds = [kind for kind in kinds if place_name in EVENTS[kind].places]
    outcome = Outcome(seed, place_name, kinds)
    began = time.monotonic()
    with Place(place_name, folder, videos) as place:
        scene = Scene(place, rng, undisturbed.seconds, undisturbed.num_bytes)
        for kind in sorted(kinds, key=lambda kind: kind != "disk"):
            EVENTS[kind].prepare(scene)
        for kind in kinds:
            _disturb(kind, scene, outcome)
        _finish(place, undisturbed, outcome)
        outcome.num_commands = place.num_commands
        if not outcome.is_well:
            for log in sorted(folder.glob("command-*.log")):
                say(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _draw(seed: int) -> list[str]:
    """Returns the events of a run: each kind comes first in its turn, others follow by chance."""
    possible = [name for name, event in EVENTS.items() if not event.needs_root or os.geteuid() == 0]
    rng = random.Random(f"events {seed}")
    first = possible[seed % len(possible)]
    # Each of these takes more than a minute.
    others = [kind for kind in possible if kind not in ("stop", "takeover", "memory", "disk")]
    return [first, *rng.choices(others, k=rng.choice((0, 1, 1, 2)))]


def _disturb(kind: str, scene: Scene, outcome: Outcome) -> None:
    """Starts the command, lets an event happen to it, and waits for its end."""
    place = scene.place
    command = place.start()
    command.sleep(scene.moment())
    # What it aims at may not be there yet.
    while not (done := EVENTS[kind].happen(scene, command)) and command.sleep(0.2):
        pass
    code = command.wait()
    what = done or f"{kind}: there was nothing to do it to"
    outcome.story.append(f"{what}; {_ending(code)}")
    if code is None:
        outcome.problem = outcome.problem or f"the command hung after: {what}"
    if kind == "memory":
        place.variables.pop("RAY_memory_usage_threshold", None)
    if kind in ("raylet", "gcs"):
        # Whoever runs a cluster starts it again.
        place.leave_cluster()
    _note_blamed(place, outcome)


def _finish(place: Place, undisturbed: Undisturbed, outcome: Outcome) -> None:
    """Runs the same command until it says that all is complete, and compares."""
    for _ in range(MAX_LAST_COMMANDS):
        command: Command = place.start()
        code = command.wait()
        _note_blamed(place, outcome)
        if code == 0:
            break
        outcome.story.append(f"the same command; {_ending(code)}")
    else:
        outcome.problem = outcome.problem or f"it was never complete; {_ending(code)}"
        return
    stored = place.stored()
    outcome.problem = outcome.problem or difference(stored, undisturbed.out)


def _ending(code: int | None) -> str:
    if code is None:
        return "it hung"
    return f"exit code {code}" if code >= 0 else f"ended by signal {-code}"


def _note_blamed(place: Place, outcome: Outcome) -> None:
    """Adds the videos that are recorded as failed by their own fault."""
    for record in _failed(place.stored()):
        if record.get("fault", "video") == "video":
            words = f"{record['key']}: {record.get('reason')}: {record.get('message')}"
            if words not in outcome.blamed:
                outcome.blamed.append(words)


def _failed(out: Path) -> Iterator[dict[str, Any]]:
    """Yields what a data set says of failed videos, wherever it says so."""
    failures = out / "failures.jsonl"
    if failures.exists():
        for line in failures.read_text(errors="replace").splitlines():
            record = json.loads(line)
            # A first line may describe the file.
            if "key" in record:
                yield record
    for path in [*out.glob("shards/*.json"), *out.glob(".parts/*/*.json")]:
        content = json.loads(path.read_bytes())
        for record in content.get("videos", [content]):
            if record.get("status") == "failed":
                yield record


def difference(out: Path, expected: Path) -> str:
    """Returns what differs between two data sets, empty where nothing does.

    All is compared byte for byte; in sidecars all fields but seconds and attempts.
    """
    names = {path.name for path in out.glob("shards/*")}
    right = {path.name for path in expected.glob("shards/*")}
    if names != right:
        return f"shards: {sorted(names ^ right)}"
    for name in (
        "dataset.json",
        "manifest.jsonl",
        "failures.jsonl",
        *(f"shards/{name}" for name in sorted(right) if name.endswith(".tar")),
    ):
        if not (out / name).exists():
            return f"{name} is not there"
        if (out / name).read_bytes() != (expected / name).read_bytes():
            return f"{name} has other bytes"
    for name in sorted(right):
        if name.endswith(".json") and _lasting(out / "shards" / name) != _lasting(
            expected / "shards" / name
        ):
            return f"shards/{name} says something else"
    problems = verify_dataset(out, deep=True).problems
    return f"verify: {problems[0]}" if problems else ""


def _lasting(sidecar: Path) -> Any:
    content = json.loads(sidecar.read_bytes())
    for video in content["videos"]:
        for name in ("seconds", "attempts"):
            video.pop(name, None)
    return content
