"""TV-L1 on the GPU against plain PyTorch and against all cores: speed, agreement, end to end.

Without a working GPU, the script says why and exits with code 2. Frames are from UCF101's clips (in
FLOWPREP_TEST_DATA; synthetic without it), gray, 340x256, with OpenCV's parameters, forward and
backward. Everything is measured in one run on one machine.

  ceilings    the limits of the GPU: bytes/s of a copy, multiply-adds/s of a float32 product of
              matrices
  speed       pairs/s of the CPU's kernels on all cores (one process per core), of the PyTorch
              version and of the CUDA version, and the share of the ceilings that iterations use;
              fields are copied whole, and as levels, quantized on the GPU, as `extract` has it
  agreement   endpoint error and 8-bit levels (bound 20) of each against the CPU
  end-to-end  `flowprep extract` of .avi files to shards: pairs/s of the whole command and of the
              work without the start of Python and Ray, seconds by stage, and the GPU's utilization
              (nvidia-smi), for each number of workers that share the GPU, and for the CPU

The shares of the ceilings count pixel iterations. One pixel iteration is 45.6 instructions in the
CUDA kernel (flowprep/flow/tvl1_cuda.py). It would move 60 bytes if nothing stayed in registers and
caches (read u, p, gradient and residual, write u and p, in float32). More than 100 % of the copy's
bytes/s means that these bytes do not go through memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from processes import machine

from flowprep.config import DecodeSpec, FlowSpec, Resize
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.quantize import quantize
from flowprep.flow import create_estimator
from flowprep.flow.base import FlowEstimator, Reduction
from flowprep.flow.devices import cuda_state, why_no_cuda
from flowprep.flow.parameters import TVL1Parameters
from flowprep.inputs.video import Video
from flowprep.machine import usable_cores
from flowprep.synthetic import ACTIONS, action_scene, write_video
from flowprep.video.decode import open_video

Frames = list[NDArray[np.uint8]]
"""The frames of one video, (H, W) each."""

SIZE = 340, 256
DATA = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"), "ucf101", "videos")
INSTRUCTIONS_PER_PIXEL = 45.6
BYTES_PER_PIXEL = 60
NUM_COMPARED_PAIRS = 12


def main() -> None:
    """Runs the requested parts and prints their tables."""
    parts = ("ceilings", "speed", "agreement", "end-to-end")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; or all")
    parser.add_argument("--quick", action="store_true", help="a few minutes: less of everything")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    # The tasks of the processes that this script starts itself.
    parser.add_argument("--core", nargs=2, metavar=("FILE", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.core:
        print(core_throughput(Path(options.core[0]), float(options.core[1])))
        return
    if unknown := [name for name in options.parts if name not in parts]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(parts)}")
    reason = why_no_cuda(cuda_state())
    if reason is not None:
        print(f"no GPU can be used: {reason}", file=sys.stderr)
        sys.exit(2)
    bench = Bench(seconds=3.0 if options.quick else 10.0, is_quick=options.quick)
    bench.say_machine()
    for name in options.parts or parts:
        print(f"\n{name}", flush=True)
        try:
            {
                "ceilings": bench.show_ceilings,
                "speed": bench.show_speed,
                "agreement": bench.show_agreement,
                "end-to-end": bench.show_end_to_end,
            }[name]()
        # If one part fails, the measurements of the others are not lost.
        except Exception as error:
            print(f"FAILED: {type(error).__name__}: {error}", flush=True)
            bench.numbers[f"{name} failed"] = repr(error)
    if options.json:
        Path(options.json).write_text(json.dumps(bench.numbers, indent=2) + "\n")


@dataclass
class Bench:
    """Measurements that are made once and needed several times."""

    seconds: float
    is_quick: bool
    numbers: dict[str, Any] = field(default_factory=dict)

    def say_machine(self) -> None:
        """Prints the machine that the script runs on."""
        import torch

        print(f"{machine()}; OpenCV {cv2.__version__}")
        for index, gpu in enumerate(cuda_state().gpus):
            print(f"cuda:{index} {gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB", end="; ")
        print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
        self.numbers["gpu"] = cuda_state().gpus[0].name
        self.numbers["cores"] = usable_cores()

    # ---- ceilings

    def show_ceilings(self) -> None:
        """Prints the speed of the GPU itself."""
        copy, fma = self.ceilings()
        print(f"copy             {copy / 1e9:10.0f} GB/s, read and written")
        print(f"multiply-adds    {fma / 1e12:10.2f} T/s, float32")

    def ceilings(self) -> tuple[float, float]:
        """Returns bytes/s of a copy and float32 multiply-adds/s."""
        if "copy_bytes_per_second" in self.numbers:
            return (
                self.numbers["copy_bytes_per_second"],
                self.numbers["multiply_adds_per_second"],
            )
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        source = torch.empty(2**28, device="cuda")  # 1 GiB
        target = torch.empty_like(source)
        copy = 2 * source.nbytes / gpu_seconds(partial(target.copy_, source))
        del source, target
        side = 8192
        a, b = (torch.randn(side, side, device="cuda") for _ in range(2))
        fma = side**3 / gpu_seconds(partial(torch.mm, a, b))
        del a, b
        torch.cuda.empty_cache()
        self.numbers["copy_bytes_per_second"] = copy
        self.numbers["multiply_adds_per_second"] = fma
        return copy, fma

    # ---- speed

    def show_speed(self) -> None:
        """Prints a row for all cores, for PyTorch and for CUDA."""
        from flowprep.dataset.quantize_torch import DeviceQuantizer

        videos = real_videos(2 if self.is_quick else 6, 73)
        copy, fma = self.ceilings()
        pixels = iterated_pixels([frames[: 1 + NUM_COMPARED_PAIRS // 2] for frames in videos])
        print(f"a pair iterates {pixels / 1e6:.1f} million pixels, on the mean of some")
        print("| version | pairs/s | times the cores | instructions | bytes |")
        print("|---|---|---|---|---|")
        cores = all_cores_throughput(videos, self.seconds)
        self.numbers["pairs_per_second"] = rates = {"all cores": cores}
        print(f"| CPU, {usable_cores()} cores | {cores:.1f} | 1 | | |", flush=True)
        reduce = DeviceQuantizer(FlowSpec("tvl1"))
        for name, rate in (
            (f"{name}{what}", throughput(estimator, videos, self.seconds, reduction))
            for name, estimator in gpu_estimators()
            for what, reduction in (("", None), (", levels", reduce))
        ):
            rates[name] = rate
            print(
                f"| {name} | {rate:.1f} | {rate / cores:.1f} "
                f"| {100 * rate * pixels * INSTRUCTIONS_PER_PIXEL / fma:.1f} % "
                f"| {100 * rate * pixels * BYTES_PER_PIXEL / copy:.1f} % |",
                flush=True,
            )

    # ---- agreement

    def show_agreement(self) -> None:
        """Prints how much each version differs from the CPU."""
        videos = real_videos(6, 1 + NUM_COMPARED_PAIRS // 6)
        reference = fields(create_estimator("tvl1"), videos)
        spec = FlowSpec("tvl1")
        levels = quantize(reference, spec).astype(int)
        print("| version | EPE to the CPU, px | worst pair | 8-bit within 1 | equal |")
        print("|---|---|---|---|---|")
        rows: list[tuple[str, FlowEstimator]] = [
            ("CPU, --stop exact", create_estimator("tvl1", stop="exact")),
            *gpu_estimators(),
        ]
        self.numbers["agreement"] = agreement = {}
        for name, estimator in rows:
            computed = fields(estimator, videos)
            error_px = np.linalg.norm(computed - reference, axis=-1).mean(axis=(1, 2))
            apart = np.abs(quantize(computed, spec).astype(int) - levels)
            agreement[name] = {
                "epe_px": float(error_px.mean()),
                "within_one": float((apart <= 1).mean()),
            }
            print(
                f"| {name} | {error_px.mean():.4f} | {error_px.max():.4f} "
                f"| {100 * (apart <= 1).mean():.3f} % | {100 * (apart == 0).mean():.2f} % |",
                flush=True,
            )

    # ---- end to end

    def show_end_to_end(self) -> None:
        """Prints a row for each way to extract the same clips."""
        with tempfile.TemporaryDirectory() as folder:
            videos = Path(folder, "videos")
            num_clips = 24 if self.is_quick else 64
            num_clips, source = clips(videos, num_clips)
            print(f"{num_clips} clips, {source}; {SIZE[0]}x{SIZE[1]}, both directions, RGB kept\n")
            print(
                f"{'':24} {'pairs/s':>8} {'of work':>8} {'wall s':>7} {'GPU busy':>9}   "
                "seconds of workers: decode, flow, encode, write"
            )
            self.numbers["end_to_end"] = rows = {}
            per_gpu = (1, 2, None) if self.is_quick else (1, 2, 4, None)
            ways = [
                (f"cuda, {number or 'default'} a GPU", ["--device", "cuda"], number)
                for number in per_gpu
            ]
            ways.append(("cpu, all cores", ["--device", "cpu"], None))
            if not self.is_quick:
                ways.append(("cuda+cpu", ["--device", "cuda+cpu"], None))
            for name, arguments, number in ways:
                if number is not None:
                    arguments = [*arguments, "--workers-per-gpu", str(number)]
                out = Path(folder, re.sub(r"\W+", "-", name))
                rows[name] = run = extract(videos, out, arguments)
                stages = ", ".join(f"{seconds:.1f}" for seconds in run.stages.values())
                print(
                    f"{name:24} {run.num_pairs / run.wall_seconds:8.1f}"
                    f" {run.num_pairs / run.working_seconds:8.1f} {run.wall_seconds:7.1f}"
                    f" {run.busy_text:>9}   {stages}",
                    flush=True,
                )
        self.numbers["end_to_end"] = {name: vars(run) for name, run in rows.items()}


# ---- estimators and their speed


def gpu_estimators() -> Iterator[tuple[str, FlowEstimator]]:
    """Yields the two versions for GPUs, one after the other."""
    from flowprep.flow.tvl1_cuda import TVL1Cuda
    from flowprep.flow.tvl1_torch import TVL1Torch

    for name, kind in (("PyTorch", TVL1Torch), ("CUDA", TVL1Cuda)):
        try:
            yield name, kind(TVL1Parameters(), device="cuda")
        except Exception as error:
            print(f"| {name} | cannot be made: {type(error).__name__}: {error} |", flush=True)


def throughput(
    estimator: FlowEstimator,
    videos: list[Frames],
    seconds: float,
    reduce: Reduction | None = None,
) -> float:
    """Returns pairs/s, forward and backward."""
    # The first call allocates memory and loads code, so it is not timed.
    count_pairs(estimator, videos[:1], reduce)
    times: list[float] = []
    while not times or sum(times) < seconds:
        began = time.perf_counter()
        num_pairs = count_pairs(estimator, videos, reduce)
        times.append(time.perf_counter() - began)
    return num_pairs / statistics.median(times)


def count_pairs(
    estimator: FlowEstimator, videos: list[Frames], reduce: Reduction | None = None
) -> int:
    """Computes all pairs of some videos, and returns the number of pairs."""
    pairs = estimator.pairs if reduce is None else partial(estimator.reduced_pairs, reduce=reduce)
    return sum(1 for frames in videos for _ in pairs(frames))


def core_throughput(path: Path, seconds: float) -> float:
    """Returns pairs/s of the CPU's kernels in this process alone."""
    videos = [list(frames) for frames in np.load(path)]
    estimator = create_estimator("tvl1")
    count_pairs(estimator, [videos[0][:2]])
    # All processes start to measure together.
    print("ready", flush=True)
    sys.stdin.readline()
    began, num_pairs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in (pair for frames in videos for pair in estimator.pairs(frames)):
            num_pairs += 1
            if time.perf_counter() - began >= seconds:
                break
    return num_pairs / (time.perf_counter() - began)


