"""Every network's parameters, multiply-adds, tensors and shapes are the published ones.

On torch's device `meta`: nothing is drawn and nothing is computed. A row without a source is the
arithmetic of the rows above: a base network and what its wrapper adds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.cost import count_macs, count_parameters
from flowprep.learn.networks import NETWORKS
from tests.learn.models.figure_row import Row
from tests.learn.models.recent_figures import RECENT
from tests.learn.models.recurrent_figures import RECURRENT


def resnet_tensors(*depths: int, convs: int) -> tuple[int, int]:
    """Tensors of a residual network: a convolution and 4 or 5 of a batch norm for each, and fc."""
    units = 1 + convs * sum(depths) + len(depths)
    if convs == 2:
        units -= 1  # the first stage keeps the channels, so its shortcut is the identity
    return 6 * units + 2, 5 * units + 2


R18, R34 = resnet_tensors(2, 2, 2, 2, convs=2), resnet_tensors(3, 4, 6, 3, convs=2)
R50, R101 = resnet_tensors(3, 4, 6, 3, convs=3), resnet_tensors(3, 4, 23, 3, convs=3)
R152 = resnet_tensors(3, 8, 36, 3, convs=3)

VGG16_CONV_GMACS = {"rgb": 76.7 / 5, "flow": 79.2 / 5}
"""twostreamfusion's towers without fully connected layers, for 5 frames."""


def vgg16_gmacs(stream: str, num_classes: int) -> float:
    return VGG16_CONV_GMACS[stream] + (25088 * 4096 + 4096 * 4096 + 4096 * num_classes) / 1e9


def linear(before: int, after: int) -> int:
    """Parameters of a fully connected layer."""
    return before * after + after


STREAMS: tuple[StreamName, ...] = ("flow", "rgb")


def non_local_parameters(channels: int, kind: str = "embedded-gaussian") -> int:
    """Wang et al. 2018, figure 2: theta, phi, g and W of half the channels, and a batch norm."""
    half = channels // 2
    projections = 1 if kind == "gaussian" else 3
    pair = channels if kind == "concatenation" else 0
    return projections * (channels * half + half) + half * channels + 3 * channels + pair


NON_LOCAL_R50 = 2 * non_local_parameters(512) + 3 * non_local_parameters(1024)

VMZ_ADDS = sum(
    more * (9 * channels + 2 + 3 * channels)  # 1x3x3, batch norm, 3x1x1
    for channels, more in ((128, 288 - 230), (256, 576 - 460), (512, 1152 - 921))
)

