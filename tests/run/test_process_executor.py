"""One video needs no Ray: a process does it, and may crash, hang and be killed as one of Ray's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import Resize
from flowprep.dataset.layout import read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ExecutorError
from flowprep.inputs.video import Video
from flowprep.machine import usable_cores
from flowprep.run import options as options_module
from flowprep.run import process_executor, worker_process
from flowprep.run.early import early_worker
from flowprep.run.job import ExtractJob, JobResult, WorkerLost
from flowprep.run.options import chosen_executor
from flowprep.run.process_executor import ProcessExecutor
from flowprep.run.progress import RunReport
from flowprep.run.worker_process import WorkerEndedError, WorkerProcess
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.run.faults import descendants, kill_job_holding, start_extract, wait_until

CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")), FlowSpec("farneback"), EncodeSpec(videos_per_shard=2)
)
SLOW = ExtractConfig(CONFIG.decode, FlowSpec("tvl1-opencv"), CONFIG.encode)
NUM_FRAMES = 5
HAS_PROC = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def write_clip(
    path: Path, *, size: tuple[int, int] = (64, 48), num_frames: int = NUM_FRAMES
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = action_scene("zoom_in", num_frames=num_frames, width=size[0], height=size[1], seed=7)
    write_video(path, map(scene.frame, range(num_frames)))
    return path


def run(
    videos: Path, out: Path, config: ExtractConfig = CONFIG, *, executor: Any = "auto", **given: Any
) -> RunReport:
    options = RunOptions(progress=False, **given)
    return flowprep.extract(videos, out, config, executor=executor, options=options)


def tars(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shards/*.tar"))}


def log_of(out: Path) -> str:
    return "".join(path.read_text() for path in sorted((out / "logs").glob("*.log")))


def workers_below(pid: int) -> list[int]:
    """Returns the worker processes of a driver."""
    found = []
    for child in descendants(pid):
        path = Path("/proc", str(child), "cmdline")
        if path.exists() and b"flowprep.run.worker_main" in path.read_bytes():
            found.append(child)
    return found


# ---- which executor


@pytest.mark.parametrize(
    ("options", "num_jobs", "cores", "name"),
    [
        (RunOptions(), 1, 8, "process"),
        (RunOptions(), 0, 8, "process"),
        (RunOptions(), 2, 8, "ray"),
        (RunOptions(), 1000, 1, "process"),
        (RunOptions(num_workers=1), 1000, 8, "process"),
        (RunOptions(num_workers=2), 1000, 1, "ray"),
        (RunOptions(device="cpu"), 1, 8, "process"),
        (RunOptions(address="somewhere:1"), 1, 8, "ray"),
        (RunOptions(address="auto", num_workers=1), 1, 8, "ray"),
        (RunOptions(runtime_env="{}"), 1, 8, "ray"),
        (RunOptions(executor="ray"), 1, 1, "ray"),
        (RunOptions(executor="process"), 1000, 8, "process"),
        (RunOptions(executor="inline"), 1000, 8, "inline"),
    ],
)
def test_what_auto_means(
    options: RunOptions, num_jobs: int, cores: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options_module, "usable_cores", lambda: cores)
    assert chosen_executor(options, "dis", num_jobs) == name


def test_a_cluster_in_the_environment_is_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    assert chosen_executor(RunOptions(), "dis", 1) == "ray"


def test_a_gpu_is_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = options_module.resolve_device("cpu", "tvl1").__class__("cuda")
    monkeypatch.setattr(options_module, "resolve_device", lambda *_: gpu)
    for device in ("auto", "cuda", "cuda:0", "cuda+cpu"):
        assert chosen_executor(RunOptions(device=device), "tvl1", 1) == "ray"


def test_auto_is_the_default_everywhere() -> None:
    assert RunOptions().executor == "auto"
    assert (flowprep.extract.__kwdefaults__ or {})["executor"] is None


def test_a_worker_is_started_early_for_what_is_surely_one_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4\n")

    def starts(*names: Path, **given: Any) -> bool:
        with early_worker(RunOptions(**given), CONFIG.flow, names) as worker:
            return worker is not None

    assert starts(clip)
    assert starts(tmp_path, num_workers=1)
    assert starts(tmp_path, executor="process")
    assert not starts(num_workers=1)
    assert not starts(clip, executor="ray")
    assert not starts(clip, executor="inline")
    assert not starts(clip, address="somewhere:1")
    if usable_cores() > 1:
        assert not any(map(starts, (tmp_path, tmp_path / "list.txt", tmp_path / "absent.mp4")))
        assert not starts(clip, clip)


# ---- the same data set


def test_all_executors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "abc":
        write_clip(tmp_path / "videos" / f"{name}.mp4")
    for executor in ("process", "inline"):
        report = run(tmp_path / "videos", tmp_path / executor, executor=executor)
        assert (report.is_complete, report.num_complete) == (True, 3)
    report = run(tmp_path / "videos", tmp_path / "auto", num_workers=1)
    assert report.is_complete
    assert "executor auto is process: 3 jobs at first" in log_of(tmp_path / "auto")
    assert "ProcessExecutor with 1 workers" in log_of(tmp_path / "auto")
    assert tars(tmp_path / "process") == tars(tmp_path / "inline") == tars(tmp_path / "auto")
    assert verify_dataset(tmp_path / "auto", deep=True).problems == []


def test_one_video_starts_no_ray(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    code = (
        "import sys; from flowprep.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, 'ray' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "extract", str(clip), str(tmp_path / "out")]
    ran = subprocess.run(
        [*command, "--algorithm", "farneback"], capture_output=True, text=True, check=True
    )
    assert (ran.stdout.splitlines()[-1], ran.stderr) == ("0 False", "")
    assert verify_dataset(tmp_path / "out", deep=True).problems == []


def test_a_long_video_is_shared_by_rays_workers(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=30)
    report = run(clip, tmp_path / "cut", num_workers=2, segment_frames=10)
    assert (report.is_complete, report.num_lost_workers) == (True, 0)
    assert "several workers share its segments, by Ray" in log_of(tmp_path / "cut")
    assert run(clip, tmp_path / "whole", executor="inline", segment_frames=0).is_complete
    assert tars(tmp_path / "cut") == tars(tmp_path / "whole")


def test_one_worker_does_the_segments_itself(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=30)
    assert run(clip, tmp_path / "cut", num_workers=1, segment_frames=10).is_complete
    assert "Ray" not in log_of(tmp_path / "cut")
    assert "cut into 3 segments" in log_of(tmp_path / "cut")


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    script = tmp_path / "script.py"
    script.write_text(
        "import flowprep\nprint('begins')\n"
        f"report = flowprep.extract({str(clip)!r}, {str(tmp_path / 'out')!r})\n"
        "print(report.is_complete)\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("begins\nTrue\n", "")


# ---- what goes wrong


def test_a_video_that_kills_its_worker_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    for name in "abc":
        write_clip(tmp_path / "videos" / f"{name}.mp4", size=(128, 96))
    out = tmp_path / "out"
    stall = out / ".parts" / "000000" / "00000000.stall"
    report = during(
        lambda: run(tmp_path / "videos", out, SLOW, num_workers=1, max_attempts=2),
        lambda: kill_job_holding(stall, os.getpid()),
    )
    assert (report.num_complete, dict(report.failures)) == (2, {"crashed": 1})
    assert report.num_lost_workers == 2
    (failure,) = read_failures(Storage(out)).values()
    assert (failure.key, failure.reason, failure.attempts) == ("a", "crashed", 2)
    assert failure.message == "the worker process ended (signal SIGKILL)"
    assert verify_dataset(out).problems == []
    # It was no fault of the video: tried again, it is there.
    assert run(tmp_path / "videos", out, SLOW, num_workers=1, retry_failed=True).is_complete
    assert verify_dataset(out).problems == []


def during(work: Callable[[], RunReport], disturb: Callable[[], bool]) -> RunReport:
    """Returns what `work` does while another thread disturbs it again and again."""
    is_done = threading.Event()

    def disturber() -> None:
        while not is_done.wait(0.02):
            disturb()

    thread = threading.Thread(target=disturber)
    thread.start()
    try:
        return work()
    finally:
        is_done.set()
        thread.join()


def test_a_worker_that_is_killed_once_costs_its_video_one_attempt(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", size=(128, 96))
    killed: list[int] = []
    stall = tmp_path / "out" / ".parts" / "000000" / "00000000.stall"

    def kill_once() -> bool:
        if not killed and kill_job_holding(stall, os.getpid()):
            killed.append(1)
        return True

    report = during(lambda: run(clip, tmp_path / "out", SLOW), kill_once)
    assert (report.is_complete, report.num_lost_workers) == (True, 1)
    assert run(clip, tmp_path / "undisturbed", SLOW, executor="inline").is_complete
    assert tars(tmp_path / "out") == tars(tmp_path / "undisturbed")


def test_a_crash_in_native_code_says_where(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", size=(128, 96))
    out = tmp_path / "out"
    stall = out / ".parts" / "000000" / "00000000.stall"

    def crash() -> bool:
        for pid in workers_below(os.getpid()):
            if stall.exists():
                os.kill(pid, signal.SIGSEGV)
        return True

    report = during(lambda: run(clip, out, SLOW, max_attempts=1), crash)
    assert dict(report.failures) == {"crashed": 1}
    (failure,) = read_failures(Storage(out)).values()
    assert failure.message == "the worker process ended (signal SIGSEGV)"
    assert "Fatal Python error: Segmentation fault" in log_of(out)


def test_a_worker_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    """One slow pair of frames: OpenCV takes far longer for it than the limit."""
    write_clip(tmp_path / "videos" / "a.mp4")
    write_clip(tmp_path / "videos" / "slow.mp4", size=(1024, 768), num_frames=3)
    report = run(
        *(tmp_path / "videos", tmp_path / "out", SLOW),
        num_workers=1,
        max_attempts=1,
        stall_timeout_seconds=8.0,
    )
    assert report.failures == {"stalled": 1}
    assert (report.num_complete, report.num_lost_workers) == (1, 1)
    (failure,) = read_failures(Storage(tmp_path / "out")).values()
    assert (failure.key, failure.message) == (
        *("slow", "no progress for 8 s; the worker was ended"),
    )
    assert "opencv.py" in log_of(tmp_path / "out")  # where it hung


@HAS_PROC
def test_a_killed_driver_takes_its_worker_along_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    clips = tmp_path / "videos"
    for name in "abc":
        write_clip(clips / f"{name}.mp4", size=(128, 96))
    out = tmp_path / "out"
    options = ("--algorithm", "tvl1-opencv", "--resize", "none", "--workers", "1")
    process = start_extract(clips, out, *options, "--shard-size", "2")
    wait_until((out / ".parts/000000/00000001.stall").exists, process)
    (worker,) = workers_below(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"))
    report = run(clips, out, SLOW, num_workers=1)
    assert (report.is_complete, report.num_done_before) == (True, 1)
    assert run(clips, tmp_path / "undisturbed", SLOW, executor="inline").is_complete
    assert tars(out) == tars(tmp_path / "undisturbed")
    assert verify_dataset(out, deep=True).problems == []


def outcome_of(executor: ProcessExecutor, job: ExtractJob) -> JobResult | WorkerLost:
    executor.submit(job)
    while not (ended := executor.wait(1.0)):
        pass
    ((same, outcome),) = ended
    assert same is job
    return outcome


@HAS_PROC
def test_a_worker_that_takes_the_last_memory_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "a.mp4", size=(128, 96))
    storage = Storage(str(tmp_path / "out"))
    storage.make_folder()
    job = ExtractJob(storage, SLOW, Video("a", str(clip)), 0, 0, 1, 60.0)
    with closing(ProcessExecutor(RunOptions(executor="process"), SLOW.flow)) as executor:
        # As if the machine were full, and a worker of any size were what fills it.
        monkeypatch.setattr(process_executor, "MAX_MEMORY_SHARE", 0.0)
        monkeypatch.setattr(process_executor, "MIN_WORKER_SHARE", 0.0)
        lost = outcome_of(executor, job)
        assert isinstance(lost, WorkerLost)
        assert lost.reason == "out-of-memory"
        assert re.fullmatch(
            r"the worker was ended because memory ran out; it held [0-9.]+ [kMG]?B of [0-9.]+ GB",
            lost.message,
        )
        # It held no more than it may.
        assert (lost.is_short_of_memory, lost.fault) == (True, "node")
        # A small one is left alone, for others fill the machine; and a new one is there.
        monkeypatch.setattr(process_executor, "MIN_WORKER_SHARE", 0.9)
        done = outcome_of(executor, job)
        assert isinstance(done, JobResult)
        assert done.record is not None
        assert done.record.status == "complete"


def test_workers_that_do_not_start_stop_the_run_and_fail_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(worker_process, "_CODE", "raise SystemExit('no flowprep here')")
    with pytest.raises(ExecutorError, match=r"while they start \(exit code 1\): no flowprep here;"):
        run(clip, tmp_path / "out")
    monkeypatch.undo()
    report = run(clip, tmp_path / "out")
    assert (report.is_complete, report.num_failed) == (True, 0)


def test_ends_with_its_block_and_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else set()
    with WorkerProcess() as worker:
        assert worker.receive(60) == worker_process.READY
        assert worker.memory_bytes() > 1 << 20
        with pytest.raises(TimeoutError):
            worker.receive(0)
        os.kill(worker.pid, signal.SIGTERM)
        with pytest.raises(WorkerEndedError, match="signal SIGTERM"):
            worker.receive(60)
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


def test_waits_no_longer_than_asked() -> None:
    executor = ProcessExecutor(RunOptions(executor="process"), CONFIG.flow)
    began = time.monotonic()
    assert executor.wait(30.0) == []  # nothing is in hand
    assert time.monotonic() - began < 30
    executor.close()
