"""`kill -9` at random moments of a real run: what is resumed equals what was never disturbed.

FLOWPREP_FAULT_RUNS sets the number of runs. By default each kind of victim is killed once; the 20
runs of `scripts/release_check faults` take about ten minutes on two cores.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path

import pytest

from flowprep.dataset.verify import verify_dataset
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import descendants, kill, start_extract, wait_until, workers_of

NUM_RUNS = int(os.environ.get("FLOWPREP_FAULT_RUNS", "3"))
NUM_VIDEOS = 12
NUM_WORKERS = 2
OPTIONS = (
    *("--algorithm", "farneback", "--resize", "none", "--workers", str(NUM_WORKERS)),
    *("--shard-size", "3"),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of about half a second of work each, in two classes."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_VIDEOS):
        action = ("move_left", "zoom_in")[number % 2]
        scene = action_scene(action, num_frames=24, width=256, height=192, seed=number)
        (folder / action).mkdir(exist_ok=True)
        write_video(folder / action / f"{number:02d}.mp4", map(scene.frame, range(24)))
    return folder


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The data set that nothing happened to, and the seconds that it took."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    began = time.monotonic()
    finish(clips, out)
    return out, time.monotonic() - began


@pytest.mark.parametrize("run", range(NUM_RUNS))
def test_killed_run_resumes_to_the_undisturbed_data_set(
    run: int, clips: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    rng = random.Random(run)
    target = ("worker", "driver", "all")[run % 3]
    out = tmp_path / "out"
    process = start_extract(clips, out, *OPTIONS)
    time.sleep(rng.uniform(0.1, 0.9) * seconds)

    if target == "worker":
        wait_until(lambda: bool(workers_of(process.pid)) or process.poll() is not None)
        victims = workers_of(process.pid)
        if victims:
            kill([rng.choice(victims)])
        text, _ = process.communicate()
        assert process.returncode == 0, text
        # Its video alone was tried again; a worker killed between two videos costs nothing.
        assert sum(record.get("attempts", 1) - 1 for record in records(out)) <= 1
    else:
        everyone = descendants(process.pid) if target == "all" else []
        kill([process.pid, *everyone])
        process.communicate()
        if target == "all":
            wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in everyone))
        num_finished = count_finished(out)
        # Each of these was in flight: a worker holds its file from the first frame to the last.
        assert len(list(out.glob(".parts/*/*.stall"))) <= NUM_WORKERS
        text = finish(clips, out)
        (num_computed,) = map(int, re.findall(r"this run +(\d+) videos?,", text))
        assert num_computed <= NUM_VIDEOS - num_finished
        if target == "all":
            assert num_computed == NUM_VIDEOS - num_finished

    assert verify_dataset(out, deep=True).problems == []
    assert_equal_data_sets(out, expected)


def finish(clips: Path, out: Path) -> str:
    process = start_extract(clips, out, *OPTIONS)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text


def count_finished(out: Path) -> int:
    published = {path.stem for path in out.glob("shards/*.json")}
    parts = [p for p in out.glob(".parts/*/*.json") if p.parent.name not in published]
    return len(records(out)) + len(parts)


def records(out: Path) -> list[dict[str, object]]:
    sidecars = [json.loads(path.read_bytes()) for path in sorted(out.glob("shards/*.json"))]
    return [video for sidecar in sidecars for video in sidecar["videos"]]


def assert_equal_data_sets(out: Path, expected: Path) -> None:
    """Byte for byte, but for seconds and attempts in the sidecars, and the logs."""
    names = sorted(path.name for path in out.glob("shards/*"))
    assert names == sorted(path.name for path in expected.glob("shards/*"))
    for name in ("dataset.json", "manifest.jsonl", "failures.jsonl"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()
    for tar in sorted(out.glob("shards/*.tar")):
        assert tar.read_bytes() == (expected / "shards" / tar.name).read_bytes()
    volatile = ("seconds", "attempts")
    for ours, theirs in zip(records(out), records(expected), strict=True):
        assert {k: v for k, v in ours.items() if k not in volatile} == {
            k: v for k, v in theirs.items() if k not in volatile
        }
