"""Published trainings. `flowprep.learn.recipes` has the rest of each recipe."""

from __future__ import annotations

from collections.abc import Mapping

from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.network_options import C3DOptions, TSNOptions
from flowprep.learn.recent_trainings import RECENT_TRAININGS
from flowprep.learn.recurrent_trainings import RECURRENT_TRAININGS
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec

__all__ = ["TRAININGS"]

_TSN_SCALES = (1.0, 0.875, 0.75, 0.66)


# The number of parts per batch, here and below, is our choice for GPUs of 24 GB.
_TWO_STREAM = OptimizationSpec(
    256,
    accumulate=4,
    num_steps=80000,
    learning_rate=0.01,
    schedule="step",
    milestones=(50 / 80, 70 / 80),
)


_TWO_STREAM_STREAMS: dict[StreamName, TrainConfig] = {
    # Simonyan and Zisserman 2014, sections 3 and 5: batch 256, rate .01 to 1e-3 at 50k and 1e-4 at
    # 70k of 80k steps, dropout .9; crops of 224 from short side 256.
    "flow": TrainConfig(
        ModelSpec("cnn-m-2048"),
        ClipSpec("flow", 10, subtract_mean_flow=True, normalization="tsn", resize_short_px=256),
        AugmentSpec("random"),
        _TWO_STREAM,
    ),
    "rgb": TrainConfig(
        ModelSpec("cnn-m-2048"),
        ClipSpec("rgb", 1, normalization="tsn", resize_short_px=256),
        AugmentSpec("random"),
        _TWO_STREAM,
    ),
}


# Wang et al. 2016, section 4: SGD .9, batch 256; flow: rate .005 to 5e-4 at 12k and 5e-5 at 18k
# of 20k steps, dropout .7; RGB: .001, a tenth every 2k of 4.5k steps, dropout .8. Gradient 20
# and clips of 5 fields from yjxiong/tsn-pytorch's README.
_TSN: dict[StreamName, TrainConfig] = {
    "flow": TrainConfig(
        ModelSpec("tsn-resnet50", options=TSNOptions(partial_bn=True)),
        ClipSpec("flow", 5, num_segments=3, normalization="tsn-resnet", resize_short_px=256),
        AugmentSpec("corners-13", _TSN_SCALES[:3]),
        OptimizationSpec(
            256,
            accumulate=16,
            num_steps=20000,
            learning_rate=0.005,
            schedule="step",
            milestones=(12 / 20, 18 / 20),
            clip_gradient_norm=20,
        ),
    ),
    "rgb": TrainConfig(
        ModelSpec("tsn-resnet50", options=TSNOptions(partial_bn=True)),
        ClipSpec("rgb", 1, num_segments=3, normalization="tsn-resnet", resize_short_px=256),
        AugmentSpec("corners-13", _TSN_SCALES),
        OptimizationSpec(
            256,
            accumulate=16,
            num_steps=4500,
            learning_rate=0.001,
            schedule="step",
            milestones=(2000 / 4500, 4000 / 4500),
            clip_gradient_norm=20,
        ),
    ),
    # RGB-diff as in yjxiong/tsn-pytorch's README: 7 segments of 5 differences, batch 128, rate
    # .001, a tenth after 80 and 160 of 180 epochs, gradient 40, dropout .8.
    "rgb-difference": TrainConfig(
        ModelSpec("tsn-resnet50", options=TSNOptions(partial_bn=True)),
        ClipSpec(
            "rgb-difference",
            5,
            num_segments=7,
            normalization="tsn-resnet",
            resize_short_px=256,
        ),
        AugmentSpec("corners-13", _TSN_SCALES[:3]),
        OptimizationSpec(
            128,
            accumulate=16,
            num_epochs=180,
            learning_rate=0.001,
            schedule="step",
            milestones=(80 / 180, 160 / 180),
            clip_gradient_norm=40,
        ),
    ),
}


_FLOW_AND_RGB: tuple[StreamName, ...] = ("flow", "rgb")


# Carreira and Zisserman 2017, section 3: SGD .9, clips of 64 frames at 25 fps, short side 256,
# random crop 224, mirrored; a tenth of the rate at plateaus, here at fixed shares. Rate, decay
# and batch from piergiaj/pytorch-i3d train_i3d.py.
_I3D: dict[StreamName, TrainConfig] = {
    stream: TrainConfig(
        ModelSpec("i3d"),
        ClipSpec(stream, 64, normalization="unit", resize_short_px=256),
        AugmentSpec("random"),
        OptimizationSpec(
            40,
            accumulate=5,
            num_epochs=40,
            learning_rate=0.1,
            weight_decay=1e-7,
            schedule="step",
            milestones=(0.5, 0.8),
        ),
    )
    for stream in _FLOW_AND_RGB
}


