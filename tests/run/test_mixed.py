"""Runs on CPU and GPU workers together, on Ray's word that there is a GPU.

In its place the GPU workers compute the version for GPUs on the CPU: all but the device is real.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions, open_dataset
from flowprep.config import DIRECTIONS, Resize
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigMismatchError, ExecutorError
from flowprep.flow.devices import Device, cuda_state, why_no_cuda
from flowprep.run import ray_executor
from flowprep.run.cluster import machines_of
from flowprep.run.executors import EXECUTORS
from flowprep.run.progress import RunReport
from flowprep.run.ray_executor import RayExecutor
from flowprep.run.ray_start import start_ray
from flowprep.run.workers import Machine, plan_workers
from flowprep.synthetic import action_scene, write_video

pytest.importorskip("torch")

NUM_CLIPS, NUM_FRAMES = 4, 3
CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")),
    FlowSpec("tvl1"),
    EncodeSpec(videos_per_shard=2, jpeg_quality=100),
)
BOTH = "torch-cpu+cpu"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    actions = ("move_left", "zoom_in", "move_down")
    for number in range(NUM_CLIPS):
        scene = action_scene(
            actions[number % 3], num_frames=NUM_FRAMES, width=320, height=240, seed=number
        )
        write_video(folder / f"{number}.mp4", map(scene.frame, range(NUM_FRAMES)))
    return folder


@pytest.fixture(scope="module")
def on_cpu(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process without Ray and GPU makes of the clips."""
    out = tmp_path_factory.mktemp("cpu") / "out"
    assert run(clips, out, executor="inline", device="cpu").is_complete
    return out


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Three cores, and two GPUs that are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
        module, owns = start_ray(None, num_cpus=3, num_gpus=2)
        assert owns
        yield module
        module.shutdown()


class PatientExecutor(RayExecutor):
    """Begins when the GPU workers are there: else a few clips would be done before."""

    def __init__(self, options: RunOptions, flow: FlowSpec) -> None:
        super().__init__(options, flow)
        while len(self._idle) < self._plan.num_gpu_workers:
            assert self.wait(1.0) == []


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTORS, "ray", PatientExecutor)


def run(clips: Path, out: Path, *, executor: str = "ray", **options: Any) -> RunReport:
    return flowprep.extract(
        clips, out, CONFIG, executor=executor, options=RunOptions(progress=False, **options)
    )


def estimators(out: Path) -> Counter[str]:
    """How many videos each class computed."""
    dataset = open_dataset(out)
    return Counter(dataset.metadata(video.key).estimator for video in dataset.videos)


def tars(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shards/*.tar"))}


@pytest.mark.usefixtures("ray", "_patient")
def test_cpu_and_gpu_workers_fill_one_data_set_that_agrees_with_the_cpu_s(
    clips: Path, on_cpu: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(clips, out, device=BOTH).is_complete
    assert verify_dataset(out, deep=True).problems == []
    counts = estimators(out)
    assert set(counts) == {"TVL1", "TVL1Torch"}
    assert sum(counts.values()) == NUM_CLIPS
    mixed, reference = open_dataset(out), open_dataset(on_cpu)
    errors_px, differences = [], []
    for video in mixed.videos:
        computed = mixed.metadata(video.key)
        known = reference.metadata(video.key)
        assert (computed.num_flows, computed.width) == (known.num_flows, known.width)
        for direction in DIRECTIONS:
            wanted = (video.key, 0, video.num_flows, direction)
            if computed.estimator == "TVL1":
                assert np.array_equal(mixed.quantized(*wanted), reference.quantized(*wanted))
                continue
            difference_px = mixed.flow(*wanted) - reference.flow(*wanted)
            errors_px.append(np.linalg.norm(difference_px, axis=-1))
            differences.append(mixed.quantized(*wanted).astype(int) - reference.quantized(*wanted))
    assert np.mean(errors_px) <= 0.02
    assert (np.abs(differences) <= 1).mean() >= 0.995


@pytest.mark.usefixtures("ray", "_patient")
def test_a_data_set_begun_on_the_cpu_goes_on_on_gpus(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(clips / "0.mp4", out, executor="inline", device="cpu").is_complete
    report = run(clips / "1.mp4", out, device="torch-cpu", num_workers=1)
    assert (report.num_complete, report.exit_code) == (1, 0)
    assert estimators(out) == {"TVL1": 1, "TVL1Torch": 1}
    with pytest.raises(ConfigMismatchError):
        flowprep.extract(clips, out, ExtractConfig(flow=FlowSpec("farneback")))


def test_a_gpu_worker_that_dies_costs_an_attempt_and_is_replaced(
    ray: Any, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(PatientExecutor):
        def __init__(self, options: RunOptions, flow: FlowSpec) -> None:
            super().__init__(options, flow)
            for actor in self._idle:
                ray.kill(actor)

    monkeypatch.setitem(EXECUTORS, "ray", Unlucky)
    out = tmp_path / "out"
    report = run(clips / "0.mp4", out, device="torch-cpu", num_workers=1)
    assert (report.num_complete, report.num_lost_workers) == (1, 1)
    assert estimators(out) == {"TVL1Torch": 1}
    log = next((out / "logs").glob("run-*")).read_text()
    assert "attempt 1 of 3 lost its worker: crashed: the worker process ended" in log


@pytest.mark.skipif(why_no_cuda(cuda_state()) is None, reason="this machine has a GPU that works")
@pytest.mark.usefixtures("ray")
def test_a_gpu_that_does_not_work_ends_a_run_that_asks_for_it(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match=r"a GPU worker on \S+ cannot work: device 'cuda' cann"):
        run(clips, tmp_path / "out", device="cuda")


@pytest.mark.skipif(why_no_cuda(cuda_state()) is None, reason="this machine has a GPU that works")
@pytest.mark.usefixtures("ray")
def test_a_gpu_that_does_not_work_leaves_its_cores_to_a_run_that_does_not(
    clips: Path, on_cpu: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING, "flowprep"):
        # All of them on GPUs: a core of its own would be through before they have started.
        assert run(clips, out, device="auto", num_workers=2).is_complete
    assert sum("its cores work without it" in line for line in caplog.messages) == 1
    assert tars(out) == tars(on_cpu)


@pytest.mark.usefixtures("ray")
def test_a_cluster_without_gpus_is_said_at_once(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_gpus(nodes: Iterable[Mapping[str, float]]) -> list[Machine]:
        return [Machine(one.num_cpus) for one in machines_of(nodes)]

    monkeypatch.setattr(ray_executor, "machines_of", without_gpus)
    with pytest.raises(ExecutorError, match=r"device 'cuda' needs a GPU, and the Ray cluster has"):
        run(clips, tmp_path / "out", device="cuda")


class Witness:
    """Says which GPUs Ray shows its process."""

    def visible(self) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]


def test_workers_spread_over_the_gpus_that_they_may_have(ray: Any) -> None:
    options = RunOptions(device="cuda", workers_per_gpu=2)
    plan = plan_workers(options, [Machine(3, 2)], Device("cuda"))
    assert plan.num_gpu_workers == 4
    kind = ray.remote(num_cpus=plan.cpus_per_gpu_worker, num_gpus=plan.gpus_per_worker)(Witness)
    actors = [kind.remote() for _ in range(plan.num_gpu_workers)]
    seen = ray.get([actor.visible.remote() for actor in actors])
    assert Counter(seen) == {"2": 2, "3": 2}