IMAGES = [
    # Simonyan and Zisserman 2014, figure 1, by hand.
    Row("cnn-m-2048", "rgb", 101, parameters=90_627_813, tensors=(16, 16)),
    Row("cnn-m-2048", "flow", 101, parameters=90_707_781, tensors=(16, 16)),
    # Parameters and "GFLOPS" of torchvision's weights (models/resnet.py, vgg.py, mobilenetv2.py).
    Row("resnet18", "rgb", 1000, parameters=11_689_512, gmacs=1.81, tensors=R18),
    Row("resnet34", "rgb", 1000, parameters=21_797_672, gmacs=3.66, tensors=R34),
    Row("resnet50", "rgb", 1000, parameters=25_557_032, gmacs=4.09, tensors=R50),
    Row("resnet101", "rgb", 1000, parameters=44_549_160, gmacs=7.80, tensors=R101),
    Row("resnet152", "rgb", 1000, parameters=60_192_808, gmacs=11.51, tensors=R152),
    Row("mobilenet-v2", "rgb", 1000, parameters=3_504_872, gmacs=0.30, tensors=(314, 262)),
    Row("vgg16", "rgb", 1000, parameters=138_357_544, gmacs=15.47, tensors=(32, 32)),
    # feichtenhofer/twostreamfusion's towers.
    Row(
        "vgg16",
        "rgb",
        101,
        parameters=134_674_341,
        gmacs=vgg16_gmacs("rgb", 101),
        digits=1,
        tensors=(32, 32),
        shapes={"features.0.weight": (64, 3, 3, 3)},
    ),
    Row(
        "vgg16",
        "flow",
        101,
        parameters=134_684_133,
        gmacs=vgg16_gmacs("flow", 101),
        digits=1,
        tensors=(32, 32),
        shapes={"features.0.weight": (64, 20, 3, 3)},
    ),
    # torchvision's weights (models/alexnet.py, googlenet.py).
    Row("alexnet", "rgb", 1000, parameters=61_100_840, gmacs=0.71, tensors=(16, 16)),
    Row(
        "googlenet",
        "rgb",
        1000,
        parameters=6_624_904,
        gmacs=1.50,
        tensors=(6 * 57 + 2, 5 * 57 + 2),
        shapes={
            "conv1.conv.weight": (64, 3, 7, 7),
            "inception3a.branch2.1.conv.weight": (128, 96, 3, 3),
            "inception5b.branch4.1.bn.running_var": (128,),
        },
    ),
    # Cadene/pretrained-models.pytorch, bninception.py; with the flow of tsn-pytorch.
    Row(
        "bn-inception",
        "rgb",
        1000,
        parameters=11_295_240,
        gmacs=2.03,
        tensors=(485, 416),
        shapes={
            "conv1_7x7_s2.weight": (64, 3, 7, 7),
            "inception_3a_1x1.weight": (64, 192, 1, 1),
            "inception_3a_1x1_bn.running_var": (64,),
            "inception_4e_double_3x3_2.weight": (256, 256, 3, 3),
            "inception_5b_pool_proj.bias": (128,),
            "fc.weight": (1000, 1024),
        },
    ),
    Row(
        "bn-inception",
        "flow",
        101,
        parameters=10_395_717,
        gmacs=2.31,
        tensors=(485, 416),
        shapes={"conv1_7x7_s2.weight": (64, 10, 7, 7)},
        num_frames=5,
    ),
    Row("bn-inception", "flow", 400, parameters=10_702_192, num_frames=5),
]

TSM_R50 = {"base.conv1.weight": (64, 3, 7, 7), "base.layer1.0.conv1.weight": (64, 64, 1, 1)}
TSM_FLOW = {**TSM_R50, "base.conv1.weight": (64, 10, 7, 7)}

SEGMENTS = [
    # A network over segments has its base's tensors, and its base's cost for each segment.
    Row("tsn-resnet18", "rgb", 1000, parameters=11_689_512, gmacs=3 * 1.814, tensors=R18),
    Row("tsn-resnet34", "rgb", 1000, parameters=21_797_672, gmacs=3 * 3.664, tensors=R34),
    # mmaction2's flow: tsn_r50_320p_1x1x8_110e_kinetics400_flow.
    Row(
        "tsn-resnet50",
        "flow",
        400,
        parameters=24_349_584,
        gmacs=34.91,
        tensors=R50,
        shapes=TSM_FLOW,
        num_segments=8,
    ),
    Row("tsn-bn-inception", "flow", 101, parameters=10_395_717, gmacs=3 * 2.31, digits=1),
    # GSM's plain BN-Inception, 8 segments of Something-Something.
    Row(
        "tsn-bn-inception",
        "rgb",
        174,
        parameters=10_448_590,
        gmacs=16.25,
        tensors=(485, 416),
        num_segments=8,
    ),
    Row("tsn-mobilenet-v2", "rgb", 400, parameters=2_736_272, gmacs=0.9, digits=1),
    # mit-han-lab/temporal-shift-module, built on torch's device meta.
    Row("tsm-resnet18", "rgb", 1000, parameters=11_689_512, gmacs=8 * 1.814, tensors=R18),
    Row(
        "tsm-resnet50", "rgb", 400, parameters=24_327_632, gmacs=32.70, tensors=R50, shapes=TSM_R50
    ),
    Row(
        "tsm-resnet50",
        "rgb",
        400,
        parameters=24_327_632,
        gmacs=65.41,
        tensors=R50,
        num_segments=16,
    ),
    Row("tsm-resnet50", "rgb", 174, parameters=23_864_558, gmacs=32.70, tensors=R50),
    Row(
        "tsm-resnet50",
        "flow",
        400,
        parameters=24_349_584,
        gmacs=34.91,
        tensors=R50,
        shapes=TSM_FLOW,
    ),
    Row(
        "tsm-resnet50",
        "rgb",
        400,
        parameters=31_686_096,
        gmacs=61.10,
        tensors=(385, 327),
        shapes={
            "base.layer2.0.non_local.theta.weight": (256, 512, 1, 1, 1),
            "base.layer2.2.non_local.g.bias": (256,),
            "base.layer3.0.non_local.phi.weight": (512, 1024, 1, 1, 1),
            "base.layer3.2.non_local.out.weight": (1024, 512, 1, 1, 1),
            "base.layer3.4.non_local.bn.running_mean": (1024,),
        },
        options={"non_local": True},
    ),
    Row("tsm-mobilenet-v2", "rgb", 400, parameters=2_736_272, gmacs=2.4, digits=1),
    Row("tsm-bn-inception", "rgb", 174, parameters=10_448_590, gmacs=16.25, tensors=(485, 416)),
]

