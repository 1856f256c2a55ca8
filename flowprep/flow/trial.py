"""The trial of TV-L1's CUDA kernel that `flowprep.flow.trust` runs in a process of its own.

Small drawn pairs of two sizes, in both directions and several at a time, are computed by the kernel
and by PyTorch on the same device. Over all five scales and five warps TV-L1 is chaotic: a last bit
that differs can move a pixel by more than a px. So the trial has two scales and two warps, where
right computations differ by less than .002 px (measured between the native kernel and PyTorch).
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import VideoError
from flowprep.flow.base import FlowEstimator
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.trust import LIMIT_SECONDS
from flowprep.flow.tvl1_cuda import Kernels, TVL1Cuda
from flowprep.flow.tvl1_torch import TVL1Torch

__all__ = ["drawn_frames", "fields", "main", "try_kernel"]

SIZES = (48, 60), (67, 90)
"""Height and width, px: one tile, and several tiles with rows that end inside a patch."""
NUM_PAIRS = 2
"""In both directions they are four fields at a time."""
CASES = {
    # No field comes to rest so far, so both do the same steps, and the worst pixel counts.
    "worst pixel": TVL1Parameters(
        nscales=2, warps=2, inner_iterations=8, outer_iterations=2, epsilon=1e-6
    ),
    # Each field stops by itself. Rounding may move a stop by an iteration, which moves a field by
    # less than epsilon, .01 px, in the mean.
    "worst field": TVL1Parameters(nscales=2, warps=2, stop="exact"),
}
NUM_WAVES = 40


def main(device: str) -> None:
    """Tries the kernel on a device, and writes the result to standard output as JSON.

    It ends by itself if it hangs, in case the process that waits for it has ended.
    """
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    sys.stdout.write(json.dumps(try_kernel(device)) + "\n")
    sys.stdout.flush()


def try_kernel(device: str, kernels: Kernels | None = None) -> dict[str, object]:
    """Returns `differences_px` by case, or why the kernel `failed` or no trial is possible.

    The latter is under `unusable`: nothing is said about the kernel. `kernels` are those to try;
    None compiles them.
    """
    differences_px: dict[str, float] = {}
    for (height, width), case in itertools.product(SIZES, CASES):
        parameters, frames = CASES[case], drawn_frames(height, width)
        try:
            reference = fields(TVL1Torch(parameters, device=device, batch_pairs=NUM_PAIRS), frames)
            tried = TVL1Cuda(parameters, device=device, batch_pairs=NUM_PAIRS, kernels=kernels)
        except Exception as error:
            return {"unusable": _words(error)}
        try:
            found = fields(tried, frames)
        except Exception as error:
            is_full = isinstance(error, VideoError) and error.reason == "out-of-memory"
            return {"unusable" if is_full else "failed": _words(error)}
        errors_px = np.linalg.norm(found - reference, axis=-1)
        worst = errors_px if case == "worst pixel" else errors_px.mean(axis=(1, 2))
        differences_px[f"{case}, {width}x{height}"] = float(worst.max())
    return {"differences_px": differences_px}


def drawn_frames(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Draws frames of a pattern of waves that moves, turns and grows a little."""
    random = np.random.default_rng(0)
    period_px = random.uniform(12, 80, NUM_WAVES)
    angle, phase = random.uniform(0, 2 * np.pi, (2, NUM_WAVES))
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2]).reshape(2, 1, 1)
    frames = []
    for number in range(NUM_PAIRS + 1):
        turn, scale = 0.005 * number, 1 + 0.005 * number
        moved_x = scale * (x * np.cos(turn) - y * np.sin(turn)) - 0.8 * number
        moved_y = scale * (x * np.sin(turn) + y * np.cos(turn)) + 0.5 * number
        image = np.zeros((height, width))
        for wave in range(NUM_WAVES):
            along = moved_x * np.cos(angle[wave]) + moved_y * np.sin(angle[wave])
            image += np.sin(2 * np.pi * along / period_px[wave] + phase[wave])
        frames.append(np.clip(np.rint(127.5 + 8 * image), 0, 255).astype(np.uint8))
    return frames


def fields(estimator: FlowEstimator, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Returns the fields of all pairs, forward and backward, (N, H, W, 2) float32 px."""
    return np.stack(list(_each(estimator, frames)))


def _each(
    estimator: FlowEstimator, frames: list[NDArray[np.uint8]]
) -> Iterator[NDArray[np.float32]]:
    for pair in estimator.pairs(frames):
        assert pair.forward is not None
        assert pair.backward is not None
        yield pair.forward
        yield pair.backward


def _words(error: Exception) -> str:
    # Of a compiler all lines count, and a verdict is one line.
    return " ".join(f"{type(error).__name__}: {error}".split())
