"""A driver that is stopped past its lease, taken over, and goes on: it does no harm any more.

It is stopped by itself directly before it asks for its lease, and directly after, before the file
gets its name: for every file that a driver or its workers write or remove. Its successor, which is
this process, has finished before it goes on, with fewer videos and one more that works.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import flowprep
from flowprep.dataset import lease as lease_module
from flowprep.dataset.verify import verify_dataset
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import kill, wait_until
from tests.run.suspended import CONFIG, OPTIONS

CONSTANTS = {
    "RENEW_SECONDS": 0.05,
    "LEASE_SECONDS": 0.4,
    "POLL_SECONDS": 0.05,
    "SETTLE_SECONDS": 0.05,
}


@dataclass(frozen=True)
class Case:
    """Where a driver is stopped."""

    name: str
    when: str
    number: int = 1
    """At which of the files with this name."""
    is_removed: bool = False

    def __str__(self) -> str:
        deed = "removing" if self.is_removed else "writing"
        return f"{deed} {self.name} {self.number} {self.when}"


WHEN = ("before the check", "after the check")
WRITTEN = (
    ("dataset.json", 1),
    ("manifest.jsonl", 1),
    ("failures.jsonl", 1),
    # Before the shard is published in which the one failed that only fails there.
    ("failures.jsonl", 2),
    ("progress.json", 1),
    (".parts/000000/00000000.tar", 1),
    (".parts/000000/00000000.json", 1),
    # The record that the video has failed.
    (".parts/000000/00000001.json", 1),
    (".parts/000001/00000002.cut", 1),
    (".parts/000001/00000002.[0-9-]*.mjpg", 2),
    (".parts/000001/00000002.[0-9-]*.segment", 2),
    # Joined.
    (".parts/000001/00000002.tar", 1),
    ("shards/000000.tar", 1),
    ("shards/000000.json", 1),
)
REMOVED = (
    (".parts/000001/00000002.cut", 1),
    (".parts/000001/00000002.[0-9-]*.segment", 2),
    (".parts/000000", 1),
    (".parts", 1),
)
CASES = [
    *(Case(name, when, number) for name, number in WRITTEN for when in WHEN),
    # The first is created, which cannot be taken back.
    Case(".lease.json", WHEN[0], 2),
    Case(".lease.json", WHEN[1], 1),
    *(Case(name, when, number, is_removed=True) for name, number in REMOVED for when in WHEN),
]
ON_S3 = [
    Case("dataset.json", WHEN[1]),
    Case("failures.jsonl", WHEN[1], 2),
    Case("progress.json", WHEN[1]),
    Case(".parts/000000/00000001.json", WHEN[1]),
    Case("shards/000000.tar", WHEN[1]),
    Case("shards/000000.json", WHEN[1]),
    Case(".lease.json", WHEN[1], 2),
]
"""Requests take longer there; what is left out goes the way of one of these."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of the same videos, of which the first has one more."""
    folder = tmp_path_factory.mktemp("clips")
    for name, num_frames in (("a", 4), ("b", 4), ("c", 12), ("z", 4)):
        scene = action_scene("move_left", num_frames=num_frames, width=64, height=48, seed=1)
        for which in ("more", "fewer"):
            (folder / which).mkdir(exist_ok=True)
            if name != "z" or which == "more":
                write_video(folder / which / f"{name}.mp4", map(scene.frame, range(num_frames)))
    for which in ("more", "fewer"):
        (folder / which / "x.mp4").write_bytes(b"no video")
    return folder


@contextlib.contextmanager
def stopped(clips: Path, folder: Path, places: dict[Case, str]) -> Iterator[dict[Case, int]]:
    """Starts a driver for each case, all of which stop; yields their processes' numbers."""
    given = {
        "videos": str(clips / "more"),
        "constants": CONSTANTS,
        "cases": [
            {
                "name": case.name.replace(".", r"\."),
                "number": case.number,
                "when": case.when,
                "is_removed": case.is_removed,
                "out": out,
                "said": str(folder / f"said-{number}"),
            }
            for number, (case, out) in enumerate(places.items())
        ],
    }
    command = [sys.executable, "-m", "tests.run.suspended", json.dumps(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        processes = [int(parent.stdout.readline()) for _ in places]
        try:
            yield dict(zip(places, processes, strict=True))
        finally:
            kill([*processes, parent.pid])


def state_of(process: int) -> str:
    stat = Path(f"/proc/{process}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def content_of(out: str) -> dict[str, bytes | None]:
    """All files and folders, but the logs that each run has for itself."""
    storage = Storage(out)
    found: dict[str, bytes | None] = {}
    if storage.is_local:
        for path in Path(out).rglob("*"):
            found[str(path.relative_to(out))] = path.read_bytes() if path.is_file() else None
    else:
        for path in storage._fs.find(storage.path("")):
            found[path.removeprefix(storage.path("")).lstrip("/")] = storage._fs.cat_file(path)
    # What is left there of shards that are published counts for nothing.
    ignored = r"logs/run-.*\.log" if storage.is_local else r"logs/run-.*\.log|\.parts/"
    return {name: data for name, data in found.items() if not re.match(ignored, name)}


def check(case: Case, clips: Path, out: str, process: int, said: Path) -> None:
    """Takes over from a stopped driver, finishes, and lets it go on."""
    wait_until(lambda: state_of(process) == "T" or said.exists())
    assert not said.exists(), f"it was not stopped: {said.read_text()}"
    options = dataclasses.replace(OPTIONS, retry_failed=True)
    report = flowprep.extract(clips / "fewer", out, CONFIG, executor="inline", options=options)
    assert dict(report.failures) == {"unreadable": 1}, report.summary()
    before = content_of(out)
    os.kill(process, signal.SIGCONT)
    wait_until(said.exists)
    answer = json.loads(said.read_text())
    assert content_of(out) == before
    assert answer["exit_code"] == 1
    if case.name != ".parts":  # the last of all: it had finished
        expected = f"another run took over {out} (process {os.getpid()} on {os.uname().nodename}, "
        assert answer["text"].startswith(expected), answer
    assert verify_dataset(out, deep=True).problems == []


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CONSTANTS.items():
        monkeypatch.setattr(lease_module, name, value)


@pytest.fixture(scope="module")
def on_disk(
    clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[Case, int]]]:
    folder = tmp_path_factory.mktemp("suspended")
    places = {case: str(folder / f"out-{number}") for number, case in enumerate(CASES)}
    with stopped(clips, folder, places) as processes:
        yield folder, processes


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_driver_that_was_taken_over_changes_nothing(
    case: Case, clips: Path, on_disk: tuple[Path, dict[Case, int]]
) -> None:
    folder, processes = on_disk
    number = CASES.index(case)
    out, said = str(folder / f"out-{number}"), folder / f"said-{number}"
    check(case, clips, out, processes[case], said)


@pytest.mark.usefixtures("short")
def test_on_s3_it_changes_nothing_either(clips: Path, bucket: str, tmp_path: Path) -> None:
    places = {case: f"s3://{bucket}/out-{number}" for number, case in enumerate(ON_S3)}
    with stopped(clips, tmp_path, places) as processes:
        for number, (case, out) in enumerate(places.items()):
            check(case, clips, out, processes[case], tmp_path / f"said-{number}")
