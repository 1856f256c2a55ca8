"""Damaged videos, many in one real run: the run ends, and all that it stores is right."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowprep.dataset.layout import read_failures
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.inputs.keys import escape_key
from flowprep.inputs.tree import without_extension
from flowprep.storage import Storage
from tests.fuzzing.mutations import BYTE_MUTATIONS, case_random, change_fields, number_below
from tests.fuzzing.outcomes import Outcomes
from tests.fuzzing.seeds import make_seeds
from tests.run.faults import descendants

__all__ = ["BATCH_SIZE", "fuzz_videos"]

ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE = 250
"""Cases of one run of `flowprep extract`."""
STALL_SECONDS = 10.0
"""A worker that finishes no frame for so long is ended; no frame here takes a tenth of a second."""
WORKER_MEMORY_MB = 3000.0
"""More than any of these small videos needs, and what the largest picture allowed may take."""
VIDEO_SECONDS = 60.0
"""Of work on one of these videos, stalls not counted."""
GOOD = ("fast.mp4", "gray.avi", "h264.ts", "loop.gif", "prores.mov", "vp9.webm")
"""Sound videos among the damaged ones: what becomes of those must not touch these."""

OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("--fps", "12"),
    ("--decoder", "decord"),
    ("--on-damage", "cut"),
    ("--on-damage", "conceal"),
)
"""Of the runs, one after the other."""
COMMON = (
    *("--algorithm", "dis", "--dis-preset", "ultrafast", "--resize", "short:32"),
    *("--workers", "2", "--shard-size", "50", "--max-attempts", "2"),
    *("--stall-timeout", f"{STALL_SECONDS:g}"),
)


@dataclass
class _Run:
    """What a run of `flowprep extract` did."""

    exit_code: int | None
    """None where it had to be ended."""
    output: str
    seconds: float
    peak_mb: float = 0.0
    """Largest resident memory of a worker."""


@dataclass
class _Checked:
    """What was found beside outcomes and broken rules."""

    num_compared: int = 0
    num_unsure: int = 0
    longest_seconds: float = 0.0

    def add(self, other: _Checked) -> None:
        """Adds what was found in another run."""
        self.num_compared += other.num_compared
        self.num_unsure += other.num_unsure
        self.longest_seconds = max(self.longest_seconds, other.longest_seconds)


@dataclass
class _Batch:
    folder: Path
    cases: dict[int, tuple[str, Path]] = field(default_factory=dict)
    """Index -> kind of mutation and file."""


def fuzz_videos(
    *,
    ffmpeg: str,
    data: Path | None,
    folder: Path,
    keep: Path,
    count: int,
    seed: int,
    only: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Outcomes:
    """Extracts `count` damaged videos, and returns what became of them.

    `folder` is for all that is made meanwhile. `only` carries out a single case.
    """
    outcomes = Outcomes("videos", seed, keep)
    seeds = make_seeds(folder / "seeds", ffmpeg, data)
    peak_mb = 0.0
    num_lost = 0
    total = _Checked()
    for number, first in enumerate(range(0, count, batch_size)):
        indices = [i for i in range(first, min(count, first + batch_size)) if only in (None, i)]
        if not indices:
            continue
        options = OPTIONS[number % len(OPTIONS)]
        batch = _Batch(folder / f"batch-{number}")
        batch.folder.mkdir()
        for index in indices:
            kind, suffix, content = damaged(seeds, seed, index)
            path = batch.folder / f"{index:06d}{suffix}"
            path.write_bytes(content)
            batch.cases[index] = kind, path
        good = [folder / "seeds" / name for name in GOOD]
        sound = _sound_run(good, folder / f"sound-{number % len(OPTIONS)}", options)
        out = batch.folder / "out"
        run = _extract(_listed(batch, good), out, options, limit_seconds=300 + 6 * len(indices))
        peak_mb = max(peak_mb, run.peak_mb)
        num_lost += _num_lost(out)
        total.add(_check(batch, out, run, sound, options, outcomes))
        shutil.rmtree(batch.folder)
        print(f"{outcomes.num_cases} cases, {len(outcomes.broken)} rules broken", flush=True)
    outcomes.facts = {
        "sound videos that were damaged": f"{len(seeds)}, of {len({s.suffix for s in seeds})} "
        "kinds of file",
        "stored and compared with a plain decoding": str(total.num_compared),
        "of these, some picture is partly left-over memory": str(total.num_unsure),
        "workers lost, and replaced": str(num_lost),
        "most memory of a worker": f"{peak_mb:.0f} MB",
        "longest work on one video": f"{total.longest_seconds:.1f} s",
    }
    return outcomes


def damaged(seeds: Sequence[Path], seed: int, index: int) -> tuple[str, str, bytes]:
    """Returns kind of mutation, suffix and content of a case, which follow from seed and index."""
    random = case_random(seed, index)
    kinds = list(BYTE_MUTATIONS)
    source = seeds[number_below(random, len(seeds))]
    other = seeds[number_below(random, len(seeds))].read_bytes()
    content = source.read_bytes()
    if random.random() < 0.3:
        return "header fields", source.suffix, change_fields(random, content, other)
    kind = kinds[number_below(random, len(kinds))]
    return kind, source.suffix, BYTE_MUTATIONS[kind](random, content, other)


def _listed(batch: _Batch, good: Sequence[Path]) -> Path:
    """Writes the list of a run's videos: sound ones stand among the damaged ones."""
    lines = [str(path) for _, path in batch.cases.values()]
    step = len(lines) // len(good) + 1
    for number, path in enumerate(good):
        copy = batch.folder / f"good-{path.name.replace('.', '-')}{path.suffix}"
        shutil.copyfile(path, copy)
        lines.insert(min(len(lines), number * (step + 1)), str(copy))
    path = batch.folder / "videos.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def _sound_run(good: Sequence[Path], folder: Path, options: Sequence[str]) -> dict[str, str]:
    """Returns a digest of what an undisturbed run stores for each of the sound videos."""
    if not folder.exists():
        folder.mkdir()
        listed = _listed(_Batch(folder), good)
        command = [*_command(listed, folder / "out", options), "--executor", "inline"]
        subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    with contextlib.closing(open_dataset(folder / "out")) as dataset:
        return {video.key: _digest(dataset, video.key) for video in dataset.videos}