SLOW_NL = {
    "layer2.1.non_local.theta.weight": (256, 512, 1, 1, 1),
    "layer3.5.non_local.bn.weight": (1024,),
}

VOLUMES = [
    # Carreira and Zisserman's network in piergiaj/pytorch-i3d.
    Row("i3d", "rgb", 400, parameters=12_697_264, tensors=(344, 287)),
    Row("i3d", "flow", 400, parameters=12_675_312, gmacs=102.34, tensors=(344, 287)),
    # SlowFast's and pytorchvideo's I3D 8x8 and its variant with five non-local blocks.
    Row(
        "i3d-resnet50",
        "rgb",
        400,
        256,
        millions=28.04,
        gmacs=37.10,
        tensors=R50,
        shapes={"conv1.weight": (64, 3, 5, 7, 7)},
        num_frames=8,
    ),
    Row(
        "i3d-resnet50",
        "rgb",
        400,
        256,
        millions=35.40,
        gmacs=48.91,
        tensors=(R50[0] + 5 * 13, R50[1] + 5 * 12),
        shapes=SLOW_NL,
        num_frames=8,
        options={"non_local": True},
    ),
    # facebookresearch/SlowFast, SLOW_4x16_R50 and SLOW_8x8_R50.
    Row("slow-4x16", "rgb", 400, parameters=32_454_096, gmacs=20.87, tensors=R50),
    Row("slow-4x16", "rgb", 400, 256, parameters=32_454_096, gmacs=27.26),
    Row("slow-8x8", "rgb", 400, parameters=32_454_096, gmacs=41.74, tensors=R50),
    Row("slow-8x8", "rgb", 400, 256, parameters=32_454_096, gmacs=54.52),
    # mmaction2's SlowOnly over flow: its backbone of 31,631,360, and fc.
    Row(
        "slow-4x16",
        "flow",
        400,
        parameters=31_631_360 + 2048 * 400 + 400,
        tensors=R50,
        shapes={"conv1.weight": (64, 2, 1, 7, 7)},
    ),
    Row(
        "slow-8x8",
        "rgb",
        400,
        parameters=32_454_096 + NON_LOCAL_R50,
        tensors=(R50[0] + 5 * 13, R50[1] + 5 * 12),
        shapes=SLOW_NL,
        options={"non_local": True},
    ),
    # torchvision's video models (models/video/resnet.py).
    Row("r3d-18", "rgb", 400, 112, parameters=33_371_472, gmacs=40.70, tensors=(122, 102)),
    Row("mc3-18", "rgb", 400, 112, parameters=11_695_440, gmacs=43.34, tensors=(122, 102)),
    Row("r2plus1d-18", "rgb", 400, 112, parameters=31_505_325, gmacs=40.52, tensors=(224, 187)),
    # moabitcoin/ig65m-pytorch and VMZ, c2/tutorials/models.md.
    Row("r2plus1d-34", "rgb", 400, 112, parameters=63_697_175, gmacs=152.36, tensors=(416, 347)),
    Row("r2plus1d-34", "rgb", 400, 112, gmacs=38.09, num_frames=8),
    Row(
        "r2plus1d-34",
        "flow",
        400,
        112,
        parameters=63_694_970,
        gmacs=152.13,
        shapes={
            "stem.0.weight": (45, 2, 1, 7, 7),
            "layer2.0.conv2.0.0.weight": (288, 128, 1, 3, 3),
            "layer3.0.conv2.0.0.weight": (576, 256, 1, 3, 3),
            "layer4.0.conv2.0.0.weight": (1152, 512, 1, 3, 3),
        },
    ),
    # VMZ's has more channels inside three convolutions; its page cuts the parameters to 33.3 M.
    Row(
        "r2plus1d-18",
        "rgb",
        400,
        112,
        parameters=31_505_325 + VMZ_ADDS,
        gmacs=41.5,
        digits=1,
        options={"variant": "vmz"},
    ),
    Row("rmc3-18", "rgb", 400, 112, millions=33, gmacs=25, digits=0, tensors=(122, 102)),
    Row("rmc3-18", "rgb", 400, 112, gmacs=12.5, digits=1, num_frames=8),
    Row("r2d-18", "rgb", 400, 112, millions=11.5, gmacs=2.2, digits=1, tensors=(122, 102)),
    Row("r2d-18", "rgb", 400, 112, millions=11.4, gmacs=1.9, digits=1, num_frames=8),
    # craston/MARS, models/resnext.py.
    Row("resnext101-3d", "rgb", 400, 112, millions=48.34, gmacs=9.57, tensors=R101),
    Row(
        "resnext101-3d",
        "flow",
        400,
        112,
        millions=48.32,
        gmacs=8.47,
        tensors=R101,
        shapes={"conv1.weight": (64, 2, 7, 7, 7), "layer4.0.conv2.weight": (1024, 32, 3, 3, 3)},
    ),
    Row("resnext101-3d", "flow", 400, 112, gmacs=33.86, num_frames=64),
]

