"""The native flow estimators against OpenCV's: speed, agreement and true accuracy, side by side.

Measures two pairs of frames from one clip of each UCF101 class (in FLOWPREP_TEST_DATA; 12 pairs of
6 clips), gray and resized, on one core, with OpenCV on one thread. Both compute each pair in turn,
and the ratio is taken for each pair. So a machine whose speed drifts favors neither.

  speed         TV-L1 with several sizes, parameters and stop rules; bidirectional Farneback
  warps         the loss of accuracy with fewer warps
  truth         mean endpoint error if the true flow is known
  brox          Brox flow, which OpenCV has for CUDA only: single calls, videos, each filter of the
                pyramid, and beside it pyflow (Ce Liu's coarse-to-fine flow, where it is installed
                from its repository)
  cores         throughput of two cores against that of one
  start         the first field of a process: with nothing compiled, and from the disk cache
  instructions  TV-L1 with OpenCV's defaults, compiled for older processors

Native times are of a whole call, which prepares both frames and computes one field. In a video, the
pairs of a frame share its preparation, which saves a few percent more.

`--against DIR` compares the native TV-L1 and Farneback of this checkout with those in another one,
such as a `git worktree` of an earlier commit: single calls of 8 pairs from the stillest to the
fastest, single calls along a clip, and videos in both directions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from flow_against import compare as compare_checkouts
from numpy.typing import NDArray
from processes import machine

from flowprep.config import DecodeSpec, FlowSpec, Resize
from flowprep.dataset.quantize import quantize
from flowprep.flow import FlowEstimator, create_estimator
from flowprep.inputs.video import Video
from flowprep.synthetic import ACTIONS, action_scene
from flowprep.video.decode import open_video

Gray = NDArray[np.uint8]
Flow = NDArray[np.float32]

DATA = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"))
FRAMES = (10, 40)
"""The frame of a clip at which each pair begins."""
NUM_VIDEO_FRAMES = 12
NUM_PAIRS_AGAINST = 8
"""Pairs of single calls with `--against`."""
REPEATS = 5
SECONDS = 6.0
"""How long to measure the throughput of cores."""
CORES = sorted(os.sched_getaffinity(0))
CUDA = {"inner_iterations": 300, "outer_iterations": 1, "median_filtering": 1}
"""The parameters of OpenCV's CUDA class, and so of denseflow."""

# Levels of x86-64: the instructions that a compiler may use, in numba's notation.
_SSE = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"
INSTRUCTIONS = {
    "AVX2": ("x86-64-v3", f"{_SSE},+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt"),
    "SSE4.2": ("x86-64-v2", _SSE),
}


@dataclass(frozen=True)
class Comparison:
    """A native estimator against OpenCV's estimator on the same pairs."""

    name: str
    opencv_ms: NDArray[np.float64]
    native_ms: NDArray[np.float64]
    error_px: NDArray[np.float64]
    """Mean endpoint difference from OpenCV in px, for each pair."""
    within_one: NDArray[np.float64]
    """Share of the 8-bit levels (bound 20) that differ by at most 1, for each pair."""

    @property
    def ratio(self) -> NDArray[np.float64]:
        return self.opencv_ms / self.native_ms

    def row(self) -> str:
        return (
            f"| {self.name} | {np.median(self.opencv_ms):.0f} | {np.median(self.native_ms):.1f} "
            f"| {np.median(self.ratio):.1f} ({self.ratio.min():.1f}) | {self.error_px.mean():.4f} "
            f"| {100 * self.within_one.mean():.2f} % ({100 * self.within_one.min():.1f}) |"
        )


HEADER = """\
| case | OpenCV, ms | native, ms | ratio (worst) | EPE to OpenCV, px | 8-bit within 1 (worst) |
|---|---|---|---|---|---|"""


def main() -> None:
    """Runs the requested parts and prints their tables."""
    parts: dict[str, Callable[[], None]] = {
        "speed": show_speed,
        "warps": show_warps,
        "truth": show_truth,
        "brox": show_brox,
        "cores": show_cores,
        "start": show_start,
        "instructions": show_instructions,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; or all")
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with a checkout there")
    parser.add_argument(
        "--instructions",
        choices=INSTRUCTIONS,
        help="with --against: compile both sides for older processors",
    )
    # The tasks of the processes that this script starts itself.
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--throughput-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in parts]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(parts)}")
    cv2.setNumThreads(1)
    if options.throughput_of is not None:
        print(throughput(options.throughput_of))
        return
    os.sched_setaffinity(0, CORES[:1])
    if options.row is not None:
        print(compare_defaults(options.row).row())
        return
    print(f"{machine()}, OpenCV {cv2.__version__}; one core, OpenCV at one thread", flush=True)
    if options.against is not None:
        show_against(options.against, options.instructions)
        return
    for name in options.parts or parts:
        print(f"\n{name}", flush=True)
        parts[name]()


