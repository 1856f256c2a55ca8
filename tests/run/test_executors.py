"""How cores and GPUs become workers, and who gets which job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowprep import extract
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.layout import VideoRecord
from flowprep.errors import ConfigError, VideoError
from flowprep.flow.devices import Device, cuda_state, why_no_cuda
from flowprep.inputs.manifest import collect_videos
from flowprep.inputs.video import Video
from flowprep.machine import usable_cores
from flowprep.run import run_job as job_module
from flowprep.run.driver import run_extract
from flowprep.run.executor import InlineExecutor
from flowprep.run.job import ExtractJob, JobResult, WorkerLost
from flowprep.run.options import check_options
from flowprep.run.ray_start import only_gpu
from flowprep.run.run_job import run_job
from flowprep.run.workers import JobQueue, Machine, WorkerPlan, own_machine, plan_workers
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video

CUDA = Device("cuda")
STORAGE = Storage("/nowhere")
CONFIG = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("tvl1"), EncodeSpec())
HAS_GPU = why_no_cuda(cuda_state()) is None


# ---- how many workers


@pytest.mark.parametrize(
    ("options", "machines", "cpu", "gpu"),
    [
        # one machine without a GPU: a worker a core
        (RunOptions(), [Machine(8)], 8, 0),
        (RunOptions(num_workers=3), [Machine(8)], 3, 0),
        (RunOptions(num_workers=30), [Machine(8)], 8, 0),
        (RunOptions(device="cpu"), [Machine(8)], 8, 0),
        # one machine with GPUs: all cores feed them
        (RunOptions(), [Machine(4, 1)], 0, 4),
        (RunOptions(), [Machine(16, 1)], 0, 8),
        (RunOptions(), [Machine(64, 4)], 0, 32),
        (RunOptions(), [Machine(8, 4)], 0, 8),
        (RunOptions(), [Machine(2, 4)], 0, 4),
        (RunOptions(device="cuda"), [Machine(16, 1)], 0, 8),
        (RunOptions(device="cuda", num_workers=4), [Machine(64, 4)], 0, 4),
        (RunOptions(device="cuda", num_workers=6), [Machine(64, 4)], 0, 6),
        (RunOptions(device="cuda", workers_per_gpu=3), [Machine(16, 1)], 0, 3),
        (RunOptions(device="cuda", workers_per_gpu=12), [Machine(4, 1)], 0, 12),
        # a cluster of both: the cores of machines without a GPU work beside
        (RunOptions(), [Machine(16, 1), Machine(32), Machine(32)], 64, 8),
        (RunOptions(device="cuda"), [Machine(16, 1), Machine(32)], 0, 8),
        (RunOptions(num_workers=20), [Machine(16, 1), Machine(32)], 12, 8),
        # all GPUs and all cores
        (RunOptions(device="cuda+cpu"), [Machine(16, 1)], 8, 8),
        (RunOptions(device="cuda+cpu"), [Machine(8, 1)], 4, 4),
        (RunOptions(device="cuda+cpu"), [Machine(8, 1), Machine(4)], 8, 4),
        (RunOptions(device="cuda+cpu", workers_per_gpu=2), [Machine(8, 1)], 6, 2),
    ],
)
def test_numbers_of_workers(
    options: RunOptions, machines: list[Machine], cpu: int, gpu: int
) -> None:
    plan = plan_workers(options, machines, CUDA if options.device != "cpu" else None)
    assert (plan.num_cpu_workers, plan.num_gpu_workers) == (cpu, gpu)
    assert plan.num_workers == cpu + gpu


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda+cpu"])
@pytest.mark.parametrize("num_cpus", [1, 2, 3, 7, 12, 20, 64])
@pytest.mark.parametrize("num_gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("per_gpu", [None, 1, 3, 6, 7])
def test_what_is_planned_has_room(
    device: str, num_cpus: int, num_gpus: int, per_gpu: int | None
) -> None:
    options = RunOptions(device=device, workers_per_gpu=per_gpu)
    plan = plan_workers(options, [Machine(num_cpus, num_gpus)], CUDA)
    # In ten-thousandths, as Ray counts; what has no room would wait for ever.
    share, cpus = round(plan.gpus_per_worker * 10000), round(plan.cpus_per_gpu_worker * 10000)
    assert plan.num_gpu_workers % num_gpus == 0
    assert share * (plan.num_gpu_workers // num_gpus) <= 10000
    assert cpus * plan.num_gpu_workers + 10000 * plan.num_cpu_workers <= 10000 * num_cpus
    # and no GPU would take more workers than its own
    assert share * (plan.num_gpu_workers // num_gpus + 1) > 10000


def test_gpu_memory_bounds_the_workers_that_share_it() -> None:
    plan = plan_workers(RunOptions(), [Machine(16, 1)], CUDA, gpu_memory_bytes=8 << 30)
    assert plan.num_gpu_workers == 2
    plan = plan_workers(RunOptions(), [Machine(16, 1)], CUDA, gpu_memory_bytes=1 << 30)
    assert plan.num_gpu_workers == 1


def test_own_machine_without_a_gpu() -> None:
    machine, device, plan = own_machine(RunOptions(device="cpu"), "tvl1")
    assert (machine, device) == (Machine(usable_cores()), None)
    assert plan == WorkerPlan(usable_cores())
    assert own_machine(RunOptions(device="cpu", num_workers=50), "tvl1")[2].num_cpu_workers == 50


@pytest.mark.parametrize("executor", [None, "inline"])
def test_the_executor_of_the_options_works_unless_another_is_named(
    tmp_path: Path, executor: Any
) -> None:
    scene = action_scene("move_left", num_frames=2, width=32, height=32, seed=0)
    write_video(tmp_path / "a.mp4", (scene.frame(t) for t in range(2)))
    options = RunOptions(executor="process" if executor else "inline")
    extract(tmp_path / "a.mp4", tmp_path / "out", CONFIG, executor=executor, options=options)
    (log,) = (tmp_path / "out/logs").glob("*.log")
    assert "InlineExecutor with 1 workers" in log.read_text()


# ---- what is refused at once


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU that works")
@pytest.mark.parametrize("executor", ["ray", "inline"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda+cpu"])
def test_absent_gpu_is_refused_before_anything_is_written(
    tmp_path: Path, executor: Any, device: str
) -> None:
    scene = action_scene("move_left", num_frames=2, width=32, height=32, seed=0)
    write_video(tmp_path / "a.mp4", (scene.frame(t) for t in range(2)))
    out = tmp_path / "out"
    options = RunOptions(executor=executor, device=device)
    with pytest.raises(ConfigError, match=r"device 'cuda(:1)?' cannot be used: "):
        run_extract(collect_videos(tmp_path / "a.mp4"), str(out), CONFIG, options)
    assert not out.exists()


def test_gpu_by_its_number_on_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"device 'cuda:1' is a GPU of one machine, .*take --dev"):
        check_options(RunOptions(device="cuda:1", address="somewhere:1"), "tvl1")
    check_options(RunOptions(device="cuda", address="somewhere:1"), "tvl1")


@pytest.mark.parametrize("address", [None, "somewhere:1"])
def test_algorithm_without_a_gpu_version_is_refused(address: str | None) -> None:
    with pytest.raises(ConfigError, match=r"device of dis must be cpu, got 'cuda'"):
        check_options(RunOptions(device="cuda", address=address), "dis")


@pytest.fixture
def one_job(tmp_path: Path) -> ExtractJob:
    scene = action_scene("move_left", num_frames=2, width=32, height=32, seed=0)
    write_video(tmp_path / "a.mp4", (scene.frame(t) for t in range(2)))
    storage = Storage(str(tmp_path / "out"))
    storage.make_folder()
    return ExtractJob(storage, CONFIG, Video("a", str(tmp_path / "a.mp4")), 0, 0, 1, None)


def test_inline_computes_on_the_device(one_job: ExtractJob, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    executor = InlineExecutor(RunOptions(executor="inline", device="torch-cpu"), CONFIG.flow)
    executor.submit(one_job)
    ((_, outcome),) = executor.wait(0)
    assert isinstance(outcome, JobResult)
    assert outcome.record is not None
    assert outcome.record.status == "complete"
    part = (tmp_path / "out/.parts/000000/00000000.tar").read_bytes()
    assert b'"estimator":"TVL1Torch"' in part


# ---- a GPU that fails


class AcceleratorError(RuntimeError):
    """As torch names what CUDA reports."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AcceleratorError("an illegal memory access was encountered"), "crashed"),
        (RuntimeError("CUDA error: out of memory"), "out-of-memory"),
        (VideoError("out-of-memory", "a pair does not fit"), "out-of-memory"),
    ],
)
def test_a_gpu_that_fails_loses_its_worker_and_not_the_video(
    one_job: ExtractJob, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(job_module, "extract_video", failing)
    monkeypatch.setattr(job_module, "_estimator", lambda *_: object())
    outcome = run_job(one_job, "cuda")
    assert isinstance(outcome, WorkerLost)
    assert outcome.reason == reason
    assert str(error) in outcome.message
    # On a core it is the video's failure, or flowprep's.
    outcome = run_job(one_job, "cpu")
    assert isinstance(outcome, JobResult)
    assert outcome.record is not None
    assert outcome.record.status == "failed"


def test_a_device_that_is_not_there_ends_the_run_and_no_video(
    one_job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ConfigError("device 'cuda' cannot be used: gone")

    monkeypatch.setattr(job_module, "_estimator", failing)
    outcome = run_job(one_job, "cuda")
    assert isinstance(outcome, JobResult)
    assert (outcome.record, str(outcome.error)) == (None, "device 'cuda' cannot be used: gone")


# ---- one GPU of several


@pytest.fixture
def _own_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("_own_environment")
@pytest.mark.parametrize(
    ("visible", "index", "shown"),
    [(None, 2, "2"), ("", 1, "1"), ("3,5", 1, "5"), ("GPU-ab,GPU-cd", 0, "GPU-ab")],
)
def test_one_gpu_is_shown(visible: str | None, index: int, shown: str) -> None:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    with only_gpu(Device("cuda", index)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
    with only_gpu(CUDA):
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


# ---- who gets which job


def job(key: str, attempt: int = 1) -> ExtractJob:
    return ExtractJob(STORAGE, CONFIG, Video(key, key), 0, 0, attempt, None)


def record(num_flows: int) -> VideoRecord:
    return VideoRecord("a", "complete", num_flows=num_flows, width=10, height=10)


def queue_of(
    keys: str, *, window: int = 4, cpu_seconds: float = 0.0, gpu_seconds: float = 0.0
) -> JobQueue:
    """A queue of jobs, after each kind of worker took so long for the same video."""
    queue = JobQueue(window)
    for key in keys:
        queue.add(job(key))
    if cpu_seconds:
        queue.count("cpu", record(7), cpu_seconds)
    if gpu_seconds:
        queue.count("gpu", record(7), gpu_seconds)
    return queue


def taken(queue: JobQueue, cpu: int, gpu: int, at_work: tuple[int, int] = (0, 0)) -> str | None:
    chosen = queue.take({"cpu": cpu, "gpu": gpu}, {"cpu": at_work[0], "gpu": at_work[1]})
    return None if chosen is None else f"{chosen[0]} {chosen[1].video.key}"


def test_jobs_go_in_their_order_to_whoever_is_free_and_to_gpus_first() -> None:
    queue = queue_of("abcd")
    assert taken(queue, 1, 1) == "gpu a"
    assert taken(queue, 1, 0, (0, 1)) == "cpu b"
    assert taken(queue, 0, 0, (1, 1)) is None
    assert taken(queue, 0, 1, (1, 0)) == "gpu c"
    assert len(queue) == 1


def test_a_job_that_failed_goes_to_a_core_if_one_is_free() -> None:
    queue = JobQueue(4)
    for key in "ab":
        queue.add(job(key, attempt=2))
    assert taken(queue, 1, 1) == "cpu a"
    assert taken(queue, 0, 1) == "gpu b"


@pytest.mark.parametrize(
    ("keys", "cpu_seconds", "gpus_at_work", "goes"),
    [
        ("abcdef", 5.0, 1, True),  # 6 jobs take the GPU longer than 5
        ("abcd", 5.0, 1, False),
        ("abcd", 5.0, 2, False),
        ("abcd", 5.0, 0, True),  # it is not at work, but starting
        ("abcdefghijk", 5.0, 2, True),
        ("a", 0.5, 1, True),  # a GPU that is slower than a core
    ],
)
def test_the_last_jobs_wait_for_a_gpu_that_is_through_sooner(
    keys: str, cpu_seconds: float, gpus_at_work: int, goes: bool
) -> None:
    queue = queue_of(keys, window=100, cpu_seconds=cpu_seconds, gpu_seconds=1.0)
    assert (taken(queue, 1, 0, (0, gpus_at_work)) == "cpu a") == goes


def test_nothing_is_held_back_while_more_is_to_come_or_speeds_are_unknown() -> None:
    queue = queue_of("abc", window=4, cpu_seconds=50.0, gpu_seconds=1.0)
    assert taken(queue, 1, 0, (0, 1)) == "cpu a"
    assert taken(queue, 1, 0, (0, 1)) is None
    assert taken(queue_of("abc", window=9, gpu_seconds=1.0), 1, 0, (0, 1)) == "cpu a"
    assert taken(queue_of("abc", window=9, cpu_seconds=1.0), 1, 0, (0, 1)) == "cpu a"


def test_videos_count_by_their_pixels() -> None:
    queue = queue_of("abcd", window=99, cpu_seconds=10.0)
    queue.count("gpu", record(70), 10.0)  # ten times as much in the same time
    queue.count("gpu", None, 1000.0)  # which says nothing
    assert taken(queue, 1, 0, (0, 1)) is None
    queue = queue_of("abcd", window=99, cpu_seconds=10.0)
    queue.count("gpu", record(21), 10.0)
    assert taken(queue, 1, 0, (0, 1)) == "cpu a"