VGG16_TOWERS = (134_674_341, 134_684_133)
"""Of frames and of flow, 101 classes."""
VGG16_MAPS = 14_714_688 + (20 - 3) * 64 * 9
"""The convolutions of the flow's tower alone: torchvision's, and a wider first one."""
FC6_AND_ABOVE = VGG16_TOWERS[1] - VGG16_MAPS
FUSION_CONV3D = 14_156_288
CNN_M_TOWERS = (90_627_813, 90_707_781)

BOTH = [
    # feichtenhofer/twostreamfusion, cnn_ucf101_fusion.m: 5 frames.
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=283_514_762,
        gmacs=76.7 + 79.2 + 13.9 + 0.24,
        digits=1,
        tensors=(66, 66),
        shapes={
            "fusion.relu5_3.conv.weight": (512, 1024, 3, 3, 3),
            "fusion.relu5_3.conv.bias": (512,),
            "spatial.features.0.weight": (64, 3, 3, 3),
            "temporal.features.0.weight": (64, 20, 3, 3),
            "spatial.classifier.6.weight": (101, 4096),
            "temporal.classifier.6.weight": (101, 4096),
        },
    ),
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=163_555_109,
        tensors=(60, 60),
        options={"towers": 1},
    ),
    # The arithmetic of the towers above.
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=VGG16_TOWERS[0] + VGG16_MAPS,
        options={"towers": 1, "fusion": "sum"},
    ),
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=VGG16_TOWERS[0] + VGG16_MAPS + 512 * 49 * 4096,
        options={"towers": 1, "fusion": "concat"},
    ),
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=sum(VGG16_TOWERS) - 2 * FC6_AND_ABOVE + (512 * 512 + 1) * 101,
        options={"towers": 1, "fusion": "bilinear"},
    ),
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=sum(CNN_M_TOWERS) + (2 * 512 + 1) * 512 + (2 * 101 + 1) * 101,
        options={"fusion": "conv", "backbone": "cnn-m-2048", "fusion_layers": "relu5,fc8"},
    ),
    # A ResNet-50 of 101 classes has 23,714,981 parameters; the flow's sees 17 channels more.
    Row(
        "two-stream-fusion",
        "both",
        101,
        parameters=2 * 23_714_981 + 17 * 64 * 49 + 27 * 2048 * 2 * 2048 + 2048,
        tensors=(2 * R50[0] + 2, 2 * R50[1] + 2),
        options={"backbone": "resnet50"},
    ),
]