def _digest(dataset: FlowDataset, key: str) -> str:
    """Returns a digest of all that is stored of a video, but for the place and age of its file."""
    video = dataset.videos[key]
    digest = hashlib.sha256()
    for name, (_, size) in video.members.items():
        if name != "json":
            digest.update(name.encode() + dataset.member_bytes(key, name, 0, size))
    metadata = json.loads(dataset.member_bytes(key, "json", 0, video.members["json"][1]))
    metadata["source"] = metadata["source_mtime_ns"] = None
    digest.update(json.dumps(metadata).encode())
    return digest.hexdigest()


def _command(listed: Path, out: Path, options: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "flowprep", "extract", str(listed), str(out)]
    return [*command, *COMMON, *options]


def _extract(listed: Path, out: Path, options: Sequence[str], *, limit_seconds: float) -> _Run:
    began = time.monotonic()
    with (out.parent / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            _command(listed, out, options),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        with _watched(process.pid) as peaks:
            exit_code: int | None
            try:
                exit_code = process.wait(limit_seconds)
            except subprocess.TimeoutExpired:
                exit_code = None
                for pid in [process.pid, *descendants(process.pid)]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = output.read()
    return _Run(exit_code, text, time.monotonic() - began, max(peaks.values(), default=0.0))


@contextlib.contextmanager
def _watched(driver: int) -> Iterator[dict[int, float]]:
    """Yields the largest resident memory of each worker in MB, kept up to date."""
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            for pid in descendants(driver):
                with contextlib.suppress(OSError):
                    if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                        continue
                    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                        if line.startswith("VmHWM"):
                            peaks[pid] = int(line.split()[1]) / 1000

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _key(path: Path) -> str:
    return escape_key(without_extension(path.name))


def _num_lost(out: Path) -> int:
    path = out / "logs" / "progress.json"
    return int(json.loads(path.read_text())["num_lost_workers"]) if path.exists() else 0


def _check(
    batch: _Batch,
    out: Path,
    run: _Run,
    sound: dict[str, str],
    options: Sequence[str],
    outcomes: Outcomes,
) -> _Checked:
    """Counts a run's cases and holds it against the rules."""
    checked = _Checked()
    files = [path for _, path in batch.cases.values()]
    name = f"{min(batch.cases)}-{max(batch.cases)}"
    if run.exit_code is None:
        outcomes.break_rule(name, "the run did not end", *files, batch.folder / "output.txt")
        return checked
    if run.exit_code not in (0, 1) or "Traceback" in run.output:
        rule = f"exit code {run.exit_code}: {run.output[-300:]!r}"
        outcomes.break_rule(name, rule, *files, batch.folder / "output.txt")
        return checked
    if run.peak_mb > WORKER_MEMORY_MB:
        outcomes.break_rule(name, f"a worker took {run.peak_mb:.0f} MB", *files)
    if problems := verify_dataset(out, deep=True).problems:
        outcomes.break_rule(name, f"verify: {problems[0]}", out)
    failures = read_failures(Storage(out))
    stored: list[tuple[int, Path]] = []
    with contextlib.closing(open_dataset(out)) as dataset:
        for index, (kind, path) in batch.cases.items():
            key = _key(path)
            case = str(index)
            is_stored = key in dataset.videos
            if is_stored == (key in failures):
                rule = "it is stored and failed" if is_stored else "it is lost"
                outcomes.break_rule(case, rule, path)
            elif is_stored:
                partial = dataset.videos[key].is_partial
                outcomes.add(kind, "stored in part" if partial else "stored")
                stored.append((index, path))
            else:
                outcomes.add(kind, failures[key].reason)
                if failures[key].reason == "internal-error":
                    outcomes.break_rule(case, failures[key].message, path)
        for sidecar in sorted(out.glob("shards/*.json")):
            for record in json.loads(sidecar.read_text())["videos"]:
                seconds = sum(record.get("seconds", {}).values())
                checked.longest_seconds = max(checked.longest_seconds, seconds)
                if seconds > VIDEO_SECONDS:
                    rule = f"{seconds:.0f} s of work"
                    files = list(batch.folder.glob(f"{record['key']}.*"))
                    outcomes.break_rule(record["key"], rule, *files)
        for key, digest in sound.items():
            if key not in dataset.videos or _digest(dataset, key) != digest:
                rule = f"the sound video {key} is not what it is in an undisturbed run"
                outcomes.break_rule(name, rule, out)
        if "--fps" in options:
            return checked
        exact = "decord" not in options
        checked.num_compared = len(stored)
        conceals = "conceal" in options
        checked.num_unsure = _compare(dataset, stored, outcomes, exact=exact, conceals=conceals)
    return checked


def _compare(
    dataset: FlowDataset,
    stored: Sequence[tuple[int, Path]],
    outcomes: Outcomes,
    *,
    exact: bool,
    conceals: bool,
) -> int:
    """Holds stored videos against a plain decoding in another process.

    Returns in how many of them some picture is not certain.
    """
    quality = dataset.config.encode.rgb_jpeg_quality
    requests = []
    for _, path in stored:
        video = dataset.videos[_key(path)]
        size = {"width": video.width, "height": video.height}
        asked = {"path": str(path), "quality": quality, "conceals": conceals, **size}
        stream = dataset.metadata(video.key).video_stream
        requests.append(json.dumps(asked | {"stream": stream}))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzzing.plain_decode"],
        cwd=ROOT,
        input="\n".join(requests),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=600,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (index, path), answer in zip(stored, answers, strict=True):
        if (problem := _difference(dataset, _key(path), answer, exact, conceals)) is not None:
            outcomes.break_rule(str(index), problem, path)
    return sum(bool(answer["unsure"]) for answer in answers)


def _difference(
    dataset: FlowDataset, key: str, answer: dict[str, Any], exact: bool, conceals: bool
) -> str | None:
    """Says in what a stored video differs from a plain decoding; None where it does not."""
    video = dataset.videos[key]
    digests = answer["digests"]
    if conceals and answer["error"] and not dataset.metadata(key).num_damaged:
        return f"no damage is counted, and a plain decoding has {answer['error']}"
    if not video.is_partial and not conceals and answer["error"] is not None:
        return f"stored as complete, and a plain decoding ends in {answer['error']}"
    if len(digests) < video.num_frames or (
        not video.is_partial and len(digests) > video.num_frames
    ):
        return f"{video.num_frames} frames stored, a plain decoding gives {len(digests)}"
    if exact:
        ours = [
            hashlib.sha256(jpeg).hexdigest()
            for jpeg in dataset.jpegs(key, "rgb", 0, video.num_frames)
        ]
        for number, (one, plain) in enumerate(zip(ours, digests, strict=False)):
            if one != plain and number not in answer["unsure"]:
                return f"frame {number} is not what a plain decoding gives"
    return None
