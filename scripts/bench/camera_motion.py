"""What `--camera-motion homography` takes out of the flow, on drawn scenes and on real clips.

Drawn scenes: three actors before a background, seen by a camera that pans, zooms, turns, does all
of it, shakes, or stands still. The error is the distance to the actors' own motion, which is 0 on
the background, over the pixels that both frames show: of plain flow, of plain flow without its
mean, and of warped flow.

Real clips (of FLOWPREP_TEST_DATA, such as UCF101's): the median length of the flow in the outer
eighth of the picture, where actors are rarely, before and after.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from processes import machine

import flowprep
from flowprep.config import DecodeSpec, Resize
from flowprep.flow import create_estimator
from flowprep.flow.base import FlowEstimator
from flowprep.flow.camera import track_frame
from flowprep.flow.homography import IDENTITY
from flowprep.flow.stabilized import StabilizedPairs
from flowprep.inputs.video import Video
from flowprep.synthetic import CAMERAS, camera_scene
from flowprep.video.decode import open_video

Gray = NDArray[np.uint8]
Flow = NDArray[np.float32]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithm", default="tvl1")
    parser.add_argument("--scenes", type=int, default=4, help="of each camera")
    parser.add_argument("--pairs", type=int, default=10, help="of each real clip")
    data = os.environ.get("FLOWPREP_TEST_DATA", "../shared/data")
    parser.add_argument("--clips", default=f"{data}/ucf101/videos", help="a folder of videos")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"flowprep {flowprep.__version__} on {machine()}; {options.algorithm}\n")
    estimator = create_estimator(options.algorithm)
    drawn(estimator, options.scenes)
    if Path(options.clips).is_dir():
        real(estimator, Path(options.clips), options.pairs)


def freed(estimator: FlowEstimator, first: Gray, last: Gray) -> tuple[Flow, Flow, str]:
    """Returns the plain and the warped flow of a pair, and what became of it."""
    pairs = StabilizedPairs(step=1, directions=("forward",))
    sides = pairs.sides_of(first, last)["forward"]
    plain = estimator(first, last)
    homography = pairs.homographies[0]
    if homography is None or homography == IDENTITY:
        return plain, plain, "plain" if homography is None else "still"
    return plain, estimator(*sides), "warped"


def drawn(estimator: FlowEstimator, num_scenes: int) -> None:
    """Prints the errors on drawn scenes."""
    names = ("plain", "mean", "warped")
    print(f"{'camera':8}" + "".join(f"{name:>9}" for name in names), end="")
    print(f"{'of plain':>10}{'of mean':>9}   actors" + "".join(f"{name:>9}" for name in names))
    rows, seconds = [], []
    for camera in CAMERAS:
        errors = []
        for seed in range(num_scenes):
            scene = camera_scene(camera, seed=seed)
            for t in (1, 4, 7):
                first, last = (gray(scene.frame(one)) for one in (t, t + 1))
                plain, warped, _ = freed(estimator, first, last)
                began = time.process_time()
                StabilizedPairs(step=1, directions=("forward",)).sides_of(first, last)
                seconds.append(time.process_time() - began)
                flows = (plain, plain - plain.mean(axis=(0, 1)), warped)
                apart = [np.linalg.norm(one - scene.own_flow(t), axis=-1) for one in flows]
                seen = scene.valid(t)
                actors = seen & (scene.layer_map(t) > 0)
                errors.append([one[mask].mean() for mask in (seen, actors) for one in apart])
        row = np.mean(errors, axis=0)
        print(line(camera, row))
        if camera != "still":
            rows.append(row)
    print(line("moving", np.mean(rows, axis=0)))
    print(f"homography and warp take {1000 * np.median(seconds):.1f} ms of a core a pair\n")


def line(name: str, row: NDArray[np.float64]) -> str:
    """Returns a row of the table."""
    plain, mean, warped, *actors = row
    falls = f"{warped / plain - 1:>+10.0%}{warped / mean - 1:>+9.0%}"
    numbers = "".join(f"{one:9.3f}" for one in (plain, mean, warped))
    return f"{name:8}{numbers}{falls}         " + "".join(f"{one:9.3f}" for one in actors)


def real(estimator: FlowEstimator, folder: Path, num_pairs: int) -> None:
    """Prints the motion of the background of real clips."""
    print(f"{'clip':34}{'before':>9}{'after':>9}{'change':>9}{'warped':>8}{'still':>7}{'plain':>7}")
    before_all, after_all = [], []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        before, after, kinds = [], [], []
        for first, last in pairs_of(path, num_pairs):
            plain, warped, kind = freed(estimator, first, last)
            ring = border(first)
            lengths = [np.median(np.linalg.norm(one[ring], axis=-1)) for one in (plain, warped)]
            before.append(lengths[0])
            after.append(lengths[1])
            kinds.append(kind)
        one, other = float(np.mean(before)), float(np.mean(after))
        before_all.append(one)
        after_all.append(other)
        counts = "".join(
            f"{kinds.count(k):{w}}" for k, w in (("warped", 8), ("still", 7), ("plain", 7))
        )
        print(f"{path.stem:34}{one:9.3f}{other:9.3f}{other / max(one, 1e-9) - 1:>+9.0%}{counts}")
    one, other = float(np.mean(before_all)), float(np.mean(after_all))
    print(f"{'all clips':34}{one:9.3f}{other:9.3f}{other / one - 1:>+9.0%}")


def pairs_of(path: Path, num_pairs: int) -> Iterator[tuple[Gray, Gray]]:
    """Yields pairs of neighboring frames, spread over a clip."""
    decode = DecodeSpec(resize=Resize.parse("short:240"))
    with open_video(Video(path.stem, str(path)), decode) as reader:
        frames = [frame.gray for frame in reader]
    for number in range(num_pairs):
        t = (2 * number + 1) * (len(frames) - 1) // (2 * num_pairs)
        yield frames[t], frames[t + 1]


def border(frame: Gray) -> NDArray[np.bool_]:
    """Returns the outer eighth of the picture within its black bars, (H, W) bool."""
    left, top, right, bottom = track_frame(frame).picture
    width = min(right - left, bottom - top) // 8
    ring = np.zeros(frame.shape, bool)
    ring[top:bottom, left:right] = True
    ring[top + width : bottom - width, left + width : right - width] = False
    return ring


def gray(rgb: NDArray[np.uint8]) -> Gray:
    """Returns a gray picture, (H, W) uint8."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


if __name__ == "__main__":
    main()
