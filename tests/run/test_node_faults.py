"""What a machine does to a run, or Ray does, is never a video's fault."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.layout import FAILURES_FILE, VideoRecord, read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.run import retries
from flowprep.run.executor import InlineExecutor
from flowprep.run.executors import EXECUTORS
from flowprep.run.job import ExtractJob, Job, WorkerLost
from flowprep.run.recovery import failure_of
from flowprep.run.status import read_status
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import descendants, kill, ray_process, start_extract, wait_until
from tests.run.test_faults import assert_equal_data_sets, count_finished, records

NUM_VIDEOS = 8
INLINE = ("--executor", "inline", "--workers", "1")
"""Gives the same bytes as Ray's workers, and starts at once."""
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
    finish(clips, out, *INLINE)
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
    # That a new Ray goes on where another was killed is seen in test_faults.
    text = finish(clips, out, *INLINE)
    assert f"{NUM_VIDEOS - num_finished} video" in text
    assert {record.get("attempts", 1) for record in records(out)} == {1}
    assert verify_dataset(out, deep=True).problems == []
    assert_equal_data_sets(out, undisturbed)


# ---- a cluster whose head is gone


WITH_LITTLE_PATIENCE = (
    "import sys; from flowprep.run import ray_start; ray_start.ANSWER_SECONDS = 3.0; "
    "from flowprep.cli import main; main(sys.argv[1:])"
)


def test_a_cluster_that_does_not_answer_is_said_and_does_not_hang(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is left of a head that was killed: a file names it, and nothing listens there.
    (tmp_path / "tmp" / "ray").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind((get_node_ip_address(), 0))
        dead = "{}:{}".format(*probe.getsockname())
    (tmp_path / "tmp" / "ray" / "ray_current_cluster").write_text(dead)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "tmp"))
    # `auto` also finds what other tests have started.
    for address in ("auto", dead):
        monkeypatch.setenv("RAY_ADDRESS", address)
        process = start_extract(clips, tmp_path / "out", "--algorithm", "farneback")
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "cannot reach or start Ray on" in text
        assert "Traceback" not in text
    assert f"no head answers at {dead}" in text
    # One that listens and hangs, as after SIGSTOP.
    with socket.create_server((get_node_ip_address(), 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", "{}:{}".format(*server.getsockname()))
        command = [sys.executable, "-c", WITH_LITTLE_PATIENCE, "extract", clips, tmp_path / "out"]
        hung = subprocess.run(
            [*command, "--algorithm", "farneback"], capture_output=True, text=True, timeout=60
        )
    assert hung.returncode == 1
    assert "has not answered for 3 s; start the cluster's head" in hung.stderr


# ---- memory that others hold

WITH_SHORT_WAITS = (
    "import sys; from flowprep.run import retries; retries.MAX_SHORT_SECONDS = 4.0; "
    "retries.FIRST_SHORT_SECONDS = 1.0; from flowprep.cli import main; main(sys.argv[1:])"
)


def test_a_machine_without_memory_stops_the_run_and_blames_no_video(
    clips: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        # Ray ends workers, whatever they hold, as if others held all the rest.
        patch.setenv("RAY_memory_usage_threshold", "0.001")
        command = [sys.executable, "-c", WITH_SHORT_WAITS, "extract", str(clips), str(out)]
        short = subprocess.run(
            [*command, *OPTIONS, "--max-attempts", "1"], capture_output=True, text=True, check=False
        )
    assert short.returncode == 1
    assert "memory has been short for" in short.stderr
    assert "Run the same command to go on" in short.stderr
    assert read_failures(Storage(str(out))) == {}
    finish(clips, out, *INLINE)
    assert_equal_data_sets(out, undisturbed)


def test_a_video_that_others_left_no_memory_is_the_node_s_failure_and_tried_again(
    clips: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crowded(InlineExecutor):
        """A machine that has no memory for one video, while others end well."""

        def submit(self, job: Job) -> None:
            if isinstance(job, ExtractJob) and job.video.key == "04":
                lost = WorkerLost("out-of-memory", "it held little", is_short_of_memory=True)
                self._ended.append((job, lost))
            else:
                super().submit(job)

    monkeypatch.setattr(retries, "MAX_SHORT_SECONDS", 0.2)
    monkeypatch.setattr(retries, "FIRST_SHORT_SECONDS", 0.1)
    out = tmp_path / "out"
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")),
        FlowSpec("farneback"),
        EncodeSpec(videos_per_shard=3),
    )
    options = RunOptions(progress=False, max_attempts=1)
    with monkeypatch.context() as patch:
        patch.setitem(EXECUTORS, "inline", Crowded)
        report = flowprep.extract(clips, out, config, executor="inline", options=options)
    assert (report.exit_code, report.num_failed, report.node_failures) == (
        *(1, 0),
        {"out-of-memory": 1},
    )
    assert "node's fault  1 video, listed in failures.jsonl; the same command" in report.summary()
    ((key, failure),) = read_failures(Storage(str(out))).items()
    assert (key, failure.fault, failure.reason) == ("04", "node", "out-of-memory")
    status = read_status(str(out))
    assert (status.num_failed, status.num_failed_by_node, status.num_done) == (0, 1, 7)
    assert "node's fault  1 video: 1 out-of-memory; the same extract" in status.summary()
    # Its shard waits for it, so that the data set ends as if nothing had happened.
    assert (status.num_published_shards, status.num_shards) == (2, 3)
    assert any("04 is not stored, by no fault" in one for one in verify_dataset(out).problems)
    report = flowprep.extract(clips, out, config, executor="inline", options=options)
    assert (report.is_complete, report.num_done_before) == (True, 7)
    assert_equal_data_sets(out, undisturbed)


def test_whose_fault_is_read_from_records_of_before(tmp_path: Path) -> None:
    line = '{"key":"a","source":"/a.mp4","reason":"crashed","message":"","attempts":3}\n'
    (tmp_path / FAILURES_FILE).write_text(line)
    assert read_failures(Storage(str(tmp_path)))["a"].fault == "video"
    record = VideoRecord.from_json(b'{"key":"a","status":"failed","reason":"crashed"}')
    assert failure_of(record, "/a.mp4").fault == "video"


# ---- a video that takes too much memory


def test_a_video_that_asks_for_more_memory_than_a_worker_may_hold_fails_alone(
    clips: Path, tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("00", "01"):
        (videos / f"{name}.mp4").symlink_to(clips / f"{name}.mp4")
    scene = action_scene("zoom_in", num_frames=3, width=3072, height=2048, seed=1)
    write_video(videos / "large.mp4", map(scene.frame, range(3)))
    out = tmp_path / "out"
    alone = (*OPTIONS, "--executor", "process", "--workers", "1")
    process = start_extract(
        *(videos, out, *alone), "--worker-memory", "250MB", "--max-attempts", "1"
    )
    text, _ = process.communicate()
    assert process.returncode == 1
    assert "2 of 3 videos" in text
    ((key, failure),) = read_failures(Storage(str(out))).items()
    assert (key, failure.reason, failure.fault) == ("large", "out-of-memory", "video")
    assert re.search(r"it held \d+\.\d MB of 250\.0 MB; give more with --worker", failure.message)
    process = start_extract(videos, out, *alone, "--worker-memory", "none", "--retry-failed")
    text, _ = process.communicate()
    assert process.returncode == 0, text