def all_cores_throughput(videos: list[Frames], seconds: float) -> float:
    """Returns pairs/s of all cores, with one process on each core, all at the same time."""
    # Compile the kernels once. All processes read them from the cache.
    create_estimator("tvl1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "frames.npy")
        np.save(path, np.stack([np.stack(frames) for frames in videos]))
        command = [sys.executable, __file__, "--core", str(path), str(max(5.0, seconds))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers = [subprocess.Popen(command, **pipes) for _ in range(usable_cores())]
        try:
            for worker in workers:
                assert worker.stdout is not None
                worker.stdout.readline()
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("go\n")
                worker.stdin.flush()
            return sum(float(worker.communicate()[0]) for worker in workers)
        finally:
            for worker in workers:
                worker.kill()


def fields(estimator: FlowEstimator, videos: list[Frames]) -> NDArray[np.float32]:
    """Returns all fields of both directions, (N, H, W, 2) float32 px."""
    found = []
    for frames in videos:
        for pair in estimator.pairs(frames):
            assert pair.forward is not None
            assert pair.backward is not None
            found += [pair.forward, pair.backward]
    return np.stack(found)


def iterated_pixels(videos: list[Frames]) -> float:
    """Returns the pixel iterations of a pair in both directions, over all levels and warps."""
    estimator: Any = create_estimator("tvl1", stop="exact")
    scale_step = TVL1Parameters().scale_step
    pairs = [pair for frames in videos for pair in pairwise(frames)]
    total = 0.0
    for first, last in pairs:
        for pair in ((first, last), (last, first)):
            estimator(*pair)
            width, height = SIZE
            for level in estimator.num_iterations:
                total += width * height * sum(level)
                width, height = round(width * scale_step), round(height * scale_step)
    return total / len(pairs)


def gpu_seconds(work: Any, repeats: int = 10) -> float:
    """Returns the median seconds that the GPU takes for `work`."""
    import torch

    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended) / 1000)
    return statistics.median(times)


