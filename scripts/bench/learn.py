"""What each network can learn of clips that only motion tells apart, small and on a CPU.

The synthetic actions are four pairs. A clip of one class, played backward, is one of the other. So
flow tells all classes apart, and so do frames whose order the network sees. A network that is blind
to their order can tell the pairs, but not the two classes of a pair.

Every network is trained on every stream that it takes. Whether it is blind to the order of its
clips is found by trying: its scores of a clip that is played backward are the same.

column        bar
------        ---
top-1         at least 95 % for a network that sees flow, or frames in their order
within pairs  at most 60 % for a network that is blind to the order of frames

A network is trained by the first line below. If it misses the bar, it is trained anew by the
second, then by the third: deep networks need more steps, and those without batch norm a smaller
rate. Blind networks are trained by the second.

steps  learning rate
-----  -------------
120    .004
400    .002
1500   .001

`seconds` are those that the CPU worked in the last training, tests included, until a test reached
95 %. The exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from processes import machine

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.clip_inputs import ClipInput, StreamName
from flowprep.learn.config import TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.create import create_model
from flowprep.learn.evaluate import evaluate
from flowprep.learn.networks import NETWORKS, clip_inputs
from flowprep.learn.recipes import default_config
from flowprep.learn.scores import Scores
from flowprep.learn.train import train
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec

LEARNED, CHANCE_AT_MOST = 0.95, 0.6
ATTEMPTS = ((120, 0.004), (400, 0.002), (1500, 0.001))
"""Steps and learning rate of each training, one after the other until one is enough."""
CROP_PX = 56
LEAST_CROPS_PX = {"alexnet": 64, "timesformer": 64}
"""Of networks that pool the maps of a smaller crop away, or see whole patches of 16 px alone."""
MAX_FRAMES, MAX_SEGMENTS = 12, 4
MAX_SPAN = 16
"""Of clips; the videos have 20 frames."""
WIDTHS = {
    "i3d": 0.125,
    "bn-inception": 0.125,
    "tsn-bn-inception": 0.125,
    "gsm-bn-inception": 0.125,
    "inception-v3": 0.125,
    "timesformer": 1 / 12,
    "gsm-inception-v3": 0.125,
}
DEFAULT_WIDTH = 0.25
NUM_FRAMES = 20
BATCH_SIZE = 16
COLUMNS = (
    *("network", "stream", "sees the order", "top-1", "within pairs", "steps", "rate", "seconds"),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What one network has learned of one stream."""

    model: str
    stream: StreamName
    is_blind: bool
    top1: float
    within_pairs: float
    num_steps: int
    learning_rate: float
    seconds: float | None
    """CPU seconds of training until a test reached LEARNED. None if none did."""

    @property
    def is_as_expected(self) -> bool:
        """Whether the network keeps its bar."""
        if self.is_blind:
            return self.within_pairs <= CHANCE_AT_MOST
        return self.top1 >= LEARNED

    def cells(self) -> tuple[str, ...]:
        """Returns its line of the table."""
        return (
            f"`{self.model}`",
            self.stream,
            "no" if self.is_blind else "yes",
            f"{100 * self.top1:.1f} %",
            f"{100 * self.within_pairs:.1f} %",
            f"{self.num_steps}",
            f"{self.learning_rate:g}".lstrip("0"),
            "" if self.seconds is None else f"{self.seconds:.0f}",
            "" if self.is_as_expected else "missed",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table. Returns 1 if a network misses its bar."""
    options = _read_options(arguments)
    print(f"{machine()}, {options.threads} threads", flush=True)
    torch.set_num_threads(options.threads)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        out = options.data or _make_data(Path(folder), options.videos_per_class)
        dataset = open_dataset(out)
        print(f"| {' | '.join(COLUMNS)} | |")
        print("|---" * len(COLUMNS) + "|---|", flush=True)
        for model in options.models or NETWORKS:
            for stream in NETWORKS[model].streams:
                if stream not in (options.streams or NETWORKS[model].inputs):
                    continue
                result = learn(dataset, model, stream, Path(folder))
                print(f"| {' | '.join(result.cells())} |", flush=True)
                results.append(result)
    return 0 if all(result.is_as_expected for result in results) else 1


def learn(
    dataset: FlowDataset,
    model: str,
    stream: StreamName,
    folder: Path,
) -> Result:
    """Trains a network until an attempt is enough."""
    blind = is_blind(small_config(model, stream, *ATTEMPTS[0]))
    for attempt in ATTEMPTS[1:2] if blind else ATTEMPTS:
        result = _learn_once(dataset, model, stream, folder / f"{model}-{stream}", blind, *attempt)
        if result.is_as_expected:
            break
    return result


def _learn_once(
    dataset: FlowDataset,
    model: str,
    stream: StreamName,
    run: Path,
    blind: bool,
    num_steps: int,
    learning_rate: float,
) -> Result:
    """Trains a network and tests it after every tenth of the steps."""
    num_videos = sum(video.split == "train" for video in dataset.videos)
    config = small_config(model, stream, num_steps, learning_rate)
    options = TrainOptions(
        num_loaders=0,
        device="cpu",
        log_every=max(1, num_steps // 40),
        test_every_epochs=max(1, num_steps // 10) * BATCH_SIZE / num_videos,
        checkpoint_seconds=1e6,
        tensorboard=False,
        progress=False,
    )
    shutil.rmtree(run, ignore_errors=True)
    begun = time.process_time()
    train([dataset], run, config, options)
    seconds = time.process_time() - begun
    checkpoint = load_checkpoint(run / "last.pt")
    # Whole groups of segments, for networks whose segments see each other.
    joins = NETWORKS[model].sees == "segments"
    views = ViewSpec(2 * config.clip.num_segments if joins else 3, 1)
    scores, _ = evaluate(dataset, checkpoint, views, device="cpu", num_loaders=0, progress=False)
    top1 = scores.metrics()["top1"]
    share = _share_until(run / "metrics.csv", num_steps)
    return Result(
        model,
        stream,
        blind,
        top1,
        within_pairs(scores),
        num_steps,
        learning_rate,
        seconds * share if top1 >= LEARNED else None,
    )


def small_config(
    model: str, stream: StreamName, num_steps: int, learning_rate: float
) -> TrainConfig:
    """Returns the network's default training, narrow, on short clips, with AdamW."""
    config = default_config(model, stream)
    clip = dataclasses.replace(
        config.clip,
        num_frames=_num_frames(config),
        frame_stride=1,
        num_segments=min(config.clip.num_segments, MAX_SEGMENTS),
        crop_px=LEAST_CROPS_PX.get(model, CROP_PX),
        resize_short_px=None,
        subtract_mean_flow=False,
    )
    optimization = OptimizationSpec(
        optimizer="adamw",
        learning_rate=learning_rate,
        warmup=0.2,
        batch_size=BATCH_SIZE,
        num_steps=num_steps,
    )
    spec = dataclasses.replace(config.model, width=WIDTHS.get(model, DEFAULT_WIDTH), dropout=0.2)
    return dataclasses.replace(
        config,
        model=spec,
        clip=clip,
        # A mirror makes left into right, and a zoom is a class.
        augment=AugmentSpec("random", flip=False),
        optimization=optimization,
    )


def _num_frames(config: TrainConfig) -> int:
    """Returns the most frames of the first input with which the longest input is short too."""
    model, clip = config.model, config.clip
    for num_frames in range(min(clip.num_frames, MAX_FRAMES), 1, -1):
        inputs = clip_inputs(model.model, clip.stream, num_frames, 1, model.options)
        if max(one.span for one in inputs) <= MAX_SPAN:
            return num_frames
    return 1


@torch.no_grad()
def is_blind(config: TrainConfig) -> bool:
    """Says whether a network scores a clip as it scores the same clip played backward.

    The network is drawn, and gets noise. Pictures are turned around, and what is between two of
    them, a field or a difference, keeps its sign: only their order changes.
    """
    if config.clip.stream != "rgb":
        # A single field or difference tells the direction.
        return False
    torch.manual_seed(0)
    joins = NETWORKS[config.model.model].sees == "segments"
    network = create_model(
        config.model.model,
        stream=config.clip.stream,
        num_classes=8,
        num_frames=config.clip.num_frames,
        width=config.model.width,
        crop_px=config.clip.crop_px,
        num_segments=config.clip.num_segments if joins else None,
        **dataclasses.asdict(config.model.options),
    )
    # Networks begin with scores of zero or with blocks that do nothing; noise wakes them.
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    # In double precision nothing but the order makes a difference that counts.
    network.double().eval()
    segments = (config.clip.num_segments,) if network.joins_segments else ()
    # Numbers as large as levels wake networks without batch norm.
    clips = [
        100 * torch.randn(2, *segments, *one.shape(config.clip.crop_px), dtype=torch.float64)
        for one in network.inputs
    ]
    backward = [_backward(x, one, segments) for x, one in zip(clips, network.inputs, strict=True)]
    one, other = network(*clips), network(*backward)
    scale = one.std() + 1e-12
    return bool(((one - other).abs().max() / scale) < 1e-6)


def _backward(x: torch.Tensor, one: ClipInput, segments: tuple[int, ...]) -> torch.Tensor:
    """Turns (N, C L, H, W) or (N, C, L, H, W) around in time, with segments (N, S, ...) as well."""
    if segments:
        x = x.flip(1)
    height_width = x.shape[-2:]
    if one.form == "volume":
        return x.flip(-3)
    frames = x.unflatten(-3, (one.num_frames, -1)).flip(-4)
    return frames.reshape(*x.shape[:-2], *height_width)


def within_pairs(scores: Scores) -> float:
    """Returns the share of videos that score higher in their class than in the other of its pair.

    The classes of a pair follow each other, as in `flowprep.synthetic.ACTIONS`.
    """
    places = np.arange(len(scores.keys))
    own, other = scores.logits[places, scores.labels], scores.logits[places, scores.labels ^ 1]
    # Equal scores are half right, as a coin is.
    return float(np.mean((own > other) + 0.5 * (own == other)))


def _share_until(path: Path, num_steps: int) -> float:
    """Returns the share of a training before the first test that reached LEARNED: 1 if none did.

    These tests see one view of each video. The last one sees several, and may be better.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test" and float(row["top1"]) >= LEARNED:
                return int(row["step"]) / num_steps
    return 1.0


def _make_data(folder: Path, num_videos_per_class: int) -> Path:
    command = [sys.executable, "-m", "flowprep", "synthetic", str(folder / "clips")]
    command += ["--videos-per-class", str(num_videos_per_class), "--frames", str(NUM_FRAMES)]
    command += ["--width", "80", "--height", "64"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")),
        FlowSpec("farneback"),
        EncodeSpec(directions=("forward",), keep_rgb=True),
    )
    options = RunOptions(executor="inline", progress=False)
    manifest = collect_videos(folder / "clips/videos", annotations=folder / "clips/annotations")
    report = flowprep.extract(manifest, folder / "flow", config, options=options)
    assert report.is_complete, report
    return folder / "flow"


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench_learn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", metavar="NAME", nargs="*", help="networks; the default is all")
    parser.add_argument(
        "--stream", action="append", dest="streams", help="only this stream; may be repeated"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    parser.add_argument(
        "--videos-per-class", type=int, default=64, help="a quarter of them tests (64)"
    )
    parser.add_argument("--data", type=Path, help="a data set of synthetic actions, ready made")
    options = parser.parse_args(arguments)
    for name in options.models:
        if name not in NETWORKS:
            parser.error(f"NAME must be one of {', '.join(NETWORKS)}, got {name!r}")
    return options


if __name__ == "__main__":
    sys.exit(main())