# yjxiong/tsn-pytorch, README, UCF101: batch 128, rate .001, gradient 20; flow: a tenth after 190
# and 300 of 340 epochs, dropout .7; RGB: after 30 and 60 of 80 epochs, dropout .8.
_TSN_BN_INCEPTION: dict[StreamName, TrainConfig] = {
    "flow": TrainConfig(
        ModelSpec("tsn-bn-inception", dropout=0.7, options=TSNOptions(partial_bn=True)),
        ClipSpec("flow", 5, num_segments=3, normalization="tsn-pytorch", resize_short_px=256),
        AugmentSpec("corners-13", _TSN_SCALES[:3]),
        OptimizationSpec(
            128,
            accumulate=8,
            num_epochs=340,
            learning_rate=0.001,
            schedule="step",
            milestones=(190 / 340, 300 / 340),
            clip_gradient_norm=20,
        ),
    ),
    "rgb": TrainConfig(
        ModelSpec("tsn-bn-inception", dropout=0.8, options=TSNOptions(partial_bn=True)),
        ClipSpec("rgb", 1, num_segments=3, normalization="tsn-pytorch", resize_short_px=256),
        AugmentSpec("corners-13", _TSN_SCALES),
        OptimizationSpec(
            128,
            accumulate=8,
            num_epochs=80,
            learning_rate=0.001,
            schedule="step",
            milestones=(30 / 80, 60 / 80),
            clip_gradient_norm=20,
        ),
    ),
}


def _tsm(stream: StreamName, num_frames: int, scales: tuple[float, ...]) -> TrainConfig:
    """Returns TSM's training on Kinetics-400 (mit-han-lab/temporal-shift-module, README).

    Batch 128, rate .02, a tenth after 20 and 40 of 50 epochs, decay 1e-4, dropout .5, gradient 20.
    All batch norms learn.
    """
    return TrainConfig(
        ModelSpec("tsm-resnet50", dropout=0.5),
        ClipSpec(
            stream, num_frames, num_segments=8, normalization="tsn-resnet", resize_short_px=256
        ),
        AugmentSpec("corners-13", scales),
        OptimizationSpec(
            128,
            accumulate=16,
            num_epochs=50,
            learning_rate=0.02,
            weight_decay=1e-4,
            schedule="step",
            milestones=(20 / 50, 40 / 50),
            clip_gradient_norm=20,
        ),
    )


# open-mmlab/mmaction2, slowonly_r50_4x16x1_256e_kinetics400_flow: 8 GPUs with 24 clips each, rate
# .06, half a cosine over 256 epochs after 34 of warm-up, decay 1e-4, gradient 40. Its crops of any
# area from 8 % on are crops of these sides here.
_SLOW_FLOW: dict[StreamName, TrainConfig] = {
    "flow": TrainConfig(
        ModelSpec("slow-4x16", dropout=0.5),
        ClipSpec("flow", 4, 16, normalization="mmaction2", resize_short_px=256),
        AugmentSpec("random", (1.0, 0.875, 0.75, 0.66)),
        OptimizationSpec(
            192,
            accumulate=12,
            num_epochs=256,
            learning_rate=0.06,
            weight_decay=1e-4,
            schedule="cosine",
            warmup=34 / 256,
            clip_gradient_norm=40,
        ),
    )
}


def _slow_rgb(model: str, num_frames: int, frame_stride: int) -> dict[StreamName, TrainConfig]:
    """Returns facebookresearch/SlowFast's training on Kinetics-400.

    196 epochs, rate .1 for 64 clips, half a cosine after 34 epochs of warm-up from a tenth, decay
    1e-4. The short side is drawn from 256 to 320, and crops of 224 are cut: shares of .875 to .7.
    Its batch norms do not decay; here all weights do.
    """
    config = TrainConfig(
        ModelSpec(model, dropout=0.5),
        ClipSpec("rgb", num_frames, frame_stride, normalization="slowfast", resize_short_px=256),
        AugmentSpec("random", (0.875, 0.8, 0.75, 0.7)),
        OptimizationSpec(
            64,
            accumulate=8,
            num_epochs=196,
            learning_rate=0.1,
            weight_decay=1e-4,
            schedule="cosine",
            warmup=34 / 196,
        ),
    )
    return {"rgb": config}


# facebookresearch/VMZ, c2/scripts/train_r2plus1d_kinetics.sh: 2 GPUs with 32 clips and a rate of
# .01 each, a tenth every 10 of 35 epochs of a million clips, decay 1e-4; random crops of 112.
_VMZ_RGB: dict[StreamName, TrainConfig] = {
    "rgb": TrainConfig(
        ModelSpec("r2plus1d-18"),
        ClipSpec("rgb", 8, normalization="vmz", crop_px=112),
        AugmentSpec("random"),
        OptimizationSpec(
            64,
            accumulate=4,
            num_steps=35 * 10**6 // 64,
            learning_rate=0.02,
            weight_decay=1e-4,
            schedule="step",
            milestones=(10 / 35, 20 / 35, 30 / 35),
        ),
    )
}


