"""The published trainings of recent networks: SlowFast, GSM, TimeSformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from flowprep.learn.clip_inputs import NormalizationName, RecipeName, StreamName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.network_options import SlowFastOptions, TimeSformerOptions, TimeSformerSize
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec

__all__ = ["RECENT_TRAININGS"]

_MMACTION2 = SlowFastOptions(slow_frames="first", lateral_norm=False)


def _slowfast(
    model: str,
    num_frames: int,
    frame_stride: int,
    normalization: NormalizationName,
    scales: tuple[float, ...],
    num_epochs: int,
    clip_gradient_norm: float | None,
    options: SlowFastOptions,
) -> Mapping[StreamName, TrainConfig]:
    """Returns a training of SlowFast on Kinetics-400.

    Both projects: rate .1 for 64 clips, half a cosine after 34 epochs of warm-up from a tenth,
    decay 1e-4, dropout .5. facebookresearch/SlowFast: 196 epochs; the short side is drawn from 256
    to 320, and crops of 224 are cut: shares of .875 to .7; its batch norms do not decay, here all
    weights do. open-mmlab/mmaction2: 256 epochs, gradient 40; its crops of any area from 8 % on are
    crops of these sides here.
    """
    config = TrainConfig(
        ModelSpec(model, dropout=0.5, options=options),
        ClipSpec("rgb", num_frames, frame_stride, normalization=normalization, resize_short_px=256),
        AugmentSpec("random", scales),
        OptimizationSpec(
            64,
            accumulate=8,
            num_epochs=num_epochs,
            learning_rate=0.1,
            weight_decay=1e-4,
            schedule="cosine",
            warmup=34 / num_epochs,
            clip_gradient_norm=clip_gradient_norm,
        ),
    )
    return {"rgb": config}


def _gsm(model: str, resize_short_px: int, crop_px: int) -> Mapping[StreamName, TrainConfig]:
    """Returns GSM's training on Something-Something V1 (swathikirans/GSM, README.md and opts.py).

    Batch 16 in each of 2 iterations, rate .01, half a cosine over 60 epochs after 10 of warm-up
    from a tenth, decay 5e-4, dropout .5, gradient 20. All batch norms learn.
    """
    config = TrainConfig(
        ModelSpec(model, dropout=0.5),
        ClipSpec(
            "rgb",
            1,
            num_segments=8,
            normalization="tsn-pytorch",
            resize_short_px=resize_short_px,
            crop_px=crop_px,
        ),
        AugmentSpec("corners-13", (1.0, 0.875, 0.75, 0.66), flip=False),
        OptimizationSpec(
            32,
            accumulate=2,
            num_epochs=60,
            learning_rate=0.01,
            weight_decay=5e-4,
            schedule="cosine",
            warmup=10 / 60,
            clip_gradient_norm=20,
        ),
    )
    return {"rgb": config}


_SHARES = (0.875, 0.8, 0.75, 0.7)
_ANY = (1.0, 0.875, 0.75, 0.66)


def _timesformer(
    size: TimeSformerSize,
    num_frames: int,
    frame_stride: int,
    normalization: NormalizationName = "slowfast",
) -> TrainConfig:
    """Returns facebookresearch/TimeSformer's training on Kinetics-400 (configs/Kinetics).

    SGD, 15 epochs, rate .005, a tenth after 11 and 14, decay 1e-4. The batch of all GPUs is 8 (its
    TRAIN.BATCH_SIZE is divided among them). The short side is drawn from 256 to 320 for crops of
    224, and from 448 to 512 for crops of 448: shares of .875 to .7, and of 1 to .875.
    """
    is_high = size == "hr"
    return TrainConfig(
        ModelSpec("timesformer", options=TimeSformerOptions(size=size)),
        ClipSpec(
            "rgb",
            num_frames,
            frame_stride,
            normalization=normalization,
            resize_short_px=512 if is_high else 256,
            crop_px=448 if is_high else 224,
        ),
        AugmentSpec("random", (1.0, 0.9375, 0.875) if is_high else (0.875, 0.8, 0.75, 0.7)),
        OptimizationSpec(
            8,
            num_epochs=15,
            learning_rate=0.005,
            weight_decay=1e-4,
            schedule="step",
            milestones=(11 / 15, 14 / 15),
        ),
    )


def _something(size: TimeSformerSize, num_frames: int) -> TrainConfig:
    """Returns the release's training on Something-Something V2 (configs/SSv2).

    Each frame is of its own part of the video, and no clip is mirrored: left and right matter.
    """
    config = _timesformer(size, num_frames, 1, "timesformer-ssv2")
    return dataclasses.replace(
        config,
        clip=dataclasses.replace(config.clip, sampling="spread"),
        augment=dataclasses.replace(config.augment, flip=False),
    )


def _mmaction2() -> TrainConfig:
    """Returns mmaction2's training on Kinetics-400 (configs/recognition/timesformer).

    8 GPUs with 8 clips each, Nesterov's momentum, a tenth after 5 and 10 epochs, gradient 40. Its
    embeddings do not decay; here all weights do.
    """
    config = _timesformer("base", 8, 32, "unit")
    return dataclasses.replace(
        config,
        optimization=dataclasses.replace(
            config.optimization,
            batch_size=64,
            accumulate=8,
            nesterov=True,
            milestones=(5 / 15, 10 / 15),
            clip_gradient_norm=40,
        ),
    )


RECENT_TRAININGS: dict[RecipeName, Mapping[StreamName, TrainConfig]] = {
    "slowfast-4x16": _slowfast(
        "slowfast-4x16", 4, 16, "slowfast", _SHARES, 196, None, SlowFastOptions()
    ),
    "slowfast-8x8": _slowfast(
        "slowfast-8x8", 8, 8, "slowfast", _SHARES, 196, None, SlowFastOptions()
    ),
    "mmaction2-slowfast-4x16": _slowfast(
        "slowfast-4x16", 4, 16, "mmaction2", _ANY, 256, 40, _MMACTION2
    ),
    "mmaction2-slowfast-8x8": _slowfast(
        "slowfast-8x8", 8, 8, "mmaction2", _ANY, 256, 40, _MMACTION2
    ),
    "gsm": _gsm("gsm-bn-inception", 256, 224),
    "gsm-inception-v3": _gsm("gsm-inception-v3", 261, 229),
    "timesformer": {"rgb": _timesformer("base", 8, 32)},
    "timesformer-hr": {"rgb": _timesformer("hr", 16, 16)},
    "timesformer-long": {"rgb": _timesformer("long", 96, 4)},
    "timesformer-ssv2": {"rgb": _something("base", 8)},
    "timesformer-ssv2-hr": {"rgb": _something("hr", 16)},
    "timesformer-ssv2-long": {"rgb": _something("base", 64)},
    "mmaction2-timesformer": {"rgb": _mmaction2()},
}
"""The trainings by recipe and stream."""
