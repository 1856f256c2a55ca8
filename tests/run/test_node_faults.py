"""What a machine does to a run, or Ray does, is never a video's fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowprep.dataset.layout import read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import descendants, kill, ray_process, start_extract, wait_until
from tests.run.test_faults import assert_equal_data_sets, count_finished, records

NUM_VIDEOS = 8
OPTIONS = (
    *("--algorithm", "farneback", "--resize", "none", "--workers", "2", "--shard-size", "3"),
    *("--executor", "ray"),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of about half a second of work each."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_VIDEOS):
        action = ("move_left", "zoom_in")[number % 2]
        scene = action_scene(action, num_frames=24, width=256, height=192, seed=number)
        write_video(folder / f"{number:02d}.mp4", map(scene.frame, range(24)))
    return folder


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(clips, out, "--executor", "inline", "--workers", "1")
    return out


def finish(clips: Path, out: Path, *options: str) -> str:
    process = start_extract(clips, out, *OPTIONS, *options)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text


# ---- Ray itself is gone


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_run_whose_ray_is_killed_stops_and_blames_no_video(
    name: str, clips: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # One attempt: whatever counts against a video would make it fail at once.
    process = start_extract(clips, out, *OPTIONS, "--max-attempts", "1")
    wait_until(lambda: any(out.glob(".parts/*/*.json")), process)
    everyone = descendants(process.pid)
    victim = ray_process(process.pid, name)
    assert victim is not None
    kill([victim])
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert f"Ray ended on this machine: its process {name} is gone (signal SIGKILL)" in text
    assert "Finished videos are kept. Run the same command to go on" in text
    assert "Traceback" not in text
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in everyone))
    assert read_failures(Storage(str(out))) == {}
    num_finished = count_finished(out)
    assert 0 < num_finished < NUM_VIDEOS
    text = finish(clips, out)
    assert f"{NUM_VIDEOS - num_finished} video" in text
    assert {record.get("attempts", 1) for record in records(out)} == {1}
    assert verify_dataset(out, deep=True).problems == []
    assert_equal_data_sets(out, undisturbed)
