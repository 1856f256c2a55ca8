"""The cost of the pipeline apart from flow, and how throughput grows with workers.

Without --end-to-end: cuts clips of equal length from real videos (UCF101's in FLOWPREP_TEST_DATA,
synthetic videos without it), extracts them with each algorithm by one worker and by two, and prints
  outside     the share of all CPU time that did not go into flow: the sum of jobs and start
  jobs        the part in the workers' jobs: decode, encode (quantize and JPEG) and write
  start       the rest: Python, Ray, imports and the driver, as much in a run of an hour as here
  2 : 1       throughput of two workers against that of one, from the first job to the last shard

With --end-to-end: extracts UCF101's own .avi files by two workers, and compares the algorithms by
the pairs per second of the whole command, from start to end. A slow algorithm can get less work:
`--clips tvl1-opencv=4` (at most 4 clips of each class) or `--frames tvl1-opencv=20` (the first 20
frames of each clip, cut without decoding). With less work, the start of Python and Ray counts more,
and so does the end, when one worker waits for the other.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import imageio_ffmpeg
from processes import Usage, machine, watch

import flowprep
from flowprep.config import DecodeSpec, Resize
from flowprep.dataset.describe import describe_dataset
from flowprep.flow.parameters import PARAMETERS
from flowprep.inputs.video import Video
from flowprep.synthetic import action_scene, write_video
from flowprep.video.decode import open_video

COPIES = 4
# At least half a second per pair. The others take a few hundredths of a second.
SLOW = {"tvl1-opencv"}


@dataclass(frozen=True)
class Run:
    """One extraction, measured."""

    num_clips: int
    num_pairs: int
    working_seconds: float
    """From the start of the workers to the last shard."""
    usage: Usage
    stages: dict[str, float]
    """Seconds by the workers' clocks for decode, flow, encode and write."""

    @property
    def pairs_per_second(self) -> float:
        """Throughput of all workers, without the start."""
        return self.num_pairs / self.working_seconds

    @property
    def pairs_per_second_of_all(self) -> float:
        """Throughput of the whole command."""
        return self.num_pairs / self.usage.wall_seconds

    def share(self, stage: str) -> float:
        """Percent of all CPU time that jobs spent in a stage."""
        # The workers' clocks show wall time. During the busy share of it, workers had the CPU.
        return 100 * self.stages[stage] * self.usage.busy_share / self.usage.cpu_seconds

    @property
    def start_share(self) -> float:
        """Percent of all CPU time that was spent in no stage of a job."""
        return 100 - sum(map(self.share, self.stages))

    def outside(self) -> str:
        """The share outside flow, and its parts."""
        jobs = ", ".join(f"{self.share(stage):.1f}" for stage in ("decode", "encode", "write"))
        return f"{100 - self.share('flow'):7.1f} %   {jobs}; {self.start_share:.1f} %"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--algorithms", type=lambda text: text.split(","), default=list(PARAMETERS), metavar="A,B"
    )
    parser.add_argument("--end-to-end", action="store_true", help="whole .avi files, two workers")
    parser.add_argument(
        "--clips",
        action="append",
        default=[],
        metavar="[NAME=]N",
        help="how many, of all algorithms or of one; 6, or all with --end-to-end",
    )
    parser.add_argument(
        "--frames",
        action="append",
        default=[],
        metavar="[NAME=]N",
        help="of each clip; 3 of the slow algorithms and 48 of others, or all with --end-to-end",
    )
    options = parser.parse_args()
    clips, frames = _by_algorithm(options.clips), _by_algorithm(options.frames)
    unknown = (set(options.algorithms) | set(clips) | set(frames)) - {"", *PARAMETERS}
    if unknown:
        parser.error(f"no algorithm {', '.join(unknown)}; there are {', '.join(PARAMETERS)}")
    print(f"flowprep {flowprep.__version__} on {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        if options.end_to_end:
            compare(Path(folder), options.algorithms, clips, frames)
        else:
            scale(Path(folder), options.algorithms, clips, frames)


def _by_algorithm(values: list[str]) -> dict[str, int]:
    """Reads `N` and `NAME=N`. The key for `N` is empty."""
    pairs = (value.rpartition("=") for value in values)
    return {name: int(number) for name, _, number in pairs}


def _of(values: dict[str, int], algorithm: str, default: int | None) -> int | None:
    return values.get(algorithm, values.get("", default))


# ---- one worker and two


def scale(
    folder: Path, algorithms: list[str], clips: dict[str, int], frames: dict[str, int]
) -> None:
    """Prints a row for each algorithm: one worker against two, and the share outside flow."""
    print(f"equally long clips, {COPIES} times each, own size, both directions, RGB kept\n")
    print(
        f"{'algorithm':12} {'pairs':>6} {'pairs/s, 1':>11} {'pairs/s, 2':>11} {'2 : 1':>6}"
        f" {'outside':>8}   jobs: decode, encode, write; start"
    )
    for algorithm in algorithms:
        num_clips = _of(clips, algorithm, 6) or 0
        num_frames = _of(frames, algorithm, 3 if algorithm in SLOW else 48) or 0
        videos = cut_clips(folder, num_clips, num_frames)
        one = extract(videos, folder / f"{algorithm}-1", algorithm, 1)
        two = extract(videos, folder / f"{algorithm}-2", algorithm, 2)
        ratio = two.pairs_per_second / one.pairs_per_second
        print(
            f"{algorithm:12} {one.num_pairs:6d} {one.pairs_per_second:11.2f}"
            f" {two.pairs_per_second:11.2f} {ratio:6.2f} {two.outside()}",
            flush=True,
        )


def cut_clips(folder: Path, num_clips: int, num_frames: int) -> Path:
    """Writes equally long clips, each `COPIES` times in a row, and returns their folder.

    The copies are side by side, so two workers do the same work at the same time, and neither waits
    at the end. If the throughput is then less than twice that of one worker, the cause is the
    pipeline.
    """
    clips = folder / f"clips-{num_clips}-{num_frames}"
    if clips.exists():
        return clips
    clips.mkdir()
    native = DecodeSpec(resize=Resize.parse("none"))
    found = []
    for source in ucf101()[::3]:
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


# ---- end to end


def compare(
    folder: Path, algorithms: list[str], clips: dict[str, int], frames: dict[str, int]
) -> None:
    """Prints a row for each algorithm, and compares each throughput with that of the last one."""
    print("UCF101, .avi to published shards, 2 workers, both directions, RGB kept\n")
    print(
        f"{'algorithm':12} {'clips':>5} {'pairs':>6} {'wall s':>7} {'pairs/s':>8} {'CPU s':>7}"
        f" {'outside':>9}   jobs: decode, encode, write; start"
    )
    runs = {}
    for algorithm in algorithms:
        videos = link_clips(
            folder, algorithm, _of(clips, algorithm, None), _of(frames, algorithm, None)
        )
        run = runs[algorithm] = extract(videos, folder / f"{algorithm}-out", algorithm, 2)
        print(
            f"{algorithm:12} {run.num_clips:5d} {run.num_pairs:6d} {run.usage.wall_seconds:7.1f}"
            f" {run.pairs_per_second_of_all:8.2f} {run.usage.cpu_seconds:7.1f}  {run.outside()}",
            flush=True,
        )
    *others, last = runs
    for name in others:
        one, other = runs[name], runs[last]
        print(
            f"\n{name} : {last} = {one.pairs_per_second_of_all / other.pairs_per_second_of_all:.1f}"
            f" in pairs/s of the whole command; without the start of Python and Ray"
            f" {one.pairs_per_second / other.pairs_per_second:.1f}"
        )


def link_clips(folder: Path, algorithm: str, num_clips: int | None, num_frames: int | None) -> Path:
    """Makes a folder of UCF101's clips, or of their first frames, and returns the folder."""
    # Take clips from each class in turn, so that a few clips are as mixed as all clips.
    classes: dict[str, list[Path]] = {}
    for source in ucf101():
        classes.setdefault(source.parent.name, []).append(source)
    turns = itertools.zip_longest(*classes.values())
    sources = [source for turn in turns for source in turn if source is not None]
    if not sources:
        sys.exit("--end-to-end needs UCF101 in FLOWPREP_TEST_DATA/ucf101/videos")
    videos = folder / f"{algorithm}-in"
    for source in sources[:num_clips]:
        target = videos / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if num_frames is None:
            target.symlink_to(source.resolve())
            continue
        ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(source)]
        cut = ["-frames:v", str(num_frames), "-c", "copy", "-an", str(target)]
        subprocess.run([*ffmpeg, *cut], check=True)
    return videos


# ---- both


def ucf101() -> list[Path]:
    """Returns UCF101's clips that are on disk."""
    data = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"), "ucf101", "videos")
    return sorted(data.glob("*/*.avi"))


def extract(clips: Path, out: Path, algorithm: str, num_workers: int) -> Run:
    """Runs the command line, as a user would, and measures its whole process tree."""
    usage = watch(
        [
            *(sys.executable, "-m", "flowprep", "extract", str(clips), str(out)),
            *("--algorithm", algorithm, "--workers", str(num_workers), "--device", "cpu"),
            # Also for one worker, because the others are compared with it.
            *("--executor", "ray"),
        ]
    )
    log = next((out / "logs").glob("*.log")).read_text()
    stamps = re.findall(r"^(\S+ \S+) INFO (?:RayExecutor with|published)", log, re.MULTILINE)
    times = [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f") for stamp in stamps]
    description = describe_dataset(out)
    return Run(
        num_clips=description.num_stored,
        num_pairs=description.num_flows,
        working_seconds=(times[-1] - times[0]).total_seconds(),
        usage=usage,
        stages=dict(description.seconds),
    )


if __name__ == "__main__":
    main()
