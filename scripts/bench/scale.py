"""The cost of 650,000 videos apart from decoding and flow: plan, driver, index, labels, status.

Writes a list of videos that do not exist, plans it, and runs the real driver. Its workers answer at
once with records as long as real ones, and publish sidecars without the bytes of the videos. Then
the script opens the finished index, gives it other labels, opens it with those labels, and asks for
the status of the run. Each step has its own process, and the script prints its time and its largest
memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from processes import machine

import flowprep
from flowprep.config import ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.layout import Sidecar, VideoRecord, shard_name, sidecar_name
from flowprep.run.counters import Sample
from flowprep.run.executor import Executor
from flowprep.run.executors import EXECUTORS
from flowprep.run.job import ExtractJob, Job, JobResult, WorkerLost

NUM_CLASSES = 700
STREAMS = ("json", "flow_x", "flow_y", "back_x", "back_y", "rgb")


class AnsweringExecutor(Executor):
    """64 workers that finish each job at once, with two jobs per worker."""

    num_workers = 64
    window = 128

    def __init__(self, options: RunOptions, flow: FlowSpec) -> None:
        self._jobs: list[Job] = []
        self._records: dict[int, VideoRecord] = {}
        self._began = self._seen = time.perf_counter()
        self._num_videos = self._num_seen = 0

    def submit(self, job: Job) -> None:
        """Takes a job."""
        self._jobs.append(job)

    def wait(self, timeout_seconds: float) -> list[tuple[Job, JobResult | WorkerLost]]:
        """Answers one job, as Ray does."""
        job = self._jobs.pop(0)
        if not isinstance(job, ExtractJob):
            records = tuple(self._records.pop(index) for index in job.indices)
            sidecar = Sidecar(job.shard, 1024, hashlib.sha256().hexdigest(), records)
            job.storage.write_bytes(shard_name(job.shard), b"\0" * 1024)
            job.storage.write_bytes(sidecar_name(job.shard), sidecar.to_json())
            return [(job, JobResult())]
        offset, members = 512, {}
        for number, name in enumerate(STREAMS):
            size = 1_000_003 + 7919 * number + job.index
            members[name] = (offset, size)
            offset += size + 1024
        record = VideoRecord(
            key=job.video.key,
            status="complete",
            labels=job.video.labels,
            split=job.video.split,
            num_frames=250,
            num_flows=249,
            width=340,
            height=256,
            fps=25.0,
            num_values=86_691_840,
            num_clipped=12_345,
            members=members,
            seconds={"decode": 0.2345, "flow": 8.7654, "encode": 0.4321, "write": 0.0123},
        )
        self._records[job.index] = record
        self._count()
        return [(job, JobResult(record=record))]

    def show(self, samples: Sequence[Sample]) -> None:
        """Does nothing, because nobody watches the run."""

    def close(self) -> None:
        """Ends the workers."""

    def _count(self) -> None:
        self._num_videos += 1
        now = time.perf_counter()
        if now - self._seen >= 10:
            rate = (self._num_videos - self._num_seen) / (now - self._seen)
            print(f"    {self._num_videos:8d} videos, {rate:6.0f}/s, {peak_mb():5.0f} MB")
            self._seen, self._num_seen = now, self._num_videos


def peak_mb() -> float:
    """Returns the largest resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def write_list(path: Path, num_videos: int) -> None:
    """Writes `PATH LABEL` lines as mmaction2 does, for videos in class folders."""
    with open(path, "w") as file:
        for number in range(num_videos):
            label = number % NUM_CLASSES
            name = hashlib.blake2b(b"%d" % number).hexdigest()[:11]
            file.write(f"class_{label:03d}/{name}_{number:06d}.mp4 {label}\n")


def step(name: str, folder: Path) -> None:
    """Carries out one step in this process, and prints its time and memory."""
    from flowprep.inputs.manifest import collect_videos
    from flowprep.run.driver import run_extract
    from flowprep.run.plan import make_plan
    from flowprep.run.status import read_status
    from flowprep.storage import Storage

    out = str(folder / "out")
    before = peak_mb()
    began = time.perf_counter()
    if name == "plan":
        manifest = collect_videos(str(folder / "list.txt"))
        plan = make_plan(Storage(out), manifest, ExtractConfig())
        result = f"{len(plan.entries)} videos"
    elif name == "run":
        EXECUTORS["inline"] = AnsweringExecutor  # type: ignore[assignment]
        manifest = collect_videos(str(folder / "list.txt"))
        options = RunOptions(executor="inline", progress=False)
        report = run_extract(manifest, out, ExtractConfig(), options)
        result = f"{report.num_complete / report.wall_seconds:.0f} finished videos/s"
    elif name == "open":
        result = f"{len(flowprep.open_dataset(out).videos)} videos"
    elif name == "label":
        labelled = flowprep.label(out, "other", lists=[f"train={folder / 'list.txt'}"])
        result = labelled.summary().splitlines()[0].partition(" in ")[0]
    elif name == "labels":
        result = f"{len(flowprep.open_dataset(out, labels='other').videos)} videos"
    else:
        result = read_status(out).summary().splitlines()[0].partition(" in ")[0]
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, peak_mb(), before, result]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=650_000)
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        step(options.step[0], Path(options.step[1]))
        return
    print(f"flowprep {flowprep.__version__} on {machine()}; {options.videos} videos\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_list(folder / "list.txt", options.videos)
        print(f"{'step':8}{'seconds':>9}{'peak':>10}", flush=True)
        for item in ("plan", "run", "open", "label", "labels", "status"):
            command = [sys.executable, __file__, "--step", item, str(folder)]
            process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            *progress, last = process.stdout.splitlines()
            seconds, peak, _, result = json.loads(last)
            for line in progress:
                print(line)
            print(f"{item:8}{seconds:9.1f}{peak:7.0f} MB  {result}", flush=True)


if __name__ == "__main__":
    main()