GOOGLENET = 6_624_904 - linear(1024, 1000)
ALEXNET_MAPS = 61_100_840 - linear(256 * 36, 4096) - linear(4096, 4096) - linear(4096, 1000)

OVER_TIME = [
    # Ng et al. 2015, section 3.1. Pooled maps go through VGG-16's own two layers: its parameters,
    # and its convolutions for each frame.
    Row(
        "frame-pooling",
        "rgb",
        101,
        parameters=134_674_341,
        gmacs=30 * VGG16_CONV_GMACS["rgb"] + vgg16_gmacs("rgb", 101) - VGG16_CONV_GMACS["rgb"],
        digits=0,
        options={"backbone": "vgg16"},
    ),
    Row(
        "frame-pooling",
        "rgb",
        101,
        parameters=GOOGLENET + linear(1024, 4096) + linear(4096, 4096) + linear(4096, 101),
        gmacs=120 * 1.498,
        digits=0,
        num_frames=120,
    ),
    Row(
        "frame-pooling",
        "rgb",
        1000,
        parameters=61_100_840,
        gmacs=30 * 0.71419 - 29 * 4096 * 1000 / 1e9,  # one classifier for all frames
        options={"pooling": "late", "backbone": "alexnet"},
    ),
    Row(
        "frame-pooling",
        "rgb",
        101,
        parameters=61_100_840 - linear(4096, 1000) + linear(4096, 101),
        options={"pooling": "slow", "backbone": "alexnet"},
    ),
    # 5 windows of 30 frames, and 23 of 120.
    *(
        Row(
            "frame-pooling",
            "rgb",
            101,
            parameters=61_100_840 - linear(4096, 1000) + linear(windows * 4096, 101),
            shapes={"fc.weight": (101, windows * 4096)},
            num_frames=num_frames,
            options={"pooling": "local", "backbone": "alexnet"},
        )
        for num_frames, windows in ((30, 5), (120, 23))
    ),
    Row(
        "frame-pooling",
        "rgb",
        101,
        parameters=ALEXNET_MAPS
        + linear(256 * 10 * 3 * 3, 256)
        + linear(256 * 36, 4096)
        + linear(4096, 4096)
        + linear(4096, 101),
        shapes={"time.weight": (256, 256, 10, 3, 3)},
        options={"pooling": "time-conv", "backbone": "alexnet"},
    ),
    Row(
        "frame-pooling",
        "rgb",
        101,
        parameters=GOOGLENET + linear(1024, 101),
        options={"pooling": "mean"},
    ),
    Row(
        "frame-pooling",
        "rgb",
        101,
        parameters=GOOGLENET + linear(30 * 1024, 4096) + linear(4096, 101),
        options={"pooling": "concat"},
    ),
    # Section 3.2: five layers of 512, over GoogLeNet's 1024 numbers and AlexNet's 4096.
    Row("cnn-lstm", "rgb", 101, parameters=GOOGLENET + 11_554_816 + linear(512, 101)),
    Row(
        "cnn-lstm",
        "rgb",
        101,
        parameters=61_100_840 - linear(4096, 1000) + 17_846_272 + linear(512, 101),
        num_frames=120,
        options={"backbone": "alexnet"},
    ),
    # LisaAnne/lisa-caffe-public, train_test_lstm_*.prototxt. Its multiply-adds, 19.04 G, leave out
    # the LSTM. Flow with its magnitude has three channels too.
    *(
        Row(
            "lrcn",
            stream,
            101,
            227,
            parameters=65_422_309,
            gmacs=19.04 + 16 * 4 * 256 * (4096 + 256) / 1e9,
            tensors=(18, 18),
            shapes={
                "conv1.weight": (96, 3, 7, 7),
                "conv2.weight": (384, 48, 5, 5),
                "conv4.weight": (512, 256, 3, 3),
                "fc6.weight": (4096, 384 * 6 * 6),
                "lstm.weight_ih_l0": (1024, 4096),
                "fc8.weight": (101, 256),
            },
        )
        for stream in STREAMS
    ),
]

