"""The entries of recent networks: SlowFast, GSM with its base Inception-V3, TimeSformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flowprep.learn import network_builders as builders
from flowprep.learn.clip_inputs import ClipInput, InputStream, RecipeName, StreamName
from flowprep.learn.network_entry import Builder, Network, stacks, volumes
from flowprep.learn.network_options import (
    GSMOptions,
    NetworkOptions,
    NonLocalOptions,
    SlowFastOptions,
    TimeSformerOptions,
    TimeSformerSize,
)

__all__ = ["RECENT_NETWORKS"]


def _two_rates(
    num_frames: int, frame_stride: int, alpha: int
) -> dict[StreamName, tuple[ClipInput, ...]]:
    """Returns the inputs of a slow path and of a fast one that sees alpha times as many frames."""

    def inputs(stream: InputStream) -> tuple[ClipInput, ...]:
        return (
            ClipInput("slow", stream, "volume", num_frames, frame_stride, rate_ratio=alpha),
            ClipInput("fast", stream, "volume", num_frames * alpha, frame_stride // alpha),
        )

    return {"flow": inputs("flow"), "rgb": inputs("rgb")}


def _picked(network: Network, options: NetworkOptions) -> Network:
    """Returns SlowFast's entry for a choice of the slow path's frames."""
    assert isinstance(options, SlowFastOptions)
    pick = options.slow_frames
    inputs = {
        stream: (dataclasses.replace(slow, pick=pick), fast)
        for stream, (slow, fast) in network.inputs.items()
    }
    return dataclasses.replace(network, inputs=inputs)


def _slowfast(
    num_frames: int,
    frame_stride: int,
    alpha: int,
    lateral_frames: int,
    recipe: RecipeName,
    description: str,
    accuracy: str,
) -> Network:
    """Returns the entry of SlowFast with so many frames in its slow path at this stride."""
    return Network(
        builders.slowfast(lateral_frames),
        _two_rates(num_frames, frame_stride, alpha),
        "Feichtenhofer et al., SlowFast Networks (ICCV 2019)",
        description,
        accuracy,
        normalization="slowfast",
        recipe=recipe,
        options=SlowFastOptions,
        adapt=_picked,
    )


def _gates(
    base: Callable[[], Builder],
    recipe: RecipeName,
    description: str,
    accuracy: str,
    crop_px: int = 224,
) -> Network:
    """Returns the entry of a network over segments with gates between them."""
    return Network(
        builders.gsm(base),
        stacks(5),
        "Sudhakaran et al., Gate-Shift Networks (CVPR 2020)",
        description,
        accuracy,
        crop_px=crop_px,
        sees="segments",
        num_segments=8,
        normalization="tsn-pytorch",
        recipe=recipe,
        options=GSMOptions,
    )


_TIMESFORMER_CLIPS: dict[TimeSformerSize, tuple[int, int, int]] = {
    "base": (8, 32, 224),
    "hr": (16, 16, 448),
    "long": (96, 4, 224),
}
"""Frames, stride and crop (Bertasius et al. 2021, section 4.4; facebookresearch/TimeSformer,
configs/Kinetics)."""


def _timesformer(network: Network, options: NetworkOptions) -> Network:
    """Returns TimeSformer's entry for a size."""
    assert isinstance(options, TimeSformerOptions)
    num_frames, stride, crop_px = _TIMESFORMER_CLIPS[options.size]
    return dataclasses.replace(network, inputs=volumes(num_frames, stride), crop_px=crop_px)


RECENT_NETWORKS: dict[str, Network] = {
    "slowfast-4x16": _slowfast(
        4,
        16,
        8,
        5,
        "slowfast-4x16",
        "A residual network of 50 layers over 4 frames, and one of an eighth of the channels over "
        "32. The second tells the first what moves.",
        "Kinetics-400: RGB 75.6 (facebookresearch/SlowFast, open-mmlab/mmaction2)",
    ),
    "slowfast-8x8": _slowfast(
        8,
        8,
        4,
        7,
        "slowfast-8x8",
        "The same network with 8 frames beside the 32.",
        "Kinetics-400: RGB 77.0 (facebookresearch/SlowFast), 76.8 (open-mmlab/mmaction2)",
    ),
    "fast": Network(
        builders.fast,
        volumes(32, 2),
        "Feichtenhofer et al., SlowFast Networks (ICCV 2019)",
        "The fast path of SlowFast alone: a small residual network that sees 3 frames in each "
        "block.",
        normalization="slowfast",
        recipe="slowfast-8x8",
        options=NonLocalOptions,
    ),
    "inception-v3": Network(
        builders.inception_v3,
        stacks(5),
        "Szegedy et al., Rethinking the Inception Architecture (CVPR 2016)",
        "Eleven inception blocks with batch norm over an image or a stack.",
        crop_px=229,
        normalization="tsn-pytorch",
        recipe="tsn-pytorch",
    ),
    "gsm-bn-inception": _gates(
        builders.bn_inception,
        "gsm",
        "`bn-inception` over segments. Learned gates say what moves to the segments before and "
        "after.",
        "",
    ),
    "gsm-inception-v3": _gates(
        builders.inception_v3,
        "gsm-inception-v3",
        "`inception-v3` over segments, with the same gates.",
        "Something-Something V1: RGB 49.0, of 12 segments 51.6, of several networks 55.2; "
        "Diving48: RGB 40.3 (swathikirans/GSM)",
        229,
    ),
    "timesformer": Network(
        builders.timesformer,
        volumes(8, 32),
        "Bertasius et al., Is Space-Time Attention All You Need? (ICML 2021)",
        "Twelve blocks of attention over patches of 16 x 16 px, without convolutions.",
        "Kinetics-400: RGB 77.9, size hr 79.6, size long 80.6; Something-Something V2: RGB 59.1, "
        "61.8 and 62.0 (facebookresearch/TimeSformer)",
        normalization="slowfast",
        recipe="timesformer",
        options=TimeSformerOptions,
        has_one_size=True,
        adapt=_timesformer,
    ),
}
"""The entries by name."""
