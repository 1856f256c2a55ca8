"""Our networks and their references in turn on one core: a video of 224 x 224, forward and back.

Both have the same weights, and first give the same logits. They take turns, and a ratio is taken
for each turn, so a machine whose speed drifts favors neither. Times are processor time, of which
other programs take none. `channels last` is how flowprep's own training and tests run a network;
the references' do not.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from processes import machine
from reference_logits import CASES, importable, pair
from torch import nn

from flowprep.learn.forward import arrange_clips
from flowprep.learn.placement import place_model
from tests.learn.models.drawn import draw

NAMES = ("tsm-resnet50", "slow-8x8")
SIZE_PX = 224
TURNS = {"test": 7, "training": 5}


def main() -> None:
    """Prints a table."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: scripts/bench_networks CHECKOUTS [NAME ...]")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(machine())
    print("| network | pass | layout | reference, s | flowprep, s | ratio (least, most) |")
    print("|---|---|---|---|---|---|")
    with importable(Path(sys.argv[1]).resolve()):
        for name in sys.argv[2:] or NAMES:
            _compare(name)


def _compare(name: str) -> None:
    ours, theirs, rng = pair(name, 0)
    clip = draw(rng, 1, *CASES[name].shape[1:-2], SIZE_PX, SIZE_PX)
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip), theirs(clip), rtol=1e-4, atol=1e-4)
    for layout in ("as it is", "channels last"):
        given = clip
        if layout == "channels last":
            place_model(ours, torch.device("cpu"))
            (given,) = arrange_clips(ours, [clip if ours.joins_segments else clip.unsqueeze(1)])
        for kind, work in (("test", _test), ("training", _train)):
            sides = (theirs, clip), (ours, given)
            turns = [[_seconds(work, *side) for side in sides] for _ in range(TURNS[kind] + 1)]
            before, now = (statistics.median(times) for times in zip(*turns[1:], strict=True))
            ratios = sorted(one / other for one, other in turns[1:])
            print(
                f"| {name} | {kind} | {layout} | {before:.2f} | {now:.2f} "
                f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f}, {ratios[-1]:.2f}) |",
                flush=True,
            )


def _seconds(work: Callable[[nn.Module, torch.Tensor], None], *side: object) -> float:
    began = time.process_time()
    work(*side)  # type: ignore[arg-type]
    return time.process_time() - began


def _test(network: nn.Module, clip: torch.Tensor) -> None:
    with torch.inference_mode():
        network.eval()(clip)


def _train(network: nn.Module, clip: torch.Tensor) -> None:
    network.train()(clip).square().sum().backward()
    network.zero_grad()


if __name__ == "__main__":
    main()