DEEPVIDEO_FC = {"fc7.weight": (4096, 4096), "fc8.weight": (487, 4096)}

C3D_BN_PARAMETERS = (
    27 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
    + (8192 + 4096) * 4096
    + 2 * (64 + 128 + 2 * 256 + 4 * 512 + 2 * 4096)  # batch norms
    + 4096 * 400
    + 400
)

HISTORY = [
    # Karpathy et al. 2014, figures 1 and 2, with paddings that give the stated map of 7 x 7 x 256.
    Row(
        "deepvideo",
        "rgb",
        487,
        170,
        parameters=73_908_071,
        gmacs=1.27,
        tensors=(16, 16),
        shapes={"trunk.conv1.weight": (96, 3, 11, 11), "fc6.weight": (4096, 12544), **DEEPVIDEO_FC},
        options={"fusion": "single"},
    ),
    Row(
        "deepvideo",
        "rgb",
        487,
        170,
        parameters=74_221_703,
        gmacs=2.29,
        tensors=(16, 16),
        shapes={"trunk.conv1.weight": (96, 30, 11, 11)},
        options={"fusion": "early"},
    ),
    Row(
        "deepvideo",
        "rgb",
        487,
        170,
        parameters=125_288_295,
        gmacs=2.53,
        tensors=(16, 16),
        shapes={"fc6.weight": (4096, 2 * 12544)},
        options={"fusion": "late"},
    ),
    Row(
        "deepvideo",
        "rgb",
        487,
        170,
        parameters=75_511_751,
        gmacs=4.59,
        tensors=(16, 16),
        shapes={
            "trunk.conv1.weight": (96, 3, 4, 11, 11),
            "trunk.conv2.weight": (256, 96, 2, 5, 5),
            "trunk.conv3.weight": (384, 256, 2, 3, 3),
            "fc6.weight": (4096, 12544),
        },
        options={"fusion": "slow"},
    ),
    Row(
        "deepvideo",
        "rgb",
        487,
        178,
        parameters=129_035_495,
        gmacs=0.76,
        tensors=(26, 26),
        shapes={"fovea.conv5.bias": (256,), "context.conv1.weight": (96, 3, 11, 11)},
        options={"fusion": "multiresolution"},
    ),
    # facebookarchive/C3D's prototxt of Sports-1M; DavideA/c3d-pytorch.
    Row(
        "c3d",
        "rgb",
        487,
        112,
        parameters=79_991_015,
        gmacs=38.55,
        tensors=(22, 22),
        shapes={
            "conv1a.weight": (64, 3, 3, 3, 3),
            "conv2a.weight": (128, 64, 3, 3, 3),
            "conv3a.weight": (256, 128, 3, 3, 3),
            "conv3b.weight": (256, 256, 3, 3, 3),
            "conv4a.weight": (512, 256, 3, 3, 3),
            "conv4b.weight": (512, 512, 3, 3, 3),
            "conv5a.weight": (512, 512, 3, 3, 3),
            "conv5b.weight": (512, 512, 3, 3, 3),
            "fc6.weight": (4096, 8192),
            "fc7.weight": (4096, 4096),
            "fc8.weight": (487, 4096),
        },
    ),
    Row(
        "c3d",
        "rgb",
        101,
        112,
        parameters=78_409_573,
        tensors=(22, 22),
        shapes={"fc6.weight": (4096, 8192)},
        options={"pool5": "padded"},
    ),
    # Carreira and Zisserman 2017, table 1, cut the parameters to 79 M.
    Row("c3d-bn", "rgb", 400, 112, parameters=C3D_BN_PARAMETERS, tensors=(62, 52)),
]

BETWEEN = 64_515 - 3 * 512 * 32 - 2 * 512
"""Kernels and constants of the release's flow of 32 channels: its layer of 512 without the rest."""
REP_FLOW = 29_805_651
OF_FLOW = (
    2 * BETWEEN  # two flows
    + 512 * 32  # flow_cmp
    + 9 * 64 * 64  # flow_conv
    + 64 * 32  # flow_cmp2
    + 9 * 64 * 512  # flow_conv2
    + 2 * 512  # bnf
)
TVL1_BETWEEN = 3 + 2 * 3 + 2 * 2 * 2 * 2
"""Constants, taps of the image, and taps of slopes and divergences."""