# feichtenhofer/twostreamfusion, cnn_ucf101_fusion.m and cnn_train_dag.m: batch 96, rate .001, a
# tenth after 2, 3 and 4 of 5 epochs, each of which shows every video ten times, decay 5e-4, dropout
# .85, nothing learns below relu5_3. Sides of crops: 168 to 256 px of the short side 256.
_TWO_STREAM_FUSION: dict[StreamName, TrainConfig] = {
    "both": TrainConfig(
        ModelSpec("two-stream-fusion", dropout=0.85),
        ClipSpec("both", 5, 10, normalization="tsn-rgb", resize_short_px=256),
        AugmentSpec("random", (1.0, 0.9, 0.8, 0.7, 0.66), random_strides=(5, 15)),
        OptimizationSpec(
            96,
            accumulate=24,
            num_epochs=50,
            learning_rate=0.001,
            weight_decay=5e-4,
            schedule="step",
            milestones=(2 / 5, 3 / 5, 4 / 5),
            freeze="5",
        ),
    )
}


def _lrcn(
    stream: StreamName, num_steps: int, milestones: tuple[int, ...], clip_gradient: float
) -> TrainConfig:
    """Returns LRCN's training on UCF101 (LisaAnne/lisa-caffe-public, lstm_solver_*.prototxt).

    24 videos a step with 16 frames each, rate .001 and a tenth of it at each milestone, decay .005.
    The classifier has ten times the rate (train_test_lstm_RGB.prototxt, fc8-final).
    """
    return TrainConfig(
        ModelSpec("lrcn"),
        ClipSpec(stream, 16, normalization="lrcn", crop_px=227),
        AugmentSpec("random"),
        OptimizationSpec(
            24,
            accumulate=4,
            num_steps=num_steps,
            learning_rate=0.001,
            weight_decay=0.005,
            schedule="step",
            milestones=tuple(step / num_steps for step in milestones),
            clip_gradient_norm=clip_gradient,
            classifier_rate=10.0,
        ),
    )


# facebookarchive/C3D, examples/c3d_train_ucf101: batch 30, rate .003, a tenth every 20k of 60k
# steps, decay .005; random crops of 112, mirrored.
_C3D: dict[StreamName, TrainConfig] = {
    "rgb": TrainConfig(
        ModelSpec("c3d"),
        ClipSpec("rgb", 16, normalization="c3d", crop_px=112),
        AugmentSpec("random"),
        OptimizationSpec(
            30,
            num_steps=60000,
            learning_rate=0.003,
            weight_decay=0.005,
            schedule="step",
            milestones=(20 / 60, 40 / 60),
        ),
    )
}


# open-mmlab/mmaction2, configs/recognition/c3d: 8 GPUs with 30 clips each, rate .001, a tenth after
# 20 and 40 of 45 epochs, decay 5e-4, gradient 40; random crops of 112, mirrored.
_MMACTION2_C3D: dict[StreamName, TrainConfig] = {
    "rgb": TrainConfig(
        ModelSpec("c3d", options=C3DOptions("padded")),
        ClipSpec("rgb", 16, normalization="mmaction2-c3d", crop_px=112),
        AugmentSpec("random"),
        OptimizationSpec(
            240,
            accumulate=8,
            num_epochs=45,
            learning_rate=0.001,
            weight_decay=5e-4,
            schedule="step",
            milestones=(20 / 45, 40 / 45),
            clip_gradient_norm=40,
        ),
    )
}


# Karpathy et al. 2014, sections 3.3 and 4.1: batch 32, rate .001, momentum .9, decay 5e-4; frames
# of 200x200, random crops of 170, mirrored. The paper states no end; the schedule is ours.
_DEEPVIDEO: dict[StreamName, TrainConfig] = {
    "rgb": TrainConfig(
        ModelSpec("deepvideo"),
        ClipSpec("rgb", 1, normalization="deepvideo", crop_px=170),
        AugmentSpec("random"),
        OptimizationSpec(
            32,
            num_epochs=50,
            learning_rate=0.001,
            weight_decay=5e-4,
            schedule="step",
            milestones=(0.6, 0.9),
        ),
    )
}


TRAININGS: dict[RecipeName, Mapping[StreamName, TrainConfig]] = {
    "two-stream": _TWO_STREAM_STREAMS,
    "tsn": _TSN,
    "i3d": _I3D,
    "tsm": {"flow": _tsm("flow", 5, _TSN_SCALES[:3]), "rgb": _tsm("rgb", 1, _TSN_SCALES)},
    "tsn-pytorch": _TSN_BN_INCEPTION,
    "mmaction2-slow-4x16": _SLOW_FLOW,
    "slow-4x16": _slow_rgb("slow-4x16", 4, 16),
    "slow-8x8": _slow_rgb("slow-8x8", 8, 8),
    "vmz-rgb": _VMZ_RGB,
    **RECURRENT_TRAININGS,
    "two-stream-fusion": _TWO_STREAM_FUSION,
    "lrcn": {
        "flow": _lrcn("flow", 70000, (20000, 40000, 60000), 15),
        "rgb": _lrcn("rgb", 30000, (10000, 20000), 5),
    },
    "c3d": _C3D,
    "mmaction2-c3d": _MMACTION2_C3D,
    "deepvideo": _DEEPVIDEO,
    **RECENT_TRAININGS,
}
"""The published trainings by recipe and stream."""