# ---- frames and clips


def ucf101() -> list[Path]:
    """Returns UCF101's clips that are on disk."""
    return sorted(DATA.glob("*/*.avi"))


def real_videos(num_videos: int, num_frames: int) -> list[Frames]:
    """Returns videos of this many frames, 340x256. Adds synthetic videos if there are too few."""
    spec = DecodeSpec(resize=Resize.parse(f"{SIZE[0]}x{SIZE[1]}"), allow_upscale=True)
    videos: list[Frames] = []
    for source in ucf101()[::3]:
        if len(videos) == num_videos:
            break
        with open_video(Video("clip", str(source)), spec) as reader:
            frames = [np.array(frame.gray) for frame in islice(reader, num_frames)]
        if len(frames) == num_frames:
            videos.append(frames)
    for seed in range(len(videos), num_videos):
        scene = action_scene(
            "zoom_in", num_frames=num_frames, width=SIZE[0], height=SIZE[1], seed=seed
        )
        colored = (scene.frame(t) for t in range(num_frames))
        videos.append([np.asarray(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), np.uint8) for x in colored])
    return videos


def clips(folder: Path, count: int) -> tuple[int, str]:
    """Fills a folder with .avi files. Returns their number and their source."""
    folder.mkdir(parents=True)
    found = ucf101()
    if found:
        # If there are too few clips, repeat them.
        for number in range(count):
            source = found[number % len(found)]
            (folder / f"{number:04d}-{source.name}").symlink_to(source.resolve())
        return count, "UCF101"
    names = list(ACTIONS)
    for number in range(count):
        scene = action_scene(
            names[number % len(names)], num_frames=100, width=320, height=240, seed=number
        )
        frames = (scene.frame(t) for t in range(100))
        write_video(folder / f"{number:04d}.avi", frames, codec="mpeg4")
    return count, "synthetic, 100 frames each"