def show_speed() -> None:
    """Prints TV-L1 with several sizes and parameters, then Farneback."""
    print(HEADER)
    print(compare_defaults("TV-L1, OpenCV's defaults, 340x256").row(), flush=True)
    for name, size, native, opencv in (
        ("TV-L1, 320x240", (320, 240), {}, {}),
        ("TV-L1, 1280x720", (1280, 720), {}, {}),
        ("TV-L1, no median filter (denseflow), 340x256", (340, 256), CUDA, CUDA),
        ("TV-L1, `--stop exact`, 340x256", (340, 256), {"stop": "exact"}, {}),
    ):
        comparison = compare(
            name,
            real_pairs(size),
            create_estimator("tvl1", **native),
            create_estimator("tvl1-opencv", **opencv),
        )
        print(comparison.row(), flush=True)
    print(
        compare_videos(
            "Farneback, videos forward and backward, 340x256",
            real_clips((340, 256), NUM_VIDEO_FRAMES),
            create_estimator("farneback"),
            create_estimator("farneback-opencv"),
        ).row(),
        flush=True,
    )


def show_warps() -> None:
    """Prints TV-L1 with fewer warps, against TV-L1 with five."""
    pairs = real_pairs((340, 256))
    scenes = true_pairs()
    print("| warps | speed | EPE to 5 warps, px | within 1 | true EPE, synthetic, px |")
    print("|---|---|---|---|---|")
    estimators = {warps: create_estimator("tvl1", warps=warps) for warps in (5, 4, 3, 2, 1)}
    full = [estimators[5](*pair) for pair in pairs]
    for warps, estimator in estimators.items():
        result = compare(str(warps), pairs, estimator, estimators[5], full)
        true_error = np.mean([endpoint_error(estimator(a, b), flow) for a, b, flow, _ in scenes])
        print(
            f"| {warps} | {np.median(result.ratio):.2f}x | {result.error_px.mean():.4f} "
            f"| {100 * result.within_one.mean():.2f} % | {true_error:.4f} |",
            flush=True,
        )


def show_truth() -> None:
    """Prints the errors of the native and of OpenCV's estimators for pairs with known flow."""
    print("| scene | pairs | OpenCV, px | native, px | native : OpenCV |")
    print("|---|---|---|---|---|")
    cases = {"synthetic actions": true_pairs(), "RubberWhale (Middlebury)": rubber_whale()}
    for name, pairs in cases.items():
        if not pairs:
            continue
        ours, theirs = (
            np.mean([endpoint_error(estimator(a, b), flow, known) for a, b, flow, known in pairs])
            for estimator in (create_estimator("tvl1"), create_estimator("tvl1-opencv"))
        )
        ratio = ours / theirs
        print(f"| {name} | {len(pairs)} | {theirs:.4f} | {ours:.4f} | {ratio:.4f} |", flush=True)


def show_brox() -> None:
    """Prints the time and the true error of Brox flow, of TV-L1 and of pyflow, in turn."""
    pairs, clips = real_pairs((340, 256)), real_clips((340, 256), NUM_VIDEO_FRAMES)
    whale = rubber_whale()
    estimators: dict[str, Callable[[Gray, Gray], Flow]] = {
        "`tvl1`": create_estimator("tvl1"),
        "`brox`": create_estimator("brox"),
        "`brox --pyramid-filter area`": create_estimator("brox", pyramid_filter="area"),
        "`brox --inner-iterations 10`": create_estimator("brox", inner_iterations=10),
    }
    try:
        import pyflow
    except ImportError:
        print("pyflow is not installed")
    else:

        def coarse_to_fine(prev: Gray, next: Gray) -> Flow:
            # alpha, ratio, smallest width, outer and inner fixed points, sweeps, gray: its demo's.
            images = [np.ascontiguousarray(image[..., None] / 255.0) for image in (prev, next)]
            u, v, _ = pyflow.coarse2fine_flow(*images, 0.012, 0.75, 20, 7, 1, 30, 1)
            return np.stack((u, v), axis=-1).astype(np.float32)

        estimators["pyflow"] = coarse_to_fine
    times: dict[str, list[float]] = {name: [] for name in estimators}
    for pair in pairs:
        for _ in range(REPEATS):
            for name, estimator in estimators.items():
                times[name].append(timed(estimator, pair)[0])
    print("| | ms a field, single calls | a video, both directions | RubberWhale, px |")
    print("|---|---|---|---|")
    for name, estimator in estimators.items():
        per_field = ""
        if isinstance(estimator, FlowEstimator):
            began, number = time.perf_counter(), 0
            for frames in clips:
                number += 2 * len(list(estimator.pairs(frames)))
            per_field = f"{1000 * (time.perf_counter() - began) / number:.1f}"
        error = [endpoint_error(estimator(a, b), flow, known) for a, b, flow, known in whale]
        truth = f"{np.mean(error):.3f}" if error else ""
        print(f"| {name} | {np.median(times[name]):.1f} | {per_field} | {truth} |", flush=True)
    native = np.array(times["`brox`"])
    for name, ms in times.items():
        if name != "`brox`":
            print(f"`brox` takes {np.median(native / np.array(ms)):.3f} times as long as {name}")


