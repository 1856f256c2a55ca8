"""Published recipes for extraction, by name."""

from __future__ import annotations

import math

from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.flow.parameters import (
    BroxParameters,
    DISParameters,
    FarnebackParameters,
    RAFTParameters,
    TVL1Parameters,
)
from flowprep.frame_size import CenterCrop

__all__ = ["PRESETS"]

# denseflow, dense_flow and gpu_flow run OpenCV's CUDA TV-L1: 300 iterations per warp and no median
# filter. OpenCV's CPU class does the same with 10 x 30 iterations and without its median filter.
_CUDA_TVL1 = TVL1Parameters(median_filtering=1)

# Of networks that see only RGB. Nothing reads this flow, which is the fastest.
_UNSEEN = FlowSpec("dis", DISParameters(dis_preset="ultrafast"))

PRESETS: dict[str, ExtractConfig] = {
    # yjxiong/temporal-segment-networks: extract_gpu, 340x256, bound 20.
    "tsn": ExtractConfig(
        DecodeSpec(resize=Resize.parse("340x256"), interpolation="bilinear", allow_upscale=True),
        FlowSpec("tvl1", _CUDA_TVL1),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # mmaction2's data preparation with denseflow: short side 256 for Kinetics. Smaller videos keep
    # their size.
    "mmaction2": ExtractConfig(
        DecodeSpec(resize=Resize.parse("short:256"), interpolation="bilinear"),
        FlowSpec("tvl1", _CUDA_TVL1),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # MediaPipe's preprocessing graph for the released I3D: 25 fps, height 256, floor, quality 100.
    "i3d": ExtractConfig(
        DecodeSpec(
            fps=25.0,
            resize=Resize.parse("height:256"),
            interpolation="bilinear",
            allow_upscale=True,
        ),
        FlowSpec("tvl1", TVL1Parameters(), quantizer="floor"),
        EncodeSpec(jpeg_quality=100, rgb_jpeg_quality=100),
    ),
    # Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014), sections 3.1 and 5:
    # Brox flow of all frames, short side 256. The paper scales each field to its own range; here,
    # as everywhere, the range is the bound.
    "two-stream-2014": ExtractConfig(
        DecodeSpec(resize=Resize.parse("short:256"), interpolation="bilinear", allow_upscale=True),
        FlowSpec("brox", BroxParameters()),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # LisaAnne/lisa-caffe-public, create_flow_images_LRCN.m: 16 v + 128, so +-8 px. The third
    # channel, the magnitude, is made from these two by the loader.
    "lrcn": ExtractConfig(
        DecodeSpec(resize=Resize.parse("320x240"), interpolation="bilinear", allow_upscale=True),
        FlowSpec("brox", BroxParameters(), bound_px=8.0, quantizer="centered"),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # google-deepmind/kinetics-i3d README: 25 fps, short side 256 bilinear, TV-L1, bound 20.
    "i3d-readme": ExtractConfig(
        DecodeSpec(
            fps=25.0,
            resize=Resize.parse("short:256"),
            interpolation="bilinear",
            allow_upscale=True,
        ),
        FlowSpec("tvl1", TVL1Parameters()),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # v-iashin/video_features, models/i3d/extract_i3d.py: source rate, short side 256, RAFT "sintel"
    # (torchvision's port of it is C_T_SKHT_V1) with 20 updates, clamped to +-20 px. Its levels are
    # round(128 + 255 v / 40): one more than `floor` stores (but at -20 px), for the same px.
    # Pillow's bilinear averages when it shrinks, as `area` does.
    "i3d-raft": ExtractConfig(
        DecodeSpec(resize=Resize.parse("short:256"), interpolation="area", allow_upscale=True),
        FlowSpec("raft", RAFTParameters("raft_large", "C_T_SKHT_V1", 20), quantizer="floor"),
        EncodeSpec(jpeg_quality=100, rgb_jpeg_quality=100),
    ),
    # feichtenhofer/gpu_flow: short side 256, bound 20, CUDA TV-L1.
    "feichtenhofer": ExtractConfig(
        DecodeSpec(resize=Resize.parse("short:256"), interpolation="bilinear", allow_upscale=True),
        FlowSpec("tvl1", _CUDA_TVL1),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # mmaction2's models of 2020 (`320p`): short side 320, and the rest as `mmaction2`.
    "mmaction2-320p": ExtractConfig(
        DecodeSpec(resize=Resize.parse("short:320"), interpolation="bilinear"),
        FlowSpec("tvl1", _CUDA_TVL1),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # craston/MARS, utils1: 25 fps, short side 256 by FFmpeg (bicubic), CUDA TV-L1, bound 20,
    # truncated to levels.
    "mars": ExtractConfig(
        DecodeSpec(
            fps=25.0,
            resize=Resize.parse("short:256"),
            interpolation="bicubic",
            allow_upscale=True,
        ),
        FlowSpec("tvl1", _CUDA_TVL1, quantizer="floor"),
        EncodeSpec(rgb_jpeg_quality=95),
    ),
    # facebookresearch/VMZ by pytorch/pytorch, caffe2/video/optical_flow.cc: frames of 171x128, the
    # central 112x112 of each, then Farneback's flow, as floats. The bound is ours.
    "vmz": ExtractConfig(
        DecodeSpec(
            resize=Resize.parse("171x128"),
            interpolation="bilinear",
            allow_upscale=True,
            crop=CenterCrop(112, 112),
        ),
        FlowSpec(
            "farneback",
            FarnebackParameters(
                pyr_scale=math.sqrt(2) / 2,
                levels=5,
                winsize=10,
                iterations=2,
                poly_n=7,
                poly_sigma=1.5,
                gaussian=True,
            ),
            bound_px=20.0,
        ),
        EncodeSpec(jpeg_quality=100, rgb_jpeg_quality=95),
    ),
    # facebookresearch/VMZ, frames: 171x128, all of them.
    "vmz-rgb": ExtractConfig(
        DecodeSpec(resize=Resize.parse("171x128"), interpolation="bilinear", allow_upscale=True),
        _UNSEEN,
        EncodeSpec(directions=("forward",), rgb_jpeg_quality=95),
    ),
    # torchvision, models/video/resnet.py and its weights' metadata: 15 fps, 171x128 bilinear.
    "torchvision-video": ExtractConfig(
        DecodeSpec(
            fps=15.0,
            resize=Resize.parse("171x128"),
            interpolation="bilinear",
            allow_upscale=True,
        ),
        _UNSEEN,
        EncodeSpec(directions=("forward",), rgb_jpeg_quality=95),
    ),
    # Karpathy et al., Large-scale Video Classification (CVPR 2014), section 3.3: the center of each
    # frame, 200x200. Interpolation is ours.
    "deepvideo": ExtractConfig(
        DecodeSpec(
            resize=Resize.parse("short:200"),
            interpolation="bilinear",
            allow_upscale=True,
            crop=CenterCrop(200, 200),
        ),
        _UNSEEN,
        EncodeSpec(directions=("forward",), rgb_jpeg_quality=95),
    ),
}
"""Published extractions by name: fps, resize, crop, algorithm, bound, quantizer and JPEG quality.
`flowprep.learn.recipes` says which networks each is for, and what they see of it."""