FLOW_INSIDE = [
    # piergiaj/representation-flow-cvpr19, kinetics_2p1d_model.py, built and run.
    Row(
        "representation-flow",
        "rgb",
        400,
        112,
        parameters=REP_FLOW,
        gmacs=4.3,
        digits=1,
        tensors=(356, 298),
        shapes={
            "stem.weight": (64, 3, 7, 7, 7),
            "rep_flow.bottleneck.weight": (32, 512, 1, 1, 1),
            "rep_flow.unbottleneck.weight": (512, 64, 1, 1, 1),
            "rep_flow.flow.img_grad": (32, 32, 1, 3),
            "rep_flow.flow.div2": (32, 32, 2, 1),
            "res2.blocks.0.shortcut.3.running_var": (256,),
            "res3.blocks.1.layers.1.weight": (128, 512, 3, 1, 1),
            "res3.blocks.2.layers.1.weight": (128, 512, 1, 1, 1),
            "fc.weight": (400, 2048),
        },
    ),
    # By hand: the layer of two flows in the place of that of one; TV-L1 in the place of kernels.
    Row(
        "representation-flow",
        "rgb",
        400,
        112,
        parameters=REP_FLOW - 64_515 + OF_FLOW,
        options={"flow_of_flow": True},
    ),
    Row(
        "representation-flow",
        "rgb",
        400,
        112,
        parameters=REP_FLOW - BETWEEN + TVL1_BETWEEN,
        options={"flow_layer": "tvl1"},
    ),
]

ROWS = [
    *FLOW_INSIDE,
    *IMAGES,
    *SEGMENTS,
    *VOLUMES,
    *BOTH,
    *RECURRENT,
    *OVER_TIME,
    *HISTORY,
    *RECENT,
]


def make(row: Row) -> ClipModel:
    with torch.device("meta"):
        return create_model(
            row.network,
            stream=row.stream,
            num_classes=row.num_classes,
            num_frames=row.num_frames,
            num_segments=row.num_segments,
            crop_px=row.crop_px,
            **row.options,
        )


def input_shapes(row: Row, model: ClipModel) -> Iterator[tuple[int, ...]]:
    entry = NETWORKS[row.network]
    clips = (row.num_segments or entry.num_segments,) if entry.sees == "segments" else ()
    for one in model.inputs:
        yield (1, *clips, *one.shape(row.crop_px))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_figures(row: Row) -> None:
    model = make(row)
    state = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    half = 0.5 * 10**-row.digits * 1.001
    if row.parameters is not None:
        assert count_parameters(model) == row.parameters
    if row.millions is not None:
        assert count_parameters(model) / 1e6 == pytest.approx(row.millions, abs=half)
    if row.gmacs is not None:
        gmacs = count_macs(model, *input_shapes(row, model)) / 1e9
        assert gmacs == pytest.approx(row.gmacs, abs=half)
    if row.tensors is not None:
        counters = [name for name in state if name.endswith("num_batches_tracked")]
        assert (len(state), len(state) - len(counters)) == row.tensors
    assert {name: state.get(name) for name in row.shapes} == row.shapes


def test_every_network_has_figures() -> None:
    assert {row.network for row in ROWS} == set(NETWORKS)
    assert len({str(row) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("kind", ["embedded-gaussian", "gaussian", "dot-product", "concatenation"])
@pytest.mark.parametrize("blocks", [5, 10])
def test_non_local_blocks_add_theirs(kind: str, blocks: int) -> None:
    plain = make(Row("slow-4x16", "flow", 5))
    options = {"non_local": True, "non_local_kind": kind, "non_local_blocks": str(blocks)}
    with_blocks = make(Row("slow-4x16", "flow", 5, options=options))

    wide, wider = (non_local_parameters(channels, kind) for channels in (512, 1024))
    added = blocks // 5 * (2 * wide + 3 * wider)
    assert count_parameters(with_blocks) == count_parameters(plain) + added