def show_cores() -> None:
    """Prints two processes, each on its own core with its own video, against one process."""
    if len(CORES) < 2:
        print("this machine has one core")
        return
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for number in rates:
            running = [
                subprocess.Popen(
                    [sys.executable, __file__, "--throughput-of", str(core)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for core in CORES[:number]
            ]
            rates[number].append(sum(float(process.communicate()[0]) for process in running))
    one, two = (float(np.median(rates[number])) for number in (1, 2))
    print(f"fields/s on one core {one:.1f}, on two {two:.1f}: {two / one:.2f} times as many")


def throughput(core: int) -> float:
    """Returns the fields per second of a core on its own video, forward and backward."""
    os.sched_setaffinity(0, {core})
    frames = real_clips((340, 256), 12)[0]
    estimator = create_estimator("tvl1")
    list(estimator.pairs(frames[:3]))
    number, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        number += 2 * len(list(estimator.pairs(frames)))
    return number / (time.perf_counter() - began)


def show_start() -> None:
    """Prints the time to the first field in a new process, without the imports."""
    code = (
        "import time, numpy as np\nfrom flowprep.flow import create_estimator\n"
        "frame = np.random.default_rng(0).integers(0, 255, (256, 340), dtype=np.uint8)\n"
        "began = time.perf_counter()\ncreate_estimator({!r})(frame, frame)\n"
        "print(time.perf_counter() - began)"
    )
    for name in ("tvl1", "farneback"):
        with tempfile.TemporaryDirectory() as folder:
            seconds = [
                float(run([sys.executable, "-c", code.format(name)], FLOWPREP_CACHE_DIR=folder))
                for _ in range(4)
            ]
        later = float(np.median(seconds[1:]))
        print(f"{name}: {seconds[0]:.2f} s with nothing compiled, {later:.2f} s from then on")


def show_instructions() -> None:
    """Prints the default case for older processors, each in its own process."""
    print(HEADER)
    for name, (processor, features) in INSTRUCTIONS.items():
        print(
            run(
                [sys.executable, __file__, "--row", f"TV-L1, {name} only, 340x256"],
                NUMBA_CPU_NAME=processor,
                NUMBA_CPU_FEATURES=features,
            ).strip(),
            flush=True,
        )


def show_against(before: Path, instructions: str | None) -> None:
    """Prints the speed of this checkout against that of another."""
    pairs = sorted(
        real_pairs((340, 256)), key=lambda two: np.abs(two[0].astype(int) - two[1]).sum()
    )
    chosen = [
        pairs[i] for i in np.linspace(0, len(pairs) - 1, NUM_PAIRS_AGAINST).round().astype(int)
    ]
    environment = {}
    if instructions is not None:
        processor, features = INSTRUCTIONS[instructions]
        environment = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
        print(f"compiled for {instructions} only")
    compare_checkouts(before, chosen, real_clips((340, 256), NUM_VIDEO_FRAMES), environment)


def compare_defaults(name: str) -> Comparison:
    """Compares the native TV-L1 with OpenCV's TV-L1, both with OpenCV's defaults."""
    return compare(
        name, real_pairs((340, 256)), create_estimator("tvl1"), create_estimator("tvl1-opencv")
    )


def compare(
    name: str,
    pairs: Sequence[tuple[Gray, Gray]],
    native: FlowEstimator,
    opencv: FlowEstimator,
    known: Sequence[Flow] | None = None,
) -> Comparison:
    """Computes all pairs with both in turn. `known` are fields of `opencv` from an earlier call."""
    opencv_ms, native_ms, error_px, within_one = [], [], [], []
    for number, pair in enumerate(pairs):
        before = [timed(native, pair)[0] for _ in range(REPEATS)]
        theirs_ms, theirs = timed(opencv, pair)
        after = [timed(native, pair) for _ in range(REPEATS)]
        ours = after[-1][1]
        if known is not None:
            theirs = known[number]
        opencv_ms.append(theirs_ms)
        native_ms.append(float(np.median(before + [ms for ms, _ in after])))
        error_px.append(endpoint_error(ours, theirs))
        within_one.append(share_within_one(ours, theirs))
    return Comparison(
        name, np.array(opencv_ms), np.array(native_ms), np.array(error_px), np.array(within_one)
    )


def compare_videos(
    name: str, videos: Sequence[list[Gray]], native: FlowEstimator, opencv: FlowEstimator
) -> Comparison:
    """Computes all fields of some videos, both directions, with both in turn. ms are per field."""
    opencv_ms, native_ms, error_px, within_one = [], [], [], []
    for frames in videos:
        timings: list[list[float]] = [[], []]
        fields: list[list[Flow]] = [[], []]
        for _ in range(REPEATS):
            for place, estimator in enumerate((native, opencv)):
                began = time.perf_counter()
                pairs = list(estimator.pairs(frames))
                seconds = time.perf_counter() - began
                timings[place].append(1000 * seconds / (2 * len(pairs)))
                fields[place] = [
                    flow
                    for pair in pairs
                    for flow in (pair.forward, pair.backward)
                    if flow is not None
                ]
        native_ms.append(float(np.median(timings[0])))
        opencv_ms.append(float(np.median(timings[1])))
        error_px.append(
            float(np.mean([endpoint_error(a, b) for a, b in zip(*fields, strict=True)]))
        )
        within_one.append(
            float(np.mean([share_within_one(a, b) for a, b in zip(*fields, strict=True)]))
        )
    return Comparison(
        name, np.array(opencv_ms), np.array(native_ms), np.array(error_px), np.array(within_one)
    )


def share_within_one(a: Flow, b: Flow) -> float:
    """Returns the share of the components whose 8-bit levels differ by at most 1."""
    spec = FlowSpec()
    difference = quantize(a, spec).astype(int) - quantize(b, spec)
    return float((np.abs(difference) <= 1).mean())


def timed(estimator: Callable[[Gray, Gray], Flow], pair: tuple[Gray, Gray]) -> tuple[float, Flow]:
    """Returns the milliseconds of one call, and the field."""
    began = time.perf_counter()
    flow = estimator(*pair)
    return 1000 * (time.perf_counter() - began), flow


def endpoint_error(flow: Flow, truth: Flow, known: NDArray[np.bool_] | None = None) -> float:
    """Returns the mean endpoint distance of two fields in px."""
    error = np.linalg.norm(flow - truth, axis=-1)
    return float(error[known].mean() if known is not None else error.mean())


def real_clips(size: tuple[int, int], num_frames: int) -> list[list[Gray]]:
    """Returns the first frames of the first clip of each class of UCF101."""
    folders = sorted(path for path in (DATA / "ucf101" / "videos").glob("*") if path.is_dir())
    if not folders:
        sys.exit(f"no clips in {DATA}/ucf101/videos; FLOWPREP_TEST_DATA says where UCF101 is")
    spec = DecodeSpec(resize=Resize("exact", *size, None), allow_upscale=True)
    clips = []
    for folder in folders:
        path = str(min(folder.glob("*.avi")))
        with open_video(Video(key=folder.name, source=path), spec) as reader:
            clips.append([frame.gray for frame, _ in zip(reader, range(num_frames), strict=False)])
    return clips


def real_pairs(size: tuple[int, int]) -> list[tuple[Gray, Gray]]:
    """Returns two pairs of neighboring frames of each clip."""
    return [
        (frames[first], frames[first + 1])
        for frames in real_clips(size, max(FRAMES) + 2)
        for first in FRAMES
    ]


def true_pairs() -> list[tuple[Gray, Gray, Flow, NDArray[np.bool_]]]:
    """Returns pairs of synthetic scenes with their true flow, and a mask of its known pixels."""
    pairs = []
    for seed, action in enumerate(list(ACTIONS) * 2):
        scene = action_scene(action, width=160, height=120, seed=seed)
        a, b = (cv2.cvtColor(scene.frame(t), cv2.COLOR_RGB2GRAY) for t in (3, 4))
        pairs.append(
            (np.asarray(a, np.uint8), np.asarray(b, np.uint8), scene.flow(3), scene.valid(3))
        )
    return pairs


def rubber_whale() -> list[tuple[Gray, Gray, Flow, NDArray[np.bool_]]]:
    """Returns Middlebury's RubberWhale, or an empty list if it is not on disk."""
    folder = DATA / "groundtruth" / "RubberWhale"
    if not folder.is_dir():
        return []
    a, b = (
        np.asarray(cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE), np.uint8)
        for name in ("frame10.png", "frame11.png")
    )
    flow = np.asarray(cv2.readOpticalFlow(str(folder / "flow10.flo")), np.float32)
    return [(a, b, flow, np.abs(flow).max(axis=-1) < 1e9)]


def run(command: list[str], **environment: Any) -> str:
    """Returns the output of a process."""
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | environment
    ).stdout


if __name__ == "__main__":
    main()