# ---- whole extractions


@dataclass
class Run:
    """One extraction, measured."""

    num_pairs: int
    wall_seconds: float
    working_seconds: float
    """From the start of the work (see `extract`) to the last shard."""
    stages: dict[str, float]
    gpu_busy: float | None
    """Mean utilization in percent during the work on videos."""

    @property
    def busy_text(self) -> str:
        return "" if self.gpu_busy is None else f"{self.gpu_busy:.0f} %"


def extract(videos: Path, out: Path, arguments: list[str]) -> Run:
    """Runs the command line, as a user would."""
    command = [
        *(sys.executable, "-m", "flowprep", "extract", str(videos), str(out)),
        *("--resize", f"{SIZE[0]}x{SIZE[1]}", "--upscale", "--no-progress", *arguments),
    ]
    began = time.monotonic()
    with utilisation() as samples:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    log = next((out / "logs").glob("run-*.log")).read_text()
    stamps = re.findall(r"^(\S+ \S+) INFO (?:\S+: complete|published)", log, re.MULTILINE)
    times = [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f") for stamp in stamps]
    # GPU workers first import PyTorch and compile. So the work begins when the first worker is
    # ready, or at the start of the run if no worker logs this.
    start = re.search(r"^(\S+ \S+) INFO (?:GPU worker on|\w+Executor with)", log, re.MULTILINE)
    assert start is not None
    first = datetime.strptime(start[1], "%Y-%m-%d %H:%M:%S,%f")
    if ready := re.findall(r"^(\S+ \S+) INFO GPU worker on", log, re.MULTILINE):
        first = datetime.strptime(ready[0], "%Y-%m-%d %H:%M:%S,%f")
    working = (times[-1] - first).total_seconds()
    description = describe_dataset(out)
    busy = None
    if samples:
        # Only the last samples count, because Python, Ray and PyTorch start before them.
        count = max(1, round(len(samples) * min(1.0, working / wall)))
        busy = statistics.mean(samples[-count:])
    return Run(description.num_flows, wall, working, dict(description.seconds), busy)


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Yields a list. The GPU's utilization in percent is added several times per second."""
    samples: list[float] = []
    command = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        "--id=0",
        "--loop-ms=200",
    ]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        yield samples
        return

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                samples.append(float(line))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        process.terminate()
        process.wait()
        thread.join(timeout=5)


if __name__ == "__main__":
    main()
