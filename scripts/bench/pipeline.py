"""What the pipeline costs beside flow, and how throughput grows with workers.

Cuts equally long clips out of real videos (UCF101's, in FLOWPREP_TEST_DATA; synthetic ones without
it), extracts them with each algorithm by one worker and by two, and prints for each
  outside     the share of all CPU time that did not go into flow, Ray and start-up included
  of which    decode, encode (quantise and JPEG) and write, by the workers' own clocks; the rest is
              Ray, Python's start and the driver, and as much in an hour's run as in a minute's
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

from processes import machine, watch

import flowprep
from flowprep.config import DecodeSpec, Resize
from flowprep.dataset.describe import describe_dataset
from flowprep.synthetic import action_scene, write_video
from flowprep.video.decode import open_video
from flowprep.video.types import Video


@dataclass(frozen=True)
class Run:
    """One extraction, measured."""

    num_pairs: int
    cpu_seconds: float
    working_seconds: float
    """From the start of the workers to the last shard."""
    stages: dict[str, float]
    """Seconds by the workers' clocks: decode, flow, encode, write."""

    @property
    def pairs_per_second(self) -> float:
        return self.num_pairs / self.working_seconds


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithms", nargs="+", default=["tvl1-opencv", "farneback", "dis"])
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=9, help="frames of each clip for TV-L1")
    parser.add_argument(
        "--more", type=int, default=16, help="times as many frames for the fast algorithms"
    )
    options = parser.parse_args()
    print(f"flowprep {flowprep.__version__} on {machine()}")
    print(f"{options.clips} clips at their own size, forward and backward, RGB frames kept\n")
    print(
        f"{'algorithm':12} {'pairs':>6} {'pairs/s, 1':>11} {'pairs/s, 2':>11} {'2 : 1':>6}"
        f" {'outside':>8}   of which decode, encode, write; Ray and start-up"
    )
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in options.algorithms:
            factor = 1 if algorithm.startswith("tvl1") else options.more
            clips = cut_clips(Path(folder), options.clips, options.frames * factor)
            one = extract(clips, Path(folder, f"{algorithm}-1"), algorithm, 1)
            two = extract(clips, Path(folder, f"{algorithm}-2"), algorithm, 2)
            total = two.cpu_seconds
            parts = {n: 100 * two.stages[n] / total for n in ("decode", "encode", "write")}
            outside = 100 * (1 - two.stages["flow"] / total)
            print(
                f"{algorithm:12} {one.num_pairs:6d} {one.pairs_per_second:11.2f}"
                f" {two.pairs_per_second:11.2f} {two.pairs_per_second / one.pairs_per_second:6.2f}"
                f" {outside:7.1f} %   {parts['decode']:.1f}, {parts['encode']:.1f},"
                f" {parts['write']:.1f}; {outside - sum(parts.values()):.1f} %",
                flush=True,
            )


def cut_clips(folder: Path, num_clips: int, num_frames: int) -> Path:
    """Writes equally long clips and returns their folder."""
    clips = folder / f"clips-{num_frames}"
    if clips.exists():
        return clips
    clips.mkdir()
    data = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"), "ucf101", "videos")
    sources = sorted(data.glob("*/*.avi"))
    native = DecodeSpec(resize=Resize.parse("none"))
    number = 0
    for source in sources[:: max(1, len(sources) // (2 * num_clips))]:
        with open_video(Video("clip", str(source)), native) as reader:
            frames = [frame.rgb for frame in islice(reader, num_frames)]
        if len(frames) == num_frames and number < num_clips:
            write_video(clips / f"{number:02d}.mp4", frames)
            number += 1
    for seed in range(num_clips - number):
        scene = action_scene("zoom_in", num_frames=num_frames, width=320, height=240, seed=seed)
        write_video(clips / f"synthetic{seed:02d}.mp4", map(scene.frame, range(num_frames)))
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
        cpu_seconds=usage.cpu_seconds,
        working_seconds=(times[-1] - times[0]).total_seconds(),
        stages=dict(description.seconds),
    )


if __name__ == "__main__":
    main()
