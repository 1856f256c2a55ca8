"""What the pipeline costs beside flow, and how throughput grows with workers.

Cuts equally long clips out of real videos (UCF101's, in FLOWPREP_TEST_DATA; synthetic ones without
it), extracts them with each algorithm by one worker and by two, and prints for each
  outside     the share of all CPU time that did not go into flow: what follows, added up
  jobs        of it in the workers' jobs: decode, encode (quantise and JPEG) and write
  start       of it in the start of Python, Ray and the driver: as much in an hour's run as in this
  2 : 1       throughput of two workers against that of one, from the first job to the last shard
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from processes import Usage, machine, watch

import flowprep
from flowprep.config import DecodeSpec, Resize
from flowprep.dataset.describe import describe_dataset
from flowprep.synthetic import action_scene, write_video
from flowprep.video.decode import open_video
from flowprep.video.types import Video

COPIES = 4


@dataclass(frozen=True)
class Run:
    """One extraction, measured."""

    num_pairs: int
    working_seconds: float
    """From the start of the workers to the last shard."""
    usage: Usage
    stages: dict[str, float]
    """Seconds by the workers' clocks: decode, flow, encode, write."""

    @property
    def pairs_per_second(self) -> float:
        """Throughput of all workers."""
        return self.num_pairs / self.working_seconds

    def share(self, stage: str) -> float:
        """Per cent of all CPU time that jobs spent in a stage.

        The clocks give the proportion of the stages, the system the CPU time that they share.
        """
        part = self.stages[stage] / sum(self.stages.values())
        return 100 * part * self.usage.job_cpu_seconds / self.usage.cpu_seconds


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", default=["tvl1-opencv", "farneback", "dis"])
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=3, help="frames of each clip for TV-L1")
    parser.add_argument(
        "--more", type=int, default=16, help="times as many frames for the fast algorithms"
    )
    options = parser.parse_args()
    print(f"flowprep {flowprep.__version__} on {machine()}")
    print(f"{options.clips} clips, {COPIES} times each, own size, both directions, RGB kept\n")
    print(
        f"{'algorithm':12} {'pairs':>6} {'pairs/s, 1':>11} {'pairs/s, 2':>11} {'2 : 1':>6}"
        f" {'outside':>8}   jobs: decode, encode, write; start"
    )
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in options.algorithms:
            factor = 1 if algorithm.startswith("tvl1") else options.more
            clips = cut_clips(Path(folder), options.clips, options.frames * factor)
            one = extract(clips, Path(folder, f"{algorithm}-1"), algorithm, 1)
            two = extract(clips, Path(folder, f"{algorithm}-2"), algorithm, 2)
            ratio = two.pairs_per_second / one.pairs_per_second
            jobs = ", ".join(f"{two.share(stage):.1f}" for stage in ("decode", "encode", "write"))
            start = 100 - sum(map(two.share, two.stages))
            print(
                f"{algorithm:12} {one.num_pairs:6d} {one.pairs_per_second:11.2f}"
                f" {two.pairs_per_second:11.2f} {ratio:6.2f} {100 - two.share('flow'):7.1f} %"
                f"   {jobs}; {start:.1f} %",
                flush=True,
            )


def cut_clips(folder: Path, num_clips: int, num_frames: int) -> Path:
    """Writes equally long clips, each `COPIES` times in a row, and returns their folder.

    With copies side by side two workers do the same work at the same time, and neither waits at the
    end: what is left of a difference to twice the throughput is the pipeline's.
    """
    clips = folder / f"clips-{num_frames}"
    if clips.exists():
        return clips
    clips.mkdir()
    data = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"), "ucf101", "videos")
    native = DecodeSpec(resize=Resize.parse("none"))
    found = []
    for source in sorted(data.glob("*/*.avi"))[::3]:
        with open_video(Video("clip", str(source)), native) as reader:
            frames = [frame.rgb for frame in islice(reader, num_frames)]
        if len(frames) == num_frames:
            found.append(frames)
    for seed in range(num_clips - len(found)):
        scene = action_scene("zoom_in", num_frames=num_frames, width=320, height=240, seed=seed)
        found.append([scene.frame(t) for t in range(num_frames)])
    for number, frames in enumerate(found[:num_clips]):
        for copy in range(COPIES):
            write_video(clips / f"{number:02d}-{copy}.mp4", frames)
    return clips


def extract(clips: Path, out: Path, algorithm: str, num_workers: int) -> Run:
    """Runs the command line, as a user would, and measures its whole process tree."""
    usage = watch(
        [
            *(sys.executable, "-m", "flowprep", "extract", str(clips), str(out)),
            *("--algorithm", algorithm, "--workers", str(num_workers)),
        ]
    )
    log = next((out / "logs").glob("*.log")).read_text()
    stamps = re.findall(r"^(\S+ \S+) INFO (?:RayExecutor with|published)", log, re.MULTILINE)
    times = [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f") for stamp in stamps]
    description = describe_dataset(out)
    return Run(
        num_pairs=description.num_flows,
        working_seconds=(times[-1] - times[0]).total_seconds(),
        usage=usage,
        stages=dict(description.seconds),
    )


if __name__ == "__main__":
    main()
